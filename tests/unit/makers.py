"""Builders of small autoencoders and their files, so that tests only show relevant details."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from vae_lab.autoencoders.kl.module import AutoencoderKL, KLConfig
from vae_lab.autoencoders.taesd.module import Taesd

State = dict[str, Tensor]

F8 = KLConfig(block_out_channels=(32, 32, 32, 32), layers_per_block=1)
"""The smallest AutoencoderKL with 8 image pixels to a latent pixel, as every published family has."""
F2 = KLConfig(block_out_channels=(32, 32), layers_per_block=1)
"""Smaller still, for what does not depend on the size of images."""

UNET = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(8, 4, 3, 3)}
SD1_TEXT = {"cond_stage_model.transformer.text_model.final_layer_norm.weight": torch.ones(8)}
SDXL_TEXT = {"conditioner.embedders.0.transformer.text_model.final_layer_norm.weight": torch.ones(8)}


def kl_module(config: KLConfig = F2, seed: int = 0) -> AutoencoderKL:
    """An AutoencoderKL with random weights; norms and biases are random too, so that no mix-up goes unseen."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        module = AutoencoderKL(config).eval()
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.05)
    return module


_kl_module_once = cache(kl_module)


def kl_state(config: KLConfig = F2, seed: int = 0) -> State:
    """The weights of :func:`kl_module`."""
    return {name: tensor.clone() for name, tensor in _kl_module_once(config, seed).state_dict().items()}


def taesd_state(channels: int = 4, *, encoder: bool = True, decoder: bool = True, width: int = 16) -> State:
    """The weights of a TAESD with few channels, in canonical names."""
    return dict(Taesd(channels, encoder=encoder, decoder=decoder, width=width).state_dict())


def prefixed(prefix: str, state: Mapping[str, Tensor]) -> State:
    """``state`` with ``prefix`` before each name."""
    return {prefix + name: tensor for name, tensor in state.items()}


def write(path: Path, state: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    """Write ``state`` as .safetensors."""
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path, metadata)
    return path


def write_zip(path: Path, state: Mapping[str, Tensor]) -> Path:
    """Write ``state`` as torch does today, below ``state_dict``."""
    torch.save({"state_dict": dict(state), "global_step": 7}, path)
    return path


def write_legacy(path: Path, state: Mapping[str, Tensor]) -> Path:
    """Write ``state`` as torch did before 1.6, below ``state_dict``."""
    torch.save({"state_dict": dict(state)}, path, _use_new_zipfile_serialization=False)
    return path


CONTAINERS: dict[str, Callable[[Path, Mapping[str, Tensor]], Path]] = {
    "safetensors": write,
    "zip": write_zip,
    "legacy": write_legacy,
}


def diffusers_names(state: Mapping[str, Tensor], levels: int, *, old_attention: bool = False) -> State:
    """A state in ldm names -> the same in diffusers' names, its attention as linear layers.

    Written from diffusers' conversion script, independently of vae_lab; the oracle tests compare it with diffusers.
    """
    attention = ("query", "key", "value", "proj_attn") if old_attention else ("to_q", "to_k", "to_v", "to_out.0")
    rules: list[tuple[str, str]] = [
        (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
        (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
        (r"\.mid\.attn_1\.", ".mid_block.attentions.0."),
        (r"^encoder\.down\.(\d+)\.block\.(\d+)\.", r"encoder.down_blocks.\1.resnets.\2."),
        (r"^encoder\.down\.(\d+)\.attn\.(\d+)\.", r"encoder.down_blocks.\1.attentions.\2."),
        (r"^encoder\.down\.(\d+)\.downsample\.", r"encoder.down_blocks.\1.downsamplers.0."),
        (r"^(encoder|decoder)\.norm_out\.", r"\1.conv_norm_out."),
        (r"\.nin_shortcut\.", ".conv_shortcut."),
        (r"(attentions\.\d+)\.norm\.", r"\1.group_norm."),
        *(
            (rf"(attentions\.\d+)\.{ours}\.", rf"\1.{theirs}.")
            for ours, theirs in zip("qkv", attention[:3], strict=True)
        ),
        (r"(attentions\.\d+)\.proj_out\.", rf"\1.{attention[3]}."),
    ]
    renamed: State = {}
    for name, tensor in state.items():
        if match := re.match(r"^decoder\.up\.(\d+)\.(.+)$", name):
            rest = re.sub(r"^block\.", "resnets.", re.sub(r"^attn\.", "attentions.", match[2]))
            rest = rest.replace("upsample.", "upsamplers.0.")
            name = f"decoder.up_blocks.{levels - 1 - int(match[1])}.{rest}"
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        linear = ".attentions." in name and tensor.ndim == 4
        renamed[name] = tensor[:, :, 0, 0] if linear else tensor
    return renamed
