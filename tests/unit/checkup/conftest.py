"""VAEs with a known verdict: the trained ones of the sample set, merged and damaged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.unit.makers import write
from vae_lab.autoencoders import Autoencoder, load_autoencoder
from vae_lab.samples import load_sample_vae

State = dict[str, Tensor]


def merged(a: str, b: str, share: float, only: str = "") -> State:
    """(1 - share) a + share b, of the tensors whose names begin with ``only``."""
    first, second = load_sample_vae(a), load_sample_vae(b)
    return {
        name: torch.lerp(value.float(), second[name].float(), share) if name.startswith(only) else value.float()
        for name, value in first.items()
    }


def changed(name: str, tensor: str, change: Callable[[Tensor], Tensor]) -> State:
    """A sample VAE with one tensor changed."""
    state = {key: value.float() for key, value in load_sample_vae(name).items()}
    state[tensor] = change(state[tensor])
    return state


@pytest.fixture(scope="session")
def sample_vae(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Autoencoder]:
    """Name of a sample VAE -> the VAE, loaded once. Do not change its weights."""
    folder = tmp_path_factory.mktemp("sample-vaes")

    @cache
    def load(name: str) -> Autoencoder:
        return load_autoencoder(write(folder / f"{name}.safetensors", load_sample_vae(name)), family="sd1")

    return load


def scaled(state: Mapping[str, Tensor], layer: str, factor: float) -> State:
    """A VAE with larger activations in one layer, which the norm after it cancels: the same images in fp32."""
    larger = {f"{layer}.weight", f"{layer}.bias"}
    return {name: value.float() * (factor if name in larger else 1.0) for name, value in state.items()}


def overflowing() -> State:
    """A VAE as that of SDXL 1.0: activations of about 95,000, with weights that fp16 can hold."""
    return scaled(load_sample_vae("sdxl-c"), "decoder.mid.block_1.conv1", 1e4)
