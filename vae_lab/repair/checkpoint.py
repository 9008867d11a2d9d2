"""Extract, remove or replace the VAE of a checkpoint. Always writes a new file, never changes one.

The output is .safetensors, written tensor by tensor, so that it only needs the memory of the largest tensor.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from vae_lab.autoencoders import VaeFile, open_vae
from vae_lab.errors import MalformedFile, MissingVae, NotAnAutoencoder, NotFinite
from vae_lab.formats import WeightFile, open_weights
from vae_lab.latents.family import Family, get_family
from vae_lab.progress import Progress
from vae_lab.repair.fit import check_fit, own_vae
from vae_lab.repair.writing import Entry, check_target, unwritable, write_tensors
from vae_lab.state_dict import VAE_PARTS, is_checkpoint, not_finite, usual_prefix, vae_tensors
from vae_lab.text import quoted

__all__ = ["bake", "extract", "extracted_size", "strip"]

_STATE = "state_dict."  # prefix in pickled checkpoints, which is not part of the names
_PREFIXES = ("first_stage_model.", "vae.")
_PRECISIONS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def extract(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> None:
    """Write the VAE of a checkpoint to a separate file, with ldm names and its own dtypes.

    Also converts any VAE file to that form. Tensors of no known architecture are copied; only leftovers of training
    are not.

    Raises:
        FileError: the checkpoint cannot be read or has no VAE, or ``out`` exists, is no .safetensors file, or cannot
            be written.
        Cancelled: ``cancelled`` returned True; no file is left.
    """
    check_target(Path(out))
    with open_vae(checkpoint) as file:
        tensors = _vae_entries(file, "")
        write_tensors(tensors, {}, Path(out), partial(_has_vae, file, ""), progress, cancelled)


def extracted_size(checkpoint: str | os.PathLike[str]) -> int:
    """Bytes of the weights that :func:`extract` would write. Only reads the header.

    Raises:
        FileError: there is no VAE that could be extracted.
    """
    with open_vae(checkpoint) as file:
        return sum(entry.nbytes for entry in _vae_entries(file, "").values())


def strip(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> None:
    """Write a checkpoint without its VAE, of which every copy is removed. The WebUI then needs an external one for it.

    Raises:
        FileError: the checkpoint cannot be read or has no VAE, or ``out`` exists, is no .safetensors file, or cannot
            be written.
        Cancelled: ``cancelled`` returned True; no file is left.
    """
    check_target(Path(out))
    with open_weights(checkpoint) as weights:
        _require_checkpoint(weights)
        if own_vae(weights) is None and not vae_tensors(weights.tensors):
            raise MissingVae(weights.path, "a checkpoint without a VAE: there is nothing to remove")
        tensors = _without_vae(weights)
        write_tensors(tensors, weights.metadata, Path(out), _has_no_vae, progress, cancelled)


def bake(
    checkpoint: str | os.PathLike[str],
    vae: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    family: str | Family | None = None,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> None:
    """Write a checkpoint with another VAE, which replaces every copy of its previous one.

    It gets the prefix that hosts read for this model, ``first_stage_model.`` or ``vae.``, and the precision of the
    previous VAE, but at least 16 bits. If there was none, it keeps its own dtypes.

    Args:
        checkpoint: with or without a VAE.
        vae: a VAE, or a checkpoint to take the VAE from.
        out: a new file.
        family: the family of VAEs that the weights of ``vae`` show, if that is known already: finding it takes seconds.
        progress: called before each tensor.
        cancelled: called before each tensor.

    Raises:
        FileError: one of the two cannot be used, or ``out`` exists, is no .safetensors file, or cannot be written.
        FamilyMismatch: the VAE does not fit the checkpoint's model, or that is not known.
        Cancelled: ``cancelled`` returned True; no file is left.
    """
    check_target(Path(out))
    with open_weights(checkpoint) as weights, open_vae(vae) as other:
        _require_checkpoint(weights)
        check_fit(weights, other, get_family(family) if family else None)
        prefix, dtype = _place(weights)
        tensors = {**_without_vae(weights), **_vae_entries(other, prefix, dtype)}
        write_tensors(tensors, weights.metadata, Path(out), partial(_has_vae, other, prefix), progress, cancelled)


def _place(weights: WeightFile) -> tuple[str, torch.dtype | None]:
    """Prefix for a new VAE in a checkpoint, and its dtype; None if it has no VAE now.

    The previous prefix only stays in a model of which it is not known what hosts read.
    """
    own = own_vae(weights)
    if own is None:
        return usual_prefix(weights.tensors), None
    previous = own.layout.prefix.removeprefix(_STATE)
    prefix = usual_prefix(weights.tensors, previous if previous in _PREFIXES else _PREFIXES[-1])
    return prefix, own.dtype if own.dtype in _PRECISIONS else torch.float16


def _require_checkpoint(weights: WeightFile) -> None:
    if not is_checkpoint(weights.tensors):
        raise NotAnAutoencoder(weights.path, "not a checkpoint: it contains no model besides a VAE")


def _without_vae(weights: WeightFile) -> dict[str, Entry]:
    """Everything except VAEs and leftovers of their training; of a pickled training state, only the model."""
    model = _STATE if any(name.startswith(_STATE) for name in weights.tensors) else ""
    names = [name for name in weights.tensors if name.startswith(model)]
    removed = vae_tensors(weights.tensors)
    return _entries(weights, {name.removeprefix(model): name for name in names if name not in removed})


def _vae_entries(vae: VaeFile, prefix: str, dtype: torch.dtype | None = None) -> dict[str, Entry]:
    """The VAE's own tensors in ``dtype``, and what else belongs to it as it is."""
    layout, weights = vae.layout, vae.weights
    twice = sorted(name for name in layout.extras if name.startswith(VAE_PARTS))
    if twice:
        raise MalformedFile(vae.path, f"it is not clear which tensor is right: {quoted(twice[0])} is there twice")
    entries = _entries(weights, {**layout.names, **layout.extras})
    for name, source in layout.names.items():
        stored = weights.tensors[source].dtype
        if dtype is not None and dtype != stored:
            _converted(vae, source, dtype)  # before anything is written
        entries[name] = Entry.of(vae.shapes[name], dtype or stored, partial(_converted, vae, source, dtype or stored))
    return {prefix + name: entry for name, entry in entries.items()}


