"""Finds out which of several linearly related VAEs was made from the others, by the rounding of its stored weights.

If M = 0.9 A + 0.1 B, then also A = 1.11 M - 0.11 B. But M was rounded when it was stored: A and B predict its weights
bit for bit, whereas M and B predict A only as far as M's rounding error allows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = [
    "Direction", "Precision", "are_copies", "differ_by_rounding", "direction", "grid_of", "is_rounded", "rounded",
]  # fmt: skip

Grid = Literal["bf16", "fp16", "fp32"]
Precision = Literal["e5m2", "e4m3", "bf16", "fp16", "fp32"]
"""Also those of fp8, to which nothing is merged."""
_Source = Literal["", "bf16", "fp16", "fp32"]
_Cast = Literal["", "wide", "bf16", "fp16", "fp32"]
"""The coarsest precision that can represent some weights, whatever dtype they are stored in."""

_Array = npt.NDArray[np.float64]
_Weights = tuple[float, ...]

_MIN_EXACT = 0.995  # share of weights that true parents predict bit for bit, if the arithmetic is known
_EXACT = 0.998  # share beyond which weights are not searched for
_CLEARLY = 3  # times as many wrong predictions
_MIN_WRONG = 8  # predictions more; fewer can be chance
_MIN_VALUES = 64  # weights in which the direction can show
_MIN_FAR = 32  # weights that show whether the result was rounded
_MAX_VALUES = 12_000  # that are compared; more would not change the answer
_PREVIEW = 600  # compared first, to exclude most wrong explanations
_HOPELESS = 0.9  # share of these that are predicted, below which no more are compared
_UNROUNDED = 0.12  # in units in the last place: smaller errors were not left by rounding, which leaves 0.29
_UNROUNDED_FINER = 0.27  # the same if a parent is in a finer precision, so that the sum can lie anywhere
_PROMISING = 4  # ways of computing that are tried on all weights
_COPIES = 0.999  # share of equal weights
_HALVES: tuple[Grid, ...] = ("fp16", "bf16")
_REFINEMENTS = 12
_NEAR = 0.05  # of free weights to 1, relative to their sum
_MAX_WEIGHT = 1.3  # of a merger's menu
_MIN_VISIBLY_EXACT = 0.998
_SHIFTS = {2: [(1, -1)], 3: [(0, 1, -1), (1, 0, -1), (1, -1, 0)], 4: []}  # of weights, without a change of their sum
_BITS: dict[Precision, int] = {"e5m2": 3, "e4m3": 4, "bf16": 8, "fp16": 11, "fp32": 24}  # significant ones
# Below, numbers are equally spaced.
_MIN_EXPONENT: dict[Precision, int] = {"e5m2": -13, "e4m3": -5, "bf16": -125, "fp16": -13, "fp32": -125}


@dataclass(frozen=True)
class Direction:
    """Whether one member of a relation was made from the others.

    Attributes:
        verdict: ``certain``: the first member was made from the others; ``other``: another member was made from them;
            ``open``: the rounding does not show which.
        exact: share of the first member's weights that the others predict bit for bit.
        weights: of the others, with which ``exact`` was reached.
    """

    verdict: Literal["certain", "other", "open"]
    exact: float
    weights: _Weights


@dataclass(frozen=True)
class _Fit:
    wrong: int
    count: int
    weights: _Weights
    possible: bool

    @property
    def exact(self) -> float:
        return 1 - self.wrong / self.count

    @property
    def good(self) -> bool:
        return self.possible and self.exact >= _MIN_EXACT

    def clearly_better_than(self, other: _Fit) -> bool:
        return not other.possible or _CLEARLY * self.wrong + _MIN_WRONG <= other.wrong


def grid_of(values: npt.NDArray[np.float32]) -> Grid:
    """The coarsest precision in which all ``values`` can be stored without rounding; bf16 for those in fp8."""
    if not (values.view(np.uint32) & 0xFFFF).any():
        return "bf16"
    return "fp16" if np.array_equal(values.astype(np.float16).astype(np.float32), values) else "fp32"


def rounded(values: npt.NDArray[np.floating], grid: Grid) -> _Array:
    """``values`` rounded to the nearest number of a precision, ties to even; in double precision again.

    Rounded to fp32 first, because torch computes in fp32 and then rounds: with weights such as 0.9, ties are common.
    """
    single = values.astype(np.float32)
    if grid == "fp16":
        return single.astype(np.float16).astype(np.float64)
    if grid == "bf16":
        bits = single.view(np.uint32)
        single = ((bits + (0x7FFF + ((bits >> 16) & 1))) & np.uint32(0xFFFF0000)).astype(np.uint32).view(np.float32)
    return single.astype(np.float64)


def finest(grids: Sequence[Grid]) -> Grid:
    """The precision of a sum of tensors in these ones, as torch promotes them."""
    return grids[0] if len(set(grids)) == 1 else "fp32"


def are_copies(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> bool:
    """Whether both have the same weights, both perhaps rounded, to different precisions."""
    fine, coarse = sorted((grid_of(a), grid_of(b)), key=_BITS.__getitem__, reverse=True)
    if fine == coarse:
        return float(np.mean(a == b)) >= _COPIES
    return differ_by_rounding(a, b, coarse, fine)


def differ_by_rounding(
    a: npt.NDArray[np.float32], b: npt.NDArray[np.float32], coarse: Precision, *earlier: Precision
) -> bool:
    """Whether no weight differs by more than rounding to ``coarse`` leaves, after others to ``earlier``."""
    most = 0.5 + sum(0.5 * 2.0 ** (_BITS[coarse] - _BITS[grid]) for grid in earlier)
    difference = np.abs(a.astype(np.float64) - b)
    return bool((difference <= (most + 1e-6) * _unit(np.maximum(np.abs(a), np.abs(b)), coarse)).all())


def is_rounded(copy: npt.NDArray[np.float32], source: npt.NDArray[np.float32]) -> bool:
    """Whether ``copy`` is ``source``, the same or rounded."""
    # Of two roundings in a row, a few land elsewhere than one alone.
    return float(np.mean(rounded(source, grid_of(copy)) == copy)) >= _COPIES


def direction(
    target: npt.NDArray[np.float32],
    others: Sequence[npt.NDArray[np.float32]],
    *,
    fixed: Sequence[bool] = (),
    only_certain: bool = False,
) -> Direction:
    """Whether ``target`` was made from ``others``; all [N], and nearly linearly dependent.

    Every member is tried as the one that was made from the others, with every arithmetic that mergers use.

    Args:
        target: weights, as stored.
        others: the same weights of the other VAEs.
        fixed: for each of the others, whether it is known to be an original, so it was not made from these.
        only_certain: whether ``other`` may be reported as ``open``, which is faster.
    """
    with np.errstate(over="ignore"):  # of sums that no file can contain
        members = np.stack([target, *others]).astype(np.float64)
        return _direction(members, fixed or [False] * len(others), only_certain)


def _direction(members: _Array, fixed: Sequence[bool], only_certain: bool) -> Direction:
    unit = _unit(members[0], grid_of(members[0].astype(np.float32)))
    weights = _guesses(members[1:], members[0], unit)[-1]
    members = members[:, ~_trivial(members, np.array([-1.0, *weights]))]
    if members.shape[1] < _MIN_VALUES:
        return Direction("open", 0.0, weights)
    members = members[:, :: -(-members.shape[1] // _MAX_VALUES)]
    grids: list[Grid] = [grid_of(row.astype(np.float32)) for row in members]
    own = _fit(members, grids, 0)
    if only_certain and not own.good:
        return Direction("open", own.exact, own.weights)
    if not own.possible:
        return Direction("other", own.exact, own.weights)
    rivals = [_fit(members, grids, index) for index in range(1, len(members)) if not fixed[index - 1]]
    if own.good and all(own.weights) and all(own.clearly_better_than(rival) for rival in rivals):
        decided = not _could_be_a_rounded_parent(own, grids, fixed)
        return Direction("certain" if decided else "open", own.exact, own.weights)
    other = any(rival.good and rival.clearly_better_than(own) for rival in rivals)
    return Direction("other" if other else "open", own.exact, own.weights)


def _trivial(members: _Array, relation: _Array) -> npt.NDArray[np.bool_]:
    """[N], where weights are equal in such a way that the relation holds for them whichever member was made.

    For example, where two fine-tunes have the same weights, so have all their merges.
    """
    count = len(members)
    found = (members == members[0]).all(0) if abs(relation.sum()) < 1e-3 else np.zeros(members.shape[1], np.bool_)
    if count == 4:
        for other in range(1, 4):
            pair, rest = [0, other], [index for index in range(1, 4) if index != other]
            if abs(relation[pair].sum()) < 1e-3 and abs(relation[rest].sum()) < 1e-3:
                found |= (members[pair[0]] == members[pair[1]]) & (members[rest[0]] == members[rest[1]])
    return found


def _fit(members: _Array, grids: Sequence[Grid], index: int) -> _Fit:
    """How well the other members predict this one."""
    made = members[index]
    rest = [row for row in range(len(members)) if row != index]
    parents = members[rest]
    kinds: list[Grid] = [grids[row] for row in rest]
    guesses = _guesses(parents, made, _unit(made, grids[index]))
    plans = [plan for weights in guesses for plan in _plans(weights, kinds, grids[index])]
    preview = max(1, len(made) // _PREVIEW)
    few, few_made = parents[:, ::preview], made[::preview]
    first = [_wrong(plan, few, few_made, kinds, grids[index]) for plan in plans]
    best = plans[first.index(min(first))]
    wrong = len(made) * min(first) // len(few_made)
    if 1 - min(first) / len(few_made) >= _HOPELESS:
        promising = [plans[number] for number in sorted(range(len(plans)), key=first.__getitem__)[:_PROMISING]]
        counts = [_wrong(plan, parents, made, kinds, grids[index]) for plan in promising]
        wrong, best = min(counts), promising[counts.index(min(counts))]
        if wrong > (1 - _EXACT) * len(made):
            wrong, best = _polished(best, wrong, parents, made, kinds, grids[index])
    possible = _could_be_rounded(made, parents, best, grids[index], kinds)
    return _Fit(wrong, len(made), best.weights, possible)


def _wrong(plan: _Plan, parents: _Array, made: _Array, kinds: Sequence[Grid], grid: Grid) -> int:
    """How many weights a plan does not predict bit for bit."""
    return int((rounded(_run(plan, parents, kinds), grid) != made).sum())


def _polished(
    plan: _Plan, wrong: int, parents: _Array, made: _Array, kinds: Sequence[Grid], grid: Grid
) -> tuple[int, _Plan]:
    """The same plan with slightly other weights, if that predicts more. For weights that are no round numbers."""
    changes: Sequence[_Weights] = _SHIFTS[len(plan.weights)]
    if len(changes) > 1 and any(abs(weight - 1) < 1e-9 for weight in plan.weights):
        changes = [change for change, weight in zip(changes, plan.weights, strict=True) if abs(weight - 1) < 1e-9]
    for step in (3e-5, 1e-5, 3e-6, 1e-6, 3e-7):
        for change in (sign * step * np.array(shift) for shift in changes for sign in (1, -1)):
            while True:
                other = replace(plan, weights=tuple((np.array(plan.weights) + change).tolist()))
                count = _wrong(other, parents, made, kinds, grid)
                if count >= wrong:
                    break
                wrong, plan = count, other
    return wrong, plan


def _could_be_a_rounded_parent(own: _Fit, grids: Sequence[Grid], fixed: Sequence[bool]) -> bool:
    """Whether a parent in a finer precision could have been made from the target, before that was rounded.

    If A = D + k (B - C), then D = A + k (C - B): a copy of A in fp16 is predicted bit for bit by D in fp32, whichever
    was first. A reversed average has several negative weights or large ones, with which no merger works.
    """
    for index, weight in enumerate(own.weights):
        bits = _BITS[grids[index + 1]] - _BITS[grids[0]]
        reverse = [1 / weight, *(-other / weight for row, other in enumerate(own.weights) if row != index)]
        usual = sum(value < 0 for value in reverse) <= len(reverse) - 2 and max(map(abs, reverse)) < _MAX_WEIGHT
        # The rounding of fp16 is visible in bf16, where it makes 3 % of the predictions wrong.
        visible = bits == 3 and not _all_whole(own.weights) and own.exact >= _MIN_VISIBLY_EXACT
        if bits > 0 and usual and not visible and not fixed[index]:
            return True
    return False


def _all_whole(weights: _Weights) -> bool:
    return all(abs(weight - round(weight)) < 1e-3 for weight in weights)


def _could_be_rounded(made: _Array, parents: _Array, plan: _Plan, grid: Grid, kinds: Sequence[Grid]) -> bool:
    """Whether the difference is as large as rounding to ``grid`` leaves it.

    If the sum of the others is already a number of this precision, although one of them has a finer precision or the
    weights are fractions, then one of the others was made from this one.
    """
    finer = any(_BITS[kind] > _BITS[grid] for kind in kinds)
    coarser = any(_BITS[kind] < _BITS[grid] for kind in kinds)
    if not finer and (coarser or _all_whole(plan.weights)):
        return True
    unit = _unit(made, grid)
    wide = np.array(plan.weights) @ parents
    # Closer to a parent than one unit, the result is often that parent's own weight.
    far = (np.abs(wide - parents) > unit).all(0)
    if far.sum() < _MIN_FAR:
        return False
    if finer and plan.cast != "wide" and _BITS[plan.cast or finest(kinds)] > _BITS[grid]:
        wide = _run(plan, parents, kinds)
    error = ((wide - made) / unit)[far]
    return bool(np.sqrt(np.mean(np.minimum(error**2, 1.0))) > (_UNROUNDED_FINER if finer else _UNROUNDED))


def _unit(values: _Array, grid: Precision) -> _Array:
    """The distance between neighbouring numbers of a precision: a unit in the last place."""
    exponents = np.maximum(np.frexp(np.abs(values))[1], _MIN_EXPONENT[grid])
    return np.ldexp(1.0, exponents - _BITS[grid])


def _guesses(parents: _Array, made: _Array, unit: _Array) -> list[_Weights]:
    """The weights that fit best, from free ones to those of the usual recipes, which fewer unknowns make exact."""
    scaled, aim = parents / unit, made / unit
    weights = _refined(scaled, aim)
    if abs(weights.sum() - 1) > _NEAR * np.abs(weights).sum():
        return [tuple(weights.tolist())]
    # Weights that add up to 1.
    rest = _refined(scaled[1:] - scaled[0], aim - scaled[0])
    found: list[_Weights] = [(float(1 - rest.sum()), *rest.tolist())]
    for base in range(3 if len(parents) == 3 else 0):
        b, c = (row for row in range(3) if row != base)
        if abs(weights[base] - 1) < _NEAR * np.abs(weights).sum():  # A + k (B - C)
            k = float(_refined((scaled[b] - scaled[c])[None], aim - scaled[base])[0])
            values = [1.0] * 3
            values[b], values[c] = k, -k
            found.append(tuple(values))
    return found


def _refined(parents: _Array, made: _Array) -> _Array:
    """Weights that leave errors of at most half a unit in the last place, as rounding does, in most places.

    Args:
        parents: [K,N] in units in the last place of the result.
        made: [N], the result, in the same units.
    """
    weights = _least_squares(parents, made)
    best, fewest = weights, len(made) + 1
    for _ in range(_REFINEMENTS):
        error = made - weights @ parents
        outside = np.abs(error) > 0.5
        count = int(outside.sum())
        if count >= fewest:
            break
        best, fewest = weights, count
        if count <= len(parents):
            break
        excess = error[outside] - 0.5 * np.sign(error[outside])
        weights = weights + _least_squares(parents[:, outside], excess)
    return best


def _least_squares(parents: _Array, made: _Array) -> _Array:
    """Weights of [K,N] parents whose sum comes closest to [N]."""
    try:
        return np.linalg.solve(parents @ parents.T, parents @ made)
    except np.linalg.LinAlgError:
        return np.linalg.lstsq(parents.T, made, rcond=None)[0]


@dataclass(frozen=True)
class _Plan:
    """One way in which a merger may have computed the weights.

    Attributes:
        weights: of the parents.
        cast: precision of all parents and all steps; "" for each tensor's own.
        order: see :func:`_run`.
    """

    weights: _Weights
    cast: _Cast
    order: tuple[str, tuple[int, ...]]
    source: _Source = ""


def _plans(weights: _Weights, kinds: Sequence[Grid], made: Grid) -> Iterator[_Plan]:
    """Every way in which mergers may compute weights of the precision ``made``."""
    count = len(weights)
    orders: list[tuple[str, tuple[int, ...]]] = []
    if count == 2:
        orders += [(how, order) for how in ("sum", "sum-fused") for order in ((0, 1), (1, 0))][:3]
        if abs(sum(weights) - 1) < 2e-3:
            orders += [(how, order) for how in ("lerp", "lerp-fused") for order in ((0, 1), (1, 0))]
    else:
        # The first two can be exchanged.
        orders += [("sum", order) for order in permutations(range(count)) if order[0] < order[1]]
        for base in range(3 if count == 3 else 0):
            b, c = (index for index in range(3) if index != base)
            if abs(weights[base] - 1) < 2e-3 and abs(weights[b] + weights[c]) < 2e-3:
                b, c = (b, c) if weights[b] > 0 else (c, b)
                orders += [(how, (base, b, c)) for how in ("difference", "difference-fused")]
    sources: list[_Source] = ["", *(grid for grid in _HALVES if any(kind not in (grid, "bf16") for kind in kinds))]
    for choice in _nice(weights):
        for source in sources:
            yield _Plan(choice, "wide", ("sum", tuple(range(count))), source)
        # With round weights, ties are so common that the order of steps in fp32 shows in fp16.
        casts: list[_Cast] = ["fp32", *(cast for cast in _HALVES if _BITS[cast] >= _BITS[made])]
        if len(set(kinds)) > 1:
            casts.append("")
        for cast in casts:
            for order in orders:
                yield _Plan(choice, cast, order)


def _nice(weights: _Weights) -> list[_Weights]:
    """The weights themselves, and what a user may have typed."""
    found = [weights]
    for step in (1 / 3, 0.05, 0.01, 0.001):
        near = tuple(round(weight / step) / round(1 / step) for weight in weights)
        if all(abs(a - b) < max(2e-3, 0.4 * step) for a, b in zip(near, weights, strict=True)) and near not in found:
            found.append(near)
    return found


def _run(plan: _Plan, parents: _Array, kinds: Sequence[Grid]) -> _Array:
    """The prediction of a plan, before it is stored.

    ``sum`` adds weighted parents one by one, ``lerp`` is a + w (b - a), ``difference`` is a + w (b - c). After each
    step the result is rounded; ``-fused`` does not round the last product.
    """
    if plan.cast == "wide":
        values = rounded(parents, plan.source) if plan.source else parents
        return np.array(plan.weights) @ values
    how, order = plan.order
    fused = how.endswith("-fused")
    weights = [float(np.float32(plan.weights[index])) for index in order]
    grids: list[Grid] = [plan.cast or kinds[index] for index in order]  # type: ignore[misc]
    values = [rounded(parents[index], grid) for index, grid in zip(order, grids, strict=True)]

    def product(weight: float, value: _Array, grid: Grid) -> _Array:
        return weight * value if fused or abs(weight) == 1 else rounded(weight * value, grid)

    if how.startswith("sum"):
        total, grid = rounded(weights[0] * values[0], grids[0]), grids[0]
        for weight, value, kind in zip(weights[1:], values[1:], grids[1:], strict=True):
            grid_of_sum = finest((grid, kind))
            total, grid = rounded(total + product(weight, value, kind), grid_of_sum), grid_of_sum
        return total
    first, last = (values[1], values[2]) if how.startswith("difference") else (values[1], values[0])
    pair = finest((grids[1], grids[2] if how.startswith("difference") else grids[0]))
    return rounded(values[0] + product(weights[1], rounded(first - last, pair), pair), finest((grids[0], pair)))
