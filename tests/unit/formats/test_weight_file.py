from __future__ import annotations

import io

import pytest
import torch
from safetensors.torch import save_file

from vae_lab.errors import MalformedFile
from vae_lab.formats import TensorInfo, open_weights

CONTAINERS = ["safetensors", "torch-zip", "torch-legacy"]


@pytest.fixture(params=CONTAINERS)
def written(request, tmp_path):
    """Writes tensors to a file, once for each container, and returns its path."""

    def write(tensors):
        path = tmp_path / "model.bin"
        if request.param == "safetensors":
            save_file(tensors, path)
        else:
            torch.save(tensors, path, _use_new_zipfile_serialization=request.param == "torch-zip")
        return path

    return write


@pytest.fixture(params=CONTAINERS[1:])
def torch_file(request, saved, open_bytes):
    """Saves a value with torch, in both of its formats, and opens it."""
    return lambda value: open_bytes(saved(value, _use_new_zipfile_serialization=request.param == "torch-zip"))


def test_small_reads_from_a_large_file(written):
    small = torch.arange(100.0)
    path = written({"large": torch.zeros(13_000_000), "small": small})
    with open_weights(path) as file:
        assert file.size > 50_000_000
        assert file.tensors["large"] == TensorInfo("large", torch.float32, (13_000_000,))
        assert torch.equal(file.read("small"), small)
        assert file.read_flat("large", 9_000_000, 1000).shape == (1000,)
        assert file.bytes_read < 200_000


def test_what_is_read_has_memory_of_its_own(written):
    with open_weights(written({"a": torch.ones(4)})) as file:
        first, second = file.read("a"), file.read("a")
        first += 1
        assert second.tolist() == [1, 1, 1, 1]
    assert first.tolist() == [2, 2, 2, 2]


def test_large_tensors_are_read_in_pieces(written, monkeypatch):
    monkeypatch.setattr("vae_lab.formats.weight_file._PIECE", 1000)
    values = torch.arange(10_001.0)
    with open_weights(written({"a": values})) as file:
        assert torch.equal(file.read("a"), values)


@pytest.mark.parametrize(("start", "count"), [(-1, 2), (0, 7), (6, 1), (0, -1)])
def test_read_flat_beyond_the_tensor(written, start, count):
    with (
        open_weights(written({"a": torch.ones(2, 3)})) as file,
        pytest.raises(IndexError, match="of 'a', which has 6"),
    ):
        file.read_flat("a", start, count)


def test_unknown_name(written):
    with open_weights(written({"a": torch.ones(2)})) as file, pytest.raises(KeyError):
        file.read("b")


def test_tensor_larger_than_the_limit(open_bytes, saved):
    file = open_bytes(saved({"a": torch.ones(100)}), tensor_bytes=100)
    assert file.read_flat("a", 90, 10).tolist() == [1] * 10
    with pytest.raises(MalformedFile, match="reading tensor 'a' needs 400 bytes of memory; the limit is 100 bytes"):
        file.read("a")


def test_tables_cannot_be_changed(written):
    with open_weights(written({"a": torch.ones(2)})) as file, pytest.raises(TypeError):
        file.tensors["b"] = file.tensors["a"]


def test_views_and_shared_storages(torch_file):
    base = torch.arange(60.0).reshape(3, 4, 5)
    views = {
        "base": base,
        "transposed": base.permute(2, 0, 1),
        "row": base[1],
        "corner": base[1:, ::2, 1:3],
        "column": base[:, 2, 3],
        "expanded": base[0, 0, :1].expand(7),
        "windows": base.flatten().unfold(0, 10, 3),
        "scalar": base[2, 3, 4],
        "empty": base[:, 4:],
        "ones": base[1:2].permute(1, 0, 2),
    }
    file = torch_file(views)
    for name, view in views.items():
        tensor = file.read(name)
        assert torch.equal(tensor, view), name
        assert tensor.is_contiguous()
        assert torch.equal(file.read_flat(name, 0, view.numel()), view.flatten())
        if view.numel() > 2:
            assert torch.equal(file.read_flat(name, 1, 2), view.flatten()[1:3])


def test_all_repeated_values_together_have_a_limit(open_bytes):
    def torch_bytes(state):
        buffer = io.BytesIO()
        torch.save(state, buffer)
        return buffer.getvalue()

    small = {str(i): torch.zeros(1).expand(1000) for i in range(10)}
    assert len(open_bytes(torch_bytes(small), all_expanded_bytes=40_000).tensors) == 10
    with pytest.raises(MalformedFile, match=r"tensors with repeated values expand to more than 30\.0 kB"):
        open_bytes(torch_bytes(small), all_expanded_bytes=30_000)
    shared = torch.zeros(1000)
    assert len(open_bytes(torch_bytes({str(i): shared for i in range(10)}), all_expanded_bytes=0).tensors) == 10


def test_nested_names(torch_file):
    one = torch.ones(1)
    value = {
        "state_dict": {"model.weight": one, 3: one},
        "optimizer_states": [{"state": {0: {"exp_avg": one}}, "param_groups": [{"lr": 0.1}]}],
        "pair": (one, None),
        "epoch": 7,
        None: one,
    }
    assert set(torch_file(value).tensors) == {
        "state_dict.model.weight",
        "state_dict.3",
        "optimizer_states.0.state.0.exp_avg",
        "pair.0",
        "None",
    }


def test_two_tensors_of_one_name(torch_file):
    with pytest.raises(MalformedFile, match="two tensors are named 'a.b'"):
        torch_file({"a.b": torch.ones(1), "a": {"b": torch.ones(1)}})


def test_parameters_and_module_state(torch_file):
    module = torch.nn.Linear(2, 3)
    file = torch_file({"p": torch.nn.Parameter(torch.ones(2)), "module": module.state_dict(), "buffers": module.weight})
    assert set(file.tensors) == {"p", "module.weight", "module.bias", "buffers"}
    assert torch.equal(file.read("module.weight"), module.weight)


def test_a_single_tensor_has_an_empty_name(torch_file):
    assert torch_file(torch.ones(3)).read("").tolist() == [1, 1, 1]


def test_repr_names_file_and_container(written):
    with open_weights(written({"a": torch.ones(2)})) as file:
        assert f"{file.container}, 1 tensors" in repr(file)


@pytest.mark.skipif(not hasattr(torch, "float8_e4m3fn"), reason="this torch has no float8")
def test_float8(written):
    values = torch.tensor([1.0, -2.0, 0.5]).to(torch.float8_e4m3fn)
    with open_weights(written({"a": values})) as file:
        assert file.tensors["a"].dtype == torch.float8_e4m3fn
        assert torch.equal(file.read("a").float(), values.float())


def test_conjugated_view_is_not_read_with_the_wrong_sign(torch_file):
    file = torch_file({"a": torch.tensor([1 + 2j]).conj(), "b": torch.tensor([1 + 2j])})
    assert file.read("b").tolist() == [1 + 2j]
    with pytest.raises(MalformedFile, match="stored .*'conj'.*, which is not supported"):
        file.read("a")
