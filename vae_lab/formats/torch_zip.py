"""Parses torch's current format (since 1.6): a zip archive of one pickle and one uncompressed entry per storage.

Checksums are not verified: entries are read in part only, and torch can omit checksums
(``torch.serialization.set_crc32_options``).
"""

from __future__ import annotations

import io
import os
import struct
import zipfile

from vae_lab.errors import MalformedFile, UnreadableFile
from vae_lab.text import one_line, quoted, sized

from .limits import Limits
from .pickle_reader import PickleReader
from .pickle_records import StorageRef
from .pickle_stream import PickleStream
from .source import ByteSource
from .torch_tensors import find_tensors
from .weight_file import Contents

__all__ = ["parse_torch_zip"]

# The fixed part of the header before each entry: signature, flags, method, lengths of the name and the extra field.
_LOCAL_HEADER = struct.Struct("<4s2xHH16xHH")

_ENCRYPTED = 0x1

# The last record of an archive: its signature, and its maximum distance from the end of the file (22 bytes and a
# comment of up to 64 kB).
_END_OF_DIRECTORY = b"PK\x05\x06"
_TAIL_BYTES = 22 + 65_535


def parse_torch_zip(source: ByteSource, limits: Limits) -> Contents:
    """Read the archive's directory and its pickle.

    Raises UnreadableFile for archives that are truncated or not supported (TorchScript, compressed, encrypted,
    big-endian), else MalformedFile or UnsafePickle.
    """
    archive = _Archive(source, limits)
    archive.check_byte_order()
    position, length = archive.locate("data.pkl")
    if length > limits.pickle_bytes:
        limit = sized(limits.pickle_bytes)
        raise MalformedFile(source.name, f"its pickle has {sized(length)}; the limit is {limit}")
    stream = PickleStream(source, position, position + length, limits)
    reader = PickleReader(stream, source.name, limits, truncation="the pickle in the archive ends too early")
    root = reader.load()
    for storage in reader.storages.values():
        archive.check_storage(storage)
    try:
        tensors = find_tensors(root, lambda storage: archive.locate(f"data/{storage.key}")[0], limits)
    except ValueError as error:
        raise MalformedFile(source.name, one_line(error)) from error
    return Contents("torch-zip", tensors)


class _Archive:
    """The entries of a torch archive, by name within its single top folder."""

    def __init__(self, source: ByteSource, limits: Limits) -> None:
        self._source = source
        entries = _directory(source, limits)
        self._root = _find_root(source.name, entries)
        prefix = f"{self._root}/"
        self._entries = {name.removeprefix(prefix): entry for name, entry in entries.items() if name.startswith(prefix)}

    def check_byte_order(self) -> None:
        """Refuse archives from big-endian machines."""
        if "byteorder" not in self._entries:  # not written before torch 2.1
            return
        position, length = self.locate("byteorder")
        order = self._source.read_at(position, min(length, 16)).strip()
        if order != b"little":
            raise UnreadableFile(
                self._source.name, f"byte order {quoted(order.decode('latin-1'))}; only little is supported"
            )

    def check_storage(self, storage: StorageRef) -> None:
        """Check that the entry of a storage exists and is large enough."""
        entry = self._stored_entry(f"data/{storage.key}")
        if entry.file_size < storage.nbytes:
            raise MalformedFile(
                self._source.name,
                f"storage {quoted(storage.key)} should have {storage.nbytes} bytes, the archive has {entry.file_size}",
            )

    def locate(self, name: str) -> tuple[int, int]:
        """Return the position and length of an entry's bytes in the file."""
        entry = self._stored_entry(name)
        path = self._source.name
        header = self._source.read_at(*self._within(entry.header_offset, _LOCAL_HEADER.size, name))
        signature, flags, method, name_length, extra_length = _LOCAL_HEADER.unpack(header)
        if signature != b"PK\x03\x04" or flags & _ENCRYPTED or method != zipfile.ZIP_STORED:
            raise MalformedFile(path, f"zip entry {quoted(name)}: its header contradicts the archive's directory")
        start = entry.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        return self._within(start, entry.file_size, name)

    def _stored_entry(self, name: str) -> zipfile.ZipInfo:
        path = self._source.name
        entry = self._entries.get(name)
        if entry is None:
            raise MalformedFile(path, f"the archive has no entry {quoted(name)}")
        if entry.flag_bits & _ENCRYPTED:
            raise UnreadableFile(path, f"zip entry {quoted(name)} is encrypted")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise UnreadableFile(path, f"zip entry {quoted(name)} is compressed, which torch never does; not supported")
        return entry

    def _within(self, position: int, length: int, name: str) -> tuple[int, int]:
        if position < 0 or position + length > self._source.size:
            raise MalformedFile(self._source.name, f"zip entry {quoted(name)} reaches beyond the end of the file")
        return position, length


def _directory(source: ByteSource, limits: Limits) -> dict[str, zipfile.ZipInfo]:
    """Return the archive's entries by name. Only the directory at the end of the file is read."""
    try:
        with zipfile.ZipFile(_DirectoryView(source, limits)) as archive:  # type: ignore[arg-type]
            infos = archive.infolist()
    # Not only BadZipFile: zipfile trusts some fields.
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, IndexError, struct.error) as error:
        tail_length = min(source.size, _TAIL_BYTES)
        if _END_OF_DIRECTORY not in source.read_at(source.size - tail_length, tail_length):
            reason = "truncated: the zip archive's directory at the end is missing (incomplete download?)"
            raise UnreadableFile(source.name, reason) from error
        raise MalformedFile(source.name, f"bad zip archive: {one_line(error)}") from error
    entries = {entry.filename: entry for entry in infos}
    if len(entries) < len(infos):
        raise MalformedFile(source.name, "two zip entries have the same name")
    return entries


def _find_root(path: str, entries: dict[str, zipfile.ZipInfo]) -> str:
    roots = [name.removesuffix("/data.pkl") for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if not roots:
        examples = ", ".join(quoted(name, 40) for name in list(entries)[:3])
        raise UnreadableFile(path, f"a zip archive without data.pkl, not a torch checkpoint; it contains {examples}")
    if len(roots) > 1:
        raise MalformedFile(path, f"{len(roots)} entries are named data.pkl")
    (root,) = roots
    if f"{root}/constants.pkl" in entries or any(name.startswith(f"{root}/code/") for name in entries):
        raise UnreadableFile(path, "a TorchScript archive is a program, not a checkpoint")
    return root


class _DirectoryView(io.RawIOBase):
    """Presents a source to zipfile as a seekable file, and refuses large reads.

    zipfile trusts the directory size that the file declares, and reads the directory in one piece.
    """

    def __init__(self, source: ByteSource, limits: Limits) -> None:
        super().__init__()
        self._source = source
        self._limit = limits.directory_bytes
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._source.size}[whence]
        if base + offset < 0:
            raise ValueError("negative file position")
        self._position = base + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        rest = max(self._source.size - self._position, 0)
        length = rest if size is None or size < 0 else min(size, rest)
        if length > self._limit:
            raise MalformedFile(
                self._source.name, f"the zip directory has {sized(length)}; the limit is {sized(self._limit)}"
            )
        data = self._source.read_at(self._position, length)
        self._position += length
        return data
