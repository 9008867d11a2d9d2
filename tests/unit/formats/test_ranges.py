"""Parts of tensors: the same values as in the whole tensor, without reading other bytes of the file."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save

from vae_lab.errors import MalformedFile, UnreadableFile
from vae_lab.formats import MemorySource, open_weights

CONTAINERS = ["safetensors", "torch-zip", "torch-legacy"]
RUNS = [(5, 3), (0, 4), (900, 100), (7, 0)]


@pytest.fixture(params=CONTAINERS)
def container(request):
    return request.param


@pytest.fixture
def packed(container, saved):
    """The bytes of a file with these tensors, once for each container."""
    if container == "safetensors":
        return save
    return lambda tensors: saved(tensors, _use_new_zipfile_serialization=container == "torch-zip")


def cut(tensor):
    flat = tensor.flatten()
    return torch.cat([flat[start : start + count] for start, count in RUNS])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64])
def test_runs_are_slices_in_the_order_asked_for(packed, open_bytes, dtype):
    tensor = torch.arange(1000).reshape(10, 4, 25).to(dtype)
    read = open_bytes(packed({"a": tensor})).read_runs("a", RUNS)
    assert read.dtype == dtype
    assert torch.equal(read, cut(tensor))


def test_nothing_else_is_read(packed, open_bytes):
    file = open_bytes(packed({"a": torch.arange(100_000.0), "b": torch.ones(7)}))
    file.read_flat("a", 0, 0)
    before = file.bytes_read
    file.read_runs("a", RUNS)
    assert file.bytes_read - before <= 4 * 107 + 64  # the storage's header in the archive


def test_no_runs_at_all(packed, open_bytes):
    file = open_bytes(packed({"a": torch.ones(3, dtype=torch.float16)}))
    assert file.read_runs("a", []).dtype == torch.float16
    assert file.read_runs("a", [(3, 0)]).shape == (0,)


@pytest.mark.parametrize("new", [True, False], ids=["torch-zip", "torch-legacy"])
@pytest.mark.parametrize(
    "turn",
    [
        lambda tensor: tensor.to(memory_format=torch.channels_last),
        lambda tensor: tensor.transpose(0, 1),
        lambda tensor: tensor[:, ::2],
        lambda tensor: tensor[:1].expand(10, 10, 10, 4),
    ],
    ids=["channels last", "transposed", "every other", "repeated"],
)
def test_views_are_read_once_whatever_their_strides(saved, open_bytes, turn, new):
    view = turn(torch.arange(4000.0).reshape(10, 10, 10, 4))
    file = open_bytes(saved({"a": view}, _use_new_zipfile_serialization=new))
    file.read_flat("a", 0, 0)
    before = file.bytes_read
    assert torch.equal(file.read_runs("a", RUNS), cut(view))
    assert file.bytes_read - before <= 16_000 + 64


@pytest.mark.parametrize("run", [(-1, 2), (0, 7), (6, 1), (0, -1), (2**70, 1)])
def test_runs_beyond_the_tensor(packed, open_bytes, run):
    file = open_bytes(packed({"a": torch.ones(2, 3)}))
    before = file.bytes_read
    with pytest.raises(IndexError, match="of 'a', which has 6"):
        file.read_runs("a", [(0, 1), run])
    assert file.bytes_read == before


def test_runs_add_up_to_more_than_the_limit(packed, open_bytes):
    file = open_bytes(packed({"a": torch.ones(100)}), tensor_bytes=100)
    assert file.read_runs("a", [(0, 10), (90, 10)]).tolist() == [1] * 20
    with open_weights(MemorySource(packed({"a": torch.ones(100)}))) as unlimited:
        assert unlimited.read_runs("a", [(0, 10)] * 3).shape == (30,)


def test_too_many_runs_are_refused_before_anything_is_read(saved, open_bytes):
    file = open_bytes(saved({"a": torch.ones(100)}), tensor_bytes=100)
    before = file.bytes_read
    with pytest.raises(MalformedFile, match="reading tensor 'a' needs 120 bytes of memory; the limit is 100 bytes"):
        file.read_runs("a", [(0, 10)] * 3)
    assert file.bytes_read == before


@pytest.mark.skipif(not hasattr(torch, "float8_e4m3fn"), reason="this torch has no float8")
def test_runs_of_float8(packed, open_bytes):
    values = torch.arange(8.0).to(torch.float8_e4m3fn)
    read = open_bytes(packed({"a": values})).read_runs("a", [(6, 2), (1, 2)])
    assert read.dtype == torch.float8_e4m3fn
    assert read.float().tolist() == [6, 7, 1, 2]


def test_tensor_that_cannot_be_read(safetensors_bytes, open_bytes):
    header = {"a": {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]}}
    file = open_bytes(safetensors_bytes(header, b"\0\0"))
    with pytest.raises(MalformedFile, match="tensor 'a' cannot be read: torch .* does not support its type F4"):
        file.read_runs("a", [(0, 2)])


def test_file_that_becomes_shorter(packed, tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(packed({"a": torch.ones(100_000)}))
    with open_weights(path) as file:
        with path.open("r+b") as handle:
            handle.truncate(4000)
        with pytest.raises(UnreadableFile, match="truncated"):
            file.read_runs("a", [(0, 10), (90_000, 10)])


def test_unknown_name(packed, open_bytes):
    with pytest.raises(KeyError):
        open_bytes(packed({"a": torch.ones(2)})).read_runs("b", [])
