"""What VAE Lab writes into generation parameters (infotexts), and reads back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, MutableMapping
from itertools import islice, pairwise
from typing import Any, NamedTuple

from vae_lab.text import as_text
from vae_lab.version import __version__

__all__ = [
    "HASH_KEY", "OVERRIDE_KEY", "REDECODED_KEY", "VaeHash", "decoded_by", "drop_host_vae", "forget_override",
    "keep_override", "names_vae", "quote", "vae_hash", "with_override",
]  # fmt: skip

OVERRIDE_KEY = "VAE Lab override"
HASH_KEY = "VAE Lab override hash"
REDECODED_KEY = "VAE Lab redecoded"
"""Why the image was decoded again: how the first VAE decoded it."""

_HOST_KEYS = ("VAE hash", "VAE")
_DECODER_KEY = "VAE Decoder"  # of the WebUI: "TAESD" if that decoded; "VAE Encoder" stays true whatever decodes
_SDNEXT_KEY = "VAE type"
_OWN_KEYS = (OVERRIDE_KEY, HASH_KEY, REDECODED_KEY)
_VERSION_KEY = "VAE Lab version"
_SOURCE_KEY = "VAE Lab source"
_VAE_KEYS = {*_HOST_KEYS, _DECODER_KEY, _SDNEXT_KEY, *_OWN_KEYS, _VERSION_KEY, _SOURCE_KEY}
_FORGE_MODULE = re.compile(r"Module \d+")  # a VAE or a text encoder
# One "key: value" as the WebUI reads it (modules/infotext_utils.py: re_param), but with a limited key and no
# backtracking over spaces: these texts are untrusted.
_PARAMETER = re.compile(r'(?<!\s)\s*(\w[\w \-/]{1,80}):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_DIGEST = re.compile("[0-9a-f]{8,64}")
_MIN_PARAMETERS = 3  # with fewer, the WebUI takes the last line as part of a prompt
_NEGATIVE_TEMPLATE = "\nNegative Template:"
_TEMPLATES = ("Template:", _NEGATIVE_TEMPLATE[1:])  # lines that sd-dynamic-prompts adds below the parameters


def quote(value: str) -> str:
    """Quote a value as the WebUI does: if it has a comma, a colon or a line break, or could not be read back."""
    valid = as_text(value) == value  # a name of bytes that are not UTF-8 is not
    plain = value == value.strip() and not value.startswith('"') and not any(mark in value for mark in ",\n:")
    return value if plain and valid else json.dumps(value, ensure_ascii=not valid)


def with_override(infotext: str, vae: str, digest: str) -> str:
    """The ``infotext`` of an image that ``vae`` decoded: with our keys, and without any other VAE.

    Args:
        infotext: from the host.
        vae: name of the VAE.
        digest: short fingerprint of its weights, or "".
    """
    prompts, parameters = _split(infotext)
    others = _PARAMETER.sub(lambda match: "" if match[1] in _VAE_KEYS else match[0], parameters).strip().rstrip(",")
    own = ", ".join(filter(None, (f"{OVERRIDE_KEY}: {quote(vae)}", digest and f"{HASH_KEY}: {digest}")))
    # A line that begins with a template would be taken for one of templates below the parameters.
    line = ", ".join(filter(None, (own, others) if others.startswith(_TEMPLATES) else (others, own)))
    for fact in (f"{_VERSION_KEY}: {__version__}", f"{_SOURCE_KEY}: latents"):
        if not _is_parameters(line):
            line = f"{line}, {fact}"
    return line if prompts is None else f"{prompts}\n{line}"


def names_vae(infotext: str) -> bool:
    """Whether ``infotext`` names the VAE that decoded; otherwise it was the checkpoint's built-in one."""
    keys = [match[1] for match in _PARAMETER.finditer(_split(infotext)[1])]
    return any(key in _VAE_KEYS or _FORGE_MODULE.fullmatch(key) for key in keys)


class VaeHash(NamedTuple):
    """The VAE that decoded an image, as its generation parameters name it.

    Attributes:
        digest: hex digits, at least 8.
        of_weights: whether it is the fingerprint of the weights that we write; otherwise the SHA-256 of a file.
        name: of the VAE, or "".
    """

    digest: str
    of_weights: bool
    name: str


