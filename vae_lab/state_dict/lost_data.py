"""Finds parts of a file that a download has lost: blocks of one value, and blocks that are there twice.

A healthy VAE can have many zeros: pruned weights, convolutions that start at zero, small values rounded to zero. All
of these remove whole tensors, channels or kernels, or single weights anywhere. A lost block is independent of tensors:
it begins and ends in the middle of a kernel whose other weights are intact. The few weights between the last whole
kernel and the end of the block would all have to be zero by chance, which is not likely where other weights are not.
And the block often begins and ends at a multiple of 512 bytes in the file, where kernels do only by chance.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from vae_lab.formats import WeightFile
from vae_lab.state_dict.canonical import Layout
from vae_lab.state_dict.repeated_data import find_repeated
from vae_lab.state_dict.stored_parts import Part, file_parts

__all__ = ["LostData", "find_lost_data"]

MIN_BYTES = 4000
"""Shorter blocks are not looked for: 4 kB is what systems read and write in one piece."""
_CHUNK = 1024  # bytes; a block of MIN_BYTES contains whole chunks, wherever it begins
_MIN_DIGITS = 8.0  # the chance that healthy weights look like this is at most 10 to the power of -8
_SECTOR = 512  # bytes; the smallest piece that disks and downloads handle
_GROUP = 8  # channels
_RAREST = 1e-4  # no value is assumed to be rarer
_NEAR = 64  # weights next to the block, in the same channel, …
_MIN_NEAR = 16  # … of which this many must exist to judge by
_MIN_WEIGHTS = 64  # the same, of the whole tensor
_MAX_VALUES = 8  # in the runs of one tensor; more are a pattern, and to count each takes as long as to read the tensor


@dataclass(frozen=True)
class LostData:
    """A part of the file that does not have its own weights.

    Attributes:
        start: offset of its first byte in the file.
        end: offset of the byte after its last.
        tensor: name in the file of the tensor in which it begins.
        value: the bytes of every weight in it; b"" if it is a copy of another part.
        copy_of: start and end of that other part; either can be the wrong one.
    """

    start: int
    end: int
    tensor: str
    value: bytes = b""
    copy_of: tuple[int, int] | None = None

    @property
    def zeros(self) -> bool:
        """Whether it contains only zeros."""
        return bool(self.value) and not any(self.value)


def find_lost_data(
    file: WeightFile, layout: Layout, state: Mapping[str, Tensor], check: Callable[[], None] = lambda: None
) -> list[LostData]:
    """The lost parts, in the order of the file. Reads nothing: ``state`` is what was read from the file.

    Tensors that are not contiguous in the file (``channels_last``) are not examined.

    Args:
        file: open, and not changed since.
        layout: where the VAE is in the file.
        state: canonical name -> tensor, in the file's own dtype.
        check: called before each block that is examined; what it raises ends the search.
    """
    parts = file_parts(file, layout, state)
    judge, lost = _Judge().judge, list[LostData]()
    for run in _joined_runs(parts):
        check()
        if (found := judge(run)) is not None:
            lost.append(found)
    copies = [
        LostData(copy.start, copy.end, copy.tensor, copy_of=(copy.other, copy.other + copy.end - copy.start))
        for copy in find_repeated(parts, MIN_BYTES, check)
    ]
    return sorted((*lost, *copies), key=lambda found: (found.start, found.end))


# --- blocks of one value --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Run:
    """Consecutive equal elements: from element ``start`` of part ``first`` to before ``end`` of part ``last``."""

    first: Part
    start: int
    last: Part
    end: int

    @property
    def position(self) -> int:
        return self.first.start + self.start * self.first.width

    @property
    def stop(self) -> int:
        return self.last.start + self.end * self.last.width

    @property
    def value(self) -> bytes:
        return self.first.data[self.start].tobytes()


def _joined_runs(parts: Sequence[Part]) -> Iterator[_Run]:
    """Runs of at least MIN_BYTES, joined where tensors are next to each other in the file."""
    open_run: _Run | None = None
    for part in parts:
        for start, end in _runs(part.data):
            run = _Run(part, start, part, end)
            if open_run and start == 0 and _continues(open_run, run):
                open_run = replace(open_run, last=part, end=end)
                continue
            if open_run and open_run.stop - open_run.position >= MIN_BYTES:
                yield open_run
            open_run = run
    if open_run and open_run.stop - open_run.position >= MIN_BYTES:
        yield open_run


def _continues(run: _Run, following: _Run) -> bool:
    same = run.value == following.value or not any(run.value + following.value)
    return same and run.stop == following.position


def _runs(data: npt.NDArray[Any]) -> list[tuple[int, int]]:
    """Start and end of runs of equal elements, in order: long ones, and those at either end of any length."""
    size = _CHUNK // data.itemsize
    count = len(data) // size
    chunks = data[: count * size].reshape(count, size)
    # Two weights of each chunk rule out nearly all of them, without reading the others.
    candidates = np.flatnonzero(chunks[:, 0] == chunks[:, size // 2])
    candidates = candidates[(chunks[candidates] == chunks[candidates, :1]).all(axis=1)]
    runs = [(0, _length(data))]
    for chunk in candidates.tolist():
        at = chunk * size
        if at < runs[-1][1]:
            continue
        start = at - _length(data[runs[-1][1] : at + 1][::-1]) + 1
        runs.append((start, at + _length(data[at:])))
    if runs[-1][1] < len(data):
        runs.append((len(data) - _length(data[::-1]), len(data)))
    return runs


def _length(data: npt.NDArray[Any]) -> int:
    """Number of elements at the beginning that equal the first one."""
    size = 64
    for start in iter(lambda: 0, 1):  # longer and longer pieces, because most runs are short
        other = np.flatnonzero(data[start:size] != data[0])
        if len(other):
            return start + int(other[0])
        if size >= len(data):
            return len(data)
        size *= 8
    raise AssertionError


# --- lost or pruned -------------------------------------------------------------------------------------------------


class _Judge:
    """Tells lost runs from pruned ones."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, bytes], _Occurrences] = {}
        self._counted: Counter[int] = Counter()  # tensor, by its start -> values

    def judge(self, run: _Run) -> LostData | None:
        """What the run is reported as; None if a healthy VAE can have it."""
        before, after = _before(run.first, run.start), _after(run.last, run.end)
        digits = _alignment(run.first, run.start, before) + _alignment(run.last, run.end, after)
        if before:
            digits += self._digits(run.first, run.start, before, from_left=True)
        if after:
            digits += self._digits(run.last, run.end - 1, after, from_left=False)
        if digits < _MIN_DIGITS:
            return None
        return LostData(run.position, run.stop, run.first.name, run.value)

    def _digits(self, part: Part, inside: int, count: int, *, from_left: bool) -> float:
        """How unlikely it is, as negative power of 10, that ``count`` elements at an edge have the value by chance.

        The chance is the share of that value in the weights, the highest of: the same channel beyond the edge, the
        same places in other channels, and the tensor.

        Args:
            part: where the edge is.
            inside: the run's element at the edge.
            count: those between the edge and the run's first or last whole unit.
            from_left: whether the run begins here; else it ends.
        """
        value = part.data[inside]
        row, column = divmod(inside, part.row)
        weights = part.data[row * part.row : (row + 1) * part.row]
        near = weights[max(0, column - _NEAR) : column] if from_left else weights[column + 1 : column + 1 + _NEAR]
        if len(near) < _MIN_NEAR or len(part.data) < _MIN_WEIGHTS:
            return 0.0
        independent = count if part.has_kernels else count // 4  # 1x1 convolutions may be pruned by four columns
        chance = max(_RAREST, _share(near == value))
        if -math.log10(chance) * independent < 1.0:
            return 0.0
        occurrences = self._occurrences(part, value)
        if occurrences is None:
            return 0.0
        first = column if from_left else column + 1 - count
        chance = max(chance, _share(occurrences.elsewhere(row, first, count)), occurrences.share_without(row))
        return -math.log10(min(chance, 1.0)) * independent

    def _occurrences(self, part: Part, value: np.unsignedinteger[Any]) -> _Occurrences | None:
        """None for a tensor with runs of too many values."""
        key = part.start, value.tobytes()
        if key not in self._known:
            self._counted[part.start] += 1
            if self._counted[part.start] > _MAX_VALUES:
                return None
            while len(self._known) > 1:  # runs come in the file's order: an earlier tensor is not needed again
                del self._known[next(iter(self._known))]
            self._known[key] = _Occurrences(part, value)
        return self._known[key]


