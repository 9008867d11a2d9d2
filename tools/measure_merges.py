"""Measures how well merges are explained, over random libraries of small VAEs.

    python -m tools.measure_merges --libraries 300 --write docs/merges.md

A library has originals, fine-tunes, weighted sums, added differences, merges of merges, and copies in other precisions,
made in fp32, fp16 or bf16 and stored in one of these. Some files are then missing, as on a real disk.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from vae_lab.identity import Merge, Sketch, explain_merge, sketch_of_state
from vae_lab.identity.direction import grid_of
from vae_lab.samples import load_sample_vae

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
SAMPLES = ("photo-a", "photo-b", "photo-a-smooth", "photo-a-sharp", "anime")
BITS = {"bf16": 8, "fp16": 11, "fp32": 24}
SIZE = 64  # weights of each convolution

State = dict[str, Tensor]

DOCUMENT = """# Merges: how well parents are found

Over {libraries} random libraries of originals, fine-tunes, merges of two to four parents, added differences, merges of
merges and copies in other precisions; the merges were computed in fp32, fp16 or bf16 and stored in one of these:

    python -m tools.measure_merges --libraries {libraries} --seed {seed} --write docs/merges.md

{table}

- *right*: all parents and their weights. *unnamed*: no answer. *related*: relatives are named, but no recipe.
- *wrong recipe*: it is a merge, but of other files. *wrong*: an original is called a merge, or a file is said to be
  made from a file that was made from it.

{summary}

