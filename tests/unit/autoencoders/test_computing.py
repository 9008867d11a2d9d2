"""Untrusted weights are computed with so that they cost no more than others, and can be stopped."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from vae_lab.autoencoders import Autoencoder
from vae_lab.autoencoders.computing import before_each_layer, flushing_denormals
from vae_lab.autoencoders.kl import KLArchitecture, KLConfig
from vae_lab.autoencoders.kl.module import AutoencoderKL
from vae_lab.checkup import check_weights
from vae_lab.checkup.half_precision import rounded_copy
from vae_lab.errors import Cancelled
from vae_lab.latents.family import FAMILIES

DENORMAL = torch.full((1000,), 1e-39)

pytestmark = pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this processor cannot")


def a_vae(scale: float = 1.0) -> Autoencoder:
    torch.manual_seed(0)
    module = AutoencoderKL(KLConfig(block_out_channels=(32, 32, 32, 32), layers_per_block=1)).requires_grad_(False)
    for weight in module.parameters():
        weight.mul_(scale)
    return Autoencoder("a", "", KLArchitecture(), module.eval(), FAMILIES["sd1"], 4)


def outputs(autoencoder: Autoencoder) -> list[torch.Tensor]:
    """All numbers that its layers give out for a small image."""
    found: list[torch.Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda _layer, _inputs, output: found.append(output))
        for layer in autoencoder.module.modules()
        if not list(layer.children())
    ]
    autoencoder.decode(torch.randn(1, 4, 2, 2))
    for hook in hooks:
        hook.remove()
    return found


def denormal(values: torch.Tensor) -> int:
    """How many numbers are denormal: by their bits, because the processor may take them for zero."""
    bits = values.contiguous().numpy().view(np.uint32) & 0x7FFFFFFF
    return int(((bits > 0) & (bits < 0x00800000)).sum())


def test_no_layer_gives_denormal_numbers() -> None:
    tiny = a_vae(1e-38)
    assert sum(map(denormal, outputs(tiny))), "else this test shows nothing"
    with flushing_denormals(tiny) as careful:
        assert not sum(map(denormal, outputs(careful)))


def test_nobody_elses_numbers_are_changed() -> None:
    found: list[torch.Tensor] = []
    with flushing_denormals(a_vae()) as careful:
        careful.encode(torch.zeros(1, 3, 16, 16))
        found.append(DENORMAL * 1.0)
        other = threading.Thread(target=lambda: found.append(torch.full((300_000,), 1e-39) * 1.0))
        other.start()
        other.join()
    found.append(DENORMAL * 1.0)
    assert [int(values.count_nonzero()) for values in found] == [1000, 300_000, 1000]
    assert np.float32(1e-39) * np.float32(1.0) != 0
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vae-lab-compute")]


def test_a_healthy_vae_gives_the_same() -> None:
    healthy, latents, image = a_vae(), torch.randn(1, 4, 4, 4), torch.rand(1, 3, 32, 32)
    with flushing_denormals(healthy) as careful:
        assert torch.equal(careful.decode_unclamped(latents), healthy.decode_unclamped(latents))
        assert torch.equal(careful.encode(image), healthy.encode(image))
        assert not careful.encode(image).requires_grad


def test_it_stops_before_the_next_layer() -> None:
    healthy, left = a_vae(), [3]

    def check() -> None:
        left[0] -= 1
        if not left[0]:
            raise Cancelled("enough")

    with before_each_layer(healthy.module, check):
        copied = rounded_copy(healthy, torch.float16)
        with pytest.raises(Cancelled, match="enough"):
            copied.decode(torch.randn(1, 4, 4, 4))
        left[0] = 3
        with pytest.raises(Cancelled, match="enough"):
            check_weights(healthy)
    assert left == [0]
    healthy.decode(torch.randn(1, 4, 4, 4))
    assert left == [0], "asked no more"


def test_the_thread_stops_when_its_caller_is_interrupted() -> None:
    healthy, layers = a_vae(), []

    def check() -> None:
        layers.append(1)
        if len(layers) == 5:
            raise KeyboardInterrupt

    with before_each_layer(healthy.module, check), flushing_denormals(healthy) as careful:
        with pytest.raises(KeyboardInterrupt):
            careful.decode(torch.randn(1, 4, 4, 4))
        with pytest.raises(Cancelled):
            careful.decode(torch.randn(1, 4, 4, 4))


def test_while_the_interpreter_exits_it_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread of the host's may still be checking a VAE then, and starts no other one."""
    healthy = a_vae()
    with flushing_denormals(healthy) as careful:
        monkeypatch.setattr("concurrent.futures.thread._shutdown", True)
        with pytest.raises(Cancelled):
            careful.decode(torch.randn(1, 4, 4, 4))
