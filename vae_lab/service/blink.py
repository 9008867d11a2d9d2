"""A comparison as an animated image that shows the VAEs one after the other, with their names."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Literal

import numpy as np
from PIL import Image

from vae_lab.comparison import Decoded
from vae_lab.comparison.sheet import with_names
from vae_lab.errors import UnknownChoice, VaeLabError
from vae_lab.host.choices import BUILT_IN
from vae_lab.service.comparisons import StoredComparison
from vae_lab.text import as_text

__all__ = ["BLINKS", "MAX_FRAMES", "MAX_RATE", "MIN_RATE", "Blink", "blink", "can_blink"]

Blink = Literal["webp", "gif"]

BLINKS: dict[Blink, str] = {"webp": "image/webp", "gif": "image/gif"}
"""Kinds of animated images, and their media types."""

MIN_RATE, MAX_RATE = 0.5, 4.0
"""Changes per second, as in the light table; more than three flashes per second may harm."""

MAX_FRAMES = 24

_LONGEST_SIDE = 1024  # so that all frames together take less than 100 MB
_MAX_LOSSLESS = 4_000_000  # pixels of all frames: about 6 MB of WebP
_QUALITY = 95


def can_blink(stored: StoredComparison) -> bool:
    """Whether an animation of all VAEs can be made."""
    return 2 <= len(stored.comparison.decoded) <= MAX_FRAMES


def blink(
    stored: StoredComparison, kind: Blink = "webp", *, vaes: Sequence[str] = (), image: int = 0, rate: float = 1.0
) -> bytes:
    """An endless animation. Images whose longer side exceeds 1024 pixels are downscaled.

    Up to 4 megapixels in total, WebP is lossless; beyond that, of quality 95. GIF has 256 colours per image, so it
    hides small differences. Neither has generation parameters.

    Args:
        stored: the comparison.
        kind: of file.
        vaes: names of the VAEs to show, in this order; by default all that have images.
        image: which latent of the batch, from 0.
        rate: changes per second, 0.5 to 4.

    Raises:
        UnknownChoice: a VAE has no image in this comparison, or the batch has no such latent.
        VaeLabError: fewer than 2 VAEs or more than 24, or another rate.
    """
    shown = _chosen(stored, vaes)
    if len(shown) < 2:
        raise VaeLabError("an animation needs the images of at least two VAEs")
    if len(shown) > MAX_FRAMES:
        raise VaeLabError(f"{len(shown)} VAEs are too many for an animation (limit: {MAX_FRAMES}); name fewer of them")
    if not MIN_RATE <= rate <= MAX_RATE:
        raise VaeLabError(f"the rate is {rate:g} per second; it must be from {MIN_RATE:g} to {MAX_RATE:g}")
    images = [_fitting(_image(result, image)) for result in shown]
    return _encoded(with_names(images, [_name(stored, result) for result in shown]), kind, round(1000 / rate))


def _chosen(stored: StoredComparison, vaes: Sequence[str]) -> list[Decoded]:
    decoded = {result.name: result for result in stored.comparison.decoded}
    missing = next((name for name in vaes if name not in decoded), None)
    if missing is not None:
        raise UnknownChoice(f"this comparison has no image of {missing}")
    return [decoded[name] for name in dict.fromkeys(vaes)] if vaes else list(decoded.values())


def _image(result: Decoded, number: int) -> np.ndarray:
    assert result.images is not None
    if not 0 <= number < len(result.images):
        raise UnknownChoice(f"this comparison has no image {number}; its batch has {len(result.images)}")
    return result.images[number]


def _fitting(pixels: np.ndarray) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    scale = _LONGEST_SIDE / max(image.size)
    if scale >= 1:
        return image
    width, height = image.size
    return image.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.LANCZOS)


def _name(stored: StoredComparison, result: Decoded) -> str:
    own = f"{BUILT_IN} of {stored.checkpoint}" if result.name == BUILT_IN and stored.checkpoint else result.name
    return as_text(own)


def _encoded(frames: Sequence[Image.Image], kind: Blink, milliseconds: int) -> bytes:
    buffer, first = io.BytesIO(), frames[0]
    common = {"save_all": True, "append_images": list(frames[1:]), "duration": milliseconds, "loop": 0}
    if kind == "gif":
        first.save(buffer, "GIF", **common)
    else:
        lossless = len(frames) * first.width * first.height <= _MAX_LOSSLESS
        quality = 20 if lossless else _QUALITY  # of a lossless image, the effort
        # Only key frames: else traces of the image before stay in a lossy one.
        first.save(
            buffer, "WEBP", lossless=lossless, quality=quality, method=2, kmin=0, kmax=1, allow_mixed=False, **common
        )
    return buffer.getvalue()
