"""Checkpoints of two families with a broken VAE or none, and VAEs that can be baked in, with the records of a scan."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.unit.fix_tree import GREY, MISSING, add
from tests.unit.makers import SD1_TEXT, SDXL_TEXT, UNET, prefixed
from vae_lab.library import FileCache
from vae_lab.samples import load_sample_vae

XL = UNET | SDXL_TEXT | {"model.diffusion_model.label_emb.0.0.weight": torch.zeros(4, 2816)}
USES = {"deep/grey.safetensors": "plain.safetensors", "xl.safetensors": "xl-vae.safetensors"}
"""What is to be baked in, by checkpoint; one of SD1 and one of SDXL."""
COPIES = {"deep/grey.safetensors": "deep/grey-plain.safetensors", "xl.safetensors": "xl-xl-vae.safetensors"}
"""The files that are to be written."""


def scanned(folder: Path) -> Path:
    """``folder/models`` like the WebUI's, after a scan whose results are in ``folder/data``."""
    models, cache = folder / "models", FileCache(folder / "data")
    checkpoints, vaes = models / "Stable-diffusion", models / "VAE"
    plain, xl_vae = load_sample_vae("photo-a"), load_sample_vae("sdxl-c")
    grey = prefixed("first_stage_model.", {name: torch.zeros_like(value) for name, value in plain.items()})
    add(checkpoints / "deep" / "grey.safetensors", UNET | SD1_TEXT | grey, "checkpoint", "sd1", (GREY,), cache)
    add(checkpoints / "xl.safetensors", XL, "checkpoint", "sdxl", (MISSING,), cache)
    healthy = UNET | SD1_TEXT | prefixed("first_stage_model.", plain)
    add(checkpoints / "healthy.safetensors", healthy, "checkpoint", "sd1", (), cache)
    add(vaes / "plain.safetensors", plain, "vae", "sd1", (), cache)
    add(vaes / "xl-vae.safetensors", xl_vae, "vae", "sdxl", (), cache)
    cache.close()
    return models


def files(models: Path) -> dict[str, bytes]:
    """All files next to the checkpoints, hidden ones too."""
    folder = models / "Stable-diffusion"
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
