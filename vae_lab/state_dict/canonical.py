"""Find the VAE among a file's tensors and map its names to canonical ones.

Canonical form: ldm names without prefix (``encoder.…``, ``decoder.…``, ``quant_conv.…``,
``post_quant_conv.…``), attention weights as [C,C,1,1], training leftovers dropped. TAESD keeps its
own numbering, as ``taesd_encoder.N.…`` and ``taesd_decoder.N.…``.

Only names and shapes are used; no tensor is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from vae_lab.errors import MissingVae, NotAnAutoencoder
from vae_lab.formats import TensorInfo
from vae_lab.state_dict import diffusers_names

__all__ = [
    "VAE_PARTS",
    "Layout",
    "family_hint",
    "find_vae",
    "is_checkpoint",
    "read_by_hosts",
    "unet_family",
    "usual_prefix",
    "vae_tensors",
]

VAE_PARTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
"""Prefixes of an AutoencoderKL's canonical names; other tensors are not part of it."""
_ANCHORS = ("decoder.conv_in.weight", "encoder.conv_in.weight")
_SD_UNET = "model.diffusion_model.input_blocks."
# AuraFlow, HunyuanDiT, Lumina, HiDream … have their model below ``model.``, Cosmos below ``net.``
_MODEL = re.compile(
    r"model\.diffusion_model\.|^(?:state_dict\.)?(?:"
    r"model\.(?:double_layers|single_layers|joint_blocks|double_blocks|single_blocks|double_stream_blocks|"
    r"single_stream_blocks|transformer_blocks|noise_refiner|input_blocks|down_blocks|mlp_t5|cap_embedder|"
    r"caption_projection|x_embedder|init_x_linear)\.|net\.(?:blocks|x_embedder|t_embedder)\.)"
)
# Models whose VAE hosts expect below ``first_stage_model.``; that of all others below ``vae.``
_FIRST_STAGE = ("cond_stage_model.", "conditioner.", ".input_blocks.", ".joint_blocks.")
_UNET_INPUT = "model.diffusion_model.input_blocks.0.0.weight"
_UNET_LABELS = "model.diffusion_model.label_emb.0.0.weight"
_UNPREFIXED = ("", "state_dict.")
_TRAINING = re.compile(r"(?:loss|discriminator|model_ema|ema|optimizer\w*|lr_schedulers?|callbacks)\.")
# A checkpoint's VAE is there and nothing else is; elsewhere, a VAE's tensors are known by their own names.
_VAE_PREFIX = re.compile(r"(?:state_dict\.)?(?:first_stage_model|vae)\.")
_VAE_PART = re.compile(
    r"(?:post_)?quant_conv\.|(?:en|de)coder\.(?:(?:post_)?quant_conv|conv_in|conv_out|norm_out|conv_norm_out|"
    r"mid|mid_block|down|down_blocks|up|up_blocks)\."
)
# VAEs that other parts of a model contain, such as the image encoder of Stable Video Diffusion.
_OTHER_PART = re.compile(r"(?:state_dict\.)?(?:model\.diffusion_model|conditioner|cond_stage_model|control_model)\.")

# Flux.2's own code has each quant conv inside its half.
_FLUX2_NAMES = re.compile(r"^(?:encoder\.(?=quant_conv\.)|decoder\.(?=post_quant_conv\.))")

# Text encoders and UNets that occur in one family's checkpoints only.
_CHECKPOINT_FAMILIES: tuple[tuple[str, str | None], ...] = (
    (".time_stack.", None),  # Stable Video Diffusion, with SDXL's names
    (".individual_token_refiner.", None),  # HunyuanVideo, with Flux's names
    (".double_stream_modulation_img.", None),  # Flux.2
    ("conditioner.embedders.", "sdxl"),
    ("model.diffusion_model.joint_blocks.", "sd3"),
    ("model.diffusion_model.double_blocks.", "flux"),
    (".double_layers.", "sdxl"),  # AuraFlow
    (".mlp_t5.", "sdxl"),  # HunyuanDiT
    (".noise_refiner.", "flux"),  # Lumina 2, Z-Image
    (".double_stream_blocks.", "flux"),  # HiDream
    ("cond_stage_model.", "sd1"),
)


