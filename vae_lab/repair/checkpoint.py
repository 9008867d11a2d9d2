"""Take the VAE out of a checkpoint, leave it out, or put another one in. Files are written anew, never changed.

What is written is .safetensors, tensor by tensor: a checkpoint of any size needs the memory of its largest tensor.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from vae_lab.autoencoders import VaeFile, open_vae
from vae_lab.errors import Cancelled, FamilyMismatch, NotAnAutoencoder, UnreadableFile
from vae_lab.formats import WeightFile, open_weights
from vae_lab.formats.dtypes import SAFETENSORS_TYPES
from vae_lab.progress import Progress
from vae_lab.state_dict import family_hint

__all__ = ["bake", "extract", "strip"]

_PREFIX = "first_stage_model."
_STATE = "state_dict."  # where pickled checkpoints have their tensors; it is no part of the names
_NAMES = {kind.dtype: name for name, kind in SAFETENSORS_TYPES.items() if kind.dtype is not None}
_Entry = tuple[tuple[int, ...], torch.dtype, Callable[[], Tensor]]


def extract(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> None:
    """Write the VAE of a checkpoint as a file of its own, with ldm names and in its own precision.

    Also turns any VAE file into that form.

    Raises:
        FileError: the checkpoint cannot be read or has no VAE, or ``out`` is there already or cannot be written.
        Cancelled: as asked; nothing is left behind.
    """
    with open_vae(checkpoint) as file:
        _write(_of_vae(file, ""), {}, Path(out), progress, cancelled)


def strip(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> None:
    """Write a checkpoint without its VAE. The WebUI needs an external one for it then.

    Raises:
        FileError: the checkpoint cannot be read or has no VAE, or ``out`` is there already or cannot be written.
        Cancelled: as asked; nothing is left behind.
    """
    with open_vae(checkpoint) as file:
        _require_checkpoint(file.weights)
        _write(_others(file.weights, file.layout.prefix), file.weights.metadata, Path(out), progress, cancelled)


def bake(
    checkpoint: str | os.PathLike[str],
    vae: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> None:
    """Write a checkpoint with another VAE in it, in the place and the precision of its own one.

    Where it has none, the VAE comes under ``first_stage_model.``, in the VAE's own precision.

    Args:
        checkpoint: with or without a VAE.
        vae: a VAE, or a checkpoint whose VAE is meant.
        out: a new file.
        progress: told before each tensor.
        cancelled: asked before each tensor.

    Raises:
        FileError: one of the two cannot be used, or ``out`` is there already or cannot be written.
        FamilyMismatch: the VAE understands latents of another family than the checkpoint makes.
        Cancelled: as asked; nothing is left behind.
    """
    with open_weights(checkpoint) as weights, open_vae(vae) as other:
        _require_checkpoint(weights)
        if other.architecture.name != "AutoencoderKL":
            raise NotAnAutoencoder(other.path, f"a {other.architecture.name}, which no checkpoint has built in")
        _check_family(weights, other)
        prefix, dtype = _place(weights)
        tensors = {**_others(weights, prefix), **_of_vae(other, prefix, dtype)}
        _write(tensors, weights.metadata, Path(out), progress, cancelled)


def _place(weights: WeightFile) -> tuple[str, torch.dtype | None]:
    """Prefix and precision of the VAE that is in a checkpoint, or of where one belongs."""
    try:
        own = VaeFile(weights)
    except NotAnAutoencoder:  # none, or an incomplete one, which goes
        return _PREFIX, None
    return own.layout.prefix, own.dtype


def _check_family(weights: WeightFile, vae: VaeFile) -> None:
    hint = family_hint(weights.tensors)
    family = vae.load().family
    if hint and family and family.id != hint:
        raise FamilyMismatch(
            f"{vae.path} is a VAE for {family.title}, {weights.path} makes other latents: its images would be garbage"
        )


def _require_checkpoint(weights: WeightFile) -> None:
    if family_hint(weights.tensors) is None and not any("model.diffusion_model." in name for name in weights.tensors):
        raise NotAnAutoencoder(weights.path, "not a checkpoint: there is no model in it beside a VAE")


def _others(weights: WeightFile, prefix: str) -> dict[str, _Entry]:
    """All that is not the VAE, nor a leftover of its training; of a pickled training state, the model alone."""
    model = _STATE if any(name.startswith(_STATE) for name in weights.tensors) else ""
    return {
        name.removeprefix(model): (info.shape, info.dtype, partial(weights.read, name))
        for name, info in weights.tensors.items()
        if name.startswith(model) and not name.startswith((prefix, _STATE + prefix))
    }


def _of_vae(vae: VaeFile, prefix: str, dtype: torch.dtype | None = None) -> dict[str, _Entry]:
    return {
        prefix.removeprefix(_STATE) + name: (
            vae.shapes[name],
            dtype or vae.weights.tensors[source].dtype,
            partial(vae.weights.read, source),
        )
        for name, source in vae.layout.names.items()
    }


def _write(
    tensors: Mapping[str, _Entry],
    metadata: Mapping[str, str],
    out: Path,
    progress: Progress | None,
    cancelled: Callable[[], bool] | None,
) -> None:
    """Write them one after the other, beside ``out`` first, so that no half of a file ever has its name."""
    header: dict[str, object] = {}
    # Hashes of the file that it was made from would be untrue.
    kept = {key: value for key, value in metadata.items() if "hash" not in key.lower()}
    if kept:
        header["__metadata__"] = kept
    position = 0
    for name, (shape, dtype, _) in tensors.items():
        size = torch.Size(shape).numel() * torch.empty(0, dtype=dtype).element_size()
        header[name] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": [position, position + size]}
        position += size
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    if out.exists():
        raise UnreadableFile(str(out), "is there already; nothing was written")
    try:
        free = shutil.disk_usage(out.parent).free
        if free < position + len(raw):
            raise UnreadableFile(str(out), f"{position / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free")
        unfinished = out.with_name(f"{out.name}.part")
        try:
            with unfinished.open("wb") as file:
                file.write(len(raw).to_bytes(8, "little") + raw)
                done = 0
                for name, (_, dtype, read) in tensors.items():
                    if cancelled and cancelled():
                        raise Cancelled("cancelled")
                    if progress:
                        progress(done, position, name)
                    value = read().to(dtype).reshape(-1)
                    done += file.write(value.view(torch.uint8).numpy().data)
            unfinished.rename(out)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise UnreadableFile(str(out), f"could not be written: {error.strerror or error}") from error
    if progress:
        progress(position, position, "")
