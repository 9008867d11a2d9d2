"""Measures decoded images: contrast, saturation, sharpness, clipping, and the difference from a reference.

All measures use 8-bit pixels, as saved. Lightness and colour are CIELAB (D65).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from vae_lab.comparison.compare import Comparison, Decoded

__all__ = ["EXPLANATIONS", "MAX_IMAGES", "Explanation", "Measured", "Measures", "measure", "measure_comparison"]

log = logging.getLogger("vae_lab")

MAX_IMAGES = 4
"""Of a larger batch, only the first images are measured, so that measuring is faster than decoding."""

_MAX_DELTA_E_PIXELS = 512 * 512  # of a larger image, CIEDE2000 uses every second (third, …) row and column
_SSIM_WINDOW = 11  # side of the Gaussian window; smaller images have no SSIM
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # Rec. 601, as in the definition of SSIM

# What skimage and numpy raise when memory runs out or their versions are incompatible.
_FAILURES = (ArithmeticError, AttributeError, ImportError, MemoryError, OSError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Explanation:
    """How a measure is shown.

    Attributes:
        title: column heading.
        unit: "" for a ratio.
        digits: decimal places.
        text: a sentence that explains it.
        compares: whether it needs a reference.
        better: which end is better, if either is; of those that compare, which is closer to the reference.
    """

    title: str
    unit: str
    digits: int
    text: str
    compares: bool = False
    better: Literal["", "higher", "lower"] = ""


EXPLANATIONS: Mapping[str, Explanation] = {
    "seconds": Explanation("Time", "s", 2, "Decoding time, without loading the VAE.", better="lower"),
    "contrast": Explanation("Contrast", "L*", 1, "Standard deviation of lightness. A grey VAE has low contrast."),
    "saturation": Explanation("Saturation", "C*", 1, "Mean chroma; 0 is black and white."),
    "sharpness": Explanation(
        "Sharpness", "L*", 2, "Strength of the finest detail, one or two pixels wide. Noise counts as detail."
    ),
    "delta_e": Explanation(
        "ΔE mean", "", 2, "Mean colour difference (CIEDE2000) from {reference}. Below 1 is hardly visible.",
        compares=True, better="lower",
    ),
    "delta_e_95": Explanation(
        "ΔE 95 %", "", 2, "95th percentile of the colour difference (CIEDE2000) from {reference}.",
        compares=True, better="lower",
    ),
    "ssim": Explanation(
        "SSIM", "", 3, "Structural similarity to {reference}; 1 is identical.", compares=True, better="higher"
    ),
    "psnr": Explanation(
        "PSNR", "dB", 1, "Peak signal-to-noise ratio against {reference}; higher is closer. Equal: no pixel differs.",
        compares=True, better="higher",
    ),
    "clipped_blacks": Explanation("Clipped blacks", "%", 2, "Pure black pixels (0, 0, 0): lost shadow detail."),
    "clipped_whites": Explanation(
        "Clipped whites", "%", 2, "Pure white pixels (255, 255, 255): lost highlight detail."
    ),
}  # fmt: skip
"""By attribute of :class:`Measures`; ``{reference}`` is replaced by the name of the reference."""


@dataclass(frozen=True)
class Measures:
    """The measures of one VAE's images: the mean over the batch, except ``seconds``, ``delta_e_95`` and ``psnr``.

    Attributes:
        seconds: decoding time of the whole batch.
        contrast: standard deviation of L*.
        saturation: mean C*.
        sharpness: root mean square of the highest octave of L*, i.e. of L* minus its 1-2-1 blur. Not divided by the
            contrast: all VAEs decode the same latent, so the content is the same, and a grey image would seem sharp.
        clipped_blacks, clipped_whites: % of pixels with 0 (or 255) in all three channels. One channel at its limit is
            normal in a saturated colour; with all three, the detail is lost.
        delta_e, delta_e_95: CIEDE2000 against the reference, mean and 95th percentile over the pixels; of an image
            larger than 512 x 512, over every second (third, …) row and column.
        ssim: structural similarity of luma to the reference, with the Gaussian window of Wang et al. (2004).
        psnr: against the reference, in dB, of RGB; infinite if equal.
        equal: whether every pixel equals the reference's.

    The last five need a reference; ``ssim`` is also None for images below 11 px.
    """

    seconds: float
    contrast: float
    saturation: float
    sharpness: float
    clipped_blacks: float
    clipped_whites: float
    delta_e: float | None = None
    delta_e_95: float | None = None
    ssim: float | None = None
    psnr: float | None = None
    equal: bool = False

    def to_json(self) -> dict[str, Any]:
        """The values, rounded to four decimals. JSON has no infinity, so ``psnr`` of equal images is None."""
        plain = {key: round(v, 4) if isinstance(v, float) else v for key, v in asdict(self).items()}
        return {**plain, "psnr": None if self.equal else plain["psnr"]}


@dataclass(frozen=True)
class Measured:
    """The measures of a comparison.

    Attributes:
        reference: name of the VAE that the others are compared with; "" if there are no images.
        of: measures by name, for each VAE with images.
        problem: why some or all are missing, or "".
    """

    reference: str = ""
    of: Mapping[str, Measures] = field(default_factory=dict)
    problem: str = ""


def measure_comparison(comparison: Comparison, reference: str = "") -> Measured:
    """Measure all images.

    Never raises: a failed measurement must not lose the images.

    Args:
        comparison: with the images.
        reference: name of the VAE that the others are compared with; without one, or if it has no images, the first
            VAE with images: the built-in one, unless it failed.
    """
    decoded = comparison.decoded
    if not decoded:
        return Measured()
    base = next((result for result in decoded if result.name == reference), decoded[0])
    measures: dict[str, Measures] = {}
    problem = ""
    try:
        compared = _load(_images(base))
        for result in decoded:
            loaded = compared if result is base else _load(_images(result))
            measures[result.name] = _measure(loaded, compared, result.seconds)
    except _FAILURES as error:
        log.exception("VAE Lab: measuring images failed")
        problem = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    return Measured(base.name, measures, problem)


def measure(images: np.ndarray, reference: np.ndarray | None = None, *, seconds: float = 0.0) -> Measures:
    """Measure images.

    Args:
        images: uint8 [B,H,W,3].
        reference: uint8 [B,H,W,3] to compare with.
        seconds: decoding time.

    Raises:
        ValueError: the shapes differ.
    """
    loaded = _load(images)
    return _measure(loaded, _load(reference) if reference is not None else None, seconds)


@dataclass(frozen=True)
class _Image:
    """One image: uint8 [H,W,3], CIELAB [H,W,3], luma 0..255 [H,W]."""

    pixels: np.ndarray
    lab: np.ndarray
    luma: np.ndarray


def _images(result: Decoded) -> np.ndarray:
    assert result.images is not None
    return result.images[:MAX_IMAGES]


def _load(images: np.ndarray) -> list[_Image]:
    from skimage.color import rgb2lab  # slow to import

    # Single precision takes a fifth of the time, and agrees to three digits.
    return [_Image(p, rgb2lab(p.astype(np.float32) / 255), p.astype(np.float32) @ _LUMA) for p in images]


def _measure(images: Sequence[_Image], reference: Sequence[_Image] | None, seconds: float) -> Measures:
    own = np.mean([_measure_one(image) for image in images], axis=0).tolist()
    if reference is None:
        return Measures(seconds, *own)
    delta_e = np.concatenate([_delta_e(a, b) for a, b in zip(images, reference, strict=True)])
    likeness = [_ssim(a, b) for a, b in zip(images, reference, strict=True)]
    error = float(np.mean([_squared_error(a, b) for a, b in zip(images, reference, strict=True)]))
    return Measures(
        seconds,
        *own,
        delta_e=float(delta_e.mean()),
        delta_e_95=float(np.percentile(delta_e, 95)),
        ssim=None if None in likeness else float(np.mean([value for value in likeness if value is not None])),
        psnr=math.inf if error == 0 else 10 * math.log10(255**2 / error),
        equal=error == 0,
    )


def _measure_one(image: _Image) -> tuple[float, ...]:
    """Contrast, saturation, sharpness, clipped blacks and whites."""
    lightness = image.lab[..., 0]
    detail = lightness - _blurred(lightness)
    darkest, brightest = image.pixels.max(axis=2), image.pixels.min(axis=2)
    return (
        float(lightness.std()),
        float(np.hypot(image.lab[..., 1], image.lab[..., 2]).mean()),
        float(np.sqrt(np.square(detail).mean())),
        100 * float((darkest == 0).mean()),
        100 * float((brightest == 255).mean()),
    )


def _blurred(values: np.ndarray) -> np.ndarray:
    """[H,W] blurred with the 1-2-1 kernel in both directions."""
    wide = np.pad(values, 1, mode="edge")
    rows = (wide[:-2] + 2 * wide[1:-1] + wide[2:]) / 4
    return (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4


def _delta_e(a: _Image, b: _Image) -> np.ndarray:
    from skimage.color import deltaE_ciede2000

    _check_shapes(a, b)
    step = max(1, math.ceil(math.sqrt(a.luma.size / _MAX_DELTA_E_PIXELS)))
    return deltaE_ciede2000(a.lab[::step, ::step], b.lab[::step, ::step]).ravel()


def _ssim(a: _Image, b: _Image) -> float | None:
    from skimage.metrics import structural_similarity

    if min(a.luma.shape) < _SSIM_WINDOW:
        return None
    # A float, unless a map is requested too; its annotations do not say so.
    mean: Any = structural_similarity(
        a.luma, b.luma, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    return float(mean)


def _squared_error(a: _Image, b: _Image) -> float:
    return float(np.square(a.pixels.astype(np.float32) - b.pixels.astype(np.float32)).mean())


def _check_shapes(a: _Image, b: _Image) -> None:
    if a.pixels.shape != b.pixels.shape:
        raise ValueError(f"images of {a.pixels.shape} cannot be compared with {b.pixels.shape}")
