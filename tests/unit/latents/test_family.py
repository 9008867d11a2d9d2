"""Scaling factors of the families, and their use."""

from __future__ import annotations

import pytest
import torch

from vae_lab.errors import FamilyMismatch
from vae_lab.latents.family import FAMILIES, get_family


@pytest.mark.parametrize(
    ("family", "channels", "scale", "shift"),
    [
        ("sd1", 4, 0.18215, 0.0),
        ("sdxl", 4, 0.13025, 0.0),
        ("sd3", 16, 1.5305, 0.0609),
        ("flux", 16, 0.3611, 0.1159),
    ],
)
def test_scaling_and_back(family: str, channels: int, scale: float, shift: float) -> None:
    latents = torch.randn(2, channels, 4, 4, dtype=torch.float64)
    model_space = get_family(family).to_model_space(latents)
    assert get_family(family).latent_channels == channels
    assert torch.allclose(model_space, (latents - shift) * scale)
    assert torch.allclose(get_family(family).to_vae_space(model_space), latents)


def test_every_family_is_covered_above() -> None:
    assert set(FAMILIES) == {"sd1", "sdxl", "sd3", "flux"}


def test_unknown_family_names_the_known_ones() -> None:
    with pytest.raises(FamilyMismatch, match="unknown latent family 'sd9'; known: sd1, sdxl, sd3, flux"):
        get_family("sd9")


def test_preview_is_a_image() -> None:
    preview = FAMILIES["sd1"].preview(torch.randn(2, 4, 5, 7) * 3)
    assert preview.shape == (2, 3, 5, 7)
    assert preview.min() >= 0
    assert preview.max() <= 1


def test_preview_without_a_map_is_refused() -> None:
    with pytest.raises(FamilyMismatch, match="no linear preview is available for SD3"):
        FAMILIES["sd3"].preview(torch.zeros(1, 16, 2, 2))
