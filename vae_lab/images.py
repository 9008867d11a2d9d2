"""Reads untrusted image files and resizes images for a VAE."""

from __future__ import annotations

import io
import os
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from vae_lab.errors import MalformedFile, UnreadableFile

__all__ = [
    "LONGEST_SIDE",
    "MAX_INFOTEXT_LENGTH",
    "LoadedImage",
    "Prepared",
    "check_image",
    "flattened",
    "infotext_of",
    "prepared",
    "read_image",
]

LONGEST_SIDE = 1024
"""In pixels; by default, larger images are downscaled to this."""

MAX_INFOTEXT_LENGTH = 2**16
"""In characters. No real prompt is that long, but untrusted text can be longer."""

_NAMELESS = "the image"
_MULTIPLE = 8  # image pixels per latent pixel, in every family
_MAX_BYTES = 64 * 2**20
_MAX_PIXELS = 64_000_000  # Pillow itself warns above 89 million and refuses 179 million
# Common formats only: Pillow's other readers start external programs or are rarely tested.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
# What Pillow raises for malformed files, depending on format and version.
_BAD_BYTES = (
    OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, OverflowError, AttributeError,
    MemoryError, struct.error, zlib.error,
)  # fmt: skip


@dataclass(frozen=True)
class LoadedImage:
    """An upright RGB image and its metadata.

    Attributes:
        image: RGB, upright.
        name: name of its file, or "".
        infotext: generation parameters from the file, or "".
    """

    image: Image.Image
    name: str = ""
    infotext: str = ""


@dataclass(frozen=True)
class Prepared:
    """An image that a VAE can encode.

    Attributes:
        image: [1,3,H,W] in 0..1; H and W are multiples of 8.
        remarks: the changes made to it, a phrase each.
    """

    image: Tensor
    remarks: tuple[str, ...] = ()


def read_image(source: str | os.PathLike[str] | bytes, name: str = "") -> LoadedImage:
    """Read PNG, JPEG, WebP, BMP, GIF (first frame) or TIFF. Applies EXIF rotation; transparency becomes white.

    Args:
        source: a file, or its bytes.
        name: for messages; by default, the file's name.

    Raises:
        UnreadableFile: it does not exist, or is not an image of these formats.
        MalformedFile: it exceeds a limit.
    """
    shown = name or (Path(os.fsdecode(source)).name if not isinstance(source, bytes) else _NAMELESS)
    with _opened(source, shown) as opened:
        opened.load()
        infotext = infotext_of(opened) if opened.format == "PNG" else ""
        image = flattened(ImageOps.exif_transpose(opened))
    return LoadedImage(image, shown if name or not isinstance(source, bytes) else "", infotext)


def check_image(source: str | os.PathLike[str] | bytes) -> None:
    """Raise what :func:`read_image` raises for the format and the size of an image, without decoding it."""
    with _opened(source, _NAMELESS):
        pass


@contextmanager
def _opened(source: str | os.PathLike[str] | bytes, shown: str) -> Iterator[Image.Image]:
    """An image of accepted format and size, not decoded yet; Pillow's errors, also in the block, become ours."""
    data = source if isinstance(source, bytes) else _read(source, shown)
    if len(data) > _MAX_BYTES:
        raise MalformedFile(
            shown, f"images are limited to {_MAX_BYTES // 2**20} MB, this one has {len(data) // 2**20} MB"
        )
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
            _check_size(opened, shown)
            yield opened
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise MalformedFile(shown, f"the image is too large: {error}") from error
    except _BAD_BYTES as error:
        raise UnreadableFile(shown, "not a readable PNG, JPEG, WebP, BMP, GIF or TIFF image") from error


def _read(path: str | os.PathLike[str], shown: str) -> bytes:
    """The contents of a file, or as much of them as shows that it is too large."""
    try:
        with open(path, "rb") as file:
            return file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise UnreadableFile(shown, error.strerror or "cannot be read") from error


def _check_size(image: Image.Image, shown: str) -> None:
    width, height = image.size
    if width * height > _MAX_PIXELS:
        raise MalformedFile(
            shown, f"the image has {width} x {height} pixels; the limit is {_MAX_PIXELS // 10**6} million"
        )


def infotext_of(image: Image.Image) -> str:
    """Generation parameters in the text of a PNG, without control characters, except newlines; or ""."""
    infotext = image.info.get("parameters")
    if not isinstance(infotext, str):
        return ""
    return re.sub(r"[^\S\n]|[\x00-\x09\x0b-\x1f\x7f]", " ", infotext[:MAX_INFOTEXT_LENGTH]).strip()


def flattened(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB, with white behind transparent pixels."""
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip at 255
        grey = np.asarray(image).astype(np.float64) / 257.0
        image = Image.fromarray(grey.clip(0, 255).round().astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        above = image.convert("RGBA")
        white = Image.new("RGBA", above.size, (255, 255, 255, 255))  # type: ignore[arg-type]  # Pillow 9.5 says int
        image = Image.alpha_composite(white, above)
    return image.convert("RGB")


def prepared(image: Image.Image, longest: int = LONGEST_SIDE) -> Prepared:
    """Downscale an image if a side is longer than ``longest`` pixels, and crop it to multiples of 8.

    Raises:
        MalformedFile: a side is shorter than 8 pixels.
    """
    image, remarks = flattened(image), []
    width, height = image.size
    scale = longest / max(width, height)
    if scale < 1:
        small = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = image.resize(small, Image.Resampling.LANCZOS)
        remarks.append(f"downscaled from {width} x {height} to {small[0]} x {small[1]}")
        width, height = small
    right, down = width % _MULTIPLE, height % _MULTIPLE
    if min(width, height) < _MULTIPLE:
        raise MalformedFile(
            "the image", f"{width} x {height} pixels are too few: a VAE needs {_MULTIPLE} x {_MULTIPLE}"
        )
    if right or down:
        left, top = right // 2, down // 2
        image = image.crop((left, top, left + width - right, top + height - down))
        remarks.append(f"cropped to {width - right} x {height - down}, multiples of {_MULTIPLE}")
    pixels = torch.from_numpy(np.array(image, dtype=np.uint8))
    return Prepared(pixels.permute(2, 0, 1)[None].float() / 255.0, tuple(remarks))
