"""What VAE Lab writes into generation parameters, and reads back."""

from __future__ import annotations

import json
import re
from collections.abc import MutableMapping
from typing import Any

__all__ = ["HASH_KEY", "OVERRIDE_KEY", "drop_host_vae", "quote", "with_override"]

OVERRIDE_KEY = "VAE Lab override"
HASH_KEY = "VAE Lab override hash"

_HOST_KEYS = ("VAE hash", "VAE")
# A value is quoted if it holds a comma, a colon or a line break (modules/infotext_utils.py: quote).
_HOST_VAE = re.compile(r',? (?:VAE hash|VAE): (?:"(?:\\.|[^\\"])+"|[^,\n]*)')


def quote(value: str) -> str:
    """As the WebUI quotes a value."""
    return json.dumps(value, ensure_ascii=False) if any(mark in value for mark in ',\n:') else value


def with_override(infotext: str, vae: str, digest: str) -> str:
    """``infotext`` of a picture that ``vae`` decoded: our keys, and no other VAE claimed.

    Args:
        infotext: as the host wrote it.
        vae: name of the VAE.
        digest: short fingerprint of its weights, or "".
    """
    head, newline, parameters = infotext.rpartition("\n")
    parameters = _HOST_VAE.sub("", parameters)
    ours = f"{OVERRIDE_KEY}: {quote(vae)}" + (f", {HASH_KEY}: {digest}" if digest else "")
    return f"{head}{newline}{parameters}, {ours}" if parameters else f"{infotext}\n{ours}"


def drop_host_vae(parameters: MutableMapping[str, Any]) -> None:
    """Of pasted parameters with an override, leave the override alone to decide: one VAE, chosen once."""
    if OVERRIDE_KEY in parameters:
        for key in _HOST_KEYS:
            parameters.pop(key, None)
