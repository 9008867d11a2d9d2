"""Finds the parents of a merged VAE, and their proportions.

A merge is a rounded, weighted sum of its parents' weights. Least squares on sketches finds the weights, and the
residual shows whether these are related: rounding to fp16 leaves 0.0003 of the merge, a missing parent 0.04. A relation
does not show which VAE was made from the others; the rounding does, see :mod:`vae_lab.identity.direction`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Literal

import numpy as np
import numpy.typing as npt

from vae_lab.identity.direction import Direction, are_copies, direction, grid_of, is_rounded
from vae_lab.identity.sketch import RECAST, UNRELATED, Sketch, distance

__all__ = ["PROVEN", "PROVEN_BF16", "Merge", "Parent", "explain_merge"]

PROVEN = 0.001
"""Maximum residual, relative to the merge. Rounding to fp16 leaves 0.0002 to 0.0003."""
PROVEN_BF16 = 0.003
"""The same if the merge or a parent is in bf16, whose rounding leaves 0.0017."""

Certainty = Literal["certain", "open"]
"""Whether a VAE was made from its relatives, or may be one from which they were made."""

_SLACK = 2.0  # times the tolerance, if the direction is certain: a merger that computes in bf16 rounds three times
_MIN_WEIGHT = 0.002  # of a parent; smaller ones are within rounding
_MIN_GAIN = 4.0  # the part that only this parent explains, relative to the residual
_MIN_CERTAIN_GAIN = 0.1  # the same if the direction is certain
_MIN_VALUES = 64  # sampled weights; fewer could be explained by chance
_MAX_SETS = 2000  # sets of possible parents that are solved in detail
_SINGULAR = 1e-6  # 1 - cos² of two directions that only differ by rounding
_MAX_TESTED = 60  # sets whose direction is examined; each takes 0.02 s
_MAX_PARENTS = 4
_MAX_OPEN = 3
_MAX_CHOICES = 8  # of copies in several precisions
_AS_GOOD_AS_ALL = 0.998  # share of exact predictions with which no larger set of parents is tried
_UNUSUAL = 0.005  # deviation of weights that add a difference
_PREFERRED = ("certain", "other", "open")
_SELF = "\0"  # no file has this name
_DEPENDENT = 1e-12  # smallest eigenvalue of vectors that do not determine their weights
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
        parents: two to four, the largest weight first.
        residual: |merge - weighted sum| / |merge|, over all convolutions.
        relatives: whether all parents are related; otherwise the merge is grey.
        direction: ``certain`` if the VAE was made from ``parents``; ``open`` if they are only related, so it may be
            one from which one of them was made. Their weights are then no recipe.
    """

    parents: tuple[Parent, ...]
    residual: float
    relatives: bool
    direction: Certainty = "certain"

    @property
    def certain(self) -> bool:
        """Whether the VAE was made from its parents."""
        return self.direction == "certain"

    @property
    def names(self) -> str:
        """Such as ``photo-a.safetensors, photo-b.ckpt``."""
        return ", ".join(parent.name for parent in self.parents)

    @property
    def sentence(self) -> str:
        """Such as ``0.80 photo-a.safetensors + 0.20 photo-b.ckpt``; only names if the direction is open."""
        if not self.certain:
            return self.names
        text = ""
        for parent in self.parents:
            sign = "-" if parent.weight < 0 else "+"
            lead = f" {sign} " if text else sign.strip("+")
            text += f"{lead}{_figures(abs(parent.weight))} {parent.name}"
        return text