What cannot be decided: A + k (B - C) in fp16, if A is there in fp32. Then the merge could as well be a copy in fp16 of
an original, and A the merge.
"""


@dataclass
class Vae:
    """One file of a library.

    Attributes:
        state: weights, as stored.
        kind: how it was made.
        recipe: parents and their weights; empty for an original.
        exact: whether the parents were used as the library has them, and not in a finer precision.
    """

    state: State
    kind: str
    recipe: dict[str, float] = field(default_factory=dict)
    exact: bool = True


def originals(rng: random.Random, size: int) -> dict[str, Vae]:
    """Two to five VAEs that are no merges: trained ones or random ones, and fine-tunes of these."""
    seed = rng.getrandbits(31)
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, Vae] = {}
    bases: list[State] = []
    for number in range(rng.randint(1, 3)):
        if rng.random() < 0.5:
            base = _sample(rng.choice(SAMPLES[:2]), size)
            bases.append(
                {name: tensor + 1e-5 * torch.randn(tensor.shape, generator=generator) for name, tensor in base.items()}
            )
        else:
            shapes = {name: tensor.shape for name, tensor in _sample("photo-a", size).items()}
            scale = rng.choice((0.01, 0.03, 0.1))
            bases.append({name: scale * torch.randn(shape, generator=generator) for name, shape in shapes.items()})
        found[f"original-{number}"] = Vae(bases[-1], "original")
    for number in range(rng.randint(1, 3)):
        base = rng.choice(bases)
        share, strength = rng.choice((0.2, 0.5, 1.0)), rng.choice((0.02, 0.1, 0.3))
        chosen = set(rng.sample(sorted(base), max(2, int(share * len(base)))))
        tuned = {
            name: tensor + strength * tensor.std() * torch.randn(tensor.shape, generator=generator)
            if name in chosen
            else tensor
            for name, tensor in base.items()
        }
        found[f"tune-{number}"] = Vae(tuned, "fine-tune")
    dtype = rng.choice((torch.float16, torch.float16, torch.float32, torch.bfloat16, None))
    for vae in found.values():
        own = dtype or rng.choice(tuple(DTYPES.values()))
        vae.state = {name: tensor.to(own) for name, tensor in vae.state.items()}
    return found


def merged(rng: random.Random, library: Mapping[str, Vae]) -> Vae:
    """A merge of some files, as a merger makes it."""
    names = list(library)
    kind = rng.choice(("two", "two", "two", "three", "four", "difference", "difference"))
    count = {"two": 2, "three": 3, "four": 4, "difference": 3}[kind]
    if len(names) < count:
        kind, count = "two", 2
    chosen = rng.sample(names, count)
    states = [library[name].state for name in chosen]
    arithmetic, stored = (
        rng.choice(("fp32", "fp32", "own", "fp16", "bf16", "lerp")),
        rng.choice(("fp16", "fp16", "fp32", "bf16", "own")),
    )
    if kind == "difference":
        k = rng.choice((1.0, 1.0, 0.5, 0.3, 0.25, 0.1, round(rng.uniform(0.05, 1.2), 2)))
        weights = [1.0, k, -k]
    else:
        weights = shares(rng, count)
    state: State = {}
    for name in states[0]:
        tensors = [one[name] for one in states]
        if arithmetic in DTYPES:
            tensors = [tensor.to(DTYPES[arithmetic]) for tensor in tensors]
        if kind == "difference":
            result = tensors[0] + weights[1] * (tensors[1] - tensors[2])
        elif arithmetic == "lerp" and count == 2 and tensors[0].dtype == tensors[1].dtype:
            result = torch.lerp(tensors[0], tensors[1], weights[1])
        else:
            result = weights[0] * tensors[0]
            for weight, tensor in zip(weights[1:], tensors[1:], strict=True):
                result = result + weight * tensor
        state[name] = result if stored == "own" else result.to(DTYPES[stored])
    return Vae(state, kind, dict(zip(chosen, weights, strict=True)))


def shares(rng: random.Random, count: int) -> list[float]:
    """Weights that add up to 1, mostly those that a user types."""
    if rng.random() < 0.15:
        parts = [rng.uniform(0.1, 1.0) for _ in range(count)]
        return [part / sum(parts) for part in parts]
    steps = rng.choice((10, 20, 20, 100))
    while True:
        cuts = sorted(rng.randint(1, steps - 1) for _ in range(count - 1))
        parts = [b - a for a, b in zip([0, *cuts], [*cuts, steps], strict=True)]
        if min(parts) >= 0.02 * steps:
            return [part / steps for part in parts]


def library(rng: random.Random, size: int = SIZE) -> dict[str, Vae]:
    """Originals and merges, some of them in other precisions than those from which other files were made.

    Args:
        rng: source of everything random.
        size: weights of each convolution.
    """
    found = originals(rng, size)
    for number in range(rng.randint(1, 6)):
        found[f"merge-{number}"] = merged(rng, found)
    for name in list(found):
        if rng.random() < 0.15:
            _recast(rng, found, name)
    for name in rng.sample(list(found), rng.randint(0, max(0, len(found) - 3)) // 3):
        del found[name]
    return found


def _recast(rng: random.Random, found: dict[str, Vae], name: str) -> None:
    dtype = rng.choice(tuple(DTYPES.values()))
    vae = found[name]
    copy = Vae({key: tensor.to(dtype) for key, tensor in vae.state.items()}, vae.kind, vae.recipe, vae.exact)
    if all(torch.equal(copy.state[key].float(), tensor.float()) for key, tensor in vae.state.items()):
        return
    if rng.random() < 0.5:
        found[f"{name} recast"] = copy
        return
    copy.exact = False
    found[name] = copy
    for other in found.values():
        other.exact = other.exact and name not in other.recipe


@cache
def _sample(name: str, size: int) -> State:
    """A part of each convolution, so that a library is made in milliseconds."""
    state = load_sample_vae(name)
    return {
        key: tensor.float().flatten()[:size].reshape(-1, 1, 1, 1) for key, tensor in state.items() if tensor.ndim == 4
    }


OUTCOMES = ("right", "unnamed", "related", "wrong recipe", "wrong")


def outcome(name: str, vae: Vae, merge: Merge | None, present: Mapping[str, Vae]) -> str:
    """``wrong`` if an original is called a merge, or a merge is said to be made from VAEs that were made from it."""
    if merge is None:
        return "unnamed"
    if not merge.certain:
        return "related"
    if not vae.recipe:
        return "wrong"
    told = {parent.name.removesuffix(" recast"): parent.weight for parent in merge.parents}
    if told.keys() == vae.recipe.keys() and all(abs(told[key] - vae.recipe[key]) < 0.006 for key in told):
        return "right"
    own = name.removesuffix(" recast")
    return "wrong" if any(own in present[parent].recipe for parent in told if parent in present) else "wrong recipe"


def measured(libraries: int, seed: int) -> Iterator[tuple[str, Vae, bool, str, Merge | None, int, Mapping[str, Vae]]]:
    """Yield name, VAE, whether its parents are there as they were used, outcome, answer, and library of each file."""
    for number in range(libraries):
        files = library(random.Random(f"{seed} {number}"))
        sketches: dict[str, Sketch] = {name: sketch_of_state(vae.state) for name, vae in files.items()}
        for name, vae in files.items():
            others = {other: sketch for other, sketch in sketches.items() if other != name}
            merge = explain_merge(sketches[name], others)
            there = bool(vae.recipe) and vae.exact and all(parent in files for parent in vae.recipe)
            yield name, vae, there, outcome(name, vae, merge, files), merge, number, files


def described(vae: Vae, there: bool, files: Mapping[str, Vae]) -> str:
    if not vae.recipe:
        return vae.kind
    if not there:
        return f"{vae.kind}, a parent missing or recast"
    bits = BITS[precision(vae)]
    coarser = vae.kind == "difference" and any(BITS[precision(files[name])] > bits for name in vae.recipe)
    return f"{vae.kind}, parents present{' in a finer precision' if coarser else ''}"


def precision(vae: Vae) -> str:
    """The coarsest precision that can represent the weights."""
    return grid_of(sketch_of_state(vae.state).values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--libraries", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--show", action="store_true")
    args = parser.parse_args()
    counts: Counter[tuple[str, str]] = Counter()
    start = time.perf_counter()
    for name, vae, there, result, merge, number, files in measured(args.libraries, args.seed):
        row = described(vae, there, files)
        counts[row, result] += 1
        if args.show and (result.startswith("wrong") or (there and result != "right")):
            facts = number, name, precision(vae), row, result, vae.recipe, merge and (merge.direction, merge.sentence)
            sys.stdout.write(f"{facts}\n")
    rows = sorted({row for row, _ in counts})
    lines = [f"| file | {' | '.join(OUTCOMES)} |", f"|---|{'---|' * len(OUTCOMES)}"]
    lines += [f"| {row} | {' | '.join(str(counts[row, result]) for result in OUTCOMES)} |" for row in rows]
    table = "\n".join(lines)
    sys.stdout.write(f"{table}\n{time.perf_counter() - start:.0f} s\n")
    if args.write:
        named = sum(counts[row, "right"] for row in rows if row.endswith("parents present"))
        total = sum(counts[row, one] for row in rows for one in OUTCOMES if row.endswith("parents present"))
        summary = f"{named} of {total} merges whose parents are present were named right ({100 * named / total:.1f} %)."
        args.write.write_text(
            DOCUMENT.format(libraries=args.libraries, seed=args.seed, table=table, summary=summary), "utf8"
        )


if __name__ == "__main__":
    main()
