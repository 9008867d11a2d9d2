"""From 0..1 to the 8-bit pixels of an image."""

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

    Cuts off as the WebUI does (``modules/processing.py``: ``x_sample.astype(np.uint8)``), so that a compared
    image equals the generated one. NaN becomes black, as it does there.
    """
    values = np.nan_to_num(images.detach().float().cpu().numpy(), nan=0.0, posinf=1.0, neginf=0.0).clip(0.0, 1.0)
    return np.moveaxis(255.0 * values, 1, 3).astype(np.uint8)


def png_bytes(image: np.ndarray, infotext: str = "") -> bytes:
    """uint8 [H,W,3] -> PNG, lossless. Packed lightly: a browser next door would rather have it soon than small.

    Args:
        image: what to pack.
        infotext: generation parameters, written where the WebUI writes and finds them; "" writes none.
    """
    text = PngInfo()
    if infotext:
        text.add_text("parameters", as_text(infotext))
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG", compress_level=1, pnginfo=text)
    return buffer.getvalue()
