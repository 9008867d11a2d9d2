"""Whether a VAE fits the model in a checkpoint. What cannot be known is refused, since it could produce garbage."""

from __future__ import annotations

import torch
from torch import Tensor

from vae_lab.autoencoders import VaeFile, detect_family
from vae_lab.errors import FamilyMismatch, MissingKeys, NotAnAutoencoder, OtherKind
from vae_lab.formats import WeightFile
from vae_lab.latents.chart import chart_image
from vae_lab.latents.family import Family, get_family
from vae_lab.state_dict import model_family, pixel_model, takes_latents, vae_tensors
from vae_lab.text import quoted

__all__ = ["check_fit", "own_vae"]

_DOWNSCALE = 8  # image pixels per latent pixel, in every known family
_FIRST_LAYER = "decoder.conv_in.weight"
_QUANT_CONV = "post_quant_conv.weight"
_SAME = 0.5  # correlation of two VAEs' latents of the chart; relatives have over .9, unrelated ones about 0
_CLOSE = 0.3  # logarithm of the ratio of their deviations; those of two families differ by more


def own_vae(weights: WeightFile) -> VaeFile | None:
    """The whole VAE that hosts load from a checkpoint; None if it has none, or an incomplete one.

    Raises:
        OtherKind: it has a VAE of another kind, such as one for videos, or needs none.
    """
    try:
        return VaeFile(weights)
    except NotAnAutoencoder as error:
        if isinstance(error, OtherKind) and error.kind != "unknown-vae":
            raise
        return None


def check_fit(weights: WeightFile, vae: VaeFile, known: Family | None = None) -> None:
    """Refuse a VAE that does not fit the model in a checkpoint, or of which that cannot be known.

    The structure must be what the model's family, its first and last layer, and its previous VAE need. Then the
    weights must show the family, or make the same latents as the previous VAE.

    Args:
        weights: the checkpoint.
        vae: to be built in.
        known: family that the VAE's weights show, if that is known already.

    Raises:
        FamilyMismatch: it does not fit, or that is not known.
        NotAnAutoencoder: it is no whole AutoencoderKL, or the checkpoint needs another kind of VAE.
    """
    if vae.architecture.name != "AutoencoderKL":
        raise NotAnAutoencoder(vae.path, f"a {vae.architecture.name} cannot be built into a checkpoint")
    if vae.half:
        raise MissingKeys(vae.path, f"it has only the {vae.half}; a checkpoint needs a whole VAE")
    pixels = pixel_model(weights.tensors)
    if pixels:
        raise FamilyMismatch(f"{weights.path} needs no VAE: it is {pixels.title}")
    own, family = own_vae(weights), model_family(weights.tensors)
    if family and not takes_latents(weights.tensors, get_family(family).latent_channels):
        family = None  # a model changed for other latents
    if family:
        _check_family_structure(weights, vae, family)
    _check_channels(weights, vae)
    _check_extras(vae, own)
    if own is None and family is None:
        raise FamilyMismatch(
            f"it is not known which VAE {weights.path} needs, so none is built in: the model is of an unknown family, "
            "and the file has no VAE"
        )
    detected = known or vae.load().family
    if family and detected:
        if detected.id != family:
            raise FamilyMismatch(
                f"{vae.path} is a VAE for {detected.title}, but {weights.path} is not: it would produce garbage"
            )
    elif own is None:
        raise FamilyMismatch(
            f"{vae.path} is not built into {weights.path}: the weights do not show which models it was made for"
        )
    else:
        _check_like(vae, own)


def _check_family_structure(weights: WeightFile, vae: VaeFile, family: str) -> None:
    wanted = get_family(family)
    if (vae.latent_channels, vae.downscale) != (wanted.latent_channels, _DOWNSCALE):
        raise FamilyMismatch(
            f"{vae.path} makes latents with {vae.latent_channels} channels, at 1/{vae.downscale} of the size, but "
            f"{weights.path} needs {wanted.latent_channels} channels at 1/{_DOWNSCALE} ({wanted.title})"
        )
    # VAEs with 4 channels have quant convs, those with 16 do not; hosts build them so.
    if (_QUANT_CONV in vae.shapes) != (wanted.latent_channels == 4):
        has = "has" if _QUANT_CONV in vae.shapes else "has no"
        raise FamilyMismatch(
            f"{vae.path} {has} quant_conv, so hosts cannot load it for {weights.path} ({wanted.title})"
        )


def _check_channels(weights: WeightFile, vae: VaeFile) -> None:
    """Compare with the model's first and last layer, and with every VAE in the file, also an incomplete one."""
    if not takes_latents(weights.tensors, vae.latent_channels):
        raise FamilyMismatch(
            f"{vae.path} makes latents with {vae.latent_channels} channels, but the first or last layer of the model "
            f"in {weights.path} is for another number"
        )
    own = {
        weights.tensors[name].shape[1]
        for name in vae_tensors(weights.tensors)
        if name.endswith(_FIRST_LAYER) and len(weights.tensors[name].shape) == 4
    }
    channels = vae.shapes[_FIRST_LAYER][1]
    if own - {channels}:
        raise FamilyMismatch(
            f"{vae.path} makes other latents than the VAE in {weights.path} ({channels} channels, not "
            f"{min(own - {channels})}): it would produce garbage. If the one in the file is wrong, strip the file first"
        )


def _check_extras(vae: VaeFile, own: VaeFile | None) -> None:
    """Tensors that are no part of a known architecture mean something to the model that the VAE was made for."""
    wanted = own.layout.extras if own else {}
    different = sorted(vae.layout.extras.keys() ^ wanted.keys())
    if different:
        whose = vae.path if different[0] in vae.layout.extras else own.path if own else ""
        raise FamilyMismatch(
            f"{vae.path} may be of another kind than the checkpoint needs: only {whose} has the tensor "
            f"{quoted(different[0])}" + (f" (and {len(different) - 1} more)" if len(different) > 1 else "")
        )


def _check_like(vae: VaeFile, own: VaeFile) -> None:
    """Refuse a VAE that does not make the same latents as a checkpoint's own, by family or of the chart."""
    families = [detect_family(file.assemble(file.state_dict())).family for file in (vae, own)]
    if all(families) and families[0] == families[1]:
        return
    if all(families):
        raise FamilyMismatch(f"{vae.path} is a VAE of another family than the one in {own.path}")
    structures = [(file.latent_channels, file.downscale, _QUANT_CONV in file.shapes, file.half) for file in (vae, own)]
    if structures[0] != structures[1] or not _same_latents(_chart_latents(vae), _chart_latents(own)):
        raise FamilyMismatch(
            f"{vae.path} makes other latents than the VAE in {own.path}, and its family is not known: "
            "it could produce garbage"
        )


@torch.no_grad()
def _chart_latents(file: VaeFile) -> Tensor | None:
    """[C,h*w] of the chart, in the VAE's own units; None if it is for other images than RGB."""
    loaded = file.assemble(file.state_dict())
    if loaded.architecture.image_channels(loaded.module) != 3:
        return None
    return loaded.architecture.encode(loaded.module, chart_image())[0].flatten(1)


def _same_latents(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return False
    ratio = one.std() / other.std()
    one, other = (latents - latents.mean(dim=1, keepdim=True) for latents in (one, other))
    correlation = (one * other).sum(dim=1) / (one.norm(dim=1) * other.norm(dim=1)).clamp_min(1e-8)
    return bool(correlation.mean() >= _SAME and ratio.log().abs() < _CLOSE)