def decoded_by(infotext: str) -> tuple[str, str]:
    """(name of the model, name of the VAE) that made an image, as its parameters say; "" for what they do not say.

    Without a VAE's name, the built-in one of the model decoded, as far as the text tells.
    """
    parameters = _parameters(infotext)
    return parameters.get("Model", ""), parameters.get(OVERRIDE_KEY) or parameters.get(_HOST_KEYS[1], "")


def vae_hash(infotext: str) -> VaeHash | None:
    """The hash of the VAE that decoded, or None if ``infotext`` has none."""
    parameters = _parameters(infotext)
    for hash_key, name_key in ((HASH_KEY, OVERRIDE_KEY), _HOST_KEYS):
        digest = parameters.get(hash_key, "").lower()
        if _DIGEST.fullmatch(digest):
            return VaeHash(digest, hash_key == HASH_KEY, parameters.get(name_key, ""))
    return None


def _parameters(infotext: str) -> dict[str, str]:
    """Key -> value of the line of parameters."""
    return {match[1]: _unquoted(match[2]) for match in _PARAMETER.finditer(_split(infotext)[1])}


def _unquoted(value: str) -> str:
    """The opposite of :func:`quote`."""
    value = value.strip()
    try:
        return str(json.loads(value)) if value.startswith('"') else value
    except ValueError:
        return value


def _split(infotext: str) -> tuple[str | None, str]:
    """The prompts, None without any, and the line of parameters, "" without one, as the WebUI finds them.

    Of a text with templates below its parameters, the WebUI reads no parameters; here they become parameters.
    """
    text = infotext.rstrip()
    lines = text.split("\n")
    for number, (line, below) in enumerate(pairwise(lines), 1):
        if below.startswith(_TEMPLATES) and _has_steps(line) and not _has_steps(lines[-1]):
            templates = _templates("\n".join(lines[number:]))
            return _joined(lines[: number - 1]), f"{line.strip().rstrip(',')}, {templates}"
    if _is_parameters(lines[-1]):
        return _joined(lines[:-1]), lines[-1]
    return text or None, ""


def _joined(lines: list[str]) -> str | None:
    return "\n".join(lines) if lines else None


def _is_parameters(line: str) -> bool:
    return len(list(islice(_PARAMETER.finditer(line), _MIN_PARAMETERS))) == _MIN_PARAMETERS


def _has_steps(line: str) -> bool:
    """Whether a line is certainly one of parameters, and not a prompt or a template with weights."""
    return _is_parameters(line) and any(match[1] == "Steps" for match in _PARAMETER.finditer(line))


def _templates(text: str) -> str:
    """sd-dynamic-prompts' lines as parameters; a template may have several lines."""
    positive, _, negative = f"\n{text}".partition(_NEGATIVE_TEMPLATE)
    found = {"Template": positive.strip().removeprefix(_TEMPLATES[0]), "Negative Template": negative}
    return ", ".join(f"{key}: {quote(value.strip())}" for key, value in found.items() if value.strip())


def forget_override(p: Any) -> None:
    """Remove our keys from the infotexts that ``p`` will write."""
    for key in _OWN_KEYS:
        p.extra_generation_params.pop(key, None)


def keep_override(p: Any) -> Callable[[], None]:
    """Returns a function that gives ``p`` the keys back that it has of ours now, and no others of ours."""
    kept = {key: p.extra_generation_params[key] for key in _OWN_KEYS if key in p.extra_generation_params}

    def put_back() -> None:
        forget_override(p)
        p.extra_generation_params.update(kept)

    return put_back


def drop_host_vae(parameters: MutableMapping[str, Any]) -> None:
    """If pasted parameters have an override, remove the host's VAE: one VAE, chosen once."""
    if OVERRIDE_KEY in parameters:
        for key in _HOST_KEYS:
            parameters.pop(key, None)
        if _DECODER_KEY in parameters:
            parameters[_DECODER_KEY] = "Full"  # with TAESD, the override would have no effect
