"""A byte range of a source, read forward by ``pickletools`` as if it were a file."""

from __future__ import annotations

from vae_lab.errors import MalformedFile
from vae_lab.text import sized

from .limits import Limits
from .source import ByteSource

__all__ = ["PickleStream"]

_PIECE = 64 * 1024


class PickleStream:
    """The three methods of a file that ``pickletools.genops`` uses, with memory bounded by the limits.

    Several pickles can follow one another, as in torch's legacy format. ``exhausted`` becomes true when more was
    asked for than the range has.
    """

    def __init__(self, source: ByteSource, start: int, end: int, limits: Limits) -> None:
        self.exhausted = False
        self._source = source
        self._limits = limits
        self._start = start
        self._end = end
        self._buffer = b""
        self._cursor = 0  # in the buffer
        self._fetched = start  # in the source: where the buffer ends

    def tell(self) -> int:
        """Return the position in the source."""
        return self._fetched - len(self._buffer) + self._cursor

    def read(self, length: int) -> bytes:
        """Return the next ``length`` bytes, or fewer if the range ends before."""
        if self._fill(length) < length:
            self.exhausted = True
        return self._take(length)

    def readline(self) -> bytes:
        """Return the bytes up to and with the next newline; ValueError if the line is longer than the limit."""
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
        """Make the buffer hold the next ``wanted`` bytes, as far as the range has them; return how many it holds."""
        available = len(self._buffer) - self._cursor
        rest = self._end - self._fetched
        missing = min(wanted - available, rest)
        if missing <= 0:
            return available
        if self._fetched + missing - self._start > self._limits.pickle_bytes:
            limit = sized(self._limits.pickle_bytes)
            raise MalformedFile(self._source.name, f"the pickle in it is larger than the limit of {limit}")
        piece = self._source.read_at(self._fetched, min(max(missing, _PIECE), rest))
        self._buffer = self._buffer[self._cursor :] + piece
        self._cursor = 0
        self._fetched += len(piece)
        return len(self._buffer)
