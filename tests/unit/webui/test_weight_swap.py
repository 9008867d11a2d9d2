"""Weights in the host's module are exchanged, and restored bit-exactly."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor, nn

from tests.unit.makers import F2, kl_module, kl_state
from vae_lab.errors import BadShape, MissingKeys
from vae_lab.webui.weight_swap import VaeSwap, check_fits, converted

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


class HostVae(nn.Module):
    """As the WebUI's: the VAE's parts, and a loss that no VAE file has."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        inner = kl_module(F2, seed=0)
        self.encoder, self.decoder = inner.encoder, inner.decoder
        self.quant_conv, self.post_quant_conv = inner.quant_conv, inner.post_quant_conv
        self.loss = nn.Linear(2, 2)
        self.to(dtype)


def bits(module: nn.Module) -> dict[str, tuple[torch.dtype, bytes]]:
    """Of the VAE's tensors, without the loss."""
    return {
        name: (tensor.dtype, tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        for name, tensor in module.state_dict().items()
        if not name.startswith("loss.")
    }


def holds(module: nn.Module, state: dict[str, Tensor]) -> bool:
    own = module.state_dict()
    return all(torch.equal(own[name], tensor.to(own[name].dtype)) for name, tensor in state.items())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stored", DTYPES)
def test_put_and_restore(dtype: torch.dtype, stored: torch.dtype) -> None:
    module = HostVae(dtype)
    before = bits(module)
    state = {name: tensor.to(stored) for name, tensor in kl_state(F2, seed=1).items()}
    with VaeSwap(module) as swap:
        swap.put(state, "v.pt")
        assert swap.swapped
        assert holds(module, state)
        assert bits(module) != before
    assert bits(module) == before
    assert not swap.swapped


def test_values_that_arithmetic_would_change_are_restored() -> None:
    """Denormals, negative zero and NaN, bit for bit: a checkpoint's VAE may be broken, but we must not repair it."""
    module = HostVae()
    odd = torch.tensor([float("nan"), -0.0, 1e-45])
    module.decoder.conv_out.bias.data.copy_(odd)
    before = bits(module)
    with VaeSwap(module) as swap:
        swap.put(kl_state(F2, seed=1), "v.pt")
    assert bits(module) == before


def test_what_is_attached_stays_attached_and_the_hosts_tensors_are_never_written_to() -> None:
    module = HostVae()
    before = bits(module)
    parameters = dict(module.named_parameters())
    own = {name: parameter.data for name, parameter in parameters.items()}
    with VaeSwap(module) as swap:
        swap.put(kl_state(F2, seed=1), "v.pt")
        assert all(parameter is parameters[name] for name, parameter in module.named_parameters())
        for name, (dtype, values) in before.items():
            assert (own[name].dtype, own[name].numpy().tobytes()) == (dtype, values)
    for name, parameter in module.named_parameters():
        assert parameter is parameters[name]
        assert parameter.data_ptr() == own[name].data_ptr()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_weights_that_were_converted_are_used_as_they_are(dtype: torch.dtype) -> None:
    """So that an exchange costs nothing, also in the memory layout of --opt-channelslast."""
    module = HostVae(dtype).to(memory_format=torch.channels_last)
    state = converted(module, kl_state(F2, seed=1))
    kept = {name: tensor.clone() for name, tensor in state.items()}
    with VaeSwap(module) as swap:
        swap.put(state, "v.pt")
        assert holds(module, state)
        assert module.decoder.conv_in.weight.data_ptr() == state["decoder.conv_in.weight"].data_ptr()
        assert module.decoder.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
        module.to(torch.bfloat16)  # as after NaN
    assert all(torch.equal(tensor, kept[name]) and tensor.dtype == dtype for name, tensor in state.items())


@pytest.mark.parametrize("again", [False, True], ids=["until restored", "until the next"])
def test_weights_that_somebody_writes_to_are_not_used_again(again: bool) -> None:
    """As another extension that loads a VAE into the module by itself."""
    module = HostVae()
    before, state = bits(module), kl_state(F2, seed=1)
    with VaeSwap(module) as swap:
        swap.put(state, "v.pt")
        module.load_state_dict(module.state_dict() | kl_state(F2, seed=2))
        if again:
            swap.put(kl_state(F2, seed=3), "w.pt")
    assert not state
    assert bits(module) == before


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("changed", DTYPES)
def test_restored_after_the_host_changed_the_precision(dtype: torch.dtype, changed: torch.dtype) -> None:
    """As after NaN from a VAE, which was caused by the other weights."""
    module = HostVae(dtype)
    before = bits(module)
    with VaeSwap(module) as swap:
        swap.put(kl_state(F2, seed=1), "v.pt")
        module.to(changed)
    assert bits(module) == before


def test_mixed_precision_is_restored_after_the_host_changed_it() -> None:
    """Some hosts keep norms in fp32."""
    module = HostVae(torch.float16)
    for part in module.modules():
        if isinstance(part, nn.GroupNorm):
            part.to(torch.float32)
    before = bits(module)
    with VaeSwap(module) as swap:
        swap.put(kl_state(F2, seed=1), "v.pt")
        module.to(torch.bfloat16)
    assert bits(module) == before


def test_second_put_replaces_the_first_and_the_original_comes_back() -> None:
    module = HostVae()
    before = bits(module)
    second = kl_state(F2, seed=2)
    with VaeSwap(module) as swap:
        swap.put(kl_state(F2, seed=1), "one.pt")
        swap.put(second, "two.pt")
        assert holds(module, second)
    assert bits(module) == before


def test_nested_swaps() -> None:
    module = HostVae(torch.float16)
    before, outer_state = bits(module), kl_state(F2, seed=1)
    with VaeSwap(module) as outer:
        outer.put(outer_state, "outer.pt")
        within = bits(module)
        with VaeSwap(module) as inner:
            inner.put(kl_state(F2, seed=2), "inner.pt")
            assert bits(module) != within
        assert bits(module) == within
    assert bits(module) == before


def test_restored_when_the_block_raises() -> None:
    module = HostVae()
    before = bits(module)

    def decode() -> None:
        with VaeSwap(module) as swap:
            swap.put(kl_state(F2, seed=1), "v.pt")
            raise RuntimeError("decoding failed")

    with pytest.raises(RuntimeError, match="decoding failed"):
        decode()
    assert bits(module) == before


def test_restore_twice_and_without_put() -> None:
    module = HostVae()
    before = bits(module)
    swap = VaeSwap(module)
    swap.restore()
    swap.put(kl_state(F2, seed=1), "v.pt")
    swap.restore()
    assert bits(module) == before
    module.decoder.conv_out.bias.data.fill_(9.0)
    changed = bits(module)
    swap.restore()
    assert bits(module) == changed, "what the host did since is the host's"


def test_restored_after_a_copy_that_failed_halfway() -> None:
    module = HostVae()
    before = bits(module)
    state = kl_state(F2, seed=1)
    state["quant_conv.weight"] = torch.empty_like(state["quant_conv.weight"], device="meta")
    swap = VaeSwap(module)
    with pytest.raises((RuntimeError, NotImplementedError)), swap:
        swap.put(state, "v.pt")
    assert bits(module) == before


class FullDevice:
    """A device without memory for so many attempts to put the original weights back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, attempts: int) -> None:
        self.left, self.emptied = attempts, 0
        self._restore = VaeSwap._restore
        monkeypatch.setattr(VaeSwap, "_restore", lambda *arguments: self.restore(*arguments))
        monkeypatch.setattr(torch.cuda, "empty_cache", self.empty)

    def restore(self, swap: VaeSwap, original: dict[str, Tensor]) -> None:
        self.left -= 1
        if self.left >= 0:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        self._restore(swap, original)

    def empty(self) -> None:
        self.emptied += 1


def test_restored_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the decode has left in the allocator's cache makes room."""
    module = HostVae()
    before, device = bits(module), FullDevice(monkeypatch, attempts=1)
    with VaeSwap(module) as swap:
        swap.put(kl_state(F2, seed=1), "v.pt")
    assert bits(module) == before
    assert device.emptied == 1


def test_what_could_not_be_restored_is_not_forgotten(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    module = HostVae()
    before = bits(module)
    FullDevice(monkeypatch, attempts=2)
    swap = VaeSwap(module)
    swap.put(kl_state(F2, seed=1), "v.pt")
    with caplog.at_level(logging.ERROR, "vae_lab"), pytest.raises(torch.cuda.OutOfMemoryError):
        swap.restore()
    assert "reload the checkpoint" in caplog.text
    assert swap.swapped
    swap.restore()
    assert bits(module) == before
    assert not swap.swapped


def test_loss_of_the_host_is_not_touched() -> None:
    module = HostVae()
    module.loss.weight.data.fill_(3.0)
    with VaeSwap(module) as swap:
        swap.put(kl_state(F2, seed=1), "v.pt")
        module.loss.weight.data.fill_(4.0)
    assert bool((module.loss.weight == 4.0).all())


# --- what does not fit -----------------------------------------------------------------------------------------------


def misfits() -> dict[str, tuple[dict[str, Tensor], type[Exception], str]]:
    state = kl_state(F2, seed=1)
    first = next(iter(state))
    return {
        "missing": (
            {name: tensor for name, tensor in state.items() if name != "decoder.conv_out.bias"},
            MissingKeys,
            r"they differ in 1 tensors, decoder\.conv_out\.bias",
        ),
        "unknown": (state | {"decoder.more": torch.zeros(1)}, MissingKeys, r"1 tensors, decoder\.more"),
        "wrong shape": (
            state | {"quant_conv.weight": torch.zeros(2, 2, 1, 1)},
            BadShape,
            r"quant_conv\.weight is \[2, 2, 1, 1\], the checkpoint has \[8, 8, 1, 1\]",
        ),
        "one too many dimensions": (state | {first: state[first][None]}, BadShape, "the checkpoint has"),
        "nothing": ({}, MissingKeys, "does not fit the loaded checkpoint's VAE"),
    }


MISFITS = misfits()


@pytest.mark.parametrize(("state", "error", "message"), MISFITS.values(), ids=MISFITS)
def test_what_does_not_fit_touches_nothing(state: dict[str, Tensor], error: type[Exception], message: str) -> None:
    module = HostVae()
    before = bits(module)
    swap = VaeSwap(module)
    with pytest.raises(error, match=message) as caught:
        swap.put(state, "models/v.pt")
    assert str(caught.value).startswith("models/v.pt: ")
    assert bits(module) == before
    assert not swap.swapped
    with pytest.raises(error):
        check_fits(module, state, "models/v.pt")


def test_what_does_not_fit_leaves_the_first_swap_in() -> None:
    module = HostVae()
    before, state = bits(module), kl_state(F2, seed=1)
    with VaeSwap(module) as swap:
        swap.put(state, "v.pt")
        with pytest.raises(MissingKeys):
            swap.put({}, "w.pt")
        assert holds(module, state)
    assert bits(module) == before


@pytest.mark.parametrize("inside", [True, False])
def test_module_that_was_made_in_inference_mode(inside: bool) -> None:
    """Forge's is, and it generates in that mode; a comparison does not."""
    with torch.inference_mode():
        module = HostVae()
    before, state = bits(module), kl_state(F2, seed=1)
    with torch.inference_mode(inside), VaeSwap(module) as swap:
        swap.put(state, "v.pt")
        assert holds(module, state)
        with torch.inference_mode():
            module.decoder.conv_out.bias.fill_(9.0)
    assert bits(module) == before
    with torch.inference_mode(inside), VaeSwap(module) as swap:
        swap.put(state, "v.pt")
        assert holds(module, kl_state(F2, seed=1))
