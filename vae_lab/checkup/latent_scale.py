"""Recognises an intact VAE that was made for other latents than the family's usual ones.

Some fine-tunes, such as EQ-VAE for SDXL, rescale or shift the latents. Models that are trained for them decode
correctly, but the reference latents do not. If the VAE's own latents of the chart have the same pattern as a family's,
channel by channel, only the scale differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from vae_lab.autoencoders import Autoencoder
from vae_lab.autoencoders.family_detection import encoded_chart
from vae_lab.checkup.findings import INFORMATION, NOT_CHECKED, Evidence, Finding
from vae_lab.latents.chart import chart_latents
from vae_lab.latents.family import FAMILIES, Family

__all__ = ["judge_latents"]

_ALIKE = 0.5


def judge_latents(autoencoder: Autoencoder, scores: Sequence[Evidence]) -> tuple[Family | None, Finding]:
    """The family whose latents a VAE has, on another scale, or None; and a finding that says so.

    Args:
        autoencoder: its own round trip is correct, but it does not decode the reference latents.
        scores: how correct the colours are in each family, for the finding.
    """
    families = [family for family in FAMILIES.values() if family.id in chart_latents()]
    families = [family for family in families if family.latent_channels == autoencoder.latent_channels]
    encoded = encoded_chart(autoencoder, families)
    fits = [_fit(encoded[family.id], family) for family in families]
    best = max(fits, key=lambda fit: fit.alike)
    if best.alike >= _ALIKE:
        return best.family, _other_scale(best)
    known = " or ".join(family.title for family in families)
    text = f"The VAE is intact, but was not made for {known} latents: use it with the models that it was made for."
    return None, Finding("other-latents", NOT_CHECKED, text, tuple(scores))


@dataclass(frozen=True)
class _Fit:
    """How a VAE's own latents of the chart differ from a family's.

    Attributes:
        family: the family.
        alike: correlation over positions, mean of the channels.
        scale: geometric mean of the channels' factors.
        shift: the channels' largest offset.
    """

    family: Family
    alike: float
    scale: float
    shift: float


def _fit(own: Tensor, family: Family) -> _Fit:
    x, y = chart_latents()[family.id].flatten(2)[0], own.flatten(2)[0]
    centred_x, centred_y = x - x.mean(dim=1, keepdim=True), y - y.mean(dim=1, keepdim=True)
    lengths_x, lengths_y = centred_x.norm(dim=1), centred_y.norm(dim=1).clamp_min(1e-8)
    alike = (centred_x * centred_y).sum(dim=1) / (lengths_x * lengths_y)
    # Not a regression: its factors are too small where two encoders differ a little.
    factors = lengths_y / lengths_x
    offsets = y.mean(dim=1) - alike.sign() * factors * x.mean(dim=1)
    shift = offsets[offsets.abs().argmax()].item()
    return _Fit(family, alike.mean().item(), factors.log().mean().exp().item(), shift)


def _other_scale(fit: _Fit) -> Finding:
    evidence = (
        Evidence("scale of its latents", fit.scale, "", "1"),
        Evidence("largest shift of a channel", fit.shift, "", "0"),
        Evidence(f"similarity to {fit.family.title} latents", fit.alike, "", "1"),
    )
    text = (
        f"The VAE is intact, but made for another latent scale than that of {fit.family.title}: "
        "use it with models trained for it."
    )
    return Finding("other-latents", INFORMATION, text, evidence)
