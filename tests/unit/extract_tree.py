"""Folders like the WebUI's ``models`` whose checkpoints have built-in VAEs, with the records of a scan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from tests.unit.fix_tree import GREY, MEASURED
from tests.unit.makers import SD1_TEXT, UNET, kl_state, prefixed, write, write_zip
from vae_lab.checkup import Checkup
from vae_lab.checkup.checkup import identity_key
from vae_lab.identity import fingerprint
from vae_lab.latents.family import FAMILIES
from vae_lab.library import Depth, FileCache, FileRecord
from vae_lab.library.folders import file_key
from vae_lab.library.record import Kind, file_facts

CHECKPOINTS = {
    "first.safetensors": ("fp16", "a"),
    "deep/second.ckpt": ("fp32", "a"),
    "anything.safetensors": ("fp32", "b"),
    "anything-v3.safetensors": ("fp32", "c"),
    "grey.safetensors": ("fp32", "grey"),
    "copy-of-external.safetensors": ("fp16", "external"),
    "empty.safetensors": ("fp32", ""),
}
"""name -> precision and VAE."""

SEEDS = {"a": 1, "b": 2, "c": 3, "grey": 4, "external": 5}
WRITTEN = {
    "deep/second.ckpt": "vae-second.safetensors",
    "anything.safetensors": "vae-anything.safetensors",
    "anything-v3.safetensors": "vae-anything-v3.safetensors",
}
"""What is to be written, by checkpoint."""


def scanned(folder: Path) -> Path:
    """The folders as ``folder/models``, after a scan whose results are in ``folder/data``."""
    cache = FileCache(folder / "data")
    models = folder / "models"
    for name, (precision, vae) in CHECKPOINTS.items():
        state = state_of(vae, precision) if vae else {}
        weights = {**UNET, **SD1_TEXT, **prefixed("first_stage_model.", state)}
        add(models / "Stable-diffusion" / name, weights, "checkpoint", vae, state, cache)
    state = state_of("external", "fp32")
    add(models / "VAE" / "mine.pt", state, "vae", "external", state, cache)
    cache.close()
    return models


def state_of(vae: str, precision: str = "fp32") -> Mapping[str, Tensor]:
    """Its weights; those of fp16 and fp32 are the same."""
    state = {name: tensor.half() for name, tensor in kl_state(seed=SEEDS[vae]).items()}
    return state if precision == "fp16" else {name: tensor.to(torch.float32) for name, tensor in state.items()}


def add(
    path: Path, weights: Mapping[str, Tensor], kind: Kind, vae: str, state: Mapping[str, Tensor], cache: FileCache
) -> None:
    """Write a file, and what a scan would find out about it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (write if path.suffix == ".safetensors" else write_zip)(path, weights)
    add_record(path, kind, vae, state, cache)


def add_record(path: Path, kind: Kind, vae: str, state: Mapping[str, Tensor], cache: FileCache) -> None:
    """What a scan would find out about a file."""
    facts = {name: fact for name, fact in file_facts(str(path)).items() if name != "name"}
    record = FileRecord(
        str(path), path.name, kind=kind, family_id="sd1", hint_id="sd1" if kind == "checkpoint" else "",
        architecture="AutoencoderKL", depth=Depth.CHECKED, **facts,
    )  # fmt: skip
    if state:
        checkup = Checkup("sd1", (GREY,) if vae == "grey" else (), MEASURED)
        precision = str(next(iter(state.values())).dtype).removeprefix("torch.float")
        record = replace(record, fingerprint=fingerprint(state), dtype=f"fp{precision}", checkup=checkup)
        for family in (None, FAMILIES["sd1"]):  # of the new files, nothing has to be decoded
            cache.put(identity_key(record.fingerprint, family), checkup)
    else:
        record = replace(record, problem="a checkpoint without a VAE", architecture="")
    cache.add(str(path), record, file_key(str(path)))
