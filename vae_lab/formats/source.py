"""Byte sources: a local file, bytes in memory, or anything else that can be read by range."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from vae_lab.errors import UnreadableFile
from vae_lab.time_limit import TimeLimit

__all__ = ["ByteSource", "LocalFile", "MemorySource", "PrefetchingSource", "TimedSource", "require_range"]


@runtime_checkable
class ByteSource(Protocol):
    """Bytes of known size, read by range. The only access that parsers have to a file."""

    name: str
    """As shown to the user."""
    size: int
    """Total number of bytes when it was opened."""
    bytes_read: int
    """Bytes returned so far; for a remote file, bytes received."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes, starting at ``offset``. Raises UnreadableFile if they do not exist."""
        ...

    def close(self) -> None:
        """Release the file. Closing twice is allowed."""
        ...


@runtime_checkable
class PrefetchingSource(Protocol):
    """A slow ByteSource, where many short reads are faster if they are announced."""

    def prefetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Fetch what reads of these ranges (offset, length) will need. Raises UnreadableFile if it does not exist."""
        ...


class LocalFile:
    """A regular file, as a ByteSource. Safe to read from several threads.

    The size is that at opening: bytes appended later are ignored, and once the file is shorter, reads beyond its
    end raise UnreadableFile.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = os.fsdecode(path)
        self.bytes_read = 0
        self._lock = threading.Lock()
        try:
            # Checked before opening, because opening a named pipe would wait for a writer forever.
            _require_regular(self.name, os.stat(path).st_mode)  # noqa: PTH116 - Path("") means the folder "."
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - as above; closed by close()
        except (OSError, ValueError) as error:
            raise UnreadableFile(self.name, _reason(error)) from error
        self.size = os.fstat(self._file.fileno()).st_size
        if self.size == 0:
            self._file.close()
            raise UnreadableFile(self.name, "the file is empty (0 bytes)")

    def read_at(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes, starting at ``offset``."""
        require_range(self, offset, length)
        pieces = []
        missing = length
        try:
            while missing:
                piece = self._read_some(offset + length - missing, missing)
                if not piece:
                    raise UnreadableFile(self.name, "truncated: the file became shorter while it was being read")
                pieces.append(piece)
                missing -= len(piece)
        except OSError as error:
            raise UnreadableFile(self.name, _reason(error)) from error
        with self._lock:
            self.bytes_read += length
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def prefetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Let the system read ahead these ranges, instead of waiting for the disk at each of them."""
        if hasattr(os, "posix_fadvise"):
            with contextlib.suppress(OSError):  # not every file system supports it
                for offset, length in ranges:
                    os.posix_fadvise(self._file.fileno(), offset, length, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        """Close the file."""
        # A network file system may report a lost connection here. Nothing was written, so nothing is lost.
        with contextlib.suppress(OSError):
            self._file.close()

    def _read_some(self, offset: int, length: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._file.fileno(), length, offset)
        with self._lock:  # Windows: all threads share the position
            self._file.seek(offset)
            return self._file.read(length)


class MemorySource:
    """Bytes in memory, as a ByteSource."""

    def __init__(self, data: bytes, name: str = "<memory>") -> None:
        self.name = name
        self.size = len(data)
        self.bytes_read = 0
        self.closed = False
        self._data = data

    def read_at(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes, starting at ``offset``."""
        require_range(self, offset, length)
        self.bytes_read += length
        return self._data[offset : offset + length]

    def close(self) -> None:
        """Release the bytes."""
        self.closed = True
        self._data = b""


class TimedSource:
    """Another ByteSource, whose reads raise NotFinished once the time for the file is over."""

    def __init__(self, source: ByteSource, time: TimeLimit) -> None:
        self.name = source.name
        self.size = source.size
        self.bytes_read = source.bytes_read
        self._source = source
        self._time = time

    def read_at(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes, starting at ``offset``."""
        self._time.check(self.name, "reading the file")
        data = self._source.read_at(offset, length)
        self.bytes_read = self._source.bytes_read
        return data

    def prefetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        """As :class:`PrefetchingSource`; does nothing if the other source is none."""
        self._time.check(self.name, "reading the file")
        if isinstance(self._source, PrefetchingSource):
            self._source.prefetch(ranges)
            self.bytes_read = self._source.bytes_read

    def close(self) -> None:
        """Close the other source."""
        self._source.close()


def require_range(source: ByteSource, offset: int, length: int) -> None:
    """Raise UnreadableFile if these bytes are not within the source."""
    if offset < 0 or length < 0 or offset + length > source.size:
        reason = f"truncated: bytes {offset} to {offset + length} of {source.size} are needed"
        raise UnreadableFile(source.name, reason)


def _require_regular(name: str, mode: int) -> None:
    if stat.S_ISDIR(mode):
        diffusers = (Path(name) / "model_index.json").exists() or (Path(name) / "config.json").exists()
        hint = "; it looks like a diffusers model; choose a weights file inside it" if diffusers else ""
        raise UnreadableFile(name, f"this is a folder, not a file{hint}")
    if not stat.S_ISREG(mode):
        raise UnreadableFile(name, "this is a device or a pipe, not a file")


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    return f"cannot be read: {error}"
