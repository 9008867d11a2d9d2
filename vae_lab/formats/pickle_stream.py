"""Presents a byte range of a source to ``pickletools`` as a file."""

from __future__ import annotations

from vae_lab.errors import MalformedFile
from vae_lab.text import sized

from .limits import Limits
from .source import ByteSource

__all__ = ["PickleStream"]

_PIECE = 64 * 1024


class PickleStream:
    """The three methods of a file that ``pickletools.genops`` uses, with memory bounded by the limits.

    Several pickles can follow one another, as in torch's legacy format. ``exhausted`` becomes true when a read goes
    beyond the end of the range.
    """

    def __init__(self, source: ByteSource, start: int, end: int, limits: Limits) -> None:
        self.exhausted = False
        self._source = source
        self._limits = limits
        self._start = start
        self._end = end
        self._buffer = b""
        self._cursor = 0  # in the buffer
        self._buffer_end = start  # in the source

    def tell(self) -> int:
        """The position in the source."""
        return self._buffer_end - len(self._buffer) + self._cursor

    def read(self, length: int) -> bytes:
        """Return the next ``length`` bytes, or fewer at the end of the range."""
        end = self._cursor + length
        if length >= 0 and end <= len(self._buffer):  # the usual case, ten thousand times for a VAE
            piece = self._buffer[self._cursor : end]
            self._cursor = end
            return piece
        if self._fill(length) < length:
            self.exhausted = True
        return self._take(length)

    def readline(self) -> bytes:
        """Return the bytes through the next newline. Raises ValueError if the line is longer than the limit."""
        limit = self._limits.pickle_line
        newline = self._buffer.find(b"\n", self._cursor)
        if newline < 0:
            available = self._fill(limit)
            newline = self._buffer.find(b"\n", self._cursor)
            if newline < 0 and available < limit:
                self.exhausted = True
                return self._take(available)
        if newline < 0 or newline - self._cursor >= limit:
            raise ValueError(f"a line of more than {limit} characters")
        return self._take(newline + 1 - self._cursor)

    def _take(self, length: int) -> bytes:
        piece = self._buffer[self._cursor : self._cursor + length]
        self._cursor += len(piece)
        return piece

    def _fill(self, wanted: int) -> int:
        """Buffer the next ``wanted`` bytes, or fewer at the end of the range. Returns how many there are."""
        available = len(self._buffer) - self._cursor
        rest = self._end - self._buffer_end
        missing = min(wanted - available, rest)
        if missing <= 0:
            return available
        if self._buffer_end + missing - self._start > self._limits.pickle_bytes:
            limit = sized(self._limits.pickle_bytes)
            raise MalformedFile(self._source.name, f"its pickle is larger than the limit of {limit}")
        piece = self._source.read_at(self._buffer_end, min(max(missing, _PIECE), rest))
        self._buffer = self._buffer[self._cursor :] + piece
        self._cursor = 0
        self._buffer_end += len(piece)
        return len(self._buffer)
