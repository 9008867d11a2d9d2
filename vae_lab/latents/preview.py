"""What a latent should look like at 1/8 of its size, by a tiny net, no VAE involved.

The linear map of :meth:`vae_lab.latents.family.Family.preview` exaggerates the contrast of fog and other soft images by
up to a factor of two, so a decoded image cannot be judged by it. This network has a 9x9 receptive field. Its weights
were made by ``tools/fit_estimates.py``.
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
"""3 x 3 convolutions of the net, one after the other: it sees 9 x 9 latent pixels."""

# Beyond this, latents are compressed, as TAESD does it; healthy ones seldom come near.
_SOFT_LIMIT = 3.0


def expected_image(latents: Tensor, family: Family) -> Tensor:
    """[B,4,h,w] in model space -> [B,3,h,w], fp32 on the CPU: sRGB in 0..1, averaged over each block of 8 x 8 pixels.

    Values that are not finite count as 0.

    Raises:
        FamilyMismatch: the net was not fitted for this family, or the latents have another number of channels.
    """
    weights = _weights().get(family.id)
    if weights is None:
        raise FamilyMismatch(f"what {family.title} latents should look like is not known")
    if latents.ndim != 4 or latents.shape[1] != family.latent_channels:
        raise FamilyMismatch(
            f"{family.title} latents have the shape [B,{family.latent_channels},h,w], not {list(latents.shape)}"
        )
    with torch.no_grad():
        known = latents.detach().to("cpu", torch.float32).nan_to_num(0.0, 0.0, 0.0)
        return run_net(known, weights).clamp(0.0, 1.0)


def run_net(latents: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """The net of one family: [B,4,h,w] in model space -> [B,3,h,w], about 0..1.

    Functions rather than modules: WebUIs replace the methods of torch's own modules.
    """
    limited = torch.tanh(latents / _SOFT_LIMIT) * _SOFT_LIMIT
    hidden = limited
    for index in range(CONVS):
        # At the border there is more of the same, not the black or grey that zeros would stand for.
        padded = F.pad(hidden, (1, 1, 1, 1), mode="replicate")
        hidden = F.conv2d(padded, weights[f"conv{index}.weight"], weights[f"conv{index}.bias"])
        if index < CONVS - 1:
            hidden = F.silu(hidden)
    return hidden + F.conv2d(limited, weights["skip.weight"])


@lru_cache(maxsize=1)
def _weights() -> dict[str, dict[str, Tensor]]:
    """Family id -> the weights of its net, fp32."""
    families: dict[str, dict[str, Tensor]] = {}
    for key, value in safetensors.torch.load_file(_DATA).items():
        family, name = key.split(".", 1)
        families.setdefault(family, {})[name] = value.float()
    return families
