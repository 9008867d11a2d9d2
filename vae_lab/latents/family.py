"""Latent families: the latent spaces that VAEs encode to and decode from.

A VAE's tensor names and shapes do not show its family (those of SD1 and SDXL are identical), so it is detected from
the VAE's behaviour, see :mod:`vae_lab.autoencoders.family_detection`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vae_lab.errors import FamilyMismatch

__all__ = ["FAMILIES", "Family", "get_family"]

_Rows = tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class Family:
    """One latent space.

    Attributes:
        id: stable short name for files and the API.
        title: name for display.
        latent_channels: channels of a latent.
        scaling_factor: model-space latent = (VAE latent - shift_factor) * scaling_factor.
        shift_factor: see ``scaling_factor``; 0 for SD1 and SDXL.
        latent_rgb: a row for each latent channel and one for the bias, to RGB in 0..1 at 1/8 size, from least
            squares on latents of photos. None if not available.
    """

    id: str
    title: str
    latent_channels: int
    scaling_factor: float
    shift_factor: float = 0.0
    latent_rgb: _Rows | None = None

    def to_model_space(self, vae_latents: Tensor) -> Tensor:
        """The VAE's own units -> model space, in which latents are sampled and stored."""
        return (vae_latents - self.shift_factor) * self.scaling_factor

    def to_vae_space(self, latents: Tensor) -> Tensor:
        """Model space -> the VAE's own units."""
        return latents / self.scaling_factor + self.shift_factor

    def preview(self, latents: Tensor) -> Tensor:
        """[B,C,h,w] in model space -> [B,3,h,w] in 0..1, by a linear map without a VAE.

        Raises:
            FamilyMismatch: this family has no such map.
        """
        if self.latent_rgb is None:
            raise FamilyMismatch(f"no linear preview is available for {self.title} latents")
        rows = torch.tensor(self.latent_rgb, dtype=torch.float32, device=latents.device)
        rgb = torch.einsum("bchw,cr->brhw", latents.float(), rows[:-1]) + rows[-1].view(1, 3, 1, 1)
        return rgb.clamp(0.0, 1.0)


_SD1_RGB: _Rows = (
    (0.16606, 0.12333, 0.13602),
    (0.08535, 0.18248, 0.02968),
    (-0.13765, 0.12273, 0.11352),
    (-0.10005, -0.10913, -0.33308),
    (0.48460, 0.44057, 0.39507),
)
_SDXL_RGB: _Rows = (
    (0.17904, 0.20017, 0.21642),
    (-0.15372, 0.04327, 0.05929),
    (0.04732, 0.11306, -0.06043),
    (-0.16595, -0.10590, -0.12784),
    (0.55249, 0.48952, 0.47244),
)

FAMILIES: dict[str, Family] = {
    family.id: family
    for family in (
        Family("sd1", "SD1 / SD2", 4, 0.18215, latent_rgb=_SD1_RGB),
        Family("sdxl", "SDXL", 4, 0.13025, latent_rgb=_SDXL_RGB),
        Family("sd3", "SD3", 16, 1.5305, 0.0609),
        Family("flux", "Flux", 16, 0.3611, 0.1159),
    )
}


def get_family(family: str | Family) -> Family:
    """The family with this id.

    Raises:
        FamilyMismatch: there is none.
    """
    if isinstance(family, Family):
        return family
    try:
        return FAMILIES[family]
    except KeyError:
        raise FamilyMismatch(f"unknown latent family {family!r}; known: {', '.join(FAMILIES)}") from None