@dataclass(frozen=True)
class Layout:
    """Where a file has its VAE.

    Attributes:
        kind: ``checkpoint`` (a UNet is in the file too) or ``vae``.
        naming: ``ldm``, ``diffusers``, ``diffusers-old`` or ``taesd``.
        prefix: precedes the VAE's own names in the file.
        names: canonical name -> name in the file.
        leftovers: number of other tensors with that prefix (loss, EMA, discriminator …).
        other_prefixes: prefixes of more VAEs in the same file, which hosts do not use.
        family_hint: family id that the rest of the checkpoint suggests, or None.
        mixed: some of its names are those of ldm and others those of diffusers, and no tensor has both.
        extras: tensors with that prefix that are neither a VAE's of a known architecture nor leftovers of training,
            such as the statistics of Flux.2's latents, and second tensors for a name: name without prefix -> name in
            the file.
    """

    kind: Literal["checkpoint", "vae"]
    naming: str
    prefix: str
    names: Mapping[str, str]
    leftovers: int = 0
    other_prefixes: tuple[str, ...] = ()
    family_hint: str | None = None
    mixed: bool = False
    extras: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Naming and prefix for reports, such as ``ldm (first_stage_model.)``."""
        return f"{self.naming} ({self.prefix})" if self.prefix else self.naming


def find_vae(tensors: Mapping[str, TensorInfo], path: str) -> Layout:
    """Find the VAE among the ``tensors`` of the file ``path``.

    Raises:
        MissingVae: a checkpoint without a VAE.
        NotAnAutoencoder: no VAE of a known architecture; names the expected tensors.
    """
    checkpoint = is_checkpoint(tensors)
    prefixes = _by_preference(_kl_prefixes(tensors), tensors)
    if checkpoint and all(prefix in _UNPREFIXED for prefix in prefixes):
        # Hosts do not load an unprefixed VAE from a checkpoint: they keep the previous checkpoint's VAE.
        unprefixed = "; no host loads its VAE tensors without prefix" if prefixes else ""
        reason = "no tensor named first_stage_model.decoder.conv_in.weight"
        raise MissingVae(path, f"a checkpoint without a VAE ({reason}{unprefixed})")
    if prefixes:
        return _kl_layout(tensors, prefixes, "checkpoint" if checkpoint else "vae")
    taesd = _taesd_names(tensors)
    if taesd:
        extras = _extras(tensors.keys() - taesd.values(), "", ())
        return Layout("vae", "taesd", "", taesd, leftovers=len(tensors) - len(taesd), extras=extras)
    raise NotAnAutoencoder(
        path,
        "no VAE found: expected decoder.conv_in.weight (AutoencoderKL) or 1.weight or 0.weight (TAESD), "
        f"but it contains {_examples(tensors)}",
    )


def is_checkpoint(tensors: Mapping[str, TensorInfo]) -> bool:
    """Whether the file has a UNet or another diffusion model, with the prefix that checkpoints have."""
    return any(map(_MODEL.search, tensors))


def usual_prefix(tensors: Mapping[str, TensorInfo], otherwise: str = "vae.") -> str:
    """The prefix with which hosts expect the VAE of this checkpoint; ``otherwise`` if its model is not known."""
    if any(marker in name for name in tensors for marker in _FIRST_STAGE):
        return "first_stage_model."
    known = any(marker in name for name in tensors for marker, _ in _CHECKPOINT_FAMILIES)
    return "vae." if known else otherwise


def read_by_hosts(layout: Layout, tensors: Mapping[str, TensorInfo]) -> bool:
    """Whether hosts load the VAE that ``layout`` describes; only known, and else True, for Stable Diffusion's UNets."""
    if layout.kind != "checkpoint" or not any(_SD_UNET in name for name in tensors):
        return True
    return layout.naming == "ldm" and layout.prefix.removeprefix("state_dict.") == "first_stage_model."


def _kl_prefixes(tensors: Mapping[str, TensorInfo]) -> set[str]:
    prefixes = set()
    for name, info in tensors.items():
        for anchor in _ANCHORS:
            if name.endswith(anchor) and len(info.shape) == 4:
                prefix = name[: -len(anchor)]
                if prefix == "" or prefix.endswith("."):
                    prefixes.add(prefix)
    return prefixes


def _by_preference(prefixes: set[str], tensors: Mapping[str, TensorInfo]) -> list[str]:
    """The prefix that hosts read comes first: they load that VAE and ignore other copies."""
    usual = usual_prefix(tensors, "first_stage_model.") if len(prefixes) > 1 else ""
    return sorted(prefixes, key=lambda prefix: (usual not in prefix, len(prefix), prefix))


def vae_tensors(tensors: Mapping[str, TensorInfo]) -> set[str]:
    """Names of all tensors of a checkpoint that belong to a VAE: of every copy, also unprefixed ones."""
    prefixes = {prefix for prefix in {*_kl_prefixes(tensors), *_UNPREFIXED} if not _OTHER_PART.match(prefix)}
    of_model = (prefix for name in tensors if _MODEL.search(name) for prefix in _prefixes(name))
    shared = {*_UNPREFIXED, *(prefix for prefix in of_model if prefix in prefixes)}
    return {
        name
        for name in tensors
        if _VAE_PREFIX.match(name)
        or any(
            prefix in prefixes and (prefix not in shared or _VAE_PART.match(name, len(prefix)))
            for prefix in _prefixes(name)
        )
    }


def _prefixes(name: str) -> Iterator[str]:
    """All that end with a dot, and the empty one."""
    yield ""
    yield from (name[: match.end()] for match in re.finditer(r"\.", name))


