"""Parents of a merge: found if they are available, and not claimed otherwise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.unit.makers import F2, State, kl_state
from vae_lab.identity import Merge, Parent, Sketch, distance, explain_merge, sketch_of_state
from vae_lab.identity.merge import _Problem
from vae_lab.samples import load_sample_vae

NAMES = ("photo-a", "photo-b", "photo-a-smooth", "photo-a-sharp", "anime", "sdxl-c")

Weights = dict[str, float]

MERGES: dict[str, Weights] = {
    "unrelated": {"photo-a": 0.8, "photo-b": 0.2},
    "unrelated, half": {"photo-a": 0.5, "photo-b": 0.5},
    "unrelated, a little": {"photo-a": 0.95, "photo-b": 0.05},
    "relatives": {"photo-a-smooth": 0.5, "photo-a-sharp": 0.5},
    "parent and child": {"photo-a": 0.7, "anime": 0.3},
    "not adding up to 1": {"photo-a": 0.7, "photo-b": 0.5},
    "three": {"photo-a": 0.5, "photo-b": 0.3, "anime": 0.2},
    "three relatives": {"photo-a-sharp": 0.6, "photo-a-smooth": 0.3, "anime": 0.1},
    "difference added": {"photo-a": 1.0, "anime": 1.0, "photo-a-smooth": -1.0},
    "difference of unrelated added": {"photo-a": 1.0, "photo-b": 0.5, "anime": -0.5},
    "small difference added": {"photo-b": 1.0, "photo-a-sharp": 0.3, "photo-a": -0.3},
}


@pytest.fixture(scope="module")
def states() -> dict[str, State]:
    return {name: load_sample_vae(name) for name in NAMES}


@pytest.fixture(scope="module")
def sketches(states: dict[str, State]) -> dict[str, Sketch]:
    return {name: sketch_of_state(state) for name, state in states.items()}


@pytest.fixture(scope="module")
def mixed(states: dict[str, State]):
    """Merges as every merger does: in fp32, then rounded."""

    def mix(weights: Weights, dtype: torch.dtype = torch.float16) -> Sketch:
        names = states[next(iter(weights))]
        return sketch_of_state(
            {
                name: torch.stack([weight * states[vae][name].float() for vae, weight in weights.items()])
                .sum(0)
                .to(dtype)
                for name in names
            }
        )

    return mix


def without(sketches: dict[str, Sketch], *names: str) -> dict[str, Sketch]:
    return {name: sketch for name, sketch in sketches.items() if name not in names}


def shares(merge: Merge | None) -> Weights:
    assert merge is not None
    return {parent.name: parent.weight for parent in merge.parents}


@pytest.mark.parametrize("weights", MERGES.values(), ids=MERGES)
def test_parents_and_shares_are_found(mixed, sketches: dict[str, Sketch], weights: Weights) -> None:
    merge = explain_merge(mixed(weights), sketches)
    assert shares(merge) == pytest.approx(weights, abs=0.002)
    assert merge is not None
    assert merge.residual < 0.0004
    assert merge.relatives == ("photo-b" not in weights)


@pytest.mark.parametrize("weights", MERGES.values(), ids=MERGES)
def test_nothing_is_claimed_when_a_parent_is_missing(mixed, sketches: dict[str, Sketch], weights: Weights) -> None:
    for name in weights:
        assert explain_merge(mixed(weights), without(sketches, name)) is None


@pytest.mark.parametrize("weights", MERGES.values(), ids=MERGES)
def test_merge_stored_in_bf16(mixed, sketches: dict[str, Sketch], weights: Weights) -> None:
    target = mixed(weights, torch.bfloat16)
    merge = explain_merge(target, sketches)
    assert shares(merge) == pytest.approx(weights, abs=0.002)
    assert explain_merge(target, sketches, tolerance=0.001) is None


@pytest.mark.parametrize("name", NAMES)
def test_vae_that_is_no_merge(sketches: dict[str, Sketch], name: str) -> None:
    assert explain_merge(sketches[name], without(sketches, name)) is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
def test_copy_of_a_candidate_is_no_merge(mixed, sketches: dict[str, Sketch], dtype: torch.dtype) -> None:
    assert explain_merge(mixed({"photo-a": 1.0}, dtype), sketches) is None


def test_scaled_copy_is_no_merge(mixed, sketches: dict[str, Sketch]) -> None:
    assert explain_merge(mixed({"photo-a": 0.7}), sketches) is None


def test_vae_with_one_tensor_changed_is_no_merge(states: dict[str, State], sketches: dict[str, Sketch]) -> None:
    state = states["photo-a"]
    weight = state["decoder.up.0.block.0.conv1.weight"]
    assert explain_merge(sketch_of_state(state | {"decoder.up.0.block.0.conv1.weight": weight * 0.5}), sketches) is None


def test_share_that_rounding_hides_is_not_claimed(mixed, sketches: dict[str, Sketch]) -> None:
    assert explain_merge(mixed({"photo-a": 0.999, "photo-b": 0.001}), sketches) is None
    merge = explain_merge(mixed({"photo-a": 0.799, "photo-b": 0.2, "anime": 0.001}), sketches)
    assert shares(merge) == pytest.approx({"photo-a": 0.8, "photo-b": 0.2}, abs=0.002)


def test_candidates_that_are_merges_themselves(mixed, sketches: dict[str, Sketch]) -> None:
    """They lie on one line with the parents, so any two of them would explain the target."""
    more = {
        "half": mixed({"photo-a": 0.5, "photo-b": 0.5}),
        **sketches,
        "tenth": mixed({"photo-a": 0.9, "photo-b": 0.1}),
        "third": mixed({"photo-a": 0.4, "photo-b": 0.3, "anime": 0.3}),
    }
    found = shares(explain_merge(mixed({"photo-a": 0.8, "photo-b": 0.2}), more))
    assert found == pytest.approx({"photo-a": 0.8, "photo-b": 0.2}, abs=0.002)


def test_parent_is_not_explained_by_its_children(mixed, sketches: dict[str, Sketch]) -> None:
    """photo-a is 2 half - photo-b: true as a sum, but not how it was made."""
    more = {
        **sketches,
        "half": mixed({"photo-a": 0.5, "photo-b": 0.5}),
        "tenth": mixed({"photo-a": 0.9, "photo-b": 0.1}),
    }
    for name in ("photo-a", "photo-b"):
        assert explain_merge(sketches[name], without(more, name)) is None


def test_copies_count_once_under_the_first_name(mixed, sketches: dict[str, Sketch]) -> None:
    target = mixed({"photo-a": 0.8, "photo-b": 0.2})
    copies = {
        "b in bf16": mixed({"photo-b": 1.0}, torch.bfloat16),
        **sketches,
        "a again": sketches["photo-a"],
        "a in bf16": mixed({"photo-a": 1.0}, torch.bfloat16),
    }
    merge = explain_merge(target, copies)
    assert shares(merge) == pytest.approx({"photo-a": 0.8, "b in bf16": 0.2}, abs=0.002)
    assert merge is not None
    assert merge.residual < 0.0004  # of the copies, the one that was rounded least was used


def test_parents_in_bf16_only(mixed, sketches: dict[str, Sketch]) -> None:
    copies = {name: mixed({name: 1.0}, torch.bfloat16) for name in ("photo-a", "photo-b")}
    merge = explain_merge(mixed({"photo-a": 0.8, "photo-b": 0.2}), copies)
    assert shares(merge) == pytest.approx({"photo-a": 0.8, "photo-b": 0.2}, abs=0.002)


def test_near_relative_does_not_stand_in_for_the_parent(mixed, sketches: dict[str, Sketch]) -> None:
    target = mixed({"photo-b": 0.95, "photo-a": 0.05})
    assert shares(explain_merge(target, sketches)).keys() == {"photo-a", "photo-b"}
    assert explain_merge(target, without(sketches, "photo-a")) is None


@pytest.mark.parametrize("left", [[], ["photo-a"], ["photo-a", "sdxl-c"]])
def test_too_few_candidates(mixed, sketches: dict[str, Sketch], left: list[str]) -> None:
    assert explain_merge(mixed({"photo-a": 0.8, "photo-b": 0.2}), {name: sketches[name] for name in left}) is None


def test_broken_weights(states: dict[str, State], mixed, sketches: dict[str, Sketch]) -> None:
    state = states["anime"]
    nan = {"decoder.conv_in.weight": torch.full_like(state["decoder.conv_in.weight"], float("nan"))}
    broken = sketch_of_state(state | nan)
    zero = sketch_of_state({name: torch.zeros_like(tensor) for name, tensor in state.items()})
    assert explain_merge(broken, sketches) is None
    assert explain_merge(zero, sketches) is None
    found = explain_merge(mixed({"photo-a": 0.8, "photo-b": 0.2}), {"broken": broken, "zero": zero, **sketches})
    assert shares(found) == pytest.approx({"photo-a": 0.8, "photo-b": 0.2}, abs=0.002)


def test_so_few_weights_prove_nothing() -> None:
    def tiny(seed: int) -> Sketch:
        values = torch.randn(3, 1, 1, 1, generator=torch.Generator().manual_seed(seed))
        return sketch_of_state({"quant_conv.weight": values})

    assert explain_merge(tiny(0), {str(seed): tiny(seed) for seed in range(1, 4)}) is None


def test_independent_of_scale_and_order(mixed, sketches: dict[str, Sketch]) -> None:
    target = mixed({"photo-a": 0.5, "photo-b": 0.3, "anime": 0.2})
    forward = shares(explain_merge(target, sketches))
    assert shares(explain_merge(target, dict(reversed(sketches.items())))) == pytest.approx(forward, abs=1e-6)


def big(values: np.ndarray) -> Sketch:
    """A sketch as of an SD1 VAE, with these weights."""
    rounded = values.astype(np.float16).astype(np.float32)
    return Sketch("sd1", rounded, (("decoder.conv_in.weight", 0, len(values)),), (len(values) * 1000,))


def test_of_fifty_candidates_few_sets_are_solved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 251,125 sets of two to four: the others are ruled out all together, by inner products."""
    solved: list[tuple[int, ...]] = []

    def counting(problem: _Problem, indices: tuple[int, ...], solve=_Problem._solve) -> object:
        solved.append(indices)
        return solve(problem, indices)

    monkeypatch.setattr(_Problem, "_solve", counting)
    rng = np.random.default_rng(0)
    vaes = {f"vae-{index}": rng.standard_normal(86_000) * 0.02 for index in range(50)}
    for index in range(10, 30):
        vaes[f"vae-{index}"] = vaes["vae-0"] + 0.3 * vaes[f"vae-{index}"]
    candidates = {name: big(values) for name, values in vaes.items()}
    three = {"vae-3": 0.5, "vae-20": 0.3, "vae-21": 0.2}
    found = explain_merge(big(sum((weight * vaes[name] for name, weight in three.items()), np.zeros(1))), candidates)
    assert 1 <= len(solved) < 300
    assert shares(found) == pytest.approx(three, abs=0.002)
    solved.clear()
    assert explain_merge(big(rng.standard_normal(86_000)), candidates) is None
    assert solved == []


