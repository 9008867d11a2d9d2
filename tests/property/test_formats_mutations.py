"""Damaged files: the result is weights or one of our errors, never another exception, within bounded memory."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from tests.property.mutations import mutated, weight_files
from vae_lab.errors import FileError
from vae_lab.formats import Limits, MemorySource, open_weights

ROUNDS = 2000

FILES = dict(weight_files())


def read_everything(data: bytes) -> None:
    with open_weights(MemorySource(data), limits=Limits(expanded_bytes=2**20)) as file:
        for name, info in file.tensors.items():
            if info.flaw is None:
                tensor = file.read(name)
                assert (tensor.dtype, tuple(tensor.shape)) == (info.dtype, info.shape)
                file.read_flat(name, info.numel // 2, info.numel - info.numel // 2)


@pytest.mark.parametrize("kind", FILES)
def test_damaged_files(kind):
    choice = random.Random(kind)
    survived = 0
    tracemalloc.start()
    for _ in range(ROUNDS):
        data = mutated(FILES[kind], choice)
        try:
            read_everything(data)
            survived += 1
        except FileError as error:
            assert "\n" not in str(error)  # noqa: PT017 - an error is one of the two good outcomes
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert survived < ROUNDS, "no mutation had an effect"
    assert peak < 50e6


@pytest.mark.parametrize(
    "prefix", [b"", b"\x80\x02", b"PK\x03\x04", b"\x10\0\0\0\0\0\0\0{"], ids=["", "pkl", "zip", "st"]
)
def test_noise(prefix):
    choice = random.Random(0)
    for _ in range(500):
        with pytest.raises(FileError):
            read_everything(prefix + choice.randbytes(choice.randrange(300)))
