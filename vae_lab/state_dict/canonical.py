"""Find the VAE among a file's tensors, and give its tensors their canonical names.

Canonical form: ldm names without prefix (``encoder.…``, ``decoder.…``, ``quant_conv.…``,
``post_quant_conv.…``), attention weights as [C,C,1,1], training leftovers dropped. TAESD keeps its
own numbering, as ``taesd_encoder.N.…`` and ``taesd_decoder.N.…``.

Only names and shapes are looked at here; no tensor is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from vae_lab.errors import MissingVae, NotAnAutoencoder
from vae_lab.formats import TensorInfo
from vae_lab.state_dict import diffusers_names

__all__ = ["VAE_PARTS", "Layout", "family_hint", "find_vae"]

VAE_PARTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
"""How the canonical names of an AutoencoderKL begin; everything else beside them is no part of it."""
_ANCHORS = ("decoder.conv_in.weight", "encoder.conv_in.weight")
_UNET = "model.diffusion_model."
_UNPREFIXED = ("", "state_dict.")

# What only one family's checkpoints contain: the text encoders.
_CHECKPOINT_FAMILIES = (
    ("conditioner.embedders.", "sdxl"),
    ("model.diffusion_model.joint_blocks.", "sd3"),
    ("model.diffusion_model.double_blocks.", "flux"),
    ("cond_stage_model.", "sd1"),
)


@dataclass(frozen=True)
class Layout:
    """Where a file keeps its VAE.

    Attributes:
        kind: ``checkpoint`` (a UNet is in the file too) or ``vae``.
        naming: ``ldm``, ``diffusers``, ``diffusers-old`` or ``taesd``.
        prefix: what stands before the VAE's own names in the file.
        names: canonical name -> name in the file.
        leftovers: how many further tensors share the prefix (loss, EMA, discriminator …).
        other_prefixes: prefixes of further VAEs in the same file; hosts do not use those.
        family_hint: what the rest of the checkpoint says about the family, or None.
    """

    kind: Literal["checkpoint", "vae"]
    naming: str
    prefix: str
    names: Mapping[str, str]
    leftovers: int = 0
    other_prefixes: tuple[str, ...] = ()
    family_hint: str | None = None

    @property
    def label(self) -> str:
        """For reports: naming and prefix, such as ``ldm (first_stage_model.)``."""
        return f"{self.naming} ({self.prefix})" if self.prefix else self.naming


def find_vae(tensors: Mapping[str, TensorInfo], path: str) -> Layout:
    """Tell where the VAE is among ``tensors`` of the file ``path``.

    Raises:
        MissingVae: a checkpoint without a VAE.
        NotAnAutoencoder: no VAE of a known architecture; says what was looked for.
    """
    is_checkpoint = any(_UNET in name for name in tensors)
    prefixes = sorted(_kl_prefixes(tensors), key=_preference)
    if is_checkpoint and all(prefix in _UNPREFIXED for prefix in prefixes):
        # Hosts load no unprefixed VAE out of a checkpoint: they keep the VAE of the checkpoint before.
        ignored = "; the VAE tensors without prefix in it are loaded by no host" if prefixes else ""
        wanted = "no tensor named first_stage_model.decoder.conv_in.weight"
        raise MissingVae(path, f"a checkpoint without a VAE ({wanted}{ignored})")
    if prefixes:
        return _kl_layout(tensors, prefixes, "checkpoint" if is_checkpoint else "vae")
    taesd = _taesd_names(tensors)
    if taesd:
        return Layout("vae", "taesd", "", taesd, leftovers=len(tensors) - len(taesd))
    video = next((info for name, info in tensors.items() if name.endswith(_ANCHORS) and len(info.shape) == 5), None)
    if video is not None:
        raise NotAnAutoencoder(
            path, f"a video VAE: {video.name} has shape {list(video.shape)}, images need a 2-D convolution"
        )
    raise NotAnAutoencoder(
        path,
        "no VAE in it: looked for decoder.conv_in.weight (AutoencoderKL) and 1.weight or 0.weight (TAESD), "
        f"found {_some(tensors)}",
    )


def _kl_prefixes(tensors: Mapping[str, TensorInfo]) -> set[str]:
    found = set()
    for name, info in tensors.items():
        for anchor in _ANCHORS:
            if name.endswith(anchor) and len(info.shape) == 4:
                prefix = name[: -len(anchor)]
                if prefix == "" or prefix.endswith("."):
                    found.add(prefix)
    return found


def _preference(prefix: str) -> tuple[bool, int, str]:
    """Hosts load ``first_stage_model.`` and ignore any other copy, so that one comes first."""
    return ("first_stage_model." not in prefix, len(prefix), prefix)


def _kl_layout(tensors: Mapping[str, TensorInfo], prefixes: list[str], kind: Literal["checkpoint", "vae"]) -> Layout:
    prefix = prefixes[0]
    own = {name[len(prefix) :] for name in tensors if name.startswith(prefix)}
    parts = {name for name in own if name.startswith(VAE_PARTS)}
    naming = "ldm"
    renamed = {name: name for name in parts}
    if diffusers_names.uses_diffusers_names(parts):
        naming = "diffusers-old" if diffusers_names.uses_old_attention_names(parts) else "diffusers"
        renamed = diffusers_names.to_ldm_names(parts)
    return Layout(
        kind=kind,
        naming=naming,
        prefix=prefix,
        names={renamed[name]: prefix + name for name in sorted(parts)},
        leftovers=len(own) - len(parts) if kind == "vae" or prefix else 0,
        other_prefixes=tuple(prefixes[1:]),
        family_hint=family_hint(tensors) if kind == "checkpoint" else None,
    )


def family_hint(tensors: Mapping[str, TensorInfo]) -> str | None:
    """Id of the family that the rest of a checkpoint belongs to, by its text encoders; None if they do not tell."""
    for marker, family in _CHECKPOINT_FAMILIES:
        if any(marker in name for name in tensors):
            return family
    return None


_TAESD_NAME = re.compile(
    r"^(?:(?:state_dict|model|module|vae)\.)*"
    r"(?P<half>taesd_encoder|taesd_decoder|encoder\.layers|decoder\.layers|encoder|decoder)?\.?"
    r"(?P<index>\d+)(?P<rest>\.(?:conv\.\d+\.|skip\.)?(?:weight|bias))$"
)


def _taesd_names(tensors: Mapping[str, TensorInfo]) -> dict[str, str]:
    """Canonical names, if the tensors are those of a TAESD encoder, decoder or both; else nothing."""
    names: dict[str, str] = {}
    for name in tensors:
        match = _TAESD_NAME.match(name)
        if not match:
            continue
        half, index = match["half"] or "", int(match["index"])
        if not half:
            half = _bare_taesd_half(tensors)
        elif half == "decoder.layers":
            index += 1  # diffusers leaves out the clamp that is layer 0
        side = "encoder" if "encoder" in half else "decoder"
        names[f"taesd_{side}.{index}{match['rest']}"] = name
    anchored = {"taesd_encoder.0.weight", "taesd_decoder.1.weight"} & names.keys()
    return names if anchored else {}


def _bare_taesd_half(tensors: Mapping[str, TensorInfo]) -> str:
    """The published files hold one half each, without a prefix: only the encoder has a layer 0."""
    first_layer = any(re.search(r"(^|\.)0\.weight$", name) for name in tensors if "conv" not in name)
    return "encoder" if first_layer else "decoder"


def _some(tensors: Mapping[str, TensorInfo], most: int = 3) -> str:
    if not tensors:
        return "no tensors at all"
    names = sorted(tensors)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"
