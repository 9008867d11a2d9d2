"""One VAE, one sketch: in any container, from a file or from memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.makers import CONTAINERS, SD1_TEXT, UNET, State, diffusers_names, kl_state, prefixed
from vae_lab.autoencoders import open_vae
from vae_lab.autoencoders.kl import KLConfig
from vae_lab.identity import Sketch, cosine, distance, sketch_of_file, sketch_of_state

reproducible = settings(derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])

CONFIGS = [
    KLConfig(block_out_channels=(32, 32), layers_per_block=1, attention=frozenset({1})),
    KLConfig(block_out_channels=(32, 64), layers_per_block=1, mid_block_add_attention=False),
    KLConfig(block_out_channels=(32,), layers_per_block=1, latent_channels=16, z_channels=16, use_quant_conv=False),
]
LEVELS = {id(config): len(config.block_out_channels) for config in CONFIGS}
PREFIXES = ["", "vae.", "state_dict.", "first_stage_model.", "model.first_stage_model."]

seeds = st.integers(0, 3)


def same(a: Sketch, b: Sketch) -> bool:
    return (a.structure, a.spans, a.totals) == (b.structure, b.spans, b.totals) and np.array_equal(a.values, b.values)


def named(state: State, naming: str, levels: int) -> State:
    if naming == "ldm":
        return state
    return diffusers_names(state, levels, old_attention=naming == "diffusers-old")


@reproducible
@given(
    st.sampled_from(CONFIGS),
    seeds,
    st.sampled_from(sorted(CONTAINERS)),
    st.sampled_from([torch.float32, torch.float16]),
    st.sampled_from(["ldm", "diffusers", "diffusers-old"]),
    st.sampled_from(PREFIXES),
    st.booleans(),
)
def test_file_and_memory_agree(config, seed, container, dtype, naming, prefix, is_checkpoint) -> None:
    full = kl_state(config, seed)
    stored = {name: tensor.to(dtype) for name, tensor in full.items()}
    packed = prefixed(prefix, named(stored, naming, LEVELS[id(config)]))
    if is_checkpoint and "first_stage_model." in prefix:
        packed |= UNET | SD1_TEXT
    with tempfile.TemporaryDirectory() as folder, open_vae(CONTAINERS[container](Path(folder) / "v", packed)) as vae:
        sketch = sketch_of_file(vae)
    assert same(sketch, sketch_of_state(stored))
    assert same(sketch, sketch_of_state(full)) == (dtype == torch.float32), "the file's own values"
    assert same(sketch, Sketch.from_bytes(sketch.to_bytes()))


@reproducible
@given(st.sampled_from(CONFIGS), seeds, seeds, st.floats(-2, 2, width=16))
def test_distances_are_those_of_vectors(config, one, other, factor) -> None:
    first, second = kl_state(config, one), kl_state(config, other)
    a, b = sketch_of_state(first), sketch_of_state(second)
    assert (distance(a, b) == 0) == (one == other)
    assert -1 <= cosine(a, b) <= 1 + 1e-9
    assert cosine(a, b) == cosine(b, a)
    scaled = sketch_of_state({name: tensor * factor for name, tensor in first.items()})
    assert abs(distance(a, scaled) - abs(1 - factor)) < 0.001


@reproducible
@given(
    st.lists(st.integers(0, 40), min_size=4, max_size=4),
    st.floats(width=16, allow_nan=False, allow_infinity=False),
)
def test_any_shape_of_convolution(shape, value) -> None:
    weight = torch.full(shape, value)
    sketch = sketch_of_state({"decoder.conv_in.weight": weight})
    wanted = min(weight.numel(), max(256, weight.numel() // 1000))
    assert sketch.values.tolist() == [value] * wanted
    assert sketch.totals == ((weight.numel(),) if wanted else ())
