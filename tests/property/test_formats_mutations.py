"""Damaged files: the result is weights or one of our errors, never another exception, within bounded memory."""

from __future__ import annotations

import io
import random
import tracemalloc

import pytest
import torch
from safetensors.torch import save

from vae_lab.errors import FileError
from vae_lab.formats import Limits, MemorySource, open_weights

ROUNDS = 2000

# Bytes that mean something to one of the parsers.
SPICE = [
    *(b"\x00", b"\xff", b"\x80\x02", b".", b"(", b"t", b"R", b"b", b"}", b"]", b"\x94", b"\x93", b"Q", b"2", b"0"),
    *(b'"', b"[", b"]", b"{", b"-1", b"1e9", b"99999999999", b"\\u", b"PK\x01\x02", b"PK\x05\x06", b"PK\x03\x04"),
    *(b"\xff\xff\xff\x7f", b"\xff" * 8, b"\x00" * 8, b"\x8a\x08", b"\x8d", b"cos\nsystem\n"),
]


def valid_files():
    base = torch.arange(24.0)
    flat = {"decoder.weight": base.reshape(4, 6).clone(), "bias": torch.ones(3, dtype=torch.float16)}
    nested = {"state_dict": {"t": base.reshape(4, 6).t(), "h": base[3:9]}, "epoch": 3, "list": [torch.ones(2)]}
    yield "safetensors", save(flat, {"format": "pt"})
    for container in ("torch-zip", "torch-legacy"):
        for protocol in (2, 4):
            buffer = io.BytesIO()
            zipped = container == "torch-zip"
            torch.save(nested, buffer, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
            yield f"{container}-{protocol}", buffer.getvalue()


FILES = dict(valid_files())


def mutated(data: bytes, choice: random.Random) -> bytes:
    """Flips, overwrites, inserts, removes, truncates or splices, one to three times."""
    result = bytearray(data)
    for _ in range(choice.randint(1, 3)):
        position = choice.randrange(len(result)) if result else 0
        kind = choice.randrange(7)
        if kind == 0 and result:
            result[position] ^= 1 << choice.randrange(8)
        elif kind == 1 and result:
            result[position] = choice.randrange(256)
        elif kind == 2:
            spice = choice.choice(SPICE)
            result[position : position + len(spice)] = spice
        elif kind == 3:
            result[position:position] = choice.choice(SPICE)
        elif kind == 4:
            del result[position : position + choice.randint(1, 16)]
        elif kind == 5 and choice.random() < 0.3:
            del result[position:]
        else:
            other = choice.randrange(len(data))
            length = choice.randint(1, 64)
            result[position : position + length] = data[other : other + length]
    return bytes(result)


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
