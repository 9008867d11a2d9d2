"""Formats untrusted names and numbers for one-line messages."""

from __future__ import annotations

__all__ = ["as_text", "one_line", "quoted", "sized"]


def as_text(name: str) -> str:
    """A file name as valid Unicode: bytes that are not text, which Linux allows, are escaped."""
    return name.encode("utf8", "backslashreplace").decode("utf8")


def quoted(name: object, limit: int = 80) -> str:
    """A printable, quoted form of a string, shortened to about ``limit`` characters."""
    text = str(name)
    if len(text) > limit:
        text = f"{text[: limit // 2]}...{text[-limit // 2 :]}"
    return ascii(text) if not text.isprintable() else repr(text)


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
