"""Finds blocks of a file that occur twice in its weights: a download has written one piece in two places.

Healthy VAEs have copies too: tied tensors, layers and channels that were copied to grow a network. A copied kernel
stays a kernel. A piece of a download is copied as it is, so that what was the middle of one kernel is the beginning of
another.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vae_lab.state_dict.stored_parts import Part

__all__ = ["Repeated", "find_repeated"]

_STEP = 4096  # bytes between the places in the file that are compared; pieces of downloads are multiples of it
_KEY = 32  # bytes compared at each place
_MAX_COPIES = 3  # what occurs more often is a pattern
_MIN_VALUES = 32  # different ones among the first weights of a block; else it is a pattern, too
_SAMPLE = 512  # so many first weights
_MIN_EDGE = 2  # weights by which both ends of a block must miss the ends of a kernel
_FACTORS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93], np.uint64)


@dataclass(frozen=True)
class Repeated:
    """A block that is also elsewhere in the file.

    Attributes:
        start: offset of its first byte in the file.
        end: offset of the byte after its last.
        other: offset of the same block's earlier copy.
        tensor: name in the file of the tensor in which it begins.
    """

    start: int
    end: int
    other: int
    tensor: str


def find_repeated(parts: Sequence[Part], min_bytes: int, check: Callable[[], None] = lambda: None) -> list[Repeated]:
    """Blocks of at least ``min_bytes`` that are at two places, a multiple of 4096 bytes apart.

    Args:
        parts: in the order of the file.
        min_bytes: shorter blocks are not reported.
        check: called before each block that is compared; what it raises ends the search.
    """
    found: list[Repeated] = []
    for block in _joined(_blocks(parts, check)):
        if block.end - block.start >= min_bytes and _misplaced(parts, block):
            # A byte next to the piece can be the same by chance.
            part, last = parts[block.index], parts[block.last]
            start = block.start + (part.start - block.start) % part.width
            end = block.end - (block.end - last.start) % last.width
            found.append(Repeated(start, end, block.other + start - block.start, part.name))
    return found


@dataclass(frozen=True)
class _Block:
    """Equal bytes of two parts."""

    start: int
    end: int
    other: int
    index: int  # of the part in which it begins
    last: int  # of the part in which it ends
    other_index: int


def _blocks(parts: Sequence[Part], check: Callable[[], None]) -> Iterator[_Block]:
    """Equal bytes within two parts, of any length, sorted by distance and start."""
    places, keys = _keys(parts)
    starts = [part.start for part in parts]
    blocks: dict[tuple[int, int], _Block] = {}
    reached: dict[int, int] = {}  # distance -> end of the last block
    for first, second in sorted(_pairs(places, keys), key=lambda pair: (pair[1] - pair[0], pair[1])):
        distance = second - first
        if second < reached.get(distance, 0):
            continue
        check()
        block = _extended(parts, bisect_right(starts, first) - 1, bisect_right(starts, second) - 1, first, second)
        reached[distance] = block.end
        blocks[distance, block.start] = block
    for key in sorted(blocks):
        yield blocks[key]


def _keys(parts: Sequence[Part]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    """Places in the file, and a hash of the bytes at each."""
    places, keys = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)]
    for part in parts:
        skipped = -part.start % _STEP
        count = max(0, (part.data.nbytes - skipped - _KEY) // _STEP + 1) if part.row else 0
        if count <= 0:
            continue
        view = np.lib.stride_tricks.as_strided(part.bytes[skipped:], (count, _KEY), (_STEP, 1), writeable=False)
        words = np.ascontiguousarray(view).view(np.uint64)
        places.append(part.start + skipped + _STEP * np.arange(count, dtype=np.int64))
        mixed = (words ^ (words >> np.uint64(29))) * _FACTORS
        keys.append(np.bitwise_xor.reduce(mixed ^ (mixed >> np.uint64(32)), axis=1))
    return np.concatenate(places), np.concatenate(keys)


def _pairs(places: npt.NDArray[np.int64], keys: npt.NDArray[np.uint64]) -> list[tuple[int, int]]:
    """Places with the same key, as (earlier, later)."""
    ordered = np.sort(keys)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(twice):
        return []
    # Most files end here; others have few repeated keys, or many equal ones in a pattern.
    chosen = np.flatnonzero(np.isin(keys, twice))
    groups: dict[int, list[int]] = {}
    for place, key in zip(places[chosen].tolist(), keys[chosen].tolist(), strict=True):
        groups.setdefault(key, []).append(place)
    small = [group for group in groups.values() if len(group) <= _MAX_COPIES]
    return [(group[0], later) for group in small for later in group[1:]]


def _extended(parts: Sequence[Part], i: int, j: int, first: int, second: int) -> _Block:
    """The longest equal bytes around two places, within both parts."""
    a, b = parts[i], parts[j]
    x, y = first - a.start, second - b.start
    after = _equal(a.bytes[x:], b.bytes[y:])
    before = _equal(a.bytes[:x][::-1], b.bytes[:y][::-1])
    return _Block(second - before, second + after, first - before, j, j, i)


def _equal(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> int:
    """Number of equal bytes at the beginning of both."""
    length = min(len(a), len(b))
    done, size = 0, 4096
    while done < length:
        stop = min(length, done + size)
        other = np.flatnonzero(a[done:stop] != b[done:stop])
        if len(other):
            return done + int(other[0])
        done, size = stop, size * 4
    return length


def _joined(blocks: Iterator[_Block]) -> Iterator[_Block]:
    """Blocks joined where they continue each other in the next tensor, at both places."""
    last: _Block | None = None
    for block in blocks:
        if last and (block.start, block.other) == (last.end, last.other + last.end - last.start):
            last = _Block(last.start, block.end, last.other, last.index, block.last, last.other_index)
            continue
        if last:
            yield last
        last = block
    if last:
        yield last


def _misplaced(parts: Sequence[Part], block: _Block) -> bool:
    """Whether no copying of tensors, channels or kernels explains the block."""
    part, other = parts[block.index], parts[block.other_index]
    first = part.data[(block.start - part.start) // part.width :][:_SAMPLE]
    if len(np.unique(first)) < _MIN_VALUES:
        return False
    if part.width != other.width or part.has_kernels != other.has_kernels:
        return True
    unit = math.gcd(part.unit, other.unit) if part.has_kernels else math.gcd(part.row, other.row)
    if ((block.start - part.start) - (block.other - other.start)) % (unit * part.width):
        return True
    return part.has_kernels and _within_kernels(part, block.start) and _within_kernels(parts[block.last], block.end)


def _within_kernels(part: Part, position: int) -> bool:
    """Whether this is in the middle of a kernel."""
    phase = (position - part.start) // part.width % part.unit if part.row else 0
    return _MIN_EDGE <= phase <= part.unit - _MIN_EDGE
