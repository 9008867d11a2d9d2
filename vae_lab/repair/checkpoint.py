"""Extract, remove or replace the VAE of a checkpoint. Always writes a new file, never changes one.

The output is .safetensors, written tensor by tensor, so that it only needs the memory of the largest tensor.
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
from vae_lab.errors import (
    Cancelled,
    FamilyMismatch,
    MissingKeys,
    MissingVae,
    NotAnAutoencoder,
    OtherKind,
    UnreadableFile,
)
from vae_lab.formats import WeightFile, open_weights
from vae_lab.formats.dtypes import SAFETENSORS_TYPES
from vae_lab.latents.family import get_family
from vae_lab.progress import Progress
from vae_lab.state_dict import family_hint, is_checkpoint, read_by_hosts, unet_family, usual_prefix

__all__ = ["bake", "extract", "strip"]

_DOWNSCALE = 8  # image pixels per latent pixel, in every known family
_STATE = "state_dict."  # prefix in pickled checkpoints, which is not part of the names
_NAMES = {kind.dtype: name for name, kind in SAFETENSORS_TYPES.items() if kind.dtype is not None}
_Entry = tuple[tuple[int, ...], torch.dtype, Callable[[], Tensor]]


def extract(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> None:
    """Write the VAE of a checkpoint to a separate file, with ldm names and its own dtypes.

    Also converts any VAE file to that form.

    Raises:
        FileError: the checkpoint cannot be read or has no VAE, or ``out`` exists or cannot be written.
        Cancelled: ``cancelled`` returned True; no file is left.
    """
    with open_vae(checkpoint) as file:
        _write(_vae_entries(file, ""), {}, Path(out), progress, cancelled)


def strip(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> None:
    """Write a checkpoint without its VAE. The WebUI then needs an external one for it.

    Raises:
        FileError: the checkpoint cannot be read or has no VAE, or ``out`` exists or cannot be written.
        Cancelled: ``cancelled`` returned True; no file is left.
    """
    with open_vae(checkpoint) as file:
        _require_checkpoint(file.weights)
        _write(_without_vae(file.weights, file.layout.prefix), file.weights.metadata, Path(out), progress, cancelled)


def bake(
    checkpoint: str | os.PathLike[str],
    vae: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> None:
    """Write a checkpoint with another VAE, with the prefix and dtype of its previous one.

    If it has none, the new VAE gets the prefix that hosts expect, ``first_stage_model.`` or ``vae.``, and keeps its
    own dtypes.

    Args:
        checkpoint: with or without a VAE.
        vae: a VAE, or a checkpoint to take the VAE from.
        out: a new file.
        progress: called before each tensor.
        cancelled: called before each tensor.

    Raises:
        FileError: one of the two cannot be used, or ``out`` exists or cannot be written.
        FamilyMismatch: the VAE and the checkpoint belong to different families.
        Cancelled: ``cancelled`` returned True; no file is left.
    """
    with open_weights(checkpoint) as weights, open_vae(vae) as other:
        _require_checkpoint(weights)
        if other.architecture.name != "AutoencoderKL":
            raise NotAnAutoencoder(other.path, f"a {other.architecture.name} cannot be built into a checkpoint")
        if other.half:
            raise MissingKeys(other.path, f"it has only the {other.half}; a checkpoint needs a whole VAE")
        previous, prefix, dtype = _place(weights)
        _check_fit(weights, other)
        tensors = {**_without_vae(weights, previous), **_vae_entries(other, prefix, dtype)}
        _write(tensors, weights.metadata, Path(out), progress, cancelled)


def _place(weights: WeightFile) -> tuple[str, str, torch.dtype | None]:
    """Prefix of a checkpoint's VAE, prefix for a new one, and its dtype; None if it has no VAE.

    The prefix stays, unless no host reads it.
    """
    usual = usual_prefix(weights.tensors)
    try:
        own = VaeFile(weights)
    except NotAnAutoencoder as error:  # none, or an incomplete one, which is dropped
        if isinstance(error, OtherKind) and error.kind != "unknown-vae":  # no VAE for images can replace it
            raise
        return usual, usual, None
    readable = own.layout.naming != "ldm" or read_by_hosts(own.layout, weights.tensors)
    return own.layout.prefix, own.layout.prefix if readable else usual, own.dtype


def _check_fit(weights: WeightFile, vae: VaeFile) -> None:
    """Refuse a VAE whose latents are not those of the checkpoint's model, or if that cannot be known."""
    hint = family_hint(weights.tensors) or unet_family(weights.tensors)
    if hint is None:
        _check_like_own(weights, vae)
        return
    wanted = get_family(hint)
    if (vae.latent_channels, vae.downscale) != (wanted.latent_channels, _DOWNSCALE):
        raise FamilyMismatch(
            f"{vae.path} makes latents with {vae.latent_channels} channels, at 1/{vae.downscale} of the size, but "
            f"{weights.path} needs {wanted.latent_channels} channels at 1/{_DOWNSCALE} ({wanted.title})"
        )
    family = vae.load().family
    if family and family.id != hint:
        raise FamilyMismatch(
            f"{vae.path} is a VAE for {family.title}, but {weights.path} is not: it would produce garbage"
        )


def _check_like_own(weights: WeightFile, vae: VaeFile) -> None:
    """Of a model of unknown family, the VAE that it has shows what it needs."""
    try:
        own = VaeFile(weights)
    except MissingVae as error:
        raise FamilyMismatch(
            f"it is not known which VAE {weights.path} needs, so none is built in: the model is of an unknown family, "
            "and the file has no VAE"
        ) from error
    if (own.latent_channels, own.downscale) != (vae.latent_channels, vae.downscale):
        raise FamilyMismatch(f"{vae.path} makes other latents than the VAE in {weights.path}: it would produce garbage")
    families = own.load().family, vae.load().family
    if all(families) and families[0] != families[1]:
        raise FamilyMismatch(f"{vae.path} is a VAE of another family than the one in {weights.path}")


def _require_checkpoint(weights: WeightFile) -> None:
    if family_hint(weights.tensors) is None and not is_checkpoint(weights.tensors):
        raise NotAnAutoencoder(weights.path, "not a checkpoint: it contains no model besides a VAE")


def _without_vae(weights: WeightFile, prefix: str) -> dict[str, _Entry]:
    """Everything except the VAE and leftovers of its training; of a pickled training state, only the model."""
    model = _STATE if any(name.startswith(_STATE) for name in weights.tensors) else ""
    return {
        name.removeprefix(model): (info.shape, info.dtype, partial(weights.read, name))
        for name, info in weights.tensors.items()
        if name.startswith(model) and not name.startswith((prefix, _STATE + prefix))
    }


def _vae_entries(vae: VaeFile, prefix: str, dtype: torch.dtype | None = None) -> dict[str, _Entry]:
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
    """Write the tensors to a temporary file next to ``out`` and rename it, so that ``out`` is never incomplete."""
    header: dict[str, object] = {}
    # Without hashes, which would be those of the original file.
    other_metadata = {key: value for key, value in metadata.items() if "hash" not in key.lower()}
    if other_metadata:
        header["__metadata__"] = other_metadata
    position = 0
    for name, (shape, dtype, _) in tensors.items():
        size = torch.Size(shape).numel() * torch.empty(0, dtype=dtype).element_size()
        header[name] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": [position, position + size]}
        position += size
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    if out.exists():
        raise UnreadableFile(str(out), "already exists; nothing was written")
    try:
        free = shutil.disk_usage(out.parent).free
        if free < position + len(raw):
            raise UnreadableFile(
                str(out), f"not enough disk space: {position / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free"
            )
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
