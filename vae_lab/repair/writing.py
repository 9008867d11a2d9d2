"""Write tensors to a new .safetensors file, one after the other, and compare the file with what was to be written.

Each byte of the sources is read once. What was written is read back while it is in the system's memory; faults that a
disk reports only later are found when the file is synced, before it gets its name.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch
from torch import Tensor

from vae_lab.errors import Cancelled, FileError, UnreadableFile
from vae_lab.formats import WeightFile, open_weights
from vae_lab.formats.dtypes import SAFETENSORS_TYPES
from vae_lab.new_file import TAKEN, new_file, remove_leftovers, sync_folder
from vae_lab.progress import Progress
from vae_lab.text import quoted, sized

__all__ = ["Entry", "check_target", "unwritable", "write_tensors"]

_SUFFIXES = (".safetensors", ".sft")
_NAMES = {kind.dtype: name for name, kind in SAFETENSORS_TYPES.items() if kind.dtype is not None}
_WRITTEN_TOGETHER = 2**18  # bytes; ext4 needs ten times as long for calls with megabytes
_NOTHING_WRITTEN = "nothing was written"


class Entry(NamedTuple):
    """A tensor to write: ``read`` gives its bytes, in C order, in pieces."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Iterable[bytes]]

    @classmethod
    def of(cls, shape: tuple[int, ...], dtype: torch.dtype, read: Callable[[], Tensor]) -> Entry:
        """``read`` gives a tensor, in any shape and dtype with these elements."""
        return cls(shape, dtype, lambda: [read().to(dtype).reshape(-1).view(torch.uint8).numpy().tobytes()])

    @property
    def nbytes(self) -> int:
        """Size in the file."""
        return torch.Size(self.shape).numel() * torch.empty(0, dtype=self.dtype).element_size()


def check_target(out: Path) -> None:
    """Refuse a name under which hosts would not read a safetensors file, or which is taken.

    Raises:
        UnreadableFile: with the reason.
    """
    if out.suffix.lower() not in _SUFFIXES:
        raise UnreadableFile(
            str(out),
            "the new file is a safetensors file, which hosts only read if its name ends in .safetensors; "
            f"{_NOTHING_WRITTEN}. Choose {out.with_suffix('.safetensors').name!r}, for example",
        )
    if os.path.lexists(out):
        raise UnreadableFile(str(out), f"{TAKEN}; {_NOTHING_WRITTEN}")


def unwritable(weights: WeightFile, names: set[str]) -> str:
    """Why one of these tensors of a file cannot be copied to a safetensors file; "" if all can."""
    for name in sorted(names):
        info = weights.tensors[name]
        if info.flaw or info.dtype not in _NAMES or name == "__metadata__":
            return f"tensor {quoted(name)} cannot be copied: {info.flaw or f'safetensors has no {info.dtype}'}"
    return ""


def write_tensors(
    tensors: Mapping[str, Entry],
    metadata: Mapping[str, str],
    out: Path,
    is_right: Callable[[WeightFile], bool],
    progress: Progress | None,
    cancelled: Callable[[], bool] | None,
) -> None:
    """Write to a temporary file next to ``out``, read each tensor back, and give the file that name.

    See :mod:`vae_lab.new_file`. What programs that were killed have left in that folder is removed first: it may fill
    the disk.

    Args:
        tensors: in this order.
        metadata: without hashes, which would be those of the original file.
        out: a name that ``check_target`` accepts.
        is_right: whether the new file, read back, has the structure that it should have.
        progress: called before each tensor.
        cancelled: called before each tensor.

    Raises:
        UnreadableFile: it cannot be written, or what is read back is something else; no file is left.
        Cancelled: ``cancelled`` returned True; no file is left.
    """
    check_target(out)
    header = _header(tensors, metadata)
    total = sum(entry.nbytes for entry in tensors.values())
    run = _Run(total, progress, cancelled)
    remove_leftovers(out.parent)
    try:
        free = shutil.disk_usage(out.parent).free
        if free < total + len(header):
            needed, left = total / 1e9, free / 1e9
            raise UnreadableFile(str(out), f"not enough disk space: {needed:.2f} GB needed, {left:.2f} GB free")
        with new_file(out) as file:
            wrong = _write(file, header, tensors, run) or _fault(file, out, tensors, is_right)
            if wrong:
                raise UnreadableFile(str(out), f"was not read back as it should be ({wrong}), so it was removed")
        sync_folder(out.parent)
    except FileExistsError as error:
        raise UnreadableFile(str(out), f"{TAKEN}; {_NOTHING_WRITTEN}") from error
    except OSError as error:
        raise UnreadableFile(str(out), f"could not be written: {error.strerror or error}") from error
    if progress:
        progress(total, total, "")


class _Run:
    """Reports progress, and ends with ``Cancelled`` when told to."""

    def __init__(self, total: int, progress: Progress | None, cancelled: Callable[[], bool] | None) -> None:
        self.total, self._progress, self._cancelled = total, progress, cancelled
        self._done = 0

    def next(self, name: str, nbytes: int) -> None:
        if self._cancelled and self._cancelled():
            raise Cancelled("cancelled")
        if self._progress:
            self._progress(self._done, self.total, name)
        self._done += nbytes


def _header(tensors: Mapping[str, Entry], metadata: Mapping[str, str]) -> bytes:
    header: dict[str, object] = {}
    kept = {key: value for key, value in metadata.items() if "hash" not in key.lower()}
    if kept:
        header["__metadata__"] = kept
    position = 0
    for name, entry in tensors.items():
        end = position + entry.nbytes
        header[name] = {"dtype": _NAMES[entry.dtype], "shape": entry.shape, "data_offsets": [position, end]}
        position = end
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw


def _write(file: BinaryIO, header: bytes, tensors: Mapping[str, Entry], run: _Run) -> str:
    """Returns what is not read back as it was written; "" if all is."""
    with open(file.name, "rb", buffering=0) as written:
        if not _put(file, written, header):
            return "header"
        for name, entry in tensors.items():
            run.next(name, entry.nbytes)
            length = 0
            for piece in entry.read():
                length += len(piece)
                if not _put(file, written, piece):
                    return f"tensor {quoted(name)}"
            if length != entry.nbytes:
                raise ValueError(f"{name}: {length} bytes instead of {sized(entry.nbytes)}")
    return ""


def _put(file: BinaryIO, written: BinaryIO, piece: bytes) -> bool:
    """Append ``piece``. Returns whether ``written``, the same file opened to read, has it next."""
    view = memoryview(piece)
    for start in range(0, len(piece), _WRITTEN_TOGETHER):
        file.write(view[start : start + _WRITTEN_TOGETHER])
    file.flush()
    found = b""
    while len(found) < len(piece):
        more = written.read(len(piece) - len(found))
        if not more:
            break
        found = found + more if found else more
    return found == piece


def _fault(written: BinaryIO, out: Path, tensors: Mapping[str, Entry], is_right: Callable[[WeightFile], bool]) -> str:
    """What is wrong with the structure of a file that was written; "" if nothing is."""
    try:
        with open_weights(written.name) as file:
            found = {name: (info.shape, info.dtype) for name, info in file.tensors.items()}
            if found != {name: (entry.shape, entry.dtype) for name, entry in tensors.items()}:
                return "header"
            return "" if is_right(file) else "structure"
    except FileError as error:
        raise UnreadableFile(str(out), f"could not be read back, so it was removed: {error.reason}") from error
