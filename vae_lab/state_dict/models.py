"""What the model in a checkpoint needs of a VAE, by its whole structure.

Only names and shapes are used; no tensor is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from vae_lab.formats import TensorInfo
from vae_lab.state_dict.canonical import family_hint, unet_family

__all__ = ["model_family", "takes_latents"]

_MODEL = re.compile(r"(?:state_dict\.)?(?:model\.diffusion_model|model|net)\.")

# Parts of models that share most names with a known family, but not its latents.
_OTHER_LATENTS = (
    "double_stream_modulation_img.",  # Flux.2
    "img_in.proj.", "txt_in.individual_token_refiner.",  # HunyuanVideo, HunyuanImage
    "latent_in.",  # Hunyuan3D
    "nerf_blocks.", "img_in_patch.",  # Chroma Radiance
)  # fmt: skip
_VIDEO = ".time_stack."  # Stable Video Diffusion

# Of a UNet: widths of its text encoders' output, and of its size and other labels.
_UNETS: Mapping[str, tuple[frozenset[int], frozenset[int]]] = {
    "sd1": (frozenset({768, 1024}), frozenset({1536, 2048})),  # labels: Stable unCLIP
    "sdxl": (frozenset({1280, 2048}), frozenset({2560, 2816})),  # 1280 and 2560: the refiner
}
_LABELS = "label_emb.0.0.weight"
_CONTEXT = ".attn2.to_k.weight"
_OTHERS_OF_SDXL = ("double_layers.", "mlp_t5.")  # AuraFlow, HunyuanDiT

_FIRST = (
    "input_blocks.0.0.weight",
    "x_embedder.proj.weight",
    "x_embedder.weight",
    "img_in.weight",
    "init_x_linear.weight",
)
_LAST = ("out.2.weight", "final_layer.linear.weight", "final_linear.weight")
_PATCH = 4  # latent pixels that a transformer takes together, as one row of a matrix


def model_family(tensors: Mapping[str, TensorInfo]) -> str | None:
    """Id of the family whose latents the model of a checkpoint takes; None if unknown or if its parts contradict."""
    layers = _layers(tensors)
    if any(name.startswith(_OTHER_LATENTS) or _VIDEO in name for name in layers):
        return None
    family = family_hint(tensors) or unet_family(tensors)
    if family is None or family not in _UNETS:
        return family
    if not any(name.startswith("input_blocks.") for name in layers):
        return family if family == "sdxl" and any(name.startswith(_OTHERS_OF_SDXL) for name in layers) else None
    contexts, labels = _UNETS[family]
    found = {shape[1] for name, shape in layers.items() if name.endswith(_CONTEXT) and len(shape) == 2}
    return family if found <= contexts and layers.get(_LABELS, ())[1:] in ((), *((size,) for size in labels)) else None


def takes_latents(tensors: Mapping[str, TensorInfo], channels: int) -> bool:
    """Whether the first and last layer of a checkpoint's model, where it has them, are for so many latent channels."""
    layers = _layers(tensors)
    first = [layers[name] for name in _FIRST if name in layers]
    last = [layers[name] for name in _LAST if name in layers]
    return all(_takes(shape, channels, bool(last)) for shape in first) and all(
        _makes(shape, channels) for shape in last
    )


def _layers(tensors: Mapping[str, TensorInfo]) -> dict[str, tuple[int, ...]]:
    """Shapes of the model's tensors, by name without prefix; not of quantised ones, which have other shapes."""
    matches = {name: _MODEL.match(name) for name, info in tensors.items() if info.dtype.is_floating_point}
    return {name[match.end() :]: tensors[name].shape for name, match in matches.items() if match}


def _takes(shape: tuple[int, ...], channels: int, sure: bool) -> bool:
    """``sure``: the last layer shows the channels too, so that more than one latent in the first is no other size."""
    if len(shape) > 2:
        # Next to the latent: depth, a small image, a second latent, or a mask and a second latent.
        return shape[1] - channels in (0, 1, 3, channels, channels + 1)
    width, wanted = shape[-1] if shape else 0, _PATCH * channels
    return width == wanted or (sure and width > wanted)


def _makes(shape: tuple[int, ...], channels: int) -> bool:
    if len(shape) > 2:
        return shape[0] == channels
    # Some models of 4 channels predict a variance too.
    wanted = (_PATCH * channels, 2 * _PATCH * channels) if channels == 4 else (_PATCH * channels,)
    return bool(shape) and shape[0] in wanted
