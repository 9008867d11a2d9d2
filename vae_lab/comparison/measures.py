"""What VAEs do to images, in numbers: contrast, saturation, sharpness, clipping, and differences to a reference.

All of it is measured on 8-bit pixels, as they are saved. Lightness and colour are CIELAB (D65).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from vae_lab.comparison.compare import Comparison, Decoded

__all__ = ["EXPLANATIONS", "MOST_IMAGES", "Explanation", "Measured", "Measures", "measure", "measure_comparison"]

log = logging.getLogger("vae_lab")

MOST_IMAGES = 4
"""Of a larger batch the first few are measured: the numbers shall not take longer than the decodes."""

_COMPARED_PIXELS = 512 * 512  # of a larger image, CIEDE2000 takes every second, third … pixel each way
_SSIM_SIDE = 11  # of the Gaussian window: smaller images have no SSIM
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # Rec. 601, as SSIM is defined on

# What skimage and numpy raise: out of memory, or two of their versions that do not fit together.
_FAILURES = (ArithmeticError, AttributeError, ImportError, MemoryError, OSError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Explanation:
    """How a number is shown.

    Attributes:
        title: a word or two.
        unit: "" for a ratio.
        digits: after the point.
        text: one sentence for people.
        compares: whether it needs a reference.
    """

    title: str
    unit: str
    digits: int
    text: str
    compares: bool = False


EXPLANATIONS: Mapping[str, Explanation] = {
    "seconds": Explanation("Time", "s", 2, "Decoding time, without loading the VAE."),
    "contrast": Explanation(
        "Contrast", "L*", 1, "Standard deviation of lightness. Low for a VAE that makes images grey."
    ),
    "saturation": Explanation("Saturation", "C*", 1, "Mean colourfulness; 0 is black and white."),
    "sharpness": Explanation(
        "Sharpness", "L*", 2, "Strength of the finest detail, one or two pixels wide. Noise counts as detail too."
    ),
    "delta_e": Explanation(
        "ΔE mean", "", 2, "Mean colour difference (CIEDE2000) to {reference}. Below 1 it is hardly visible.",
        compares=True,
    ),
    "delta_e_95": Explanation(
        "ΔE 95 %", "", 2, "95 % of the pixels differ from {reference} by this much or less (CIEDE2000).", compares=True
    ),
    "ssim": Explanation("SSIM", "", 3, "Structural similarity to {reference}; 1 is identical.", compares=True),
    "psnr": Explanation(
        "PSNR", "dB", 1, "Peak signal-to-noise ratio to {reference}; higher is closer. “equal”: no pixel differs.",
        compares=True,
    ),
    "clipped_blacks": Explanation(
        "Clipped blacks", "%", 2, "Share of pure black pixels (0, 0, 0), where shadow detail is lost."
    ),
    "clipped_whites": Explanation(
        "Clipped whites", "%", 2, "Share of pure white pixels (255, 255, 255), where highlight detail is lost."
    ),
}  # fmt: skip
"""For each number of :class:`Measures`; ``{reference}`` stands for the name of what is compared with."""


@dataclass(frozen=True)
class Measures:
    """The images of one VAE in numbers, mean over the batch, but for ``seconds``, ``delta_e_95`` and ``psnr``.

    Attributes:
        seconds: time for decoding alone, of the whole batch.
        contrast: standard deviation of L*.
        saturation: mean C*.
        sharpness: root mean square of the highest octave of L*, that is of L* less its 1-2-1 blur. It is not divided
            by the contrast: all VAEs decode the same latent, so the contents are the same already, and an image that
            turns grey would pass for a sharp one.
        clipped_blacks, clipped_whites: % of pixels with 0, or 255, in all three channels. One channel at its limit is
            usual in a saturated colour and loses nothing; all three mean that nothing is left to bring back.
        delta_e, delta_e_95: CIEDE2000 to the reference, mean and 95th percentile over the pixels. Of an image larger
            than 512 x 512, over every second (third, …) pixel each way.
        ssim: structural similarity of luma to the reference, with the Gaussian window of Wang et al. (2004).
        psnr: to the reference, in dB, of RGB; infinite if equal.
        equal: every pixel equals the reference's.

    What compares is None without a reference; ``ssim`` also of images below 11 px.
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
        """Plain values to four decimals. JSON has no infinity: ``psnr`` of equal images is None."""
        plain = {key: round(v, 4) if isinstance(v, float) else v for key, v in asdict(self).items()}
        return {**plain, "psnr": None if self.equal else plain["psnr"]}


