"""Converts decoded images to 8-bit pixels and PNG."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from vae_lab.text import as_text

__all__ = ["png_bytes", "to_pixels"]


def to_pixels(images: Tensor) -> np.ndarray:
    """[B,3,H,W] in 0..1 -> uint8 [B,H,W,3].

    Truncates as the WebUI does (``modules/processing.py``: ``x_sample.astype(np.uint8)``), so that a compared image
    equals the generated one. NaN becomes black, as there.
    """
    values = np.nan_to_num(images.detach().float().cpu().numpy(), nan=0.0, posinf=1.0, neginf=0.0).clip(0.0, 1.0)
    return np.moveaxis(255.0 * values, 1, 3).astype(np.uint8)


def png_bytes(image: np.ndarray, infotext: str = "") -> bytes:
    """uint8 [H,W,3] -> PNG. Compresses lightly, because latency matters more than size on localhost.

    Args:
        image: the pixels.
        infotext: generation parameters, written as the WebUI writes them; "" for none.
    """
    text = PngInfo()
    if infotext:
        text.add_text("parameters", as_text(infotext))
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG", compress_level=1, pnginfo=text)
    return buffer.getvalue()
