"""Finds the parents of a merged VAE, and their proportions.

A merge is a rounded, weighted sum of its parents' weights. Least squares on sketches finds the weights, and the
residual shows whether these are the parents: rounding to fp16 leaves 0.0003 of the merge, a missing parent 0.04.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from vae_lab.identity.sketch import RECAST, UNRELATED, Sketch

__all__ = ["PROVEN", "PROVEN_BF16", "Merge", "Parent", "explain_merge"]

PROVEN = 0.001
"""Maximum residual, relative to the merge. Rounding to fp16 leaves 0.0002 to 0.0003."""
PROVEN_BF16 = 0.003
"""The same if the merge or a parent is in bf16, whose rounding leaves 0.0017."""

_MIN_WEIGHT = 0.002  # of a parent; smaller ones are within rounding
_MIN_GAIN = 4.0  # the part that only this parent explains, relative to the residual
_MIN_VALUES = 64  # sampled weights; fewer could be explained by chance
_MAX_SETS = 2000  # sets of possible parents that are solved in detail
_SINGULAR = 1e-6  # 1 - cos² of two directions that only differ by rounding
_CHUNK = 8192  # sampled weights per candidate in double precision at a time

_Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Parent:
    """A VAE in a merge, and its weight."""

    name: str
    weight: float


@dataclass(frozen=True)
class Merge:
    """How a VAE was merged.

    Attributes:
        parents: two or three, the largest weight first.
        residual: |merge - weighted sum| / |merge|, over all convolutions.
        relatives: whether all parents are related; otherwise the merge is grey.
    """

    parents: tuple[Parent, ...]
    residual: float
    relatives: bool

    @property
    def sentence(self) -> str:
        """Such as ``0.80 photo-a.safetensors + 0.20 photo-b.ckpt``."""
        text = ""
        for parent in self.parents:
            sign = "-" if parent.weight < 0 else "+"
            lead = f" {sign} " if text else sign.strip("+")
            text += f"{lead}{_figures(abs(parent.weight))} {parent.name}"
        return text


def explain_merge(target: Sketch, candidates: Mapping[str, Sketch], tolerance: float | None = None) -> Merge | None:
    """Find the two or three ``candidates`` of which ``target`` is a weighted sum; two, if they are enough.

    Finds weighted sums of two or three parents, and added differences, A + k (B - C). Weights need not sum to 1. Copies
    among the candidates count once, with the first one's name. If several sets of parents are equally good, because
    some candidates are merges themselves, the set with the least extrapolation is returned, then the one with the
    least similar parents.

    If D = A + k (B - C), then also A = D + k (C - B): the weights do not show which was made from the others.

    Args:
        target: sketch of the VAE.
        candidates: sketches by name, without ``target``. Those with another structure or NaN are ignored.
        tolerance: maximum residual; by default ``PROVEN``, or ``PROVEN_BF16`` if bf16 is involved.

    Returns:
        None if the candidates do not explain ``target``, or if it is a (perhaps scaled) copy of one of them.
    """
    usable = {name: sketch for name, sketch in candidates.items() if sketch.structure == target.structure}
    usable = {name: sketch for name, sketch in usable.items() if sketch.finite and sketch.norm > 0}
    if len(usable) < 2 or not target.finite or target.norm == 0 or len(target.values) < _MIN_VALUES:
        return None
    problem = _Problem(target, usable, tolerance)
    if problem.is_copy():
        return None
    problem.merge_copies()
    if not problem.can_be_explained():
        return None
    for size in (2, 3):
        merge = problem.best(size)
        if merge is not None:
            return merge
    return None


class _Problem:
    """Least squares by normal equations: inner products of all candidates and the target, as unit vectors."""

    def __init__(self, target: Sketch, candidates: Mapping[str, Sketch], tolerance: float | None) -> None:
        self._names = list(candidates)
        self._sketches = list(candidates.values())
        self._target = target
        products = _products([*self._sketches, target])
        lengths = np.sqrt(np.diag(products))
        self._scales = lengths[-1] / lengths[:-1]  # converts weights of unit vectors to weights of the VAEs
        unit = products / np.outer(lengths, lengths)
        self._gram, self._aims = unit[:-1, :-1], unit[:-1, -1]
        self._tolerances = [_tolerance(target, sketch, tolerance) for sketch in self._sketches]
        self._largest = max(self._tolerances)

    def is_copy(self) -> bool:
        """Whether the target is a copy of a candidate, in another dtype or scaled."""
        sines = np.sqrt(np.maximum(1 - self._aims**2, 0))
        distances = np.sqrt(np.maximum(1 + self._scales**-2 - 2 * self._aims / self._scales, 0))
        return bool((sines < self._tolerances).any() or (distances < RECAST).any())

    def merge_copies(self) -> None:
        """Of several copies, only use the one with the least rounding, with the first one's name."""
        indices: list[int] = []
        names: list[str] = []
        for index, sketch in enumerate(self._sketches):
            twin = next((slot for slot, other in enumerate(indices) if self._are_copies(other, index)), None)
            if twin is None:
                indices.append(index)
                names.append(self._names[index])
            elif self._sketches[indices[twin]].coarse and not sketch.coarse:
                indices[twin] = index
        self._names = names
        self._sketches = [self._sketches[index] for index in indices]
        self._tolerances = [self._tolerances[index] for index in indices]
        self._scales, self._aims = self._scales[indices], self._aims[indices]
        self._gram = self._gram[np.ix_(indices, indices)]

    def _are_copies(self, i: int, j: int) -> bool:
        ratio = self._scales[i] / self._scales[j]
        return bool(1 + ratio**2 - 2 * ratio * self._gram[i, j] < RECAST**2)

    def can_be_explained(self) -> bool:
        """Whether all candidates together explain the target. If not, no two or three of them do."""
        values, vectors = np.linalg.eigh(self._gram)
        usable = values > 1e-12 * values[-1]
        explained = ((vectors[:, usable].T @ self._aims) ** 2 / values[usable]).sum()
        return bool(1 - explained < (1.1 * self._largest) ** 2)

    def best(self, size: int) -> Merge | None:
        """The best set of ``size`` parents that explains the target, or None."""
        solutions = [solution for indices in self._promising(size) if (solution := self._solve(indices)) is not None]
        if not solutions:
            return None
        # Close relatives of the parents leave a larger residual than the parents.
        limit = 1.5 * min(solution.residual for solution in solutions) + 1e-4
        solutions = [solution for solution in solutions if solution.residual <= limit]
        effort = min(solution.effort for solution in solutions) + 0.02
        chosen = min((s for s in solutions if s.effort <= effort), key=lambda s: (round(s.likeness, 3), s.residual))
        return self._merge(chosen)

    def _promising(self, size: int) -> list[tuple[int, ...]]:
        """Sets of parents with a small residual, the smallest first."""
        search = _pairs if size == 2 else _triples
        sets = [(left, indices) for indices, left in search(self._gram, self._aims, (1.1 * self._largest) ** 2)]
        return [indices for _, indices in sorted(sets)[:_MAX_SETS]]

    def _solve(self, indices: tuple[int, ...]) -> _Solution | None:
        """The weights of these parents; None if they do not explain the target, or one is not needed."""
        rows = list(indices)
        gram, aims = self._gram[np.ix_(rows, rows)], self._aims[rows]
        inverse = np.linalg.inv(gram)
        unit_weights = inverse @ aims
        residual = float(np.sqrt(max(1 - unit_weights @ aims, 0)))
        if residual > max(self._tolerances[index] for index in rows):
            return None
        weights = unit_weights * self._scales[rows]
        own = np.abs(unit_weights) / np.sqrt(np.diag(inverse))  # how much the residual would grow without this parent
        # A merge is between its parents, or adds one difference. Anything else is a relation in which the target was a
        # parent.
        negative = int((weights < 0).sum())
        if negative > len(rows) - 2 or (np.abs(weights) < _MIN_WEIGHT).any() or own.min() < _MIN_GAIN * residual:
            return None
        likeness = float(np.mean([self._gram[i, j] for i, j in combinations(rows, 2)]))
        return _Solution(indices, weights, residual, float(np.abs(weights).sum()), likeness)

    def _merge(self, solution: _Solution) -> Merge:
        shares = list(zip(solution.indices, solution.weights.tolist(), strict=True))
        # Weights that only differ by rounding are sorted by index.
        shares.sort(key=lambda share: (-round(abs(share[1]), 2), share[1] < 0, share[0]))
        parents = tuple(Parent(self._names[index], weight) for index, weight in shares)
        rest = self._target.scaled
        for index, weight in shares:
            rest = rest - weight * self._sketches[index].scaled
        residual = float(np.linalg.norm(rest) / np.linalg.norm(self._target.scaled))
        relatives = all(self._gram[i, j] > UNRELATED for i, j in combinations(solution.indices, 2))
        return Merge(parents, residual, relatives)


