"""TAESD's published weights, whose latents define the spaces the small VAEs are trained in.

Only makers need them: what is shipped never contains TAESD weights. Images are 0..1, latents are in model space,
that is multiplied by the family's scaling factor.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from vae_lab.autoencoders.taesd.module import build_decoder, build_encoder

FILE_STEMS = {"sd1": "taesd", "sdxl": "taesdxl"}
SCALING = {"sd1": 0.18215, "sdxl": 0.13025}


def _load(net: nn.Sequential, path: Path) -> nn.Sequential:
    net.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    return net.eval().requires_grad_(False)


def load_encoder(folder: Path, family: str) -> nn.Sequential:
    """The encoder of a family: [B,3,H,W] in 0..1 -> [B,4,H/8,W/8] in model space, fp32."""
    return _load(build_encoder(4), folder / f"{FILE_STEMS[family]}_encoder.safetensors")


def load_decoder(folder: Path, family: str) -> nn.Sequential:
    """The decoder of a family: [B,4,h,w] in model space -> [B,3,8h,8w], about 0..1, fp32."""
    return _load(build_decoder(4), folder / f"{FILE_STEMS[family]}_decoder.safetensors")
