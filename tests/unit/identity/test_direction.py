"""Which VAE was made from which: shown by the rounding of the stored weights, or left open."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tools.measure_merges import library
from vae_lab.identity import Sketch, explain_merge, sketch_of_state

H, B, F = torch.float16, torch.bfloat16, torch.float32
COUNT = 6000


def weights(seed: int, scale: float = 0.02, dtype: torch.dtype = H) -> Tensor:
    return (scale * torch.randn(COUNT, generator=torch.Generator().manual_seed(seed))).to(dtype)


def sketch(values: Tensor) -> Sketch:
    array = values.float().numpy()
    array.setflags(write=False)
    return Sketch("x", array, (("decoder.conv_in.weight", 0, COUNT),), (COUNT * 1000,))


A, UNRELATED = weights(0), weights(1)
TUNED = (A.float() + weights(2, 0.003, F)).half()
FINE_A, FINE_B = weights(3, dtype=F), weights(4, dtype=F)

Parents = tuple[Tensor, ...]
TWO: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Parents]] = {
    "fp32, stored in fp16": (lambda a, b: (0.9 * a.float() + 0.1 * b.float()).half(), (A, UNRELATED)),
    "fp32, stored in fp32": (lambda a, b: 0.9 * a.float() + 0.1 * b.float(), (A, UNRELATED)),
    "fp32, stored in bf16": (lambda a, b: (0.9 * a.float() + 0.1 * b.float()).bfloat16(), (A, UNRELATED)),
    "halves": (lambda a, b: 0.5 * a.float() + 0.5 * b.float(), (A, UNRELATED)),
    "the WebUI's merger in fp16": (lambda a, b: (1 - 0.35) * a + 0.35 * b, (A, UNRELATED)),
    "the WebUI's merger in bf16": (lambda a, b: (1 - 0.35) * a + 0.35 * b, (A.bfloat16(), UNRELATED.bfloat16())),
    "lerp in fp16": (lambda a, b: torch.lerp(a, b, 0.3), (A, UNRELATED)),
    "lerp in steps": (lambda a, b: a + 0.3 * (b - a), (A, UNRELATED)),
    "lerp in fp32": (lambda a, b: torch.lerp(a, b, 0.3), (FINE_A, FINE_B)),
    "all in fp32": (lambda a, b: 0.8 * a + 0.2 * b, (FINE_A, FINE_B)),
    "fp32, rounded": (lambda a, b: (0.8 * a + 0.2 * b).half(), (FINE_A, FINE_B)),
    "fp32, rounded first": (lambda a, b: 0.8 * a.half() + 0.2 * b.half(), (FINE_A, FINE_B)),
    "no round number": (lambda a, b: (0.61803 * a.float() + 0.38197 * b.float()).half(), (A, UNRELATED)),
    "fine-tunes": (lambda a, b: (0.7 * a.float() + 0.3 * b.float()).half(), (A, TUNED)),
    "in two precisions": (lambda a, b: (0.7 * a + 0.3 * b).half(), (FINE_A, UNRELATED)),
}
ADDED: dict[str, tuple[Callable[[Tensor, Tensor, Tensor], Tensor], Parents]] = {
    "the WebUI's merger in fp16": (lambda a, b, c: a + 1.0 * (b - c), (UNRELATED, TUNED, A)),
    "half of it": (lambda a, b, c: a + 0.5 * (b - c), (UNRELATED, TUNED, A)),
    "of unrelated ones, in fp32": (lambda a, b, c: a.float() + 0.3 * (b.float() - c.float()), (A, UNRELATED, TUNED)),
    "all in fp32": (lambda a, b, c: a + 0.5 * (b - c), (FINE_A, FINE_B, weights(5, dtype=F))),
}


def answers(made: Tensor, parents: Parents) -> list[str]:
    """What is said of the merge and of each parent: certain, open, or nothing."""
    members = [sketch(member) for member in (made, *parents)]
    found = []
    for i, member in enumerate(members):
        merge = explain_merge(member, {str(j): other for j, other in enumerate(members) if j != i})
        found.append(merge.direction if merge else "")
    return found


@pytest.mark.parametrize(("merge", "parents"), TWO.values(), ids=TWO)
def test_sum_of_two(merge: Callable[..., Tensor], parents: Parents) -> None:
    assert answers(merge(*parents), parents) == ["certain", "", ""]


@pytest.mark.parametrize(("merge", "parents"), ADDED.values(), ids=ADDED)
def test_added_difference(merge: Callable[..., Tensor], parents: Parents) -> None:
    """A = D + k (C - B) is true as well, but only D was made."""
    assert answers(merge(*parents), parents) == ["certain", "", "", ""]


MORE: dict[str, tuple[dict[str, float], Callable[[Tensor], Tensor]]] = {
    "three": ({"a": 0.5, "b": 0.3, "c": 0.2}, Tensor.half),
    "three, no round numbers": ({"a": 0.41803, "b": 0.36141, "c": 0.22056}, Tensor.half),
    "four": ({"a": 0.4, "b": 0.3, "c": 0.2, "d": 0.1}, Tensor.half),
    "four in bf16": ({"a": 0.25, "b": 0.25, "c": 0.25, "d": 0.25}, Tensor.bfloat16),
}


@pytest.mark.parametrize(("shares", "store"), MORE.values(), ids=MORE)
def test_sum_of_more(shares: dict[str, float], store: Callable[[Tensor], Tensor]) -> None:
    parents = {"a": A, "b": UNRELATED, "c": TUNED, "d": weights(5)}
    made = store(sum((share * parents[name].float() for name, share in shares.items()), torch.zeros(COUNT)))
    sketches = {name: sketch(values) for name, values in parents.items()}
    found = explain_merge(sketch(made), sketches)
    assert found is not None
    assert found.certain
    assert {parent.name: pytest.approx(parent.weight, abs=1e-3) for parent in found.parents} == shares
    for name in shares:
        others = {other: one for other, one in sketches.items() if other != name}
        back = explain_merge(sketches[name], {"made": sketch(made), **others})
        assert back is None or not back.certain


def test_a_recipe_that_no_merger_has_is_not_told() -> None:
    made = (1.4 * A.float() + 0.3 * UNRELATED.float() - 0.7 * TUNED.float()).half()
    found = explain_merge(sketch(made), {"a": sketch(A), "b": sketch(UNRELATED), "c": sketch(TUNED)})
    assert found is None or not found.certain


def test_direction_is_open_if_parents_were_rounded_afterwards() -> None:
    merge = 0.8 * FINE_A + 0.2 * FINE_B
    found = explain_merge(sketch(merge), {"a": sketch(FINE_A.half()), "b": sketch(FINE_B.half())})
    assert found is not None
    assert (found.direction, found.sentence) == ("open", "a, b")


def test_rounded_original_is_not_said_to_be_made_from_its_merge() -> None:
    """D = A + k (B - C) in fp32, and of A only a copy in fp16: D, B and C predict it bit for bit."""
    b, c = FINE_B, weights(5, dtype=F)
    merge = FINE_A + 0.5 * (b - c)
    candidates = {"d": sketch(merge), "b": sketch(b), "c": sketch(c)}
    found = explain_merge(sketch(FINE_A.half()), candidates)
    assert found is None or found.direction == "open"


def test_known_original_decides_what_rounding_cannot() -> None:
    b, c = FINE_B, weights(5, dtype=F)
    merge, candidates = sketch((FINE_A + 0.5 * (b - c)).half()), {"a": FINE_A, "b": b, "c": c}
    sketches = {name: sketch(values) for name, values in candidates.items()}
    first, second = explain_merge(merge, sketches), explain_merge(merge, sketches, originals={"a"})
    assert first is not None
    assert second is not None
    assert (first.direction, second.direction) == ("open", "certain")
    assert [round(parent.weight, 3) for parent in second.parents] == [1, 0.5, -0.5]


def test_merge_is_explained_although_a_copy_of_it_is_there() -> None:
    merge = (0.8 * A.float() + 0.2 * UNRELATED.float()).half()
    candidates = {"copy": sketch(merge), "coarse": sketch(merge.bfloat16()), "a": sketch(A), "b": sketch(UNRELATED)}
    for target in (merge, merge.bfloat16()):
        found = explain_merge(sketch(target), candidates)
        assert found is not None
        assert found.sentence == "0.80 a + 0.20 b"


def test_the_copy_that_was_merged_is_found_in_any_precision() -> None:
    merge = (0.8 * A.bfloat16().float() + 0.2 * UNRELATED.float()).half()
    found = explain_merge(sketch(merge), {"a": sketch(A), "a bf16": sketch(A.bfloat16()), "b": sketch(UNRELATED)})
    assert found is not None
    assert (found.direction, found.sentence) == ("certain", "0.80 a + 0.20 b")


@pytest.mark.parametrize("seed", range(4))
def test_no_original_of_a_random_library_is_called_a_merge(seed: int) -> None:
    """tools/measure_merges.py does this at length, with larger VAEs."""
    files = library(random.Random(f"test {seed}"), 32)
    sketches = {name: sketch_of_state(vae.state) for name, vae in files.items()}
    for name in (name for name, vae in files.items() if not vae.recipe):
        merge = explain_merge(sketches[name], {other: one for other, one in sketches.items() if other != name})
        assert merge is None or not merge.certain, name


def test_few_values_decide_nothing() -> None:
    values = np.zeros(10, np.float32)
    tiny = Sketch("x", values, (("a", 0, 10),), (10,))
    assert explain_merge(tiny, {"a": tiny, "b": tiny}) is None
