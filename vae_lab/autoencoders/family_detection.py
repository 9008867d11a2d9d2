"""Detect a VAE's latent family from its weights.

SD1 and SDXL VAEs have the same tensor names and shapes, but their latents have different meanings. So the colour
chart's reference latents of each family are decoded, and the family with the right colours in the right places is the
VAE's. In a wrong family, lightness is still roughly right but colours are not, so only colour counts. If the decoder is
too broken to show a family, the encoder decides.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vae_lab.latents.chart import chart_image, chart_latents
from vae_lab.latents.family import FAMILIES, Family

if TYPE_CHECKING:
    from vae_lab.autoencoders.autoencoder import Autoencoder

__all__ = ["FamilyEvidence", "detect_family", "encoded_chart", "has_half", "supports_chart"]

# Measured correlations of colour: TAESD's own decoders .99, the sample VAEs .81 to .90, their 20 % grey merge .82;
# in a wrong family, at most -.23.
_CLEAR = 0.5
_MARGIN = 0.2
# The chart's latents have a mean of .14 and a deviation of .88 (SD1), .06 and .91 (SDXL). SD3's and Flux's deviations
# differ by a factor of 4.
_CLOSE = 0.3
_CERTAIN = 0.75  # no VAE reaches this in two families, so the others need not be tried


@dataclass(frozen=True)
class FamilyEvidence:
    """The detected family and the measurements behind it.

    Attributes:
        family: the detected family, or None.
        by_decoder: correlation with the chart by family id.
        by_encoder: the same for the encoder, if the decoder was not clear.
        decoded: the decoded reference latents by family id, [1,3,256,192], not clamped.
        encoded: the encoded chart by family id, [1,4,32,24] in that family's model space, if the encoder was used.
    """

    family: Family | None
    by_decoder: dict[str, float]
    by_encoder: dict[str, float]
    decoded: dict[str, Tensor] = field(default_factory=dict, repr=False)
    encoded: dict[str, Tensor] = field(default_factory=dict, repr=False)


@torch.no_grad()
def detect_family(autoencoder: Autoencoder, hint: Family | None = None) -> FamilyEvidence:
    """Find the family whose latents ``autoencoder`` decodes correctly.

    Args:
        autoencoder: its own ``family`` is ignored.
        hint: the family to try first.
    """
    channels = autoencoder.latent_channels
    candidates = [family for family in FAMILIES.values() if family.latent_channels == channels]
    candidates.sort(key=lambda family: hint is None or family.id != hint.id)
    if not supports_chart(autoencoder):
        return FamilyEvidence(None, {}, {})
    if not all(family.id in chart_latents() for family in candidates):
        return _by_spread(autoencoder, candidates)
    decoded = _decoded(autoencoder, candidates)
    by_decoder = {family: _score(image) for family, image in decoded.items()}
    best = _clear_best(by_decoder)
    by_encoder: dict[str, float] = {}
    encoded: dict[str, Tensor] = {}
    if best is None and candidates and has_half(autoencoder, "encoder"):
        encoded = encoded_chart(autoencoder, candidates)
        by_encoder = _encoder_scores(encoded[candidates[0].id], candidates)
        best = _clear_best(by_encoder)
    return FamilyEvidence(FAMILIES[best] if best else None, by_decoder, by_encoder, decoded, encoded)


def supports_chart(autoencoder: Autoencoder) -> bool:
    """Whether a VAE can encode and decode the chart: 8 image pixels per latent pixel, and three image channels."""
    return autoencoder.downscale == 8 and autoencoder.architecture.image_channels(autoencoder.module) == 3


def _decoded(autoencoder: Autoencoder, candidates: list[Family]) -> dict[str, Tensor]:
    if not has_half(autoencoder, "decoder"):
        return {}
    decoded = {}
    for family in candidates:
        image = autoencoder.with_family(family).decode_unclamped(chart_latents()[family.id]).cpu()
        decoded[family.id] = image
        if _score(image) >= _CERTAIN:
            break
    return decoded


def encoded_chart(autoencoder: Autoencoder, candidates: list[Family]) -> dict[str, Tensor]:
    """Family id -> the encoded chart in that family's model space, [1,C,32,24].

    Encodes once, because families only differ in scaling.
    """
    first = candidates[0]
    latents = autoencoder.with_family(first).encode(chart_image()).cpu()
    if not autoencoder.architecture.scales_latents:
        return dict.fromkeys((family.id for family in candidates), latents)
    return {family.id: family.to_model_space(first.to_vae_space(latents)) for family in candidates}


def _score(image: Tensor) -> float:
    return _correlation(_colour(image.clamp(0.0, 1.0)), _colour(chart_image()))


def _encoder_scores(latents: Tensor, candidates: list[Family]) -> dict[str, float]:
    """Correlations of latents in any family's model space; scaling and shift do not affect them."""
    references = chart_latents()
    return {family.id: _correlation(latents.flatten(2), references[family.id].flatten(2)) for family in candidates}


def _by_spread(autoencoder: Autoencoder, candidates: list[Family]) -> FamilyEvidence:
    """For families without reference latents. A family's scaling gives latents a mean of about 0 and a deviation of 1.

    Other VAEs with as many channels exist, so a VAE that does not match closely has no known family.
    """
    if not candidates or not has_half(autoencoder, "encoder") or not autoencoder.architecture.scales_latents:
        return FamilyEvidence(None, {}, {})
    spread = {}
    for family in candidates:
        latents = autoencoder.with_family(family).encode(chart_image())
        spread[family.id] = max(latents.std().log().abs().item(), latents.mean().abs().item())
    best = min(spread, key=lambda family: spread[family])
    return FamilyEvidence(FAMILIES[best] if spread[best] < _CLOSE else None, {}, spread)


def has_half(autoencoder: Autoencoder, half: str) -> bool:
    """Whether it has an ``encoder`` or a ``decoder``."""
    return any(half in name.split(".")[0] for name, _ in autoencoder.module.named_parameters())


def _colour(image: Tensor) -> Tensor:
    """Two colour-opponent channels, without lightness: [1,2,n]."""
    red, green, blue = image.flatten(2).unbind(dim=1)
    return torch.stack([red - green, blue - (red + green) / 2], dim=1)


def _correlation(a: Tensor, b: Tensor) -> float:
    """Correlation over positions, averaged over channels; 0 for a channel that is constant or not finite."""
    a = a - a.mean(dim=2, keepdim=True)
    b = b - b.mean(dim=2, keepdim=True)
    norm = a.norm(dim=2) * b.norm(dim=2)
    return torch.nan_to_num((a * b).sum(dim=2) / norm.clamp_min(1e-8)).mean().item()


def _clear_best(scores: dict[str, float]) -> str | None:
    ranked = sorted(scores, key=lambda family: scores[family], reverse=True)
    if not ranked or scores[ranked[0]] < _CLEAR:
        return None
    if len(ranked) > 1 and scores[ranked[0]] - scores[ranked[1]] < _MARGIN:
        return None
    return ranked[0]
