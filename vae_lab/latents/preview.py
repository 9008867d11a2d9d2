"""Predicts a latent's image at 1/8 of its size with a small network, without a VAE.

The linear map of :meth:`vae_lab.latents.family.Family.preview` exaggerates the contrast of fog and other soft images by
up to a factor of two, so it cannot be used to judge a decoded image. This network has a 9x9 receptive field and weights
from ``tools/fit_estimates.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional as F

from vae_lab.errors import FamilyMismatch
from vae_lab.latents.family import Family

__all__ = ["CONVS", "expected_image", "run_net"]

_DATA = Path(__file__).parent / "preview.safetensors"

CONVS = 4
"""Number of consecutive 3x3 convolutions."""

# Values beyond this are compressed, as in TAESD. Healthy latents rarely come near it.
_SOFT_LIMIT = 3.0


def expected_image(latents: Tensor, family: Family) -> Tensor:
    """[B,4,h,w] in model space -> [B,3,h,w], fp32 on the CPU: sRGB in 0..1, averaged over each block of 8 x 8 pixels.

    Values that are not finite count as 0.

    Raises:
        FamilyMismatch: no network for this family, or the latents have a different number of channels.
    """
    weights = _weights().get(family.id)
    if weights is None:
        raise FamilyMismatch(f"no preview network is available for {family.title} latents")
    if latents.ndim != 4 or latents.shape[1] != family.latent_channels:
        raise FamilyMismatch(
            f"{family.title} latents have the shape [B,{family.latent_channels},h,w], not {list(latents.shape)}"
        )
    with torch.no_grad():
        finite = latents.detach().to("cpu", torch.float32).nan_to_num(0.0, 0.0, 0.0)
        return run_net(finite, weights).clamp(0.0, 1.0)


def run_net(latents: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """Apply one family's network: [B,4,h,w] in model space -> [B,3,h,w], about 0..1.

    Uses functions instead of modules, because WebUIs patch torch's modules.
    """
    limited = torch.tanh(latents / _SOFT_LIMIT) * _SOFT_LIMIT
    hidden = limited
    for index in range(CONVS):
        # Replicated, because zeros would mean a grey border.
        padded = F.pad(hidden, (1, 1, 1, 1), mode="replicate")
        hidden = F.conv2d(padded, weights[f"conv{index}.weight"], weights[f"conv{index}.bias"])
        if index < CONVS - 1:
            hidden = F.silu(hidden)
    return hidden + F.conv2d(limited, weights["skip.weight"])


@lru_cache(maxsize=1)
def _weights() -> dict[str, dict[str, Tensor]]:
    """The weights of each network by family id, fp32."""
    families: dict[str, dict[str, Tensor]] = {}
    for key, value in safetensors.torch.load_file(_DATA).items():
        family, name = key.split(".", 1)
        families.setdefault(family, {})[name] = value.float()
    return families
