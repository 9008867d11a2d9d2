"""A disk full of weight files, most of them broken."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import torch

from tests.unit.makers import F2, SD1_TEXT, UNET, kl_state, prefixed, taesd_state, write, write_legacy, write_zip


class RunsCode:
    """Creates a file if unpickled, so it must never be."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.target}",)


def _header(entries: dict[str, object], body: int, length: int | None = None) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(body)


def _tensor(start: int, stop: int) -> dict[str, object]:
    return {"dtype": "F32", "shape": [(stop - start) // 4], "data_offsets": [start, stop]}


def _without(name: str) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in kl_state(F2).items() if key != name}


def _truncated(path: Path) -> None:
    write(path, taesd_state(encoder=False, width=8))
    path.write_bytes(path.read_bytes()[:5000])


BROKEN: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    "truncated": (".safetensors", "unreadable", _truncated),
    "header larger than the file": (
        ".safetensors",
        "unreadable",
        lambda path: path.write_bytes(_header({"a": _tensor(0, 8)}, 8, 10**6)),
    ),
    "overlapping offsets": (
        ".safetensors",
        "unreadable",
        lambda path: path.write_bytes(_header({"a": _tensor(0, 8), "b": _tensor(4, 12)}, 12)),
    ),
    "missing keys": (
        ".ckpt",
        "broken",
        lambda path: write(path, _without("decoder.mid.block_1.conv1.weight")),
    ),
    "wrong shapes": (
        ".pt",
        "broken",
        lambda path: write(path, kl_state(F2) | {"decoder.mid.block_1.conv1.weight": torch.zeros(7, 7, 3, 3)}),
    ),
    "NaN": (
        ".safetensors",
        "broken",
        lambda path: write(path, {name: tensor * float("nan") for name, tensor in kl_state(F2).items()}),
    ),
    "pickle that runs code": (
        ".bin",
        "unreadable",
        lambda path: path.write_bytes(pickle.dumps(RunsCode(path.with_name("it-ran")))),
    ),
    "empty": (".pth", "unreadable", lambda path: path.touch()),
    "text": (".ckpt", "unreadable", lambda path: path.write_text("version https://git-lfs.github.com/spec/v1")),
    "no VAE": (".safetensors", "missing", lambda path: write(path, UNET)),
}
"""Way to be broken -> suffix, status that is to be found, and how to make such a file."""


def small_vae(path: Path, seed: int, container: Callable[..., Path] = write, checkpoint: bool = False) -> Path:
    """A decoder of 85 kB that no two seeds share."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = taesd_state(encoder=False, width=8)
    if checkpoint:
        state = prefixed("first_stage_model.taesd_decoder.", state) | UNET | SD1_TEXT
    return container(path, state)


def build(root: Path, count: int, distinct: int = 30) -> dict[str, str]:
    """Fill ``root`` with ``count`` files of weights, and with folders named like them.

    Seven of eight are broken; the rest are ``distinct`` VAEs and their copies, as hard links, in three containers.

    Returns:
        Path -> the status that is to be found, or "" where the weights decide.
    """
    originals = root.parent / f"{root.name} originals"
    originals.mkdir(parents=True)
    broken = {way: originals / f"b{i}" for i, way in enumerate(BROKEN)}
    for way, path in broken.items():
        BROKEN[way][2](path)
    containers = (write, write, write_zip, write_legacy)
    healthy = [small_vae(originals / f"s{seed}", seed, containers[seed % 4]) for seed in range(distinct)]
    files: dict[str, str] = {}
    for i in range(count):
        folder = root / f"disk {i % 7}" / f"{i % 31:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        if i % 8:
            way = list(BROKEN)[i % len(BROKEN)]
            suffix, status, source = *BROKEN[way][:2], broken[way]
        else:
            suffix, status, source = ".safetensors", "", healthy[i // 8 % distinct]
        path = folder / f"file {i // 50:03d}{suffix}"  # the same basename in many folders
        if path.exists():
            path = folder / f"file {i:05d}{suffix}"
        path.hardlink_to(source)
        files[str(path)] = status
    for i in range(3):
        (root / f"folder {i}.safetensors").mkdir()
    return files
