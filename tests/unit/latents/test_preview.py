"""Predicts a latent's image without a VAE."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional as F

from vae_lab.errors import FamilyMismatch
from vae_lab.latents import preview as estimates
from vae_lab.latents.family import FAMILIES
from vae_lab.latents.preview import expected_image
from vae_lab.samples import load_sample_latents, sample_photos

SAMPLES = [(family, name) for family in ("sd1", "sdxl") for name in load_sample_latents(family)]


def small_photo(name: str) -> Tensor:
    """The sample photo at 1/8, [1,3,64,64] in 0..1."""
    pixels = torch.from_numpy(np.array(Image.open(sample_photos()[name]).convert("RGB")))
    return F.avg_pool2d(pixels.permute(2, 0, 1)[None].float() / 255, 8)


def psnr(image: Tensor, true: Tensor) -> float:
    return -10 * math.log10(float((image - true).square().mean()))


def lightness(image: Tensor) -> Tensor:
    """[1,3,h,w] sRGB in 0..1 -> L*, [h,w]."""
    linear = torch.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)
    y = torch.einsum("bchw,c->hw", linear, torch.tensor([0.2126, 0.7152, 0.0722]))
    return torch.where(y > 0.008856, 116 * y.clamp(min=1e-6) ** (1 / 3) - 16, 903.3 * y)


def gain(actual: Tensor, expected: Tensor) -> float:
    """Slope of the actual on the expected L*."""
    true, predicted = lightness(actual), lightness(expected)
    true, predicted = true - true.mean(), predicted - predicted.mean()
    return float((true * predicted).sum() / predicted.square().sum())


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
@pytest.mark.parametrize("size", [(1, 1), (5, 9), (64, 40)])
def test_is_a_image_as_large_as_the_latent(family: str, size: tuple[int, int]) -> None:
    image = expected_image((torch.randn(2, 4, *size) * 2).half(), FAMILIES[family])
    assert image.shape == (2, 3, *size)
    assert image.dtype == torch.float32
    assert not image.requires_grad
    assert image.min() >= 0
    assert image.max() <= 1


def test_latents_do_not_change() -> None:
    latents = torch.full((1, 4, 4, 4), torch.nan).requires_grad_()
    expected_image(latents, FAMILIES["sd1"])
    assert latents.isnan().all()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30])
def test_values_that_no_latent_has_do_no_harm(value: float) -> None:
    latents = torch.randn(1, 4, 24, 24)
    changed = latents.clone()
    changed[0, 1, 4, 4] = value
    image, plain = (expected_image(z, FAMILIES["sd1"]) for z in (changed, latents))
    assert image.isfinite().all()
    # Only its surroundings see it.
    reach = estimates.CONVS
    assert torch.allclose(image[..., 5 + reach :, :], plain[..., 5 + reach :, :], atol=1e-5)
    assert expected_image(torch.full((1, 4, 8, 8), value), FAMILIES["sdxl"]).isfinite().all()


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_families_without_a_net_are_refused(family: str) -> None:
    with pytest.raises(FamilyMismatch, match=f"no preview network is available for {FAMILIES[family].title} latents"):
        expected_image(torch.zeros(1, 16, 8, 8), FAMILIES[family])


@pytest.mark.parametrize("shape", [(1, 16, 8, 8), (1, 3, 8, 8), (4, 8, 8), (1, 4, 1, 8, 8)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(FamilyMismatch, match=r"SD1 / SD2 latents have the shape \[B,4,h,w\], not \["):
        expected_image(torch.zeros(shape), FAMILIES["sd1"])


@pytest.mark.parametrize(("family", "name"), SAMPLES)
def test_sample_photos_are_predicted(family: str, name: str) -> None:
    """Also the foggy and the dark one; and better than by the linear map."""
    latents, true = load_sample_latents(family)[name], small_photo(name)
    predicted = expected_image(latents, FAMILIES[family])
    assert psnr(predicted, true) > 24
    assert psnr(predicted, true) > psnr(FAMILIES[family].preview(latents), true) + 1
    assert 0.85 < gain(true, predicted) < 1.15


@pytest.mark.parametrize(("family", "name"), SAMPLES)
def test_a_grey_copy_is_noticed(family: str, name: str) -> None:
    predicted = expected_image(load_sample_latents(family)[name], FAMILIES[family])
    assert gain(0.5 + (small_photo(name) - 0.5) * 0.5, predicted) < 0.7


def test_what_is_shipped_is_small_and_says_where_it_is_from() -> None:
    assert estimates._DATA.stat().st_size < 60_000
    with safe_open(estimates._DATA, "pt") as file:
        metadata = file.metadata()
    assert metadata["made_by"] == "tools/fit_estimates.py"
    assert "TAESD (MIT)" in metadata["latents"]
