"""Formats untrusted names and numbers for one-line messages."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["as_json", "as_text", "listed", "natural_key", "one_line", "quoted", "shortened", "sized"]

_MAX_NAMES = 4  # in a sentence


def as_json(value: Any) -> str:
    """One line of JSON: ASCII only, so that no file name or console can break it; NaN and infinity are null."""
    return json.dumps(_finite(value), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_text(name: str) -> str:
    """A file name as valid Unicode: bytes that are not text, which Linux allows, are escaped."""
    return name.encode("utf8", "backslashreplace").decode("utf8")


def natural_key(name: str) -> tuple[object, ...]:
    """Sorts names as people do: ``vae-2`` before ``vae-10``, whatever the case."""
    parts = re.split(r"(\d+)", name.casefold())
    # Words and digits alternate, so like is compared with like; longer digits are the larger number.
    digits = [part.lstrip("0") for part in parts[1::2]]
    return *zip(parts[::2], [*((len(each), each) for each in digits), ()], strict=True), name


def quoted(name: object, limit: int = 80) -> str:
    """A printable, quoted form of a string, shortened to about ``limit`` characters."""
    text = str(name)
    if len(text) > limit:
        text = f"{text[: limit // 2]}...{text[-limit // 2 :]}"
    return ascii(text) if not text.isprintable() else repr(text)


def shortened(name: str, limit: int = 64) -> str:
    """A name without its middle if it is long: what differs is mostly at the end."""
    return name if len(name) <= limit else f"{name[: limit // 3]}…{name[-(limit - limit // 3 - 1) :]}"


def one_line(text: object, limit: int = 200) -> str:
    """A text, such as that of a library's error, in one line of at most about ``limit`` characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= limit else f"{line[:limit]}..."


def sized(count: int) -> str:
    """A human-readable size, such as ``'1.5 MB'``."""
    value = float(count)
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def listed(names: Sequence[str]) -> str:
    """Such as ``a, b and c``, or ``a, b, c and 6 more``; for at least one name."""
    if len(names) > _MAX_NAMES:
        return f"{', '.join(names[: _MAX_NAMES - 1])} and {len(names) - _MAX_NAMES + 1} more"
    # Files of the same name in two folders are listed twice.
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
