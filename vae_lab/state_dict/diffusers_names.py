"""Maps the names of an AutoencoderKL's tensors in diffusers, old and new, to ldm names."""

from __future__ import annotations

import re
from collections.abc import Iterable

_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
    # before diffusers 0.14
    "query": "q",
    "key": "k",
    "value": "v",
    "proj_attn": "proj_out",
}
_OLD_ATTENTION = re.compile(r"\.attentions\.\d+\.(query|key|value|proj_attn)\.")
_LEVEL = re.compile(r"^(encoder\.down|decoder\.up)_blocks\.(\d+)\.(.+)$")
_MID_RESNET = re.compile(r"^(encoder|decoder)\.mid_block\.resnets\.([01])\.(.+)$")
_MID_ATTENTION = re.compile(r"^(encoder|decoder)\.mid_block\.attentions\.0\.(.+)$")
_ONLY_DIFFUSERS = re.compile(
    r"\.(down_blocks|up_blocks|mid_block|resnets|conv_norm_out|conv_shortcut|(down|up)samplers)\."
)
_ONLY_LDM = re.compile(r"\.(down|up|mid|block|attn|(block|attn)_\d|norm_out|nin_shortcut|downsample|upsample)\.")
_LEVEL_PART = re.compile(r"^(resnets|attentions)\.(\d+)\.(.+)$")


def uses_diffusers_names(names: set[str]) -> bool:
    """Whether these unprefixed names are those of diffusers."""
    return any(name.startswith(("encoder.down_blocks.", "decoder.up_blocks.")) for name in names)


def uses_old_attention_names(names: set[str]) -> bool:
    """Whether attention has its names from before diffusers 0.14 (``query`` instead of ``to_q``)."""
    return any(_OLD_ATTENTION.search(name) for name in names)


def mixes_names(names: Iterable[str]) -> bool:
    """Whether some of these unprefixed names are those of diffusers, and others those of ldm."""
    names = list(names)
    return any(map(_ONLY_DIFFUSERS.search, names)) and any(map(_ONLY_LDM.search, names))


def only_in_diffusers(name: str) -> bool:
    """Whether ldm has no such name."""
    return _ONLY_DIFFUSERS.search(name) is not None


def has_both_sets(names: set[str]) -> bool:
    """Whether these unprefixed names are two whole sets, those of ldm and those of diffusers."""
    if not uses_diffusers_names(names) or not mixes_names(names):
        return False
    mapped = to_ldm_names({name for name in names if only_in_diffusers(name)})
    return set(mapped.values()) <= names


def to_ldm_names(names: set[str]) -> dict[str, str]:
    """Map unprefixed diffusers names to ldm names. Names without an equivalent do not change."""
    levels = 1 + max(
        (int(match[2]) for match in map(_LEVEL.match, names) if match and match[1] == "decoder.up"), default=0
    )
    return {name: _rename(name, levels) for name in names}


def _rename(name: str, levels: int) -> str:
    if match := _MID_RESNET.match(name):
        half, index, rest = match.groups()
        return f"{half}.mid.block_{int(index) + 1}.{_resnet_part(rest)}"
    if match := _MID_ATTENTION.match(name):
        half, rest = match.groups()
        return f"{half}.mid.attn_1.{_attention_part(rest)}"
    if match := _LEVEL.match(name):
        side, index, rest = match.groups()
        # ldm numbers the decoder's levels from full size, diffusers from the latent.
        level = int(index) if side == "encoder.down" else levels - 1 - int(index)
        return f"{side}.{level}.{_level_part(rest)}"
    return name.replace(".conv_norm_out.", ".norm_out.")


def _level_part(rest: str) -> str:
    if match := _LEVEL_PART.match(rest):
        kind, index, part = match.groups()
        return f"block.{index}.{_resnet_part(part)}" if kind == "resnets" else f"attn.{index}.{_attention_part(part)}"
    return rest.replace("downsamplers.0.", "downsample.").replace("upsamplers.0.", "upsample.")


def _resnet_part(part: str) -> str:
    return part.replace("conv_shortcut.", "nin_shortcut.")


def _attention_part(part: str) -> str:
    name, _, tail = part.rpartition(".")
    return f"{_ATTENTION.get(name, name)}.{tail}"
