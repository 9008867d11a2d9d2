"""Which built-in VAEs of checkpoints are in no VAE file yet, and what to call the files; by what is known of them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from vae_lab.checkup.findings import BROKEN, Status
from vae_lab.library.record import FileRecord

__all__ = ["Extraction", "find_extractions", "free_name"]

_PRECISIONS = ("fp64", "fp32", "bf16", "fp16")  # the finest first
_SUFFIX = ".safetensors"
_PREFIXES = ("vae-", "extracted-vae-")
_MAX_STEM = 120  # characters of a checkpoint's name; file systems allow 255 bytes


@dataclass(frozen=True)
class Extraction:
    """A distinct built-in VAE, and what would be done about it.

    Attributes:
        checkpoint: name of the checkpoint to take it from.
        also: names of other checkpoints with the same VAE.
        status: of its checkup.
        title: the worst finding in a few words; "" without one.
        dtype: stored precision, such as ``fp16``.
        file: name of the new file; "" if it is not extracted.
        size: of the new file, in bytes, about; 0 if it is not extracted.
        skipped: why it is not extracted, or "".
    """

    checkpoint: str
    also: tuple[str, ...]
    status: Status
    title: str
    dtype: str
    file: str = ""
    size: int = 0
    skipped: str = ""


def find_extractions(
    checkpoints: Mapping[str, FileRecord], vaes: Mapping[str, FileRecord], *, broken: bool = False
) -> list[Extraction]:
    """One for each distinct VAE in the checkpoints: same weights are one VAE, whatever container, names, fp32 or fp16.

    Names and sizes of new files are left to the caller.

    Args:
        checkpoints: name -> record.
        vaes: name -> record of the VAE files that exist.
        broken: also extract broken VAEs.
    """
    by_weights: defaultdict[str, list[str]] = defaultdict(list)
    unusable: list[Extraction] = []
    for name, record in checkpoints.items():
        if record.kind == "checkpoint" and not record.problem and record.fingerprint:
            by_weights[record.fingerprint].append(name)
        elif record.kind == "checkpoint" and record.status == BROKEN:  # such as NaN: nothing can use it
            unusable.append(_of(name, record, skipped=record.problem))
    existing = {record.fingerprint: name for name, record in reversed(list(vaes.items())) if not record.problem}
    found = []
    for weights, names in by_weights.items():
        # What is healthy in one checkpoint is not broken because another one does not fit it. Then the finest copy,
        # because fp16 has lost bits of fp32.
        first, *others = sorted(names, key=lambda name: _rank(checkpoints[name]))
        record, skipped = checkpoints[first], ""
        if weights in existing:
            skipped = f"it is already in {existing[weights]}"
        elif record.status == BROKEN and not broken:
            skipped = "it is broken"
        found.append(_of(first, record, tuple(others), skipped))
    return found + unusable


def _of(name: str, record: FileRecord, also: tuple[str, ...] = (), skipped: str = "") -> Extraction:
    findings = record.verdict.findings
    title = findings[0].title if findings else ""
    return Extraction(name, also, record.status, title, record.dtype, skipped=skipped)


def free_name(checkpoint: Path, folder: Path, stems: Collection[str], planned: Collection[str] = ()) -> str:
    """A name for the VAE of a checkpoint, such as ``vae-model.safetensors``, that no file in ``folder`` has.

    The WebUI's *Automatic* uses a VAE file for every checkpoint with whose name the file's name begins. So it begins
    with that of none.

    Args:
        checkpoint: its file.
        folder: of the new file.
        stems: names of all checkpoint files, without folder and suffix.
        planned: names that are taken, although no file has them yet.
    """
    own = checkpoint.stem[:_MAX_STEM]
    starts = [f"{prefix}{own}" for prefix in _PREFIXES]
    start = next((start for start in starts if not _begins_with_any(start, stems)), starts[-1])
    taken = {name.casefold() for name in planned}
    name, number = f"{start}{_SUFFIX}", 2
    while name.casefold() in taken or os.path.lexists(folder / name):
        name, number = f"{start}-{number}{_SUFFIX}", number + 1
    return name


def _begins_with_any(name: str, stems: Collection[str]) -> bool:
    return any(name.casefold().startswith(stem.casefold()) for stem in stems)


def _rank(record: FileRecord) -> tuple[bool, int]:
    precision = _PRECISIONS.index(record.dtype) if record.dtype in _PRECISIONS else len(_PRECISIONS)
    return record.status == BROKEN, precision
