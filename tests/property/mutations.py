"""Small files of every kind that is read, and ways to damage them."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator

import torch
from safetensors.torch import save

# Bytes that mean something to one of the parsers.
SPICE = [
    *(b"\x00", b"\xff", b"\x80\x02", b".", b"(", b"t", b"R", b"b", b"}", b"]", b"\x94", b"\x93", b"Q", b"2", b"0"),
    *(b'"', b"[", b"]", b"{", b"-1", b"1e9", b"99999999999", b"\\u", b"PK\x01\x02", b"PK\x05\x06", b"PK\x03\x04"),
    *(b"\xff\xff\xff\x7f", b"\xff" * 8, b"\x00" * 8, b"\x8a\x08", b"\x8d", b"cos\nsystem\n"),
]


def weight_files() -> Iterator[tuple[str, bytes]]:
    """Name and bytes of a few tensors in each container."""
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
