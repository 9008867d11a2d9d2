"""What VAE Lab writes into generation parameters (infotexts), and reads back."""

from __future__ import annotations

import json
import re
from collections.abc import MutableMapping
from typing import Any

__all__ = [
    "HASH_KEY", "OVERRIDE_KEY", "REDECODED_KEY", "drop_host_vae", "forget_override", "names_vae", "quote",
    "with_override",
]  # fmt: skip

OVERRIDE_KEY = "VAE Lab override"
HASH_KEY = "VAE Lab override hash"
REDECODED_KEY = "VAE Lab redecoded"
"""Why the image was decoded again: how the first VAE decoded it."""

_HOST_KEYS = ("VAE hash", "VAE")
_OWN_KEYS = (OVERRIDE_KEY, HASH_KEY, REDECODED_KEY)
_VAE_KEYS = {*_HOST_KEYS, *_OWN_KEYS}
_FORGE_MODULE = re.compile(r"Module \d+")  # a VAE or a text encoder
# One "key: value" as the WebUI reads it (modules/infotext_utils.py: re_param), but with a limited key and no
# backtracking over spaces: these texts are untrusted.
_PARAMETER = re.compile(r'(?<!\s)\s*(\w[\w \-/]{1,80}):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


def quote(value: str) -> str:
    """Quote a value as the WebUI does: if it has a comma, a colon or a line break, or could not be read back."""
    plain = value == value.strip() and not value.startswith('"') and not any(mark in value for mark in ",\n:")
    return value if plain else json.dumps(value, ensure_ascii=False)


def with_override(infotext: str, vae: str, digest: str) -> str:
    """The ``infotext`` of an image that ``vae`` decoded: with our keys, and without any other VAE.

    Args:
        infotext: from the host.
        vae: name of the VAE.
        digest: short fingerprint of its weights, or "".
    """
    head, newline, parameters = infotext.rpartition("\n")
    if not _PARAMETER.search(parameters):
        head, newline, parameters = infotext, "\n", ""
    others = _PARAMETER.sub(lambda match: "" if match[1] in _VAE_KEYS else match[0], parameters).strip().rstrip(",")
    ours = f"{OVERRIDE_KEY}: {quote(vae)}" + (f", {HASH_KEY}: {digest}" if digest else "")
    return f"{head}{newline}{others}, {ours}" if others else f"{head}{newline}{ours}"


def names_vae(infotext: str) -> bool:
    """Whether ``infotext`` names the VAE that decoded; otherwise it was the checkpoint's built-in one."""
    keys = [match[1] for match in _PARAMETER.finditer(infotext.rpartition("\n")[2])]
    return any(key in _VAE_KEYS or _FORGE_MODULE.fullmatch(key) for key in keys)


def forget_override(p: Any) -> None:
    """Remove our keys from the infotexts that ``p`` will write."""
    for key in _OWN_KEYS:
        p.extra_generation_params.pop(key, None)


def drop_host_vae(parameters: MutableMapping[str, Any]) -> None:
    """If pasted parameters have an override, remove the host's VAE: one VAE, chosen once."""
    if OVERRIDE_KEY in parameters:
        for key in _HOST_KEYS:
            parameters.pop(key, None)
