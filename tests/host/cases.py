"""The kinds of generation that every guarantee must hold for."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin


def _photo() -> Image.Image:
    """A smooth coloured image to start from, 128 px."""
    y, x = np.mgrid[0:128, 0:128] / 127.0
    return Image.fromarray((np.stack([x, y, 1 - x * y], axis=2) * 255).astype(np.uint8))


def _mask() -> Image.Image:
    mask = np.zeros((128, 128), np.uint8)
    mask[32:96, 32:96] = 255
    return Image.fromarray(mask)


def _hires(upscaler: str) -> dict[str, Any]:
    options = {"enable_hr": True, "hr_scale": 1.5, "hr_second_pass_steps": 2, "denoising_strength": 0.5}
    return options | {"hr_upscaler": upscaler}


CASES: dict[str, dict[str, Any]] = {
    "txt2img": {},
    "img2img": {"img2img": True, "init_images": [_photo()], "denoising_strength": 0.5},
    "inpaint": {"img2img": True, "init_images": [_photo()], "mask": _mask(), "denoising_strength": 0.6, "mask_blur": 4},
    "only-masked": {
        "img2img": True,
        "init_images": [_photo()],
        "mask": _mask(),
        "denoising_strength": 0.6,
        "inpaint_full_res": True,
        "inpaint_full_res_padding": 16,
    },
    "hires-latent": _hires("Latent"),
    "hires-pixel": _hires("Lanczos"),
    "batch-2x2": {"batch_size": 2, "n_iter": 2},
    "tiling": {"tiling": True},
    "nested": {"prompt": "nested"},
    "face-restoration": {"restore_faces": True},
}

# Scripts of the WebUI's own, chosen in its "Script" menu: title, arguments by the label of their component.
SCRIPTS: dict[str, tuple[str, bool, dict[str, Any]]] = {
    "xyz": (
        "X/Y/Z plot",
        False,
        {"X type": "Seed", "X values": "1,2", "Y type": "VAE", "Y values": ["None", "first.safetensors"]},
    ),
    "loopback": ("Loopback", True, {"Loops": 2}),
}


def fresh(case: str) -> dict[str, Any]:
    """Options of ``case``, with their own lists: the host changes them."""
    return {key: list(value) if isinstance(value, list) else value for key, value in CASES[case].items()}


def png(image: Image.Image) -> bytes:
    """The file that the host would save: pixels and infotext."""
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", image.info.get("parameters", ""))
    file = io.BytesIO()
    image.save(file, "PNG", pnginfo=info)
    return file.getvalue()
