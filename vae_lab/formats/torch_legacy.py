"""Parses torch's format before 1.6: five pickles in a row, then the length and bytes of each storage."""

from __future__ import annotations

import struct
from typing import Any

from vae_lab.errors import MalformedFile, UnreadableFile
from vae_lab.text import one_line, quoted

from .limits import Limits
from .pickle_reader import PickleReader
from .pickle_records import StorageRef, as_key
from .pickle_stream import PickleStream
from .source import ByteSource
from .torch_tensors import find_tensors
from .weight_file import Contents

__all__ = ["parse_torch_legacy"]

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001

_LENGTH = struct.Struct("<q")


def parse_torch_legacy(source: ByteSource, limits: Limits) -> Contents:
    """Read the pickles and compute the position of each storage.

    Raises UnreadableFile for files that are truncated or from a big-endian machine, else MalformedFile or
    UnsafePickle.
    """
    stream = PickleStream(source, 0, source.size, limits)
    reader = PickleReader(
        stream, source.name, limits, truncation="the file ends within a pickle (incomplete download?)"
    )
    _check_preamble(reader, source.name)
    root = reader.load()
    storages = dict(reader.storages)
    keys = reader.load()
    try:
        layout = _Layout(source, stream.tell(), _in_file_order(keys, storages))
        tensors = find_tensors(root, layout.locate, limits)
    except ValueError as error:
        raise MalformedFile(source.name, one_line(error)) from error
    return Contents("torch-legacy", tensors)


def _check_preamble(reader: PickleReader, path: str) -> None:
    # The first pickle is read completely before it is checked, so that a dangerous one is reported as such.
    if reader.load() != _MAGIC:
        raise UnreadableFile(path, "a pickle, but not a torch checkpoint: torch's magic number is missing")
    version = reader.load()
    if version != _PROTOCOL:
        raise MalformedFile(path, f"torch protocol {quoted(version) if type(version) is int else ''}, not {_PROTOCOL}")
    system = reader.load()
    if not isinstance(system, dict):
        raise MalformedFile(path, "its system information is not a dict")
    if system.get("little_endian") is not True:
        raise UnreadableFile(path, "written on a big-endian machine; only little-endian is supported")


def _in_file_order(keys: Any, storages: dict[str, StorageRef]) -> list[StorageRef]:
    """The storages in the order of their bytes in the file."""
    if not isinstance(keys, list):
        raise ValueError("the list of storages is not a list")
    names = [as_key(key) for key in keys]
    if len(set(names)) < len(names):
        raise ValueError("a storage is listed twice")
    unknown = [name for name in names if name not in storages]
    missing = storages.keys() - set(names)
    if unknown or missing:
        raise ValueError(f"{len(unknown)} storages in the list are unused, {len(missing)} are missing from it")
    return [storages[name] for name in names if name is not None]


class _Layout:
    """Positions of the storages, computed from their sizes. ``locate`` checks the lengths in the file."""

    def __init__(self, source: ByteSource, start: int, storages: list[StorageRef]) -> None:
        self._source = source
        self._positions: dict[str, int] = {}
        for storage in storages:
            self._positions[storage.key] = start + _LENGTH.size
            start += _LENGTH.size + storage.nbytes
        if start > source.size:
            raise UnreadableFile(
                source.name, f"truncated: {start} bytes expected, but the file has {source.size} (incomplete download?)"
            )

    def locate(self, storage: StorageRef) -> int:
        """Return the position of a storage's bytes, after checking the length before them."""
        position = self._positions[storage.key]
        (count,) = _LENGTH.unpack(self._source.read_at(position - _LENGTH.size, _LENGTH.size))
        if count * storage.itemsize != storage.nbytes:
            raise MalformedFile(
                self._source.name,
                f"storage {quoted(storage.key)} should have {storage.nbytes // storage.itemsize} elements, "
                f"but the file declares {count}",
            )
        return position
