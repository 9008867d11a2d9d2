"""The colour chart, and its latents in each family.

The chart has 192 x 256 px: 24 patches of 32 px, a ramp from black to white, and a photo. Even a healthy VAE blurs
patches of 8 or 16 px (1 or 2 latent pixels) into each other. The patches measure levels and colours; the photo measures
midtones, where a VAE that overshoots differs although its flat patches do not. ``tools/make_charts.py`` made the
reference latents with each family's TAESD encoder, so they do not depend on the VAE under test.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

__all__ = ["CHART_COLOURS", "COLUMNS", "PATCH", "PHOTO_TOP", "chart_image", "chart_latents"]

_DATA = Path(__file__).parent

PATCH = 32
"""Side of a patch, in pixels."""
COLUMNS = 6
"""Patches per row."""
PHOTO_TOP = 5 * PATCH
"""Top of the photo in pixels, below the patches and the ramp."""

# fmt: off
CHART_COLOURS: tuple[str, ...] = (
    "#ffffff", "#c8c8c8", "#a0a0a0", "#7a7a7a", "#404040", "#000000",
    "#af363c", "#469449", "#383d96", "#e7c71f", "#bb5695", "#0885a1",
    "#735244", "#c29682", "#627a9d", "#576c43", "#8580b1", "#67bdaa",
    "#000000", "#d67e2c", "#505ba6", "#ffffff", "#5e3c6c", "#9dbc40",
)
# fmt: on
"""By row: neutrals from white to black, primaries, skin, sky and leaves, and black and white among colours."""


@lru_cache(maxsize=1)
def chart_image() -> Tensor:
    """The chart, [1,3,256,192] in 0..1. The photo shows the astronaut Eileen Collins (NASA, public domain)."""
    rgb = torch.tensor([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in CHART_COLOURS]) / 255.0
    patches = rgb.T.reshape(1, 3, -1, COLUMNS).repeat_interleave(PATCH, dim=2).repeat_interleave(PATCH, dim=3)
    ramp = torch.linspace(0.0, 1.0, COLUMNS * PATCH).expand(1, 3, PATCH, -1)
    with Image.open(_DATA / "chart_photo.png") as file:
        photo = torch.from_numpy(np.array(file.convert("RGB"))).permute(2, 0, 1)[None] / 255.0
    return torch.cat([patches, ramp, photo], dim=2)


@lru_cache(maxsize=1)
def chart_latents() -> dict[str, Tensor]:
    """Latents of the chart by family id, [1,4,32,24] in model space, fp32."""
    stored = safetensors.torch.load_file(_DATA / "chart_latents.safetensors")
    return {family: latents.float() for family, latents in stored.items()}
