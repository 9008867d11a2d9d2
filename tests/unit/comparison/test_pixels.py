"""Pixels are truncated exactly as in the WebUI."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vae_lab.comparison import to_pixels


def pixel(value: float) -> int:
    return int(to_pixels(torch.full((1, 3, 1, 1), value))[0, 0, 0, 0])


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (0.0, 0),
        (1.0, 255),
        (0.5, 127),
        (254.999 / 255, 254),
        (-0.3, 0),
        (1.7, 255),
        (float("nan"), 0),
        (float("inf"), 255),
        (float("-inf"), 0),
        (3e38, 255),
        (-3e38, 0),
    ],
)
def test_value(value: float, wanted: int) -> None:
    assert pixel(value) == wanted


def test_as_the_webui_does_it() -> None:
    """modules/processing.py: clamp((x + 1) / 2, 0, 1); 255. * np.moveaxis(…); astype(np.uint8)."""
    raw = torch.randn(2, 3, 16, 16)
    samples = torch.clamp((raw + 1.0) / 2.0, min=0.0, max=1.0)
    theirs = np.stack([(255.0 * np.moveaxis(one.numpy(), 0, 2)).astype(np.uint8) for one in samples])
    assert np.array_equal(to_pixels((raw + 1.0) / 2.0), theirs)


def test_axes_and_type() -> None:
    images = torch.zeros(2, 3, 4, 5)
    images[1, 0, 3, 4] = 1.0
    pixels = to_pixels(images)
    assert (pixels.shape, pixels.dtype) == ((2, 4, 5, 3), np.uint8)
    assert pixels[1, 3, 4].tolist() == [255, 0, 0]
    assert pixels.sum() == 255


def test_half_precision() -> None:
    assert to_pixels(torch.full((1, 3, 1, 1), 0.5, dtype=torch.bfloat16))[0, 0, 0, 0] == 127
