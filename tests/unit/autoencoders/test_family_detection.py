"""The latent family is detected from the weights' behaviour, not from names, shapes or files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.unit.makers import F2, F8, SD1_TEXT, SDXL_TEXT, UNET, kl_state, prefixed, taesd_state, write
from vae_lab.autoencoders import detect_family, load_autoencoder, open_vae
from vae_lab.autoencoders.kl import KLConfig
from vae_lab.latents.chart import chart_image, chart_latents
from vae_lab.latents.family import FAMILIES
from vae_lab.samples import GREY_SHARE, SampleSet, load_sample_vae

State = dict[str, Tensor]
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def merge() -> State:
    a, b = load_sample_vae("photo-a"), load_sample_vae("photo-b")
    return {name: torch.lerp(a[name].float(), b[name].float(), GREY_SHARE) for name in a}


VAES: dict[str, tuple[Callable[[], State], str]] = {
    name: (lambda name=name: load_sample_vae(name), family)
    for name, family in (
        ("photo-a", "sd1"),
        ("photo-a-smooth", "sd1"),
        ("photo-a-sharp", "sd1"),
        ("photo-b", "sd1"),
        ("anime", "sd1"),
        ("sdxl-c", "sdxl"),
    )
} | {"grey merge": (merge, "sd1")}


@pytest.mark.parametrize(
    ("state", "family", "dtype"),
    [
        pytest.param(
            *vae, dtype, id=f"{name}-{of}", marks=pytest.mark.slow if of == "bf16" and name[:2] in ("ph", "an") else []
        )
        for name, vae in VAES.items()
        for of, dtype in DTYPES.items()
    ],
)
def test_trained_vaes(tmp_path: Path, state: Callable[[], State], family: str, dtype: torch.dtype) -> None:
    """The name of the file says the opposite each time."""
    path = tmp_path / ("sdxl_vae.safetensors" if family == "sd1" else "vae-ft-mse-840000-sd1.safetensors")
    write(path, {name: tensor.to(dtype) for name, tensor in state().items()})
    found = load_autoencoder(path).family
    assert found is not None
    assert found.id == family


@pytest.mark.parametrize("seed", range(3))
def test_random_weights_belong_to_no_family(tmp_path: Path, seed: int) -> None:
    assert load_autoencoder(write(tmp_path / "sdxl.safetensors", kl_state(F8, seed))).family is None


@pytest.mark.parametrize(("text_encoder", "family"), [(SD1_TEXT, "sd1"), (SDXL_TEXT, "sdxl")], ids=["sd1", "sdxl"])
def test_checkpoint_whose_vae_does_not_tell_is_judged_by_its_text_encoder(
    tmp_path: Path, text_encoder: State, family: str
) -> None:
    state = UNET | text_encoder | prefixed("first_stage_model.", kl_state(F8))
    found = load_autoencoder(write(tmp_path / "checkpoint.safetensors", state)).family
    assert found is not None
    assert found.id == family


def test_weights_count_more_than_the_text_encoder(tmp_path: Path) -> None:
    """Somebody put an SD1 VAE into an SDXL checkpoint: it is an SD1 VAE."""
    state = UNET | SDXL_TEXT | prefixed("first_stage_model.", load_sample_vae("photo-a"))
    found = load_autoencoder(write(tmp_path / "checkpoint.safetensors", state)).family
    assert found is not None
    assert found.id == "sd1"


def test_text_encoder_of_a_family_with_other_latents_is_not_believed(tmp_path: Path) -> None:
    sixteen = KLConfig(block_out_channels=F8.block_out_channels, layers_per_block=1, latent_channels=16, z_channels=16)
    vae = kl_state(sixteen)
    vae["encoder.conv_out.weight"] *= 0  # latents without any spread show no family
    state = UNET | SD1_TEXT | prefixed("first_stage_model.", vae)
    assert load_autoencoder(write(tmp_path / "checkpoint.safetensors", state)).family is None


def test_family_that_was_named_is_taken_and_nothing_is_decoded(tmp_path: Path) -> None:
    with open_vae(write(tmp_path / "v.safetensors", kl_state(F8))) as file:
        file.detect_family = lambda loaded: pytest.fail("was asked")  # type: ignore[method-assign]
        assert file.load(family="sdxl").family.id == "sdxl"


@pytest.mark.parametrize(
    "config",
    [
        F2,
        KLConfig(block_out_channels=(32,) * 5, layers_per_block=1),
        KLConfig(block_out_channels=F8.block_out_channels, layers_per_block=1, image_channels=4),
        KLConfig(block_out_channels=F8.block_out_channels, layers_per_block=1, latent_channels=3, z_channels=3),
    ],
    ids=["2 pixels", "16 pixels", "images with alpha", "3 latent channels"],
)
def test_vae_unlike_those_of_every_family_belongs_to_none(tmp_path: Path, config: KLConfig) -> None:
    assert load_autoencoder(write(tmp_path / "v.safetensors", kl_state(config))).family is None


def test_taesd_of_sixteen_channels_does_not_pass_for_a_family(tmp_path: Path) -> None:
    """SD3's and Flux' latents both spread by one, and TAESD's need no scaling, so the spread shows nothing."""
    state = taesd_state(16)
    path = write(tmp_path / "taef1.safetensors", state)
    spread = load_autoencoder(path, family="sd3").encode(chart_image()).std().item()
    last = max(int(name.split(".")[1]) for name in state if name.startswith("taesd_encoder."))
    state[f"taesd_encoder.{last}.weight"] /= spread
    state[f"taesd_encoder.{last}.bias"] /= spread
    assert load_autoencoder(write(path, state)).family is None


def test_evidence_of_a_trained_vae_is_clear(sample_set: SampleSet) -> None:
    vae = load_autoencoder(sample_set.photo_b, family="sd1")
    evidence = detect_family(vae, hint=FAMILIES["sdxl"])  # tried first, so that both are tried
    assert evidence.family is not None
    assert evidence.family.id == "sd1"
    assert evidence.by_decoder["sd1"] - evidence.by_decoder["sdxl"] > 0.5


def test_no_other_family_is_tried_once_one_is_beyond_doubt(sample_set: SampleSet) -> None:
    assert list(detect_family(load_autoencoder(sample_set.photo_b, family="sd1")).by_decoder) == ["sd1"]


def test_broken_decoder_is_judged_by_its_encoder(tmp_path: Path) -> None:
    state = load_sample_vae("photo-a")
    state["decoder.conv_out.weight"] = torch.zeros_like(state["decoder.conv_out.weight"])
    evidence = detect_family(load_autoencoder(write(tmp_path / "v.safetensors", state), family="sd1"))
    assert evidence.family is not None
    assert evidence.family.id == "sd1"
    assert evidence.by_encoder


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_chart_latents_fit_the_chart(family: str) -> None:
    assert chart_image().shape == (1, 3, 256, 192)
    assert chart_latents()[family].shape == (1, 4, 32, 24)
