"""Lost parts of a file: found at the right bytes, in every container, and never in a healthy file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.unit.makers import CONTAINERS, F8, State, kl_state, taesd_state, write
from vae_lab.autoencoders import VaeFile
from vae_lab.autoencoders.kl.module import AutoencoderKL
from vae_lab.formats import MemorySource, open_weights
from vae_lab.samples import load_sample_vae
from vae_lab.state_dict import LostData, find_lost_data, lost_data
from vae_lab.state_dict.stored_parts import Part

CONV = "decoder.mid.block_1.conv1.weight"  # [128, 128, 3, 3]
NEXT = "decoder.mid.block_1.conv2.weight"
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def lost_in(data: bytes | bytearray) -> list[LostData]:
    with VaeFile(open_weights(MemorySource(bytes(data), "file"))) as file:
        return find_lost_data(file.weights, file.layout, file.state_dict())


def position(data: bytes | bytearray, name: str) -> int:
    with open_weights(MemorySource(bytes(data), "file")) as file:
        stored = next(known for known in file.tensors if known.endswith(name))
        found = file.position(stored)
        assert found is not None
        return found


@pytest.fixture(scope="module")
def vae() -> State:
    return load_sample_vae("photo-a")


@pytest.fixture(scope="module")
def fp16(vae: State, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write(tmp_path_factory.mktemp("fp16") / "v.safetensors", vae).read_bytes()


# --- damaged files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [4096, 16_384, 50_000, 200_000])
@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_zeros_are_found_at_their_bytes(vae: State, tmp_path: Path, container: str, dtype: str, length: int) -> None:
    path = CONTAINERS[container](tmp_path / "v", {name: value.to(DTYPES[dtype]) for name, value in vae.items()})
    data = bytearray(path.read_bytes())
    start = position(data, CONV) + 4 * 1307  # in the middle of a kernel
    data[start : start + length] = bytes(length)
    (lost,) = lost_in(data)
    # A zero next to the block, or half a weight, may change the range a little.
    assert lost.start == pytest.approx(start, abs=4)
    assert lost.end == pytest.approx(start + length, abs=4)
    assert lost.tensor.endswith(CONV)
    assert lost.zeros


def test_zeros_across_tensors_are_one_part(fp16: bytes) -> None:
    start, end = position(fp16, CONV) + 9_030, position(fp16, NEXT) + 9_240
    data = bytearray(fp16)
    data[start:end] = bytes(end - start)
    (lost,) = lost_in(data)
    assert (lost.start, lost.end, lost.tensor) == (start, end, CONV)


def test_two_lost_parts(fp16: bytes) -> None:
    data = bytearray(fp16)
    starts = [position(fp16, name) + 5_008 for name in (CONV, NEXT)]
    for start in starts:
        data[start : start + 8192] = bytes(8192)
    assert [(lost.start, lost.end) for lost in lost_in(data)] == [(start, start + 8192) for start in starts]


def test_another_byte_repeated(fp16: bytes) -> None:
    data = bytearray(fp16)
    start = position(fp16, CONV) + 5_008
    data[start : start + 8192] = b"\x20" * 8192
    (lost,) = lost_in(data)
    assert (lost.start, lost.end, lost.value, lost.zeros) == (start, start + 8192, b"\x20\x20", False)


@pytest.mark.parametrize("length", [4096, 65_536])
def test_a_piece_that_was_written_twice(fp16: bytes, length: int) -> None:
    data = bytearray(fp16)
    source, start = (position(fp16, name) // 4096 * 4096 + 8192 for name in (CONV, NEXT))
    data[start : start + length] = data[source : source + length]
    (lost,) = lost_in(data)
    assert (lost.start, lost.end, lost.tensor) == (start, start + length, NEXT)
    assert lost.copy_of == (source, source + length)


def test_tensors_of_the_vae_only_are_read_and_judged(vae: State, tmp_path: Path) -> None:
    """Around the VAE, a checkpoint may have anything."""
    unet = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(320, 4, 3, 3)}
    rest = {"first_stage_model.loss.weight": torch.zeros(64, 64, 3, 3)}
    path = write(tmp_path / "c.safetensors", unet | rest | {f"first_stage_model.{k}": v for k, v in vae.items()})
    with VaeFile(open_weights(path)) as file:
        state = file.state_dict()
        before = file.weights.bytes_read
        assert find_lost_data(file.weights, file.layout, state) == []
        assert file.weights.bytes_read == before


# --- healthy files --------------------------------------------------------------------------------------------------


def convolutions(change: Callable[[Tensor], object]) -> Callable[[State], State]:
    """A copy with all convolutions changed in place."""

    def changed(state: State) -> State:
        result = {name: value.float().clone() for name, value in state.items()}
        for value in result.values():
            if value.ndim == 4:
                change(value)
        return result

    return changed


def few_of_four(value: Tensor) -> None:
    groups = value.view(-1)[: value.numel() // 4 * 4].view(-1, 4)
    groups.scatter_(1, groups.abs().argsort(1)[:, :2], 0.0)


def output_channels(value: Tensor) -> None:
    value[torch.rand(len(value)) < 0.4] = 0


def input_channels(value: Tensor) -> None:
    value[:, torch.rand(value.shape[1]) < 0.4] = 0


def both(value: Tensor) -> None:
    output_channels(value)
    input_channels(value)


def first_channels(value: Tensor) -> None:
    value[:, : value.shape[1] * 3 // 7] = 0


def channels_and_weights(value: Tensor) -> None:
    output_channels(value)
    value[torch.rand(value.shape) < 0.02] = 0


def kernels(value: Tensor) -> None:
    value[torch.rand(value.shape[:2]) < 0.97] = 0


def smallest(value: Tensor) -> None:
    value[value.abs() < value.abs().flatten().kthvalue(max(1, value.numel() * 9 // 10)).values] = 0


def blocks(value: Tensor) -> None:
    """Groups of 32 input channels, for each output channel by itself."""
    mask = (torch.rand(len(value), -(-value.shape[1] // 32)) < 0.8).repeat_interleave(32, 1)
    value[mask[:, : value.shape[1]]] = 0


def weak_channels(value: Tensor) -> None:
    """Half precision rounds some weights of some channels to zero."""
    value *= 10 ** (-9 * torch.rand(len(value), 1, 1, 1))


def dead_channels(value: Tensor) -> None:
    """Only single weights survive in them."""
    value[(torch.rand(len(value), 1, 1, 1) < 0.4) & (torch.rand(value.shape) > 0.0005)] = 0


def identity(value: Tensor) -> None:
    diagonal = torch.arange(min(value.shape[:2]))
    value.zero_()
    value[diagonal, diagonal, value.shape[2] // 2, value.shape[3] // 2] = 1


def grown(value: Tensor) -> None:
    """A wider network from a narrower one: channels are copies of others."""
    half = len(value) // 2
    value[half : 2 * half] = value[:half].clone()


def masked(share: float) -> Callable[[Tensor], object]:
    return lambda value: value.masked_fill_(torch.rand(value.shape) < share, 0.0)


def zero_initialised(state: State) -> State:
    result = {name: value.clone() for name, value in state.items()}
    for name, value in result.items():
        if name.endswith(("conv_out.weight", "proj_out.weight", "conv2.weight", ".bias")):
            value.zero_()
        elif value.ndim == 1:
            value.fill_(1.0)
    return result


def whole_tensors(state: State) -> State:
    return {n: torch.zeros_like(v) if ".mid." in n or "up.2" in n else v for n, v in state.items()}


def tied(state: State) -> State:
    """A layer that is a copy of another one."""
    return state | {NEXT: state[CONV].clone()}


PRUNED: dict[str, Callable[[State], State]] = {
    "untouched": dict,
    "all zero": lambda state: {name: torch.zeros_like(value) for name, value in state.items()},
    "whole tensors": whole_tensors,
    "zero-initialised": zero_initialised,
    "tied layers": tied,
    "random 50 %": convolutions(masked(0.5)),
    "random 90 %": convolutions(masked(0.9)),
} | {
    change.__name__.replace("_", " "): convolutions(change)
    for change in (
        few_of_four, output_channels, input_channels, both, first_channels, channels_and_weights, kernels, smallest,
        blocks, weak_channels, dead_channels, grown, identity,
    )
}  # fmt: skip


def casts() -> Iterator[tuple[str, torch.dtype]]:
    yield from DTYPES.items()
    for name in ("float8_e4m3fn", "float8_e5m2"):
        if hasattr(torch, name):
            yield name, getattr(torch, name)


@pytest.mark.parametrize("kind", PRUNED)
def test_healthy_vaes_have_lost_nothing(vae: State, tmp_path: Path, kind: str) -> None:
    state = PRUNED[kind](vae)
    for cast, dtype in casts():
        path = write(tmp_path / f"{cast}.safetensors", {name: value.to(dtype) for name, value in state.items()})
        assert lost_in(path.read_bytes()) == [], cast


@pytest.mark.parametrize("name", ["photo-b", "photo-a-smooth", "photo-a-sharp", "anime", "sdxl-c"])
def test_samples_have_lost_nothing(tmp_path: Path, name: str) -> None:
    assert lost_in(write(tmp_path / "v.safetensors", load_sample_vae(name)).read_bytes()) == []


def test_new_vaes_have_lost_nothing(tmp_path: Path) -> None:
    for i, state in enumerate((kl_state(F8), dict(AutoencoderKL(F8).state_dict()), taesd_state(width=64))):
        assert lost_in(write(tmp_path / f"{i}.safetensors", state).read_bytes()) == []


def test_tensors_in_the_same_bytes_are_not_repeated(vae: State, tmp_path: Path) -> None:
    """torch stores shared weights once; two names then have the same bytes."""
    path = CONTAINERS["zip"](tmp_path / "v.pt", vae | {NEXT: vae[CONV]})
    assert lost_in(path.read_bytes()) == []


def test_weights_that_are_not_contiguous_are_left_out(vae: State, tmp_path: Path) -> None:
    value = vae[CONV].clone()
    value.view(-1)[1307:6000] = 0
    path = CONTAINERS["zip"](tmp_path / "v.pt", vae | {CONV: value.to(memory_format=torch.channels_last)})
    assert lost_in(path.read_bytes()) == []


def test_many_blocks_of_many_values_cost_no_more_than_a_few(
    vae: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For each value of a run, the whole tensor is counted: a file of 140 MB could take minutes."""
    counted: list[int] = []
    original = lost_data._Occurrences.__init__

    def counting(self: object, part: Part, value: object) -> None:
        counted.append(part.start)
        original(self, part, value)  # type: ignore[arg-type]

    monkeypatch.setattr(lost_data._Occurrences, "__init__", counting)
    weights = vae[CONV].float().flatten()
    for block in range(80):
        weights[block * 1664 + 70 : block * 1664 + 1600] = float(block) + 0.5
    changed = {name: value.float() for name, value in vae.items()} | {CONV: weights.reshape(128, 128, 3, 3)}
    assert lost_in(write(tmp_path / "v.safetensors", changed).read_bytes())
    assert 0 < len(counted) <= 8
