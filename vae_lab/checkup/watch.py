"""Decide whether an output is grey because of its VAE or because of its content.

An image by itself proves nothing. It is compared with the prediction from its latent by a small network
(:mod:`vae_lab.latents.preview`). An image that is much paler than predicted is only suspected: the VAE's
own probe, or a second decode of the same latent, has to confirm that a broken VAE is to blame.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vae_lab.autoencoders import Autoencoder
from vae_lab.checkup.checkup import Checkup, check_weights
from vae_lab.checkup.findings import BROKEN, Evidence, Finding, Verdict
from vae_lab.errors import FamilyMismatch
from vae_lab.identity import memory_digest
from vae_lab.latents.family import Family, get_family
from vae_lab.latents.preview import expected_image

__all__ = ["Glance", "confirmed", "glance", "judge_output"]

_BLOCK = 8  # image pixels per latent pixel
_PALE = 0.62  # of the expected contrast; below, an image is suspected
_SURE = 0.42  # below, an image with enough contrast in its latent is grey even without proof against its VAE
_SURE_SPREAD = 5.0  # minimum standard deviation of the expected L* for that
_FLAT_EXPECTED = 3.0  # standard deviation of L* below which contrast means nothing
_FLAT = 0.7  # standard deviation of L* below which an image is flat
_BLACK = 1.0  # mean L* of a black image
_MATTERS = 6.0  # standard deviation of the expected L* above which a flat or black image is a fault
_CONFIRMED = 0.70  # of the contrast of another decode of the same latent

_REMEDY = "Decode the latent with another VAE, and choose a healthy VAE for this checkpoint."


@dataclass(frozen=True)
class Glance:
    """An image compared with its latent.

    Attributes:
        finite: share of the image's raw values that are neither NaN nor infinite.
        level: mean L* of the image.
        spread: standard deviation of its L*, at 1/8 of its size.
        expected_spread: the same as predicted from the latent; None for a family without such a prediction.
        gain: slope of the image's L* on the expected one: 1 is right, 0 is flat; None if there is too little contrast.
    """

    finite: float
    level: float
    spread: float
    expected_spread: float | None
    gain: float | None

    @property
    def fault(self) -> str:
        """``nan``, ``black`` or ``flat`` if the image is obviously wrong, else ""."""
        if self.finite < 1.0:
            return "nan"
        if self.expected_spread is None or self.expected_spread < _MATTERS or self.spread >= _FLAT:
            return ""
        return "black" if self.level < _BLACK else "flat"

    @property
    def pale(self) -> bool:
        """Whether contrast is missing, for any reason."""
        return self.gain is not None and self.gain < _PALE

    @property
    def beyond_doubt(self) -> bool:
        """Whether contrast is so low that no healthy VAE could have produced the image."""
        return self.pale and (self.expected_spread or 0.0) >= _SURE_SPREAD and (self.gain or 0.0) < _SURE


def glance(latents: Tensor, images: Tensor, family: Family) -> list[Glance]:
    """Compare images with their latents; takes milliseconds.

    Args:
        latents: [B,C,h,w] in model space.
        images: [B,3,8h,8w], about 0..1, preferably not clamped, so that NaN shows.
        family: of the latents.

    Raises:
        FamilyMismatch: the images do not have the size of the latents.
    """
    if images.shape[0] != latents.shape[0] or images.shape[2:] != tuple(_BLOCK * side for side in latents.shape[2:]):
        raise FamilyMismatch(f"images {list(images.shape)} are not decoded from latents {list(latents.shape)}")
    try:
        expected = [*expected_image(latents, family).split(1)]
    except FamilyMismatch:
        expected = [None] * len(latents)
    return [_glance(image, wanted) for image, wanted in zip(images.split(1), expected, strict=True)]


def _glance(image: Tensor, expected: Tensor | None) -> Glance:
    raw = image.detach().float().cpu()
    finite = float(torch.isfinite(raw).float().mean())
    seen = _lightness(_small(raw))
    if expected is None:
        return Glance(finite, float(seen.mean()), float(seen.std()), None, None)
    wanted = _lightness(expected)
    enough = float(wanted.std()) >= _FLAT_EXPECTED
    return Glance(
        finite=finite,
        level=float(seen.mean()),
        spread=float(seen.std()),
        expected_spread=float(wanted.std()),
        gain=_slope(seen, wanted) if enough else None,
    )


def confirmed(images: Tensor, others: Tensor) -> list[bool]:
    """For each image, whether another decode of the same latent has clearly more contrast.

    Args:
        images: [B,3,H,W], about 0..1.
        others: the same latents, decoded differently.
    """
    pairs = zip(images.split(1), others.split(1), strict=True)
    seen = [
        (_lightness(_small(image.float().cpu())), _lightness(_small(other.float().cpu()))) for image, other in pairs
    ]
    return [float(b.std()) >= _FLAT_EXPECTED and _slope(a, b) < _CONFIRMED for a, b in seen]


def _small(image: Tensor) -> Tensor:
    return F.avg_pool2d(torch.nan_to_num(image, nan=0.0, posinf=1.0, neginf=0.0).clamp(0.0, 1.0), _BLOCK)


def _lightness(image: Tensor) -> np.ndarray:
    """[1,3,h,w] in 0..1 -> L* [h,w]."""
    from skimage.color import rgb2lab  # slow to import, which must not delay a generation

    return rgb2lab(image[0].permute(1, 2, 0).double().numpy())[..., 0]


def _slope(seen: np.ndarray, wanted: np.ndarray) -> float:
    centred = wanted - wanted.mean()
    return float((seen * centred).sum() / np.square(centred).sum())


def judge_output(
    latents: Tensor, images: Tensor, *, family: str | Family, autoencoder: Autoencoder | None = None
) -> Verdict:
    """Judge whether images lost contrast or content of their latents because of the VAE.

    Images that were not decoded by a VAE (smaller previews) have no findings.

    Args:
        latents: [B,C,h,w] in model space.
        images: [B,3,H,W], about 0..1, preferably not clamped, so that NaN shows.
        family: of the latents.
        autoencoder: the VAE that decoded them. If given, the chart decides; else only certain faults are reported.

    Returns:
        The findings about all images; ``healthy`` if there are none.

    Raises:
        FamilyMismatch: the latents are not of this family.
    """
    known = get_family(family)
    if latents.shape[1] != known.latent_channels:
        raise FamilyMismatch(
            f"{known.title} latents have {known.latent_channels} channels, these have {latents.shape[1]}"
        )
    if images.shape[2] < _BLOCK * latents.shape[2]:
        return Verdict()
    seen = glance(latents, images, known)
    findings = [finding for one in seen if (finding := _obvious(one))]
    if autoencoder is not None:
        findings += _blamed(_checkup_of(autoencoder, known))
    if not findings and any(one.pale for one in seen):
        findings += _pale(seen, latents, images, autoencoder)
    return Verdict.of(dict.fromkeys(findings))


def _blamed(checkup: Checkup) -> list[Finding]:
    """The findings about a VAE that explain a bad image: a broken decoder, or a pale one with a broken encoder."""
    faults = checkup.verdict.faults
    broken = [finding for finding in faults if finding.severity == BROKEN]
    decoder = [finding for finding in broken if finding.code != "encoder-broken"]
    pale = [replace(finding, severity=BROKEN) for finding in faults if finding.code == "grey" and broken]
    return decoder or pale


def _make_checkup_of() -> Callable[[Autoencoder, Family], Checkup]:
    cache: weakref.WeakKeyDictionary[nn.Module, tuple[str, Checkup]] = weakref.WeakKeyDictionary()

    def find(autoencoder: Autoencoder, family: Family) -> Checkup:
        """The VAE's checkup in this family, cached while the weights stay the same."""
        module = autoencoder.module
        key = f"{family.id}:{autoencoder.dtype}:{memory_digest(module.state_dict())}"
        cached = cache.get(module)
        if cached is None or cached[0] != key:
            cached = cache[module] = (key, check_weights(autoencoder, family))
        return cached[1]

    return find


