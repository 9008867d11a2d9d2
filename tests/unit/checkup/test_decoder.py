"""Verdicts on decoded charts: the chart itself, and the chart with one fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vae_lab.checkup import Checkup, check_decoder
from vae_lab.latents.chart import chart_image
from vae_lab.latents.family import FAMILIES

SD1 = FAMILIES["sd1"]


def judged(change: Callable[[Tensor], Tensor]) -> Checkup:
    """The checkup of a decoder that gives the chart, changed."""
    checkup = check_decoder(lambda _: change(chart_image().clone()), SD1)
    assert checkup is not None
    return checkup


def grey(image: Tensor) -> Tensor:
    return (image * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True).expand_as(image)


def contrast(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda image: (image - 0.5) * factor + 0.5


def colour(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda image: grey(image) + (image - grey(image)) * factor


def stripes(amplitude: float, period: int, *, across: bool = False) -> Callable[[Tensor], Tensor]:
    """Every second half-period is lighter; as scan lines (2 px) or seams between latent pixels (8 px)."""

    def change(image: Tensor) -> Tensor:
        size = image.shape[-1 if across else -2]
        wave = torch.where(torch.arange(size) % period < period / 2, amplitude, -amplitude)
        return image + (wave[None, None, None, :] if across else wave[None, None, :, None])

    return change


def noise(amplitude: float) -> Callable[[Tensor], Tensor]:
    return lambda image: image + torch.randn(image.shape, generator=torch.Generator().manual_seed(0)) * amplitude


FAITHFUL = {
    "the chart itself": lambda image: image,
    "a little softer": contrast(0.985),
    "overshooting": contrast(1.25),
    "more colour": colour(1.8),
    "a little less colour": colour(0.95),
    "finely grained": noise(0.01),
    "slightly warm": lambda image: image * torch.tensor([1.0, 0.99, 0.97])[:, None, None],
}


@pytest.mark.parametrize("change", FAITHFUL.values(), ids=FAITHFUL)
def test_faithful(change: Callable[[Tensor], Tensor]) -> None:
    assert judged(change).findings == ()


FAULTY = {
    "a quarter of the contrast lost": (contrast(0.74), "grey", "broken"),
    "a tenth of the contrast lost": (contrast(0.9), "pale", "information"),
    "a ninth of the contrast lost": (contrast(0.89), "grey", "suspect"),
    "a sixth of contrast and colour": (lambda image: contrast(0.87)(colour(0.95)(image)), "grey", "broken"),
    "a third of the colour lost": (colour(0.66), "grey", "broken"),
    "a tenth of the colour lost": (colour(0.9), "pale", "information"),
    "a sixth of the colour lost": (colour(0.83), "grey", "suspect"),
    "half grey": (lambda image: image * 0.5 + 0.25, "grey", "broken"),
    "no colour": (grey, "grey", "broken"),
    "one tone": (lambda image: torch.full_like(image, 0.5), "flat", "broken"),
    "black": (torch.zeros_like, "black", "broken"),
    "not a number": (lambda image: image * float("nan"), "nan", "broken"),
    "one pixel infinite": (lambda image: image.index_fill(3, torch.tensor(7), float("inf")), "nan", "broken"),
    "half as much contrast again": (contrast(1.5), "colour-cast", "suspect"),
    "twice the contrast": (contrast(2.0), "colour-cast", "broken"),
    "green": (lambda image: image + torch.tensor([-0.2, 0.1, -0.2])[:, None, None], "colour-cast", "broken"),
    "red and blue swapped": (lambda image: image.flip(1), "grey", "broken"),
    "scan lines": (stripes(0.08, 2), "noisy-or-patterned", "broken"),
    "faint scan lines": (stripes(0.045, 2), "noisy-or-patterned", "suspect"),
    "seams": (stripes(0.08, 8, across=True), "noisy-or-patterned", "broken"),
    "noise": (noise(0.2), "noisy-or-patterned", "broken"),
}


@pytest.mark.parametrize(("change", "code", "severity"), FAULTY.values(), ids=FAULTY)
def test_faulty(change: Callable[[Tensor], Tensor], code: str, severity: str) -> None:
    found = {finding.code: finding.severity for finding in judged(change).verdict.findings}
    assert found.get(code) == severity, found


def test_family_without_reference_latents_has_no_verdict() -> None:
    assert check_decoder(lambda latent: latent, FAMILIES["sd3"]) is None


def test_what_is_remembered_comes_back_as_it_was() -> None:
    checkup = judged(contrast(0.5))
    restored = Checkup.from_json(checkup.to_json())
    assert replace(restored, charts=checkup.charts) == checkup
