"""The colour chart, and its latents in each family.

The chart is 128 px: 16 patches of 32 px. Patches must not be smaller: at 8 or 16 px even a faithful
VAE blurs neighbours into each other (4 or 2 latent pixels across). The reference latents were made
by ``tools/make_charts.py`` with each family's real TAESD encoder, so they do not depend on the VAE
under test.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

__all__ = ["CHART_COLOURS", "chart_image", "chart_latents"]

_DATA = Path(__file__).parent / "data" / "chart_latents.safetensors"
_PATCH = 32

# fmt: off
CHART_COLOURS: tuple[str, ...] = (
    "#ffffff", "#c8c8c8", "#7a7a7a", "#000000",
    "#af363c", "#469449", "#383d96", "#e7c71f",
    "#735244", "#c29682", "#627a9d", "#d67e2c",
    "#000000", "#bb5695", "#0885a1", "#ffffff",
)
# fmt: on
"""Row by row: greys with white and black, primaries, skin and sky, and white and black once more."""


@lru_cache(maxsize=1)
def chart_image() -> Tensor:
    """The chart, [1,3,128,128] in 0..1."""
    rgb = torch.tensor([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in CHART_COLOURS]) / 255.0
    grid = rgb.T.reshape(1, 3, 4, 4)
    return grid.repeat_interleave(_PATCH, dim=2).repeat_interleave(_PATCH, dim=3)


@lru_cache(maxsize=1)
def chart_latents() -> dict[str, Tensor]:
    """Family id -> latents of the chart, [1,4,16,16] in model space, fp32."""
    return {family: latents.float() for family, latents in safetensors.torch.load_file(_DATA).items()}