_checkup_of = _make_checkup_of()


def _obvious(seen: Glance) -> Finding | None:
    """A finding about an image that is obviously wrong."""
    fault = seen.fault
    if not fault:
        return None
    if fault == "nan":
        evidence = (Evidence("NaN or infinite values", 100.0 * (1.0 - seen.finite), "%", "0 %"),)
        return Finding("nan", BROKEN, "The VAE produced NaN values.", evidence, _REMEDY)
    evidence = (
        Evidence("lightness spread", seen.spread, "L*", f"{seen.expected_spread:.1f} expected from the latent"),
        Evidence("lightness", seen.level, "L*"),
    )
    text = (
        "The image is black, but its latent is not."
        if fault == "black"
        else "The image is flat, but its latent is not."
    )
    return Finding(fault, BROKEN, text, evidence, _REMEDY)


def _pale(seen: Sequence[Glance], latents: Tensor, images: Tensor, autoencoder: Autoencoder | None) -> list[Finding]:
    """Findings about images paler than their latents, without findings about the VAE: only certain ones."""
    if autoencoder is None:
        certain = [one for one in seen if one.beyond_doubt]
        text = "The image is much paler than its latent predicts."
    else:
        # The VAE is healthy, so something other than its current weights made these images pale.
        pale = [i for i, one in enumerate(seen) if one.pale]
        again = confirmed(images[pale], autoencoder.decode_unclamped(latents[pale]))
        certain = [seen[i] for i, lost in zip(pale, again, strict=True) if lost]
        text = "The image is much paler than this VAE decodes its latent."
    return [
        Finding(
            "grey",
            BROKEN,
            text,
            (Evidence("contrast retained", one.gain or 0.0, "", "1 expected from the latent"),),
            _REMEDY,
        )
        for one in certain[:1]
    ]
