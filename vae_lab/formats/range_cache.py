"""Small reads of a far-away file, gathered into few requests."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

__all__ = ["BLOCK", "READ_AHEAD", "RangeCache"]

# What one read away from the others fetches at least. A sketch takes 650 such reads out of a VAE: with larger blocks
# it would take megabytes, with smaller ones each bias and each archive header would be a request of its own.
BLOCK = 1024
# What a small read fetches that goes on where the last one ended: headers, pickles, and biases between weights.
READ_AHEAD = 64 * 1024
# Longer reads are fetched as they are and not kept.
_LARGE = 256 * 1024
_KEPT_BLOCKS = 4096


class RangeCache:
    """Reads ranges through ``fetch(start, length)``, and keeps the last 4 MB of what small reads have fetched.

    Safe to use from several threads if ``fetch`` is. Two that miss the same block at the same time both fetch it.
    """

    def __init__(self, size: int, fetch: Callable[[int, int], bytes]) -> None:
        self._size = size
        self._fetch = fetch
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._next = -1  # where the last read ended
        self._lock = threading.Lock()

    def keep(self, start: int, data: bytes) -> None:
        """Keep bytes that lie at ``start``, a multiple of the block's length; a part of a block is not kept."""
        whole = len(data) if start + len(data) == self._size else len(data) // BLOCK * BLOCK
        with self._lock:
            for at in range(0, whole, BLOCK):
                number = (start + at) // BLOCK
                self._blocks[number] = data[at : min(at + BLOCK, whole)]
                self._blocks.move_to_end(number)
            while len(self._blocks) > _KEPT_BLOCKS:
                self._blocks.popitem(last=False)

    def read(self, offset: int, length: int) -> bytes:
        """Return these bytes, which must lie within the file; at most one request."""
        if length == 0:
            return b""
        first, end = offset // BLOCK, -(-(offset + length) // BLOCK)
        with self._lock:
            goes_on = offset == self._next
            self._next = offset + length
            head = self._kept(range(first, end))
            tail = self._kept(range(end - 1, first + len(head) - 1, -1))[::-1]
        start, missing, stop = first * BLOCK, (first + len(head)) * BLOCK, (end - len(tail)) * BLOCK
        middle = b""
        if missing < stop and length >= _LARGE:
            missing, stop = max(missing, offset), min(stop, offset + length)
            start = start if head else missing
            middle = self._fetch(missing, stop - missing)
        elif missing < stop:
            if goes_on and not tail:
                stop = max(stop, missing + READ_AHEAD)
            middle = self._fetch(missing, min(stop, self._size) - missing)
            self.keep(missing, middle)
        data = b"".join([*head, middle, *tail]) if head or tail else middle
        return data[offset - start : offset - start + length]

    def prefetch(self, ranges: Iterable[tuple[int, int]], parallel: int) -> None:
        """Fetch what small reads of these ranges, each an offset and a length, will want: several at a time."""
        spans = self._missing([(offset, length) for offset, length in ranges if 0 < length < _LARGE])
        if len(spans) < 2:
            return
        with ThreadPoolExecutor(min(parallel, len(spans))) as pool:
            fetched = pool.map(lambda span: self._fetch(span[0], span[1] - span[0]), spans)
            for (start, _), data in zip(spans, fetched, strict=True):
                self.keep(start, data)

    def _kept(self, numbers: Sequence[int]) -> list[bytes]:
        """The blocks of these numbers, up to the first that is not there."""
        found = []
        for number in numbers:
            block = self._blocks.get(number)
            if block is None:
                break
            self._blocks.move_to_end(number)
            found.append(block)
        return found

    def _missing(self, ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Where the blocks of the ranges lie that are not kept, as (start, stop); what touches is joined."""
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