class _Occurrences:
    """Where a tensor has one value, except where whole units have it: those may be pruned."""

    def __init__(self, part: Part, value: np.unsignedinteger[Any]) -> None:
        self._unit = part.unit
        self._equal = (part.data == value).reshape(-1, part.row)
        units = self._equal[:, : part.row // part.unit * part.unit].reshape(len(self._equal), -1, part.unit)
        per_unit = np.count_nonzero(units, axis=2)
        live = per_unit < part.unit
        self._equal_by_row = (per_unit * live).sum(axis=1)
        self._weights_by_row = live.sum(axis=1) * part.unit

    def share_without(self, row: int) -> float:
        """Share of the value in all rows but one."""
        number = int(self._equal_by_row.sum() - self._equal_by_row[row])
        total = int(self._weights_by_row.sum() - self._weights_by_row[row])
        return (number + 1) / (total + 2) if total else 1.0

    def elsewhere(self, row: int, first: int, count: int) -> npt.NDArray[np.bool_]:
        """Whether the value is at the same places in all rows but one: [rows, count]."""
        start = first // self._unit * self._unit
        live = ~self._equal[:, start : start + self._unit].all(axis=1)
        live[row] = False
        return self._equal[live, first : first + count]


def _before(part: Part, start: int) -> int:
    """Elements of the run before its first whole unit; 0 in vectors."""
    column = start % part.row if part.row else 0
    return min(-column % part.unit, part.row - column) if column else 0


def _after(part: Part, end: int) -> int:
    """Elements of the run after its last whole unit; 0 in vectors."""
    return end % part.row % part.unit if part.row else 0


def _alignment(part: Part, edge: int, count: int) -> float:
    """How unlikely it is, as negative power of 10, that an edge in the middle of a channel is where pieces end."""
    column = edge % part.row if part.row else 0
    # Channels may be pruned by groups, whose ends are often such places.
    if not column or not part.has_kernels or (not count and column // part.unit % _GROUP == 0):
        return 0.0
    position = part.start + edge * part.width
    piece = position & -position
    return math.log10(piece / math.gcd(piece, part.unit * part.width)) if piece >= _SECTOR else 0.0


def _share(equal: npt.NDArray[np.bool_]) -> float:
    """Share of True; 0 if there is none."""
    number = int(np.count_nonzero(equal))
    return (number + 1) / (equal.size + 2) if number else 0.0
