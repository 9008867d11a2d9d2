"""Finds VAEs that are rounded copies of others, in bf16 or fp8. Their weights differ, so they are no duplicates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from vae_lab.identity.direction import Precision, differ_by_rounding, grid_of
from vae_lab.identity.sketch import Sketch
from vae_lab.text import listed

__all__ = ["Conversion", "Conversions", "Sketched"]

_MAX_VAES = 1000  # compared with each other; each takes a millisecond
_MIN_VALUES = 64  # sampled weights other than 0; fewer could fit by chance
# Coarsest first. Torch below 2.1 has no fp8, and reads none.
_DTYPES: dict[Precision, str] = {"e5m2": "float8_e5m2", "e4m3": "float8_e4m3fn", "bf16": "bfloat16"}
_FINEST_FIRST: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "e4m3", "e5m2")


class Sketched(NamedTuple):
    """A file with a VAE.

    Attributes:
        path: the file.
        name: for display.
        digest: :func:`vae_lab.identity.sketch_digest` of the VAE's sketch.
    """

    path: str
    name: str
    digest: str


@dataclass(frozen=True)
class Conversion:
    """A VAE, and a copy of it that was rounded to a lower precision.

    Attributes:
        precision: of the copy, ``bf16`` or ``fp8``.
        copies: files with the rounded weights.
        originals: files with the weights before that.
    """

    precision: Literal["bf16", "fp8"]
    copies: tuple[Sketched, ...]
    originals: tuple[Sketched, ...]

    @property
    def sentence(self) -> str:
        """A description for display."""
        copies, originals = (listed([file.name for file in files]) for files in (self.copies, self.originals))
        return (
            f"{copies}: the same VAE as {originals} in {self.precision}. "
            "A converted copy, judged from a sample of the weights."
        )


class Conversions:
    """Compares sketches. Results are stored by digest, so that no two VAEs are compared twice."""

    def __init__(self) -> None:
        self._grids: dict[str, Precision | None] = {}  # of those with a sketch
        self._results: dict[tuple[str, str], bool] = {}

    def find(self, files: Iterable[Sketched], sketch_of: Callable[[str], Sketch | None]) -> list[Conversion]:
        """The rounded copies among ``files``, each with its originals in the finest precision.

        Args:
            files: of more than a thousand VAEs, only the first ones are compared.
            sketch_of: returns the stored sketch of a file, by path; None if there is none.
        """
        groups: dict[str, list[Sketched]] = {}
        for file in files:
            if file.digest in groups or len(groups) < _MAX_VAES:
                groups.setdefault(file.digest, []).append(file)
        for digest, group in groups.items():
            if digest not in self._grids and (sketch := sketch_of(group[0].path)):
                self._grids[digest] = _grid(sketch.values)
        found = []
        for digest, copies in groups.items():
            originals = self._originals(digest, groups, sketch_of)
            if originals:
                precision = "bf16" if self._grids[digest] == "bf16" else "fp8"
                found.append(Conversion(precision, tuple(copies), tuple(originals)))
        return found

    def _originals(
        self, copy: str, groups: Mapping[str, Sequence[Sketched]], sketch_of: Callable[[str], Sketch | None]
    ) -> list[Sketched]:
        """The files in the finest precision of which one is the rounded copy."""
        grid = self._grids.get(copy)
        if grid not in _DTYPES:
            return []
        finer = _FINEST_FIRST[: _FINEST_FIRST.index(grid)]
        candidates = [digest for digest in groups if self._grids.get(digest) in finer]
        unknown = [digest for digest in candidates if (copy, digest) not in self._results]
        own = sketch_of(groups[copy][0].path) if unknown else None
        for digest in unknown:
            other = sketch_of(groups[digest][0].path)
            self._results[copy, digest] = own is not None and other is not None and _is_rounded(own, grid, other)
        matching = [digest for digest in candidates if self._results[copy, digest]]
        best = min((_rank(self._grids[digest]) for digest in matching), default=0)
        return [file for digest in matching if _rank(self._grids[digest]) == best for file in groups[digest]]


def _rank(grid: Precision | None) -> int:
    """Fp16 copies of fp32 VAEs are as good."""
    return max(1, _FINEST_FIRST.index(grid)) if grid else 0


def _is_rounded(copy: Sketch, grid: Precision, source: Sketch) -> bool:
    """Whether ``copy`` is ``source``, rounded to ``grid``; either of them perhaps rounded to a finer one before."""
    earlier: tuple[Precision, ...] = ("fp16",) if grid == "bf16" else ("fp16", "bf16")
    return copy.structure == source.structure and differ_by_rounding(copy.values, source.values, grid, *earlier)


def _grid(values: npt.NDArray[np.float32]) -> Precision | None:
    """The coarsest precision in which all ``values`` can be stored without rounding; None if they are too few."""
    if np.count_nonzero(values) < _MIN_VALUES:
        return None
    tensor = torch.from_numpy(values.copy())
    for grid, name in _DTYPES.items():
        dtype = getattr(torch, name, None)
        if dtype is not None and torch.equal(tensor.to(dtype).float(), tensor):
            return grid
    return grid_of(values)