@dataclass(frozen=True)
class _Solution:
    """Parents by index, their weights, and criteria for choosing a solution.

    Attributes:
        effort: sum of the absolute weights: 1 for interpolation, more for extrapolation.
        likeness: mean cosine of the parents.
    """

    indices: tuple[int, ...]
    weights: _Array
    residual: float
    effort: float
    likeness: float


def _products(sketches: Sequence[Sketch]) -> _Array:
    """[K,K] inner products in double precision, computed in chunks."""
    total = np.zeros((len(sketches), len(sketches)))
    squares = sketches[0].factors ** 2
    for start in range(0, len(squares), _CHUNK):
        chunk = np.stack([sketch.values[start : start + _CHUNK].astype(np.float64) for sketch in sketches])
        total += (chunk * squares[start : start + _CHUNK]) @ chunk.T
    return total


def _pairs(gram: _Array, aims: _Array, limit: float, explained: float = 0.0) -> Iterator[tuple[tuple[int, ...], float]]:
    """Yield pairs of unit vectors with a small least-squares residual, and that residual, squared.

    Args:
        gram: [K,K] inner products.
        aims: [K] inner products with the target, whose length is 1.
        limit: maximum squared residual.
        explained: part of the squared target that is already explained.
    """
    free = 1 - gram**2
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = (aims[:, None] ** 2 + aims[None] ** 2 - 2 * gram * aims[:, None] * aims[None]) / free
    left = np.where(free > _SINGULAR, 1 - explained - gain, np.inf)
    rows, columns = np.nonzero(np.triu(left < limit, 1))
    for i, j in zip(rows.tolist(), columns.tolist(), strict=True):
        yield (i, j), float(left[i, j])


def _triples(gram: _Array, aims: _Array, limit: float) -> Iterator[tuple[tuple[int, ...], float]]:
    """As :func:`_pairs`: each vector, with pairs of the later ones after projecting it out."""
    for i in range(len(aims) - 2):
        later = slice(i + 1, None)
        shared = gram[i, later]
        lengths = np.sqrt(np.maximum(1 - shared**2, _SINGULAR))
        rest = (gram[later, later] - np.outer(shared, shared)) / np.outer(lengths, lengths)
        for (j, k), left in _pairs(rest, (aims[later] - shared * aims[i]) / lengths, limit, aims[i] ** 2):
            yield (i, i + 1 + j, i + 1 + k), left


def _tolerance(target: Sketch, parent: Sketch, given: float | None) -> float:
    if given is not None:
        return given
    return PROVEN_BF16 if target.coarse or parent.coarse else PROVEN


def _figures(weight: float) -> str:
    return f"{weight:.2f}" if weight >= 0.0995 else f"{weight:.3f}"
