"""A sketch is the same for the same weights, reads little of the file, and distinguishes VAEs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.unit.makers import CONTAINERS, F2, SD1_TEXT, UNET, State, kl_state, prefixed, taesd_state, write, write_zip
from vae_lab.autoencoders import open_vae
from vae_lab.autoencoders.kl import KLConfig
from vae_lab.autoencoders.kl.module import empty_module
from vae_lab.errors import UnreadableFile
from vae_lab.identity import (
    Sketch,
    cosine,
    distance,
    distance_by_tensor,
    relation,
    sketch_digest,
    sketch_of_file,
    sketch_of_state,
)
from vae_lab.samples import load_sample_vae

SHAPES = {name: tuple(tensor.shape) for name, tensor in empty_module(KLConfig()).state_dict().items()}
"""Those of every published SD1 and SDXL VAE."""


def of(path: Path) -> Sketch:
    with open_vae(path) as vae:
        return sketch_of_file(vae)


def cast(state: State, dtype: torch.dtype) -> State:
    return {name: tensor.to(dtype) for name, tensor in state.items()}


def same(a: Sketch, b: Sketch) -> bool:
    same_places = (a.structure, a.spans, a.totals) == (b.structure, b.spans, b.totals)
    return same_places and np.array_equal(a.values, b.values, equal_nan=True)


@pytest.fixture(scope="module")
def samples() -> dict[str, Sketch]:
    names = ("photo-a", "photo-b", "photo-a-smooth", "photo-a-sharp", "anime", "sdxl-c")
    return {name: sketch_of_state(load_sample_vae(name)) for name in names}


def holes(path: Path, tensors: dict[str, tuple[int, ...]], dtype: str) -> Path:
    """A safetensors file with these shapes, all weights zero, that takes no disk space."""
    width = {"F32": 4, "F16": 2}[dtype]
    header: dict[str, object] = {}
    position = 0
    for name, shape in tensors.items():
        size = width * int(np.prod(shape))
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + size]}
        position += size
    raw = json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw)
    os.truncate(path, 8 + len(raw) + position)
    return path


@pytest.mark.parametrize("dtype", ["F32", "F16"])
def test_of_a_real_vae_a_thousandth_is_read(tmp_path: Path, dtype: str) -> None:
    with open_vae(holes(tmp_path / "vae.safetensors", SHAPES, dtype)) as vae:
        sketch = sketch_of_file(vae)
        assert vae.weights.size > 160_000_000
        assert vae.weights.bytes_read < 500_000
    assert 80_000 < len(sketch.values) < 100_000
    assert sketch.structure == "51987b674bcce3be"


def test_of_a_real_checkpoint_a_megabyte_is_read(tmp_path: Path) -> None:
    unet = {
        f"model.diffusion_model.output_blocks.{i}.1.transformer_blocks.0.attn1.weight": (900, 900) for i in range(2000)
    }
    vae = {f"first_stage_model.{name}": shape for name, shape in SHAPES.items()}
    with open_vae(holes(tmp_path / "model.safetensors", unet | vae, "F32")) as file:
        sketch_of_file(file)
        assert file.weights.size > 6_000_000_000
        assert file.weights.bytes_read < 1_200_000


def test_every_convolution_is_in_it() -> None:
    state = kl_state(F2)
    sketch = sketch_of_state(state)
    assert [name for name, _, _ in sketch.spans] == sorted(name for name in state if state[name].ndim == 4)
    assert "decoder.mid.attn_1.q.weight" in {name for name, _, _ in sketch.spans}
    for (name, start, stop), total in zip(sketch.spans, sketch.totals, strict=True):
        assert total == state[name].numel()
        assert stop - start == min(total, 256)
        values = state[name].flatten().tolist()
        assert set(sketch.values[start:stop].tolist()) <= set(values)


def test_a_tensor_smaller_than_the_sample_is_taken_whole() -> None:
    weight = torch.arange(48.0).reshape(4, 4, 1, 3)
    assert sketch_of_state({"quant_conv.weight": weight}).values.tolist() == list(range(48))


def test_norms_and_biases_are_not() -> None:
    state = kl_state(F2)
    other = {name: tensor if tensor.ndim == 4 else tensor + 1 for name, tensor in state.items()}
    assert same(sketch_of_state(state), sketch_of_state(other))


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_file_and_memory_agree(tmp_path: Path, container: str, dtype: torch.dtype) -> None:
    state = cast(kl_state(F2), dtype)
    packed = UNET | SD1_TEXT | prefixed("first_stage_model.", state)
    assert same(of(CONTAINERS[container](tmp_path / "v", packed)), sketch_of_state(state))


def test_channels_last_file(tmp_path: Path) -> None:
    state = {
        name: tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
        for name, tensor in kl_state(F2).items()
    }
    assert same(of(write_zip(tmp_path / "v.ckpt", state)), sketch_of_state(kl_state(F2)))


def test_taesd_has_a_sketch_too(tmp_path: Path) -> None:
    state = taesd_state(encoder=False)
    assert same(of(write(tmp_path / "v.safetensors", state)), sketch_of_state(state))


def test_values_are_those_of_the_file_within_the_range_of_fp16() -> None:
    """The rounding of the stored weights shows the direction of a merge."""
    weight = torch.tensor([1e6, -1e6, -0.0, 1 + 2**-12, float("inf"), 1e-9]).reshape(1, 6, 1, 1)
    values = sketch_of_state({"quant_conv.weight": weight}).values
    assert values.tolist() == [65504, -65504, 0, 1 + 2**-12, 65504, np.float32(1e-9)]
    assert not np.signbit(values[2])


def test_copies_in_fp16_and_fp32_have_one_digest_but_different_bytes() -> None:
    fine = sketch_of_state({"quant_conv.weight": torch.tensor([-1e-9, 1 + 2**-12, 0.1, 3.0]).reshape(1, 4, 1, 1)})
    half = sketch_of_state({"quant_conv.weight": torch.from_numpy(fine.values.copy()).half().reshape(1, 4, 1, 1)})
    assert sketch_digest(fine) == sketch_digest(half)
    assert same(Sketch.from_bytes(fine.to_bytes()), fine)
    assert len(fine.to_bytes()) - len(half.to_bytes()) == 8


def test_sampled_weights_stay_what_they_are() -> None:
    """Sketches are stored in caches: another version of VAE Lab must sample the same weights, or raise the version."""
    sketch = sketch_of_state({"decoder.conv_in.weight": torch.arange(720_000).reshape(200, 400, 3, 3) % 2048})
    assert sketch.structure == "5595ad533d66f2e3"
    assert len(sketch.values) == 720
    assert sketch.values[::120].tolist() == [1670, 1789, 227, 851, 44, 458]


def test_structure_is_that_of_the_convolutions() -> None:
    small, wide = kl_state(F2), kl_state(KLConfig(block_out_channels=(32, 64), layers_per_block=1))
    assert sketch_of_state(small).structure == sketch_of_state(kl_state(F2, seed=1)).structure
    assert sketch_of_state(small).structure != sketch_of_state(wide).structure
    with pytest.raises(ValueError, match="different structures"):
        distance(sketch_of_state(small), sketch_of_state(wide))


def test_truncated_file(tmp_path: Path) -> None:
    path = write(tmp_path / "v.safetensors", kl_state(F2))
    with open_vae(path) as vae:
        os.truncate(path, path.stat().st_size // 2)
        with pytest.raises(UnreadableFile, match="truncated"):
            sketch_of_file(vae)


@pytest.mark.parametrize("make", [kl_state, dict], ids=["vae", "nothing"])
def test_there_and_back(make) -> None:
    sketch = sketch_of_state(make())
    assert same(Sketch.from_bytes(sketch.to_bytes()), sketch)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"{}\n",
        lambda data: b"\xff\xfe",
        lambda data: data[:-1],
        lambda data: data[:-2],
        lambda data: data + b"\0\0",
        lambda data: data.replace(b'"version": 2', b'"version": 1'),
        lambda data: data.replace(b'"dtype": "<f4"', b'"dtype": "<f8"'),
        lambda data: data.replace(b'"dtype": "<f4"', b'"dtype": 4'),
        lambda data: data.replace(b'"structure"', b'"struct"'),
        lambda data: data.replace(b'"totals": [', b'"totals": [1, '),
        lambda data: data.replace(b'"totals": [', b'"totals": ["x", '),
        lambda data: data.replace(b'"spans": [', b'"spans": [3, '),
    ],
)
def test_damaged_bytes(damage) -> None:
    with pytest.raises(ValueError):
        Sketch.from_bytes(damage(sketch_of_state(kl_state(F2)).to_bytes()))


def test_values_cannot_be_changed(samples: dict[str, Sketch]) -> None:
    with pytest.raises(ValueError, match="read-only"):
        samples["anime"].values[0] = 1


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("photo-a", "photo-a", "recast"),
        ("photo-a", "photo-a-smooth", "relative"),
        ("photo-a", "photo-a-sharp", "relative"),
        ("anime", "photo-a-smooth", "relative"),
        ("photo-a", "photo-b", "unrelated"),
        ("photo-b", "anime", "unrelated"),
        ("photo-a", "sdxl-c", None),
    ],
)
def test_relations(samples: dict[str, Sketch], a: str, b: str, expected: str | None) -> None:
    assert relation(samples[a], samples[b]) == expected
    assert relation(samples[b], samples[a]) == expected


def test_half_way_between_unrelated_vaes_is_distant(samples: dict[str, Sketch]) -> None:
    a, b = load_sample_vae("photo-a"), load_sample_vae("photo-b")
    half = sketch_of_state({name: (a[name].float() + b[name].float()) / 2 for name in a})
    assert relation(half, samples["photo-b"]) == "distant"


def test_estimates_are_those_of_all_weights(samples: dict[str, Sketch]) -> None:
    names = ("photo-a", "photo-a-smooth", "photo-b")
    states = {name: load_sample_vae(name) for name in names}
    whole = {
        name: torch.cat([state[key].float().flatten() for key in sorted(state) if state[key].ndim == 4])
        for name, state in states.items()
    }
    for other in names[1:]:
        true_distance = float((whole["photo-a"] - whole[other]).norm() / whole["photo-a"].norm())
        true_cosine = float(torch.cosine_similarity(whole["photo-a"], whole[other], dim=0))
        assert distance(samples["photo-a"], samples[other]) == pytest.approx(true_distance, rel=0.15)
        assert cosine(samples["photo-a"], samples[other]) == pytest.approx(true_cosine, abs=0.02)


def test_copy_in_bf16_is_recast_and_known_as_such(samples: dict[str, Sketch]) -> None:
    copy = sketch_of_state(cast(load_sample_vae("photo-a"), torch.bfloat16))
    assert 0.001 < distance(samples["photo-a"], copy) < 0.003
    assert relation(samples["photo-a"], copy) == "recast"
    assert copy.coarse
    assert not samples["photo-a"].coarse


def test_what_differs_is_found_by_tensor(samples: dict[str, Sketch]) -> None:
    state = load_sample_vae("photo-a")
    changed = state | {"decoder.conv_out.weight": state["decoder.conv_out.weight"] * 0.5}
    by_tensor = distance_by_tensor(samples["photo-a"], sketch_of_state(changed))
    assert by_tensor.pop("decoder.conv_out.weight") == pytest.approx(0.5, abs=0.001)
    assert set(by_tensor.values()) == {0.0}


def test_nan_is_seen(samples: dict[str, Sketch]) -> None:
    state = load_sample_vae("photo-a")
    broken = state | {"decoder.conv_out.weight": torch.full_like(state["decoder.conv_out.weight"], float("nan"))}
    sketch = sketch_of_state(broken)
    assert samples["photo-a"].finite
    assert not sketch.finite
    assert relation(samples["photo-a"], sketch) is None


def test_of_nothing_but_zeros() -> None:
    zeros = sketch_of_state({"quant_conv.weight": torch.zeros(8, 8, 1, 1)})
    ones = sketch_of_state({"quant_conv.weight": torch.ones(8, 8, 1, 1)})
    assert distance(zeros, zeros) == 0
    assert distance(zeros, ones) == float("inf")
    assert cosine(zeros, ones) == 0
    assert distance(ones, zeros) == 1
