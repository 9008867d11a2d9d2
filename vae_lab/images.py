"""Images from files of strangers, and how they are made fit for a VAE."""

from __future__ import annotations

import io
import os
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from vae_lab.errors import MalformedFile, UnreadableFile

__all__ = ["LONGEST_SIDE", "MOST_INFOTEXT", "LoadedImage", "Prepared", "flattened", "prepared", "read_image"]

LONGEST_SIDE = 1024
"""In pixels; larger images are resampled unless told otherwise."""

MOST_INFOTEXT = 2**16
"""Characters of generation parameters that are kept; no prompt is that long, and what a stranger wrote may be."""

_STEP = 8  # image pixels to a latent pixel, in every family
_MOST_BYTES = 64 * 2**20
_MOST_PIXELS = 64_000_000  # Pillow itself warns from 89 million on, and refuses 179
# Of what Pillow reads, that which people keep images in: others start helpers, or have readers that few look at.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
# What Pillow raises over bytes that are not what they say, by format and version.
_BAD_BYTES = (
    OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, OverflowError, AttributeError,
    MemoryError, struct.error, zlib.error,
)  # fmt: skip


@dataclass(frozen=True)
class LoadedImage:
    """An image as it is meant to be seen.

    Attributes:
        image: RGB, upright.
        name: of its file, or "".
        infotext: generation parameters that the file has with it, or "".
    """

    image: Image.Image
    name: str = ""
    infotext: str = ""


@dataclass(frozen=True)
class Prepared:
    """An image fit for a VAE.

    Attributes:
        image: [1,3,H,W] in 0..1; H and W are multiples of 8.
        remarks: what was done to it, a clause each.
    """

    image: Tensor
    remarks: tuple[str, ...] = ()


def read_image(source: str | os.PathLike[str] | bytes, name: str = "") -> LoadedImage:
    """Read PNG, JPEG, WebP, BMP, GIF (the first frame) or TIFF. Turned as its EXIF says, with white behind it.

    Args:
        source: a file, or what is in one.
        name: what to call it; by default the file's name.

    Raises:
        UnreadableFile: it is not there, or no such image.
        MalformedFile: it is larger than an image may be.
    """
    shown = name or (Path(os.fsdecode(source)).name if not isinstance(source, bytes) else "the image")
    data = source if isinstance(source, bytes) else _bytes_of(source, shown)
    if len(data) > _MOST_BYTES:
        raise MalformedFile(shown, f"an image may have {_MOST_BYTES // 2**20} MB, this has {len(data) // 2**20}")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
            _check_size(opened, shown)
            opened.load()
            infotext = opened.info.get("parameters") if opened.format == "PNG" else None
            image = flattened(ImageOps.exif_transpose(opened))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise MalformedFile(shown, f"the image is too large: {error}") from error
    except _BAD_BYTES as error:
        raise UnreadableFile(shown, "not a PNG, JPEG, WebP, BMP, GIF or TIFF image that can be read") from error
    return LoadedImage(image, shown if name or not isinstance(source, bytes) else "", _text(infotext))


def _bytes_of(path: str | os.PathLike[str], shown: str) -> bytes:
    """The file, or the part of it that shows that it is too large."""
    try:
        with open(path, "rb") as file:
            return file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UnreadableFile(shown, error.strerror or "cannot be read") from error


def _check_size(image: Image.Image, shown: str) -> None:
    width, height = image.size
    if width * height > _MOST_PIXELS:
        raise MalformedFile(
            shown, f"the image has {width} x {height} pixels; {_MOST_PIXELS // 10**6} million is the limit"
        )


def _text(infotext: object) -> str:
    """Of generation parameters what can be shown: newlines stay, other control characters go."""
    if not isinstance(infotext, str):
        return ""
    return re.sub(r"[^\S\n]|[\x00-\x09\x0b-\x1f\x7f]", " ", infotext[:MOST_INFOTEXT]).strip()


def flattened(image: Image.Image) -> Image.Image:
    """RGB of any mode; what is transparent lies over white."""
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off at 255
        grey = np.asarray(image).astype(np.float64) / 257.0
        image = Image.fromarray(grey.clip(0, 255).round().astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        above = image.convert("RGBA")
        white = Image.new("RGBA", above.size, (255, 255, 255, 255))  # type: ignore[arg-type]  # Pillow 9.5 says int
        image = Image.alpha_composite(white, above)
    return image.convert("RGB")


def prepared(image: Image.Image, longest: int = LONGEST_SIDE) -> Prepared:
    """Made smaller if a side is longer than ``longest`` pixels, and cut around the middle to multiples of 8.

    Raises:
        MalformedFile: fewer than 8 pixels are left of a side.
    """
    image, remarks = flattened(image), []
    width, height = image.size
    scale = longest / max(width, height)
    if scale < 1:
        small = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = image.resize(small, Image.Resampling.LANCZOS)
        remarks.append(f"resampled from {width} x {height} to {small[0]} x {small[1]}")
        width, height = small
    right, down = width % _STEP, height % _STEP
    if min(width, height) < _STEP:
        raise MalformedFile("the image", f"{width} x {height} pixels are too few: a VAE needs {_STEP} x {_STEP}")
    if right or down:
        left, top = right // 2, down // 2
        image = image.crop((left, top, left + width - right, top + height - down))
        remarks.append(f"cropped to {width - right} x {height - down}, multiples of {_STEP}")
    pixels = torch.from_numpy(np.array(image, dtype=np.uint8))
    return Prepared(pixels.permute(2, 0, 1)[None].float() / 255.0, tuple(remarks))