def test_chance_explains_nothing() -> None:
    """Small VAEs have small sketches, and many candidates fit many things."""
    vaes = {str(seed): sketch_of_state(kl_state(F2, seed)) for seed in range(40)}
    assert explain_merge(sketch_of_state(kl_state(F2, 99)), vaes) is None


@pytest.mark.parametrize(
    ("parents", "expected"),
    [
        ([("photo-a.safetensors", 0.8), ("photo-b.ckpt", 0.2)], "0.80 photo-a.safetensors + 0.20 photo-b.ckpt"),
        ([("a", 1.0001), ("b", 0.9999), ("c", -1.0)], "1.00 a + 1.00 b - 1.00 c"),
        ([("a", -1.5), ("b", 0.0512)], "-1.50 a + 0.051 b"),
    ],
)
def test_sentence(parents: list[tuple[str, float]], expected: str) -> None:
    assert Merge(tuple(Parent(*parent) for parent in parents), 0.0002, relatives=False).sentence == expected


def test_parents_come_in_the_order_of_their_shares(mixed, sketches: dict[str, Sketch]) -> None:
    found = explain_merge(mixed({"anime": 0.2, "photo-b": 0.3, "photo-a": 0.5}), sketches)
    assert found is not None
    assert found.sentence == "0.50 photo-a + 0.30 photo-b + 0.20 anime"
    added = explain_merge(mixed({"photo-a-smooth": -1.0, "anime": 1.0, "photo-a": 1.0}), sketches)
    assert added is not None
    assert added.sentence == "1.00 photo-a + 1.00 anime - 1.00 photo-a-smooth"


def test_residual_is_of_the_claim_itself(mixed, sketches: dict[str, Sketch]) -> None:
    target = mixed({"photo-a": 0.8, "photo-b": 0.2})
    found = explain_merge(target, sketches)
    assert found is not None
    total = sum((parent.weight * sketches[parent.name].values for parent in found.parents), np.float32(0))
    claimed = Sketch(target.structure, np.asarray(total, np.float32), target.spans, target.totals)
    assert distance(target, claimed) == pytest.approx(found.residual, rel=0.01)
