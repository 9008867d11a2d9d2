"""Combines small reads of a remote file into few requests."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

__all__ = ["BLOCK", "READ_AHEAD", "RangeCache"]

# The least that an isolated read fetches. A sketch takes 650 such reads from a VAE: with larger blocks they would add
# up to megabytes, with smaller ones every bias and archive header would need its own request.
BLOCK = 1024
# What a small read fetches if it starts where the last one ended: headers, pickles, and biases between weights.
READ_AHEAD = 64 * 1024
# Longer reads are fetched as they are and not cached.
_LARGE = 256 * 1024
_MAX_BLOCKS = 4096


class RangeCache:
    """Reads ranges through ``fetch(start, length)``, and caches up to 4 MB of what small reads have fetched.

    Thread-safe if ``fetch`` is. Two threads that need the same block at the same time both fetch it.
    """

    def __init__(self, size: int, fetch: Callable[[int, int], bytes]) -> None:
        self._size = size
        self._fetch = fetch
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._next = -1  # where the last read ended
        self._lock = threading.Lock()

    def put(self, start: int, data: bytes) -> None:
        """Cache the bytes at ``start``, a multiple of the block size; a partial block is dropped."""
        whole = len(data) if start + len(data) == self._size else len(data) // BLOCK * BLOCK
        with self._lock:
            for at in range(0, whole, BLOCK):
                number = (start + at) // BLOCK
                self._blocks[number] = data[at : min(at + BLOCK, whole)]
                self._blocks.move_to_end(number)
            while len(self._blocks) > _MAX_BLOCKS:
                self._blocks.popitem(last=False)

    def read(self, offset: int, length: int) -> bytes:
        """Return these bytes, which must be within the file, with at most one request."""
        if length == 0:
            return b""
        first, end = offset // BLOCK, -(-(offset + length) // BLOCK)
        with self._lock:
            sequential = offset == self._next
            self._next = offset + length
            head = self._cached(range(first, end))
            tail = self._cached(range(end - 1, first + len(head) - 1, -1))[::-1]
        start, missing, stop = first * BLOCK, (first + len(head)) * BLOCK, (end - len(tail)) * BLOCK
        middle = b""
        if missing < stop and length >= _LARGE:
            missing, stop = max(missing, offset), min(stop, offset + length)
            start = start if head else missing
            middle = self._fetch(missing, stop - missing)
        elif missing < stop:
            if sequential and not tail:
                stop = max(stop, missing + READ_AHEAD)
            middle = self._fetch(missing, min(stop, self._size) - missing)
            self.put(missing, middle)
        data = b"".join([*head, middle, *tail]) if head or tail else middle
        return data[offset - start : offset - start + length]

    def prefetch(self, ranges: Iterable[tuple[int, int]], parallel: int) -> None:
        """Fetch what small reads of these ranges (offset, length) will need, ``parallel`` requests at a time."""
        spans = self._missing([(offset, length) for offset, length in ranges if 0 < length < _LARGE])
        if len(spans) < 2:
            return
        with ThreadPoolExecutor(min(parallel, len(spans))) as pool:
            fetched = pool.map(lambda span: self._fetch(span[0], span[1] - span[0]), spans)
            for (start, _), data in zip(spans, fetched, strict=True):
                self.put(start, data)

    def _cached(self, numbers: Sequence[int]) -> list[bytes]:
        """The blocks with these numbers, up to the first that is not cached."""
        blocks = []
        for number in numbers:
            block = self._blocks.get(number)
            if block is None:
                break
            self._blocks.move_to_end(number)
            blocks.append(block)
        return blocks

    def _missing(self, ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Where the ranges' uncached blocks are, as (start, stop); adjacent blocks are joined."""
        numbers = {number for offset, length in ranges for number in _blocks_of(offset, length)}
        with self._lock:
            numbers -= self._blocks.keys()
        spans: list[tuple[int, int]] = []
        for number in sorted(numbers):
            start, stop = number * BLOCK, min((number + 1) * BLOCK, self._size)
            if spans and spans[-1][1] == start:
                start = spans.pop()[0]
            spans.append((start, stop))
        return spans


def _blocks_of(offset: int, length: int) -> Iterator[int]:
    yield from range(offset // BLOCK, -(-(offset + length) // BLOCK))