def explain_merge(
    target: Sketch,
    candidates: Mapping[str, Sketch],
    tolerance: float | None = None,
    originals: Collection[str] = (),
) -> Merge | None:
    """Find the two to four ``candidates`` of which ``target`` is a weighted sum; two, if they are enough.

    Finds weighted sums, and added differences, A + k (B - C). Weights need not sum to 1. Copies
    among the candidates count once, with the first one's name. Only claims that ``target`` was made from the others if
    the rounding of its weights proves it (see :mod:`vae_lab.identity.direction`).

    Args:
        target: sketch of the VAE. If a copy of it in a finer precision is among the candidates, that one is explained.
        candidates: sketches by name. Those with another structure or NaN are ignored, and so are copies of ``target``.
        tolerance: maximum residual; by default ``PROVEN``, or ``PROVEN_BF16`` if bf16 is involved.
        originals: names of candidates that are known to be no merges.

    Returns:
        None if the candidates do not explain ``target``, or if one of them was made from it. With ``direction`` "open"
        if they are related, but it is not certain which was made from the others.
    """
    problem = _prepared(target, candidates, tolerance, originals)
    if problem is None:
        return None
    merge = problem.certain()
    if merge is not None:
        return merge
    relation = problem.open_relation()
    if relation is None:
        return None
    names = [parent.name for parent in relation.parents if parent.name not in originals]
    return None if any(_is_made_from(target, name, candidates, tolerance) for name in names) else relation


def _is_made_from(target: Sketch, name: str, candidates: Mapping[str, Sketch], tolerance: float | None) -> bool:
    """Whether a candidate is certainly a merge of ``target`` and others."""
    others = {other: sketch for other, sketch in candidates.items() if other != name}
    problem = _prepared(candidates[name], {_SELF: target, **others}, tolerance)
    merge = problem.certain() if problem else None
    return merge is not None and any(parent.name == _SELF for parent in merge.parents)


def _prepared(
    target: Sketch, candidates: Mapping[str, Sketch], tolerance: float | None, originals: Collection[str] = ()
) -> _Problem | None:
    if not target.finite or target.norm == 0 or len(target.values) < _MIN_VALUES:
        return None
    usable = {name: sketch for name, sketch in candidates.items() if sketch.structure == target.structure}
    usable = {name: sketch for name, sketch in usable.items() if sketch.finite and sketch.norm > 0}
    near = [name for name, sketch in usable.items() if distance(target, sketch) < RECAST]
    for name in near:
        if is_rounded(target.values, usable[name].values):
            target = usable[name]  # the copy in the finest precision shows most
    copies = [name for name in near if are_copies(target.values, usable[name].values)]
    usable = {name: sketch for name, sketch in usable.items() if name not in copies}
    if len(usable) < 2:
        return None
    problem = _Problem(target, usable, tolerance, originals)
    problem.merge_copies()
    return problem if problem.can_be_explained() else None