def _extras(names: Iterable[str], prefix: str, others: tuple[str, ...]) -> dict[str, str]:
    """Of all names in a file that are not a VAE's of a known architecture, those that may be part of it."""
    of_others = {other for other in others if other and not prefix.startswith(other)}
    return {
        name[len(prefix) :]: name
        for name in names
        if name.startswith(prefix)
        and not _TRAINING.match(name, len(prefix))
        and not (of_others and any(found in of_others for found in _prefixes(name)))
    }


def _kl_layout(tensors: Mapping[str, TensorInfo], prefixes: list[str], kind: Literal["checkpoint", "vae"]) -> Layout:
    prefix = prefixes[0]
    own = {name[len(prefix) :] for name in tensors if name.startswith(prefix)}
    parts = {name for name in own if name.startswith(VAE_PARTS)}
    naming, others = "ldm", tuple(prefixes[1:])
    if diffusers_names.has_both_sets(parts):
        # Hosts load the ldm names, and ignore the others.
        parts = {name for name in parts if not diffusers_names.only_in_diffusers(name)}
        others = (f"{prefix} (diffusers names)", *others)
    rest = {prefix + name for name in own if not name.startswith(VAE_PARTS)}
    renamed = {name: _FLUX2_NAMES.sub("", name) for name in parts}
    if diffusers_names.uses_diffusers_names(parts):
        naming = "diffusers-old" if diffusers_names.uses_old_attention_names(parts) else "diffusers"
        renamed = diffusers_names.to_ldm_names(parts)
    names = {renamed[name]: prefix + name for name in sorted(parts)}
    rest |= {prefix + name for name in parts} - set(names.values())
    return Layout(
        kind=kind,
        naming=naming,
        prefix=prefix,
        names=names,
        leftovers=len(own) - len(parts) if kind == "vae" or prefix else 0,
        other_prefixes=others,
        family_hint=family_hint(tensors) if kind == "checkpoint" else None,
        mixed=len(set(renamed.values())) == len(parts) and diffusers_names.mixes_names(parts),
        extras=_extras(rest, prefix, others) if kind == "vae" or prefix not in _UNPREFIXED else {},
    )


def family_hint(tensors: Mapping[str, TensorInfo]) -> str | None:
    """Id of a checkpoint's family according to its text encoders and UNet; None if unknown."""
    if any(name.endswith(_UNET_INPUT) and info.shape[1:2] == (7,) for name, info in tensors.items()):
        return None  # the x4 upscaler has SD's text encoder, but a VAE of its own
    for marker, family in _CHECKPOINT_FAMILIES:
        if any(marker in name for name in tensors):
            return family
    return None


def unet_family(tensors: Mapping[str, TensorInfo]) -> str | None:
    """Id of the family of Stable Diffusion's UNet, for files without text encoders; None for other models."""
    first = next((info.shape for name, info in tensors.items() if name.endswith(_UNET_INPUT)), ())
    labels = next((info.shape for name, info in tensors.items() if name.endswith(_UNET_LABELS)), ())
    if len(labels) == 2 and labels[1] in (2560, 2816):  # SDXL refiner and base
        return "sdxl"
    # 8 of InstructPix2Pix, 9 of inpainting.
    return "sd1" if len(first) == 4 and first[1] in (4, 8, 9) and not labels else None


_TAESD_NAME = re.compile(
    r"^(?:(?:state_dict|model|module|vae)\.)*"
    r"(?P<half>taesd_encoder|taesd_decoder|encoder\.layers|decoder\.layers|encoder|decoder)?\.?"
    r"(?P<index>\d+)(?P<rest>\.(?:conv\.\d+\.|skip\.)?(?:weight|bias))$"
)


def _taesd_names(tensors: Mapping[str, TensorInfo]) -> dict[str, str]:
    """Canonical names of the tensors of a TAESD encoder, decoder or both; empty if there is none."""
    names: dict[str, str] = {}
    bare = ""  # computed once: it reads all names
    for name in tensors:
        match = _TAESD_NAME.match(name)
        if not match:
            continue
        half, index = match["half"] or "", int(match["index"])
        if not half:
            half = bare = bare or _bare_taesd_half(tensors)
        elif half == "decoder.layers":
            index += 1  # diffusers omits layer 0, the clamp
        side = "encoder" if "encoder" in half else "decoder"
        names[f"taesd_{side}.{index}{match['rest']}"] = name
    anchored = {"taesd_encoder.0.weight", "taesd_decoder.1.weight"} & names.keys()
    return names if anchored else {}


def _bare_taesd_half(tensors: Mapping[str, TensorInfo]) -> str:
    """The published files contain one half each, without a prefix; only the encoder has a layer 0."""
    first_layer = any(re.search(r"(^|\.)0\.weight$", name) for name in tensors if "conv" not in name)
    return "encoder" if first_layer else "decoder"


def _examples(tensors: Mapping[str, TensorInfo], limit: int = 3) -> str:
    if not tensors:
        return "no tensors"
    names = sorted(tensors)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{', '.join(names[:limit])}{more}"
