"""What a VAE gives in fp16 and bf16, and when that is measured at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.unit.checkup.conftest import scaled
from tests.unit.makers import F2, F8, kl_state, write
from vae_lab.autoencoders import Autoencoder, load_autoencoder
from vae_lab.checkup.findings import Finding
from vae_lab.checkup.half_precision import HalfReading, half_precision_findings, judge_half, rounded_copy
from vae_lab.checkup.probe import Probe, probe

DECODER, ENCODER = "decoder.mid.block_1.conv1", "encoder.mid.block_1.conv1"
# Factors for a layer of the small VAE below, by the activations that they lead to.
FAR, MIDDLE, NEAR, BEYOND = 1.0, 6e3, 1.5e4, 2.5e4

Load = Callable[[str, float], Autoencoder]


@pytest.fixture
def vae(tmp_path: Path) -> Load:
    """A small VAE with a layer's activations multiplied by a factor."""
    return lambda layer, factor: load_autoencoder(
        write(tmp_path / "v.safetensors", scaled(kl_state(F8), layer, factor)), family="sd1"
    )


def numbers(finding: Finding) -> dict[str, float]:
    return {evidence.name: evidence.value for evidence in finding.evidence}


def test_overflow_of_the_decoder_is_measured(vae: Load) -> None:
    autoencoder = vae(DECODER, BEYOND)
    (finding,) = half_precision_findings(autoencoder, probe(autoencoder))
    assert (finding.code, finding.severity) == ("fp16-overflow", "information")
    assert finding.text == "In fp16 every value is NaN: images come out black. In bf16 and fp32 it works."
    assert "--no-half-vae" in finding.remedy
    assert "--vae-in-bf16" in finding.remedy
    measured = numbers(finding)
    assert measured["largest activation"] > 65504
    assert measured["fp16, decoder: NaN or infinite values"] == 100
    assert measured["fp16, encoder: NaN or infinite values"] == 0
    assert measured["bf16, decoder: NaN or infinite values"] == 0
    assert "fp16, decoder: difference from fp32" not in measured
    assert measured["bf16, decoder: difference from fp32"] < 2


def test_overflow_of_the_encoder_is_measured(vae: Load) -> None:
    autoencoder = vae(ENCODER, BEYOND)
    (finding,) = half_precision_findings(autoencoder, probe(autoencoder))
    assert finding.text.startswith("In fp16 the encoder produces NaN: img2img")
    measured = numbers(finding)
    assert measured["fp16, encoder: NaN or infinite values"] == 100
    assert measured["fp16, decoder: NaN or infinite values"] == 0


def test_near_the_limit_it_works_here_but_may_fail_elsewhere(vae: Load) -> None:
    autoencoder = vae(DECODER, NEAR)
    (finding,) = half_precision_findings(autoencoder, probe(autoencoder))
    measured = numbers(finding)
    assert 65504 / 2 < measured["largest activation"] < 65504
    assert finding.text.startswith(f"Activations reach {measured['largest activation']:,.0f} of 65,504: it works")
    assert measured["fp16, decoder: NaN or infinite values"] == 0
    assert not any(name.startswith("bf16") for name in measured), "nothing to compare it for"


def test_halfway_to_the_limit_there_is_nothing_to_say(vae: Load) -> None:
    autoencoder = vae(DECODER, MIDDLE)
    measured = probe(autoencoder)
    assert measured.largest_activation is not None
    assert 65504 / 4 < measured.largest_activation < 65504 / 2
    assert half_precision_findings(autoencoder, measured) == ()


def test_far_below_the_limit_nothing_is_decoded_again(vae: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("decode_unclamped", "encode"):
        original = getattr(Autoencoder, name)

        def counted(*args: object, _name: str = name, _original: Callable = original) -> object:
            calls.append(_name)
            return _original(*args)

        monkeypatch.setattr(Autoencoder, name, counted)
    autoencoder = vae(DECODER, FAR)
    measured = probe(autoencoder)
    assert sorted(calls[-3:]) == ["decode_unclamped", "decode_unclamped", "encode"]
    calls.clear()
    assert half_precision_findings(autoencoder, measured) == ()
    assert calls == []


def test_the_vae_itself_is_not_rounded(vae: Load) -> None:
    autoencoder = vae(DECODER, FAR)
    before = {name: value.clone() for name, value in autoencoder.module.state_dict().items()}
    rounded_copy(autoencoder, torch.float16)
    assert all(torch.equal(value, before[name]) for name, value in autoencoder.module.state_dict().items())
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in autoencoder.module.modules())


def test_what_was_not_measured_is_not_claimed() -> None:
    """By the largest activation only: it may fail."""
    finding = judge_half(7e4, HalfReading(), None)
    assert finding is not None
    assert "may come out black" in finding.text
    assert judge_half(6e4, HalfReading(), None) is None


def test_a_vae_that_is_in_half_precision_already_is_not_rounded(vae: Load) -> None:
    autoencoder = vae(DECODER, FAR).to(dtype=torch.bfloat16)
    assert half_precision_findings(autoencoder, Probe(autoencoder.family, None, None, 1e6)) == ()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
@pytest.mark.parametrize("factor", [1.0, 1e6], ids=["in range", "overflow"])
def test_rounding_gives_what_real_half_precision_gives(tmp_path: Path, dtype: torch.dtype, factor: float) -> None:
    path = write(tmp_path / "v.safetensors", scaled(kl_state(F2), DECODER, factor))
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    full = load_autoencoder(path, family="sd1")
    exact, rounded = full.decode_unclamped(latents), rounded_copy(full, dtype).decode_unclamped(latents)
    try:
        real = load_autoencoder(path, family="sd1", dtype=dtype).decode_unclamped(latents)
    except RuntimeError as error:  # old versions of torch
        if "not implemented for 'Half'" not in str(error):
            raise
        pytest.skip(str(error))
    assert torch.equal(rounded.isfinite(), real.isfinite())
    assert bool(real.isfinite().all()) == (factor == 1.0 or dtype == torch.bfloat16)
    if real.isfinite().all():
        expected = (real - exact).std()
        assert expected / 2 < (rounded - exact).std() < expected * 2