class _Problem:
    """Least squares by normal equations: inner products of all candidates and the target, as unit vectors."""

    def __init__(
        self,
        target: Sketch,
        candidates: Mapping[str, Sketch],
        tolerance: float | None,
        originals: Collection[str] = (),
    ) -> None:
        self._originals = originals
        self._names = list(candidates)
        self._sketches = list(candidates.values())
        self._copies = [[sketch] for sketch in self._sketches]
        self._target = target
        products = _products([*self._sketches, target])
        lengths = np.sqrt(np.diag(products))
        self._scales = lengths[-1] / lengths[:-1]  # converts weights of unit vectors to weights of the VAEs
        unit = products / np.outer(lengths, lengths)
        self._gram, self._aims = unit[:-1, :-1], unit[:-1, -1]
        self._tolerances = [_tolerance(target, sketch, tolerance) for sketch in self._sketches]
        self._largest = max(self._tolerances)
        self._slack = _SLACK if tolerance is None else 1.0

    def merge_copies(self) -> None:
        """Of several copies, only solve for the one with the least rounding, with the first one's name."""
        indices: list[int] = []
        names: list[str] = []
        copies: list[list[Sketch]] = []
        for index, sketch in enumerate(self._sketches):
            twin = next((slot for slot, other in enumerate(indices) if self._are_copies(other, index)), None)
            if twin is None:
                indices.append(index)
                names.append(self._names[index])
                copies.append([sketch])
                continue
            copies[twin].append(sketch)
            if self._sketches[indices[twin]].coarse and not sketch.coarse:
                indices[twin] = index
        self._names, self._copies = names, [_distinct(group) for group in copies]
        self._sketches = [self._sketches[index] for index in indices]
        self._tolerances = [self._tolerances[index] for index in indices]
        self._scales, self._aims = self._scales[indices], self._aims[indices]
        self._gram = self._gram[np.ix_(indices, indices)]

    def _are_copies(self, i: int, j: int) -> bool:
        ratio = self._scales[i] / self._scales[j]
        near = bool(1 + ratio**2 - 2 * ratio * self._gram[i, j] < RECAST**2)
        return near and are_copies(self._sketches[i].values, self._sketches[j].values)

    def can_be_explained(self) -> bool:
        """Whether all candidates together explain the target. If not, no few of them do."""
        values, vectors = np.linalg.eigh(self._gram)
        usable = values > 1e-12 * values[-1]
        explained = ((vectors[:, usable].T @ self._aims) ** 2 / values[usable]).sum()
        return bool(1 - explained < (1.1 * self._slack * self._largest) ** 2)

    def certain(self) -> Merge | None:
        """The recipe that the rounding of the target's weights proves, or None."""
        proven: list[tuple[_Solution, Direction]] = []
        for size in range(2, _MAX_PARENTS + 1):
            for solution in self._solutions(size):
                found = self._direction(solution, only_certain=True)
                proven += [(solution, found)] if found.verdict == "certain" and _is_usual(found.weights) else []
            if any(found.exact >= _AS_GOOD_AS_ALL for _, found in proven):
                break
        if not proven:
            return None
        # Of merges that are also candidates, other recipes may follow: the parents that are least alike are originals.
        solution, found = min(
            proven,
            key=lambda one: (
                not _are_round(one[1].weights),
                -round(one[1].exact, 4),
                round(one[0].effort / 0.02),
                round(one[0].likeness, 3),
            ),
        )
        return self._merge(replace(solution, weights=np.array(found.weights)), "certain")

    def open_relation(self) -> Merge | None:
        """The closest relation whose direction the rounding does not show, or None."""
        for size in (2, 3):
            for solution in sorted(self._solutions(size), key=lambda one: one.residual)[:_MAX_OPEN]:
                allowed = max(self._tolerances[index] for index in solution.indices)
                needed = solution.gain >= _MIN_GAIN * solution.residual
                if needed and solution.residual <= allowed and self._direction(solution).verdict == "open":
                    return self._merge(solution, "open")
        return None

    def _solutions(self, size: int) -> list[_Solution]:
        """The sets of ``size`` parents that explain the target, those with the least extrapolation first."""
        found = [solution for indices in self._promising(size) if (solution := self._solve(indices)) is not None]
        return sorted(found, key=lambda one: (round(one.effort / 0.02), one.residual))[:_MAX_TESTED]

    def _direction(self, solution: _Solution, *, only_certain: bool = False) -> Direction:
        """The direction, with those of each parent's copies that predict the target best."""
        choices = list(product(*(self._copies[index] for index in solution.indices)))[:_MAX_CHOICES]
        values = [[one.values for one in choice] for choice in choices]
        fixed = [self._names[index] in self._originals for index in solution.indices]
        found = [direction(self._target.values, others, fixed=fixed, only_certain=only_certain) for others in values]
        return min(found, key=lambda one: (_PREFERRED.index(one.verdict), -one.exact))

    def _promising(self, size: int) -> list[tuple[int, ...]]:
        """Sets of parents with a small residual, the smallest first."""
        limit = (1.1 * self._slack * self._largest) ** 2
        sets = [(left, indices) for indices, left in _sets(self._gram, self._aims, limit, size)]
        return [indices for _, indices in sorted(sets)[:_MAX_SETS]]

    def _solve(self, indices: tuple[int, ...]) -> _Solution | None:
        """The weights of these parents; None if they do not explain the target, or one is not needed."""
        rows = list(indices)
        gram, aims = self._gram[np.ix_(rows, rows)], self._aims[rows]
        if np.linalg.eigvalsh(gram)[0] < _DEPENDENT:
            return None
        inverse = np.linalg.inv(gram)
        unit_weights = inverse @ aims
        residual = float(np.sqrt(max(1 - unit_weights @ aims, 0)))
        if residual > self._slack * max(self._tolerances[index] for index in rows):
            return None
        weights = unit_weights * self._scales[rows]
        own = np.abs(unit_weights) / np.sqrt(np.diag(inverse))  # how much the residual would grow without this parent
        # A merge is between its parents, or adds one difference. Anything else is a relation in which the target was a
        # parent.
        negative = int((weights < 0).sum())
        if (
            negative > (len(rows) == 3)
            or (np.abs(weights) < _MIN_WEIGHT).any()
            or own.min() < _MIN_CERTAIN_GAIN * residual
        ):
            return None
        likeness = float(np.mean([self._gram[i, j] for i, j in combinations(rows, 2)]))
        return _Solution(indices, weights, residual, float(own.min()), float(np.abs(weights).sum()), likeness)

    def _merge(self, solution: _Solution, certainty: Certainty) -> Merge:
        shares = list(zip(solution.indices, solution.weights.tolist(), strict=True))
        # Weights that only differ by rounding are sorted by index.
        shares.sort(key=lambda share: (-round(abs(share[1]), 2), share[1] < 0, share[0]))
        parents = tuple(Parent(self._names[index], weight) for index, weight in shares)
        rest = self._target.scaled
        for index, weight in shares:
            rest = rest - weight * self._sketches[index].scaled
        residual = float(np.linalg.norm(rest) / np.linalg.norm(self._target.scaled))
        relatives = all(self._gram[i, j] > UNRELATED for i, j in combinations(solution.indices, 2))
        return Merge(parents, residual, relatives, certainty)


