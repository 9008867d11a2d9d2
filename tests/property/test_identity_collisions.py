"""A VAE keeps its identity through any chain of conversions, and different VAEs never share one."""

from __future__ import annotations

import tempfile
from itertools import combinations
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.unit.makers import (
    CONTAINERS,
    F2,
    SD1_TEXT,
    SDXL_TEXT,
    UNET,
    State,
    diffusers_names,
    kl_state,
    prefixed,
    taesd_state,
)
from vae_lab.autoencoders import open_vae
from vae_lab.autoencoders.kl import KLConfig
from vae_lab.identity import fingerprint, sketch_digest, sketch_of_file, sketch_of_state
from vae_lab.samples import load_sample_vae

reproducible = settings(derandomize=True, deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])

SAMPLES = ("photo-a", "photo-a-smooth", "photo-a-sharp", "photo-b", "anime", "sdxl-c")
WHOLE = {name: load_sample_vae(name) for name in SAMPLES}
# Chains are tried on small ones, all identities are compared with each other on all.
CONFIGS = {
    "plain": KLConfig(block_out_channels=(32, 32), layers_per_block=1),
    "attention": KLConfig(block_out_channels=(32, 32), layers_per_block=1, attention=frozenset({1})),
    "wide": KLConfig(block_out_channels=(32, 64), layers_per_block=1),
    "16 channels": KLConfig(
        block_out_channels=(32,), layers_per_block=1, latent_channels=16, z_channels=16, use_quant_conv=False
    ),
}
SMALL = {f"{name} {seed}": kl_state(config, seed) for name, config in CONFIGS.items() for seed in range(3)}
LEVELS = {name: len(CONFIGS[name.rsplit(" ", 1)[0]].block_out_channels) for name in SMALL}
TINY = {f"taesd {width}": taesd_state(width=width) for width in (8, 16)}

PREFIXES = ("", "vae.", "state_dict.", "first_stage_model.", "model.first_stage_model.")
steps = st.tuples(
    st.sampled_from(sorted(CONTAINERS)),
    st.sampled_from([torch.float32, torch.float16]),
    st.sampled_from(["ldm", "diffusers", "diffusers-old"]),
    st.sampled_from(PREFIXES),
    st.sampled_from(["bare", "SD1", "SDXL", "shuffled"]),
)


def identity(state: State) -> tuple[str, str]:
    return fingerprint(state), sketch_digest(sketch_of_state(state))


def packed(state: State, levels: int, dtype: torch.dtype, naming: str, prefix: str, around: str) -> State:
    cast = {name: tensor.to(dtype) for name, tensor in state.items()}
    if naming != "ldm":
        cast = diffusers_names(cast, levels, old_attention=naming == "diffusers-old")
    named = prefixed(prefix, cast)
    if around in ("SD1", "SDXL") and "first_stage_model." in prefix:
        return UNET | named | (SD1_TEXT if around == "SD1" else SDXL_TEXT)
    return dict(reversed(named.items())) if around == "shuffled" else named


@reproducible
@given(st.sampled_from(sorted(SMALL)), st.lists(steps, min_size=1, max_size=4))
def test_any_chain_of_conversions_keeps_the_identity(name: str, chain: list[tuple]) -> None:
    wanted = identity(SMALL[name])
    state = SMALL[name]
    with tempfile.TemporaryDirectory() as folder:
        for i, (container, *how) in enumerate(chain):
            path = CONTAINERS[container](Path(folder) / f"{i}", packed(state, LEVELS[name], *how))
            with open_vae(path) as file:
                sketch = sketch_digest(sketch_of_file(file))
                state = file.state_dict()
            assert (fingerprint(state), sketch) == wanted, f"step {i}: {container}, {how}"


@pytest.mark.parametrize("name", SAMPLES)
def test_shipped_vaes_keep_theirs(name: str, tmp_path: Path) -> None:
    wanted = identity(WHOLE[name])
    levels = len({key.split(".")[2] for key in WHOLE[name] if key.startswith("encoder.down.")})
    chains = [
        ("zip", torch.float32, "diffusers", "", "bare"),
        ("legacy", torch.float16, "ldm", "first_stage_model.", "SD1"),
    ]
    for i, (container, *how) in enumerate(chains):
        with open_vae(CONTAINERS[container](tmp_path / f"{i}", packed(WHOLE[name], levels, *how))) as file:
            assert (fingerprint(file.state_dict()), sketch_digest(sketch_of_file(file))) == wanted


def test_no_two_different_vaes_share_an_identity() -> None:
    found = {name: identity(state) for name, state in (WHOLE | SMALL | TINY).items()}
    for one, other in combinations(found, 2):
        assert found[one][0] != found[other][0], f"{one} and {other} have one fingerprint"
        assert found[one][1] != found[other][1], f"{one} and {other} have one sketch"


BASE = kl_state(F2)
NAMES = sorted(BASE)


@reproducible
@given(st.sampled_from(NAMES), st.data())
def test_one_bit_of_one_weight_makes_another_vae(name: str, data: st.DataObject) -> None:
    """The smallest change in fp16; the fingerprint covers all weights, the sketch only a sample."""
    index = data.draw(st.integers(0, BASE[name].numel() - 1))
    changed = BASE[name].half().flatten().clone()
    changed.view(torch.int16)[index] ^= 1
    assume(changed[index].isfinite())
    assert fingerprint(BASE | {name: changed.reshape(BASE[name].shape)}) != fingerprint(BASE)


@reproducible
@given(st.sampled_from(NAMES), st.sampled_from(NAMES))
def test_weights_in_each_other_s_place_make_another_vae(one: str, other: str) -> None:
    assume(one != other and BASE[one].shape == BASE[other].shape)
    swapped = BASE | {one: BASE[other], other: BASE[one]}
    assert fingerprint(swapped) != fingerprint(BASE)
    if BASE[one].ndim == 4:
        assert sketch_digest(sketch_of_state(swapped)) != sketch_digest(sketch_of_state(BASE))


@reproducible
@given(st.floats(0.01, 0.99))
def test_merges_are_neither_of_their_parents(share: float) -> None:
    parents = SMALL["plain 0"], SMALL["plain 1"]
    merged = {name: torch.lerp(parents[0][name], parents[1][name], share) for name in parents[0]}
    for parent in parents:
        assert identity(merged)[0] != identity(parent)[0]
        assert identity(merged)[1] != identity(parent)[1]