def _entries(weights: WeightFile, names: dict[str, str]) -> dict[str, Entry]:
    """New name -> what to write, for names in a file.

    Raises:
        MalformedFile: one of them cannot be read, or cannot be written to a safetensors file.
    """
    reason = unwritable(weights, set(names.values()))
    if reason:
        raise MalformedFile(weights.path, reason)
    tensors = weights.tensors
    return {
        name: Entry(tensors[source].shape, tensors[source].dtype, partial(weights.pieces, source))
        for name, source in names.items()
    }


def _converted(vae: VaeFile, source: str, dtype: torch.dtype) -> Tensor:
    value = vae.weights.read(source)
    result = value.to(dtype)
    if dtype != value.dtype and not_finite({source: result}):
        largest, limit = value.abs().max().item(), torch.finfo(dtype).max
        raise NotFinite(
            vae.path,
            f"{quoted(source)} has values up to {largest:.3g}, but the VAE in the checkpoint is stored as "
            f"{str(dtype).removeprefix('torch.')}, which ends at {limit:.3g}: it would produce black images",
        )
    return result


def _has_vae(vae: VaeFile, prefix: str, written: WeightFile) -> bool:
    """Whether the VAE that hosts load from a new file is ``vae``."""
    layout = VaeFile(written).layout
    names = layout.names.keys(), layout.extras.keys()
    return layout.prefix == prefix and names == (vae.layout.names.keys(), vae.layout.extras.keys())


def _has_no_vae(written: WeightFile) -> bool:
    return not vae_tensors(written.tensors)
