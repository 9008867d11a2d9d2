"""Files from torch and safetensors are read back unchanged, for any tensors."""

from __future__ import annotations

import io

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from vae_lab.formats import MemorySource, open_weights

reproducible = settings(derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])

DTYPES = [
    *(torch.float32, torch.float16, torch.bfloat16, torch.float64),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
]

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(lambda name: name != "__metadata__")


@st.composite
def tensors(draw):
    """Contiguous tensors of all types, with any bits in them, NaN included."""
    shape = draw(st.lists(st.integers(0, 5), max_size=4))
    dtype = draw(st.sampled_from(DTYPES))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    count = torch.empty(shape, dtype=dtype).numel()
    if dtype is torch.bool or count == 0:
        return torch.randint(0, 2, shape, generator=generator).to(dtype)
    width = torch.empty(0, dtype=dtype).element_size()
    return torch.randint(0, 256, (count * width,), generator=generator, dtype=torch.uint8).view(dtype).reshape(shape)


@st.composite
def views(draw):
    """Tensors cut, turned and repeated in ways that leave them sharing one storage."""
    tensor = torch.arange(draw(st.integers(1, 120)), dtype=draw(st.sampled_from([torch.float32, torch.int16])))
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    # A strided view of any kind that stays within the storage.
    strides, room = [], tensor.numel() - 1
    for length in shape:
        stride = draw(st.integers(0, room // max(length - 1, 1)))
        room -= (length - 1) * stride
        strides.append(stride)
    return tensor.as_strided(shape, strides, draw(st.integers(0, room)))


def saved(value, container):
    if container == "safetensors":
        return save(value)
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=container == "torch-zip")
    return buffer.getvalue()


def same(left, right):
    """Compares bit by bit, as NaN differs from itself."""
    return left.dtype == right.dtype and left.shape == right.shape and torch.equal(_bytes(left), _bytes(right))


def _bytes(tensor):
    return tensor.clone(memory_format=torch.contiguous_format).flatten().view(torch.uint8)


@pytest.mark.parametrize("container", ["safetensors", "torch-zip", "torch-legacy"])
@reproducible
@given(value=st.dictionaries(names, tensors(), max_size=5))
def test_round_trip(container, value):
    with open_weights(MemorySource(saved(value, container))) as file:
        assert file.container == container
        assert set(file.tensors) == set(value)
        for name, tensor in value.items():
            info = file.tensors[name]
            assert (info.dtype, info.shape, info.numel) == (tensor.dtype, tuple(tensor.shape), tensor.numel())
            assert info.nbytes == tensor.numel() * tensor.element_size()
            assert same(file.read(name), tensor)


@pytest.mark.parametrize("container", ["torch-zip", "torch-legacy"])
@reproducible
@given(view=views(), data=st.data())
def test_views(container, view, data):
    with open_weights(MemorySource(saved({"view": view}, container))) as file:
        tensor = file.read("view")
        assert same(tensor, view)
        assert tensor.is_contiguous()
        start = data.draw(st.integers(0, view.numel()))
        count = data.draw(st.integers(0, view.numel() - start))
        assert same(file.read_flat("view", start, count), view.flatten()[start : start + count])


@pytest.mark.parametrize("container", ["safetensors", "torch-zip", "torch-legacy"])
@reproducible
@given(tensor=tensors(), data=st.data())
def test_read_flat_is_a_slice_and_reads_nothing_else(container, tensor, data):
    with open_weights(MemorySource(saved({"a": tensor}, container))) as file:
        start = data.draw(st.integers(0, tensor.numel()))
        count = data.draw(st.integers(0, tensor.numel() - start))
        file.read_flat("a", 0, 0)
        before = file.bytes_read
        assert same(file.read_flat("a", start, count), tensor.flatten()[start : start + count])
        header = 64  # of the storage, in the archive
        assert file.bytes_read - before <= count * tensor.element_size() + header