@dataclass(frozen=True)
class _Solution:
    """Parents by index, their weights, and criteria for choosing a solution.

    Attributes:
        gain: how much the residual would at least grow without one of the parents.
        effort: sum of the absolute weights: 1 for interpolation, more for extrapolation.
        likeness: mean cosine of the parents.
    """

    indices: tuple[int, ...]
    weights: _Array
    residual: float
    gain: float
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


def _are_round(weights: Sequence[float]) -> bool:
    """Whether a user may have typed them."""
    return all(abs(300 * weight - round(300 * weight)) < 1e-6 for weight in weights)


def _is_usual(weights: Sequence[float]) -> bool:
    """Whether mergers work with such weights: all positive, or A + k (B - C)."""
    if min(map(abs, weights)) < _MIN_WEIGHT:
        return False
    negative = [weight for weight in weights if weight < 0]
    if not negative:
        return True
    positive = sorted((weight for weight in weights if weight > 0), key=lambda weight: abs(weight + negative[0]))
    return len(positive) == 2 and abs(positive[0] + negative[0]) < _UNUSUAL and abs(positive[1] - 1) < _UNUSUAL


def _distinct(copies: Sequence[Sketch]) -> list[Sketch]:
    """One copy of each precision, the finest first."""
    by_grid = {grid_of(sketch.values): sketch for sketch in reversed(copies)}
    return [by_grid[grid] for grid in ("fp32", "fp16", "bf16") if grid in by_grid]


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


def _sets(
    gram: _Array, aims: _Array, limit: float, size: int, explained: float = 0.0
) -> Iterator[tuple[tuple[int, ...], float]]:
    """As :func:`_pairs`, of any size: each vector, with sets of the later ones after projecting it out."""
    if size == 2:
        yield from _pairs(gram, aims, limit, explained)
        return
    for i in range(len(aims) - size + 1):
        later = slice(i + 1, None)
        shared = gram[i, later]
        lengths = np.sqrt(np.maximum(1 - shared**2, _SINGULAR))
        rest = (gram[later, later] - np.outer(shared, shared)) / np.outer(lengths, lengths)
        aim = (aims[later] - shared * aims[i]) / lengths
        for indices, left in _sets(rest, aim, limit, size - 1, explained + aims[i] ** 2):
            yield (i, *(i + 1 + index for index in indices)), left


def _tolerance(target: Sketch, parent: Sketch, given: float | None) -> float:
    if given is not None:
        return given
    return PROVEN_BF16 if target.coarse or parent.coarse else PROVEN


def _figures(weight: float) -> str:
    return f"{weight:.2f}" if weight >= 0.0995 else f"{weight:.3f}"
