"""One VAE, one fingerprint, in any container."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.unit.makers import CONTAINERS, SD1_TEXT, UNET, State, diffusers_names, kl_state, prefixed, write
from vae_lab.autoencoders import open_vae
from vae_lab.autoencoders.kl import KLConfig
from vae_lab.identity import fingerprint, short

CONFIG = KLConfig(block_out_channels=(32, 32), layers_per_block=1, attention=frozenset({1}))
HALF = {name: tensor.half() for name, tensor in kl_state(CONFIG).items()}
"""fp16, as most VAEs are published."""

PACKINGS: dict[str, Callable[[State], State]] = {
    "fp32 copy": lambda state: {name: tensor.float() for name, tensor in state.items()},
    "checkpoint": lambda state: UNET | SD1_TEXT | prefixed("first_stage_model.", state),
    "vae.": lambda state: prefixed("vae.", state),
    "diffusers": lambda state: diffusers_names(state, levels=2),
    "diffusers, old names": lambda state: diffusers_names(state, levels=2, old_attention=True),
    "with leftovers": lambda state: state | {"loss.logvar": torch.ones(1), "model_ema.num_updates": torch.tensor(3)},
    "names in reverse": lambda state: dict(reversed(state.items())),
}


def of(path: Path) -> str:
    with open_vae(path) as file:
        return fingerprint(file.state_dict())


@pytest.mark.parametrize("container", CONTAINERS)
def test_same_in_every_container(tmp_path: Path, container: str) -> None:
    assert of(CONTAINERS[container](tmp_path / "v", HALF)) == fingerprint(HALF)


@pytest.mark.parametrize("pack", PACKINGS.values(), ids=PACKINGS)
def test_same_in_every_packing(tmp_path: Path, pack: Callable[[State], State]) -> None:
    assert of(write(tmp_path / "v.safetensors", pack(HALF))) == fingerprint(HALF)


def test_fp16_copy_of_fp32_weights_is_the_same(tmp_path: Path) -> None:
    full = kl_state(CONFIG)
    assert fingerprint({name: tensor.half() for name, tensor in full.items()}) == fingerprint(full)


def test_bf16_copy_is_another(tmp_path: Path) -> None:
    assert fingerprint({name: tensor.bfloat16() for name, tensor in HALF.items()}) != fingerprint(HALF)


def test_memory_layout_does_not_matter() -> None:
    turned = {
        name: tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
        for name, tensor in HALF.items()
    }
    assert fingerprint(turned) == fingerprint(HALF)


def test_negative_zero_is_zero() -> None:
    zeros = {"decoder.conv_in.bias": torch.zeros(4)}
    assert fingerprint({"decoder.conv_in.bias": -zeros["decoder.conv_in.bias"]}) == fingerprint(zeros)


def test_sign_of_weights_too_large_for_fp16_counts() -> None:
    large = {"decoder.conv_in.bias": torch.tensor([1e6, -1e6])}
    assert fingerprint(large) != fingerprint({"decoder.conv_in.bias": torch.tensor([-1e6, 1e6])})


def test_names_and_shapes_count() -> None:
    values = torch.arange(6.0)
    prints = {
        fingerprint({"decoder.a": values}),
        fingerprint({"decoder.b": values}),
        fingerprint({"decoder.a": values.reshape(2, 3)}),
        fingerprint({"decoder.a": values.reshape(3, 2)}),
        fingerprint({"decoder.a": values[:3], "decoder.b": values[3:]}),
    }
    assert len(prints) == 5


def test_fingerprint_stays_what_it_is() -> None:
    """It is written into images and caches: another version of VAE Lab must find the same one."""
    state = {"decoder.conv_in.weight": torch.arange(8.0).reshape(1, 2, 2, 2), "decoder.conv_in.bias": torch.ones(1)}
    assert fingerprint(state) == "987d6bbf237a054c9a9f21c513d0ee3e0401fcae15a090d76aa2451b6602ddff"


def test_short_is_ten_digits() -> None:
    assert short(fingerprint(HALF)) == fingerprint(HALF)[:10]
