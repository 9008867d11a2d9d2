"""Decide whether an output is grey because of its VAE or because of its content.

An image alone proves nothing. It is compared with what its own latent predicts, by a small network that knows the
latent space (:mod:`vae_lab.latents.preview`). An image that is much paler than predicted is only suspected: the VAE's
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
from vae_lab.checkup.findings import BROKEN, Evidence, Finding, Verdict
from vae_lab.checkup.weights import Checkup, check_weights
from vae_lab.errors import FamilyMismatch
from vae_lab.identity import memory_digest
from vae_lab.latents.family import Family, get_family
from vae_lab.latents.preview import expected_image

__all__ = ["Glance", "confirmed", "glance", "judge_output"]

_BLOCK = 8  # image pixels to a latent pixel
_PALE = 0.62  # of the expected contrast; below, an image is suspected
_SURE = 0.42  # below, an image with enough to see is called grey without any proof against its VAE
_SURE_SPREAD = 5.0  # standard deviation of the expected L* that is enough for that
_FLAT_EXPECTED = 3.0  # standard deviation of L* below which contrast means nothing
_FLAT = 0.7  # standard deviation of L* of an image that shows nothing
_BLACK = 1.0  # mean L* of a black image
_MATTERS = 6.0  # standard deviation of L* from which on a flat or black result is a fault
_CONFIRMED = 0.70  # of the contrast that another VAE gives the same latent

_REMEDY = "Decode the latent with another VAE, and choose a healthy VAE for this checkpoint."


@dataclass(frozen=True)
class Glance:
    """One image beside its latent.

    Attributes:
        finite: share of the image's raw values that are neither NaN nor infinite.
        level: mean L* of the image.
        spread: standard deviation of its L*, at 1/8 of its size.
        expected_spread: the same of what the latent says; None for a family of which that is not known.
        kept: slope of the image's L* on the expected one: 1 is right, 0 is flat; None where too little is to be seen.
    """

    finite: float
    level: float
    spread: float
    expected_spread: float | None
    kept: float | None

    @property
    def fault(self) -> str:
        """``nan``, ``black`` or ``flat`` where the image shows for itself that it went wrong, else ""."""
        if self.finite < 1.0:
            return "nan"
        if self.expected_spread is None or self.expected_spread < _MATTERS or self.spread >= _FLAT:
            return ""
        return "black" if self.level < _BLACK else "flat"

    @property
    def pale(self) -> bool:
        """Whether contrast is missing, for whatever reason."""
        return self.kept is not None and self.kept < _PALE

    @property
    def beyond_doubt(self) -> bool:
        """Whether so much contrast is missing that no sound VAE can have made the image."""
        return self.pale and (self.expected_spread or 0.0) >= _SURE_SPREAD and (self.kept or 0.0) < _SURE


def glance(latents: Tensor, images: Tensor, family: Family) -> list[Glance]:
    """Look at images beside their latents; takes milliseconds.

    Args:
        latents: [B,C,h,w] in model space.
        images: [B,3,8h,8w], about 0..1, best not clamped, so that NaN can be told.
        family: of the latents.

    Raises:
        FamilyMismatch: the images are not as large as the latents say.
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
        kept=_slope(seen, wanted) if enough else None,
    )


def confirmed(images: Tensor, others: Tensor) -> list[bool]:
    """For each image, whether another decode of the same latent has clearly more contrast.

    Args:
        images: [B,3,H,W], about 0..1.
        others: the same latents, decoded otherwise.
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
    from skimage.color import rgb2lab  # takes a moment to import, and no generation may wait for it

    return rgb2lab(image[0].permute(1, 2, 0).double().numpy())[..., 0]


def _slope(seen: np.ndarray, wanted: np.ndarray) -> float:
    centred = wanted - wanted.mean()
    return float((seen * centred).sum() / np.square(centred).sum())


def judge_output(
    latents: Tensor, images: Tensor, *, family: str | Family, autoencoder: Autoencoder | None = None
) -> Verdict:
    """Tell whether images lost something that their latents had, and whether the VAE is to blame.

    Images that were not decoded by a VAE (smaller previews) give no finding.

    Args:
        latents: [B,C,h,w] in model space.
        images: [B,3,H,W], about 0..1; best not clamped, so that NaN can be told.
        family: of the latents.
        autoencoder: the VAE that decoded them. With it, the chart decides; without, only what is beyond doubt is told.

    Returns:
        The worst that was found in any of the images; ``healthy`` if nothing was.

    Raises:
        FamilyMismatch: the latents are not of this family.
    """
    known = get_family(family)
    if latents.shape[1] != known.latent_channels:
        raise FamilyMismatch(f"{known.title} latents have {known.latent_channels} channels, these {latents.shape[1]}")
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
    """What in a VAE's checkup explains a bad image: a broken decoder, or a pale one beside a broken encoder."""
    faults = checkup.verdict.faults
    broken = [finding for finding in faults if finding.severity == BROKEN]
    decoder = [finding for finding in broken if finding.code != "encoder-broken"]
    pale = [replace(finding, severity=BROKEN) for finding in faults if finding.code == "grey" and broken]
    return decoder or pale


def _make_checkup_of() -> Callable[[Autoencoder, Family], Checkup]:
    remembered: weakref.WeakKeyDictionary[nn.Module, tuple[str, Checkup]] = weakref.WeakKeyDictionary()

    def find(autoencoder: Autoencoder, family: Family) -> Checkup:
        """The VAE's checkup in that family, made once for as long as the weights stay the same."""
        module = autoencoder.module
        key = f"{family.id}:{autoencoder.dtype}:{memory_digest(module.state_dict())}"
        known = remembered.get(module)
        if known is None or known[0] != key:
            known = remembered[module] = (key, check_weights(autoencoder, family))
        return known[1]

    return find


_checkup_of = _make_checkup_of()


def _obvious(seen: Glance) -> Finding | None:
    """What an image shows for itself."""
    fault = seen.fault
    if not fault:
        return None
    if fault == "nan":
        evidence = (Evidence("NaN or infinite values", 100.0 * (1.0 - seen.finite), "%", "0 %"),)
        return Finding("nan", BROKEN, "The VAE produced NaN or infinite values.", evidence, _REMEDY)
    evidence = (
        Evidence("spread of lightness", seen.spread, "L*", f"{seen.expected_spread:.1f} in the latent"),
        Evidence("lightness", seen.level, "L*"),
    )
    text = (
        "The image is black, but its latent is not."
        if fault == "black"
        else "The image is a single flat colour, but its latent is not."
    )
    return Finding(fault, BROKEN, text, evidence, _REMEDY)


def _pale(seen: Sequence[Glance], latents: Tensor, images: Tensor, autoencoder: Autoencoder | None) -> list[Finding]:
    """Images paler than their latents, while nothing speaks against the VAE: told only where it is beyond doubt."""
    if autoencoder is None:
        told = [one for one in seen if one.beyond_doubt]
        text = "The image has much less contrast than its latent."
    else:
        # The VAE is sound; so whatever made these images so pale was not this VAE as it is now.
        pale = [i for i, one in enumerate(seen) if one.pale]
        again = confirmed(images[pale], autoencoder.decode_unclamped(latents[pale]))
        told = [seen[i] for i, lost in zip(pale, again, strict=True) if lost]
        text = "The image has much less contrast than this VAE's decode of its latent."
    return [
        Finding("grey", BROKEN, text, (Evidence("contrast retained", one.kept or 0.0, "", "1 in the latent"),), _REMEDY)
        for one in told[:1]
    ]