@dataclass(frozen=True)
class Measured:
    """A comparison in numbers.

    Attributes:
        reference: name of the VAE that the others are compared with; "" if nothing was decoded.
        of: name -> numbers, of each VAE that has images.
        problem: why some or all are missing, or "".
    """

    reference: str = ""
    of: Mapping[str, Measures] = field(default_factory=dict)
    problem: str = ""


def measure_comparison(comparison: Comparison) -> Measured:
    """Measure all images. The reference is the first VAE that has any: the built-in one, if it decoded.

    Never raises for what goes wrong in measuring: numbers shall not cost anyone the images.
    """
    decoded = comparison.decoded
    if not decoded:
        return Measured()
    found: dict[str, Measures] = {}
    problem = ""
    try:
        reference = _seen(_images(decoded[0]))
        for result in decoded:
            seen = reference if result is decoded[0] else _seen(_images(result))
            found[result.name] = _measure(seen, reference, result.seconds)
    except _FAILURES as error:
        log.exception("VAE Lab, measuring images")
        problem = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    return Measured(decoded[0].name, found, problem)


def measure(images: np.ndarray, reference: np.ndarray | None = None, *, seconds: float = 0.0) -> Measures:
    """Measure images.

    Args:
        images: uint8 [B,H,W,3].
        reference: uint8 [B,H,W,3] to compare with.
        seconds: that decoding took.

    Raises:
        ValueError: the shapes differ.
    """
    seen = _seen(images)
    return _measure(seen, _seen(reference) if reference is not None else None, seconds)


@dataclass(frozen=True)
class _Seen:
    """One image: uint8 [H,W,3], CIELAB [H,W,3], luma 0..255 [H,W]."""

    pixels: np.ndarray
    lab: np.ndarray
    luma: np.ndarray


def _images(result: Decoded) -> np.ndarray:
    assert result.images is not None
    return result.images[:MOST_IMAGES]


def _seen(images: np.ndarray) -> list[_Seen]:
    from skimage.color import rgb2lab  # takes a moment to import, which only those who measure shall wait for

    # Single precision: a fifth of the time, and the same to three digits.
    return [_Seen(p, rgb2lab(p.astype(np.float32) / 255), p.astype(np.float32) @ _LUMA) for p in images]


def _measure(images: Sequence[_Seen], reference: Sequence[_Seen] | None, seconds: float) -> Measures:
    own = np.mean([_of_one(image) for image in images], axis=0).tolist()
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


def _of_one(image: _Seen) -> tuple[float, ...]:
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
    """[H,W] by the 1-2-1 kernel both ways; what is left of the difference is the highest octave."""
    wide = np.pad(values, 1, mode="edge")
    rows = (wide[:-2] + 2 * wide[1:-1] + wide[2:]) / 4
    return (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4


def _delta_e(a: _Seen, b: _Seen) -> np.ndarray:
    from skimage.color import deltaE_ciede2000

    _check_shapes(a, b)
    step = max(1, math.ceil(math.sqrt(a.luma.size / _COMPARED_PIXELS)))
    return deltaE_ciede2000(a.lab[::step, ::step], b.lab[::step, ::step]).ravel()


def _ssim(a: _Seen, b: _Seen) -> float | None:
    from skimage.metrics import structural_similarity

    if min(a.luma.shape) < _SSIM_SIDE:
        return None
    # One number, unless it is asked for a map as well; its annotations do not say so.
    mean: Any = structural_similarity(
        a.luma, b.luma, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    return float(mean)


def _squared_error(a: _Seen, b: _Seen) -> float:
    return float(np.square(a.pixels.astype(np.float32) - b.pixels.astype(np.float32)).mean())


def _check_shapes(a: _Seen, b: _Seen) -> None:
    if a.pixels.shape != b.pixels.shape:
        raise ValueError(f"images of {a.pixels.shape} cannot be compared with {b.pixels.shape}")
