"""Any changed weight changes the fingerprint; a change that fp16 does not see does not."""

from __future__ import annotations

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vae_lab.identity import fingerprint

reproducible = settings(derandomize=True, deadline=None, max_examples=150)

halves = st.floats(width=16, allow_nan=False, allow_infinity=False)
states = st.dictionaries(
    st.sampled_from(["encoder.conv_in.weight", "encoder.conv_in.bias", "decoder.conv_in.weight", "quant_conv.bias"]),
    st.lists(halves, min_size=1, max_size=12).map(lambda values: torch.tensor(values, dtype=torch.float32)),
    min_size=1,
)


@reproducible
@given(states, st.data())
def test_any_changed_weight_shows(state: dict[str, torch.Tensor], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(state)))
    index = data.draw(st.integers(0, state[name].numel() - 1))
    value = data.draw(halves)
    assume(value != state[name][index].item())
    changed = {key: tensor.clone() for key, tensor in state.items()}
    changed[name][index] = value
    assert fingerprint(changed) != fingerprint(state)


@reproducible
@given(states)
def test_precision_of_the_copy_does_not(state: dict[str, torch.Tensor]) -> None:
    prints = {
        fingerprint({name: tensor.to(dtype) for name, tensor in state.items()})
        for dtype in (torch.float16, torch.float32, torch.float64)
    }
    assert len(prints) == 1


@reproducible
@given(states, st.randoms(use_true_random=False))
def test_order_of_tensors_does_not(state: dict[str, torch.Tensor], random) -> None:
    names = list(state)
    random.shuffle(names)
    assert fingerprint({name: state[name] for name in names}) == fingerprint(state)


@reproducible
@given(states)
def test_it_is_64_hex_digits(state: dict[str, torch.Tensor]) -> None:
    found = fingerprint(state)
    assert len(found) == 64
    assert int(found, 16) >= 0
