"""TAESD: latents in model space, images in 0..1, often one half per file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.unit.makers import taesd_state, write
from vae_lab.autoencoders import load_autoencoder, open_vae
from vae_lab.autoencoders.taesd.module import Taesd
from vae_lab.errors import BadShape, FamilyMismatch, MissingKeys, NotAnAutoencoder, UnknownChoice, VaeLabError


@pytest.mark.parametrize("channels", [4, 16])
def test_saved_detected_loaded_same_channels_and_same_images(tmp_path: Path, channels: int) -> None:
    module = Taesd(channels, encoder=True, decoder=True, width=16).eval()
    loaded = load_autoencoder(write(tmp_path / "t.safetensors", module.state_dict()))
    assert (loaded.latent_channels, loaded.downscale) == (channels, 8)
    latents, image = torch.randn(1, channels, 4, 4), torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded.decode_unclamped(latents), module.taesd_decoder(latents))
        assert torch.equal(loaded.encode(image), module.taesd_encoder(image))


def test_familys_scaling_is_not_applied(tmp_path: Path) -> None:
    loaded = load_autoencoder(write(tmp_path / "t.safetensors", taesd_state()))
    latents = torch.randn(1, 4, 4, 4)
    assert torch.equal(loaded.with_family("sd1").decode(latents), loaded.with_family("sdxl").decode(latents))


@pytest.mark.parametrize(("half", "can", "cannot"), [("encoder", "encode", "decode"), ("decoder", "decode", "encode")])
def test_missing_half_is_named(tmp_path: Path, half: str, can: str, cannot: str) -> None:
    state = taesd_state(encoder=half == "encoder", decoder=half == "decoder")
    loaded = load_autoencoder(write(tmp_path / "t.safetensors", state))
    inputs = {"encode": torch.rand(1, 3, 16, 16), "decode": torch.randn(1, 4, 2, 2)}
    getattr(loaded, can)(inputs[can])
    with pytest.raises(UnknownChoice, match=f"contains only the {half}"):
        getattr(loaded, cannot)(inputs[cannot])


def test_latents_with_other_channels_are_refused(tmp_path: Path) -> None:
    loaded = load_autoencoder(write(tmp_path / "t.safetensors", taesd_state(16)))
    with pytest.raises(
        FamilyMismatch, match=r"t\.safetensors decodes latents of shape \[B,16,h,w\], not \[1, 4, 2, 2\]"
    ):
        loaded.decode(torch.zeros(1, 4, 2, 2))


def test_layer_missing(tmp_path: Path) -> None:
    state = taesd_state(encoder=False)
    del state["taesd_decoder.3.conv.0.weight"]
    with pytest.raises(MissingKeys, match=r"taesd_decoder\.3\.conv\.0\.weight of \d+ tensors are missing"):
        open_vae(write(tmp_path / "t.safetensors", state))


def test_wrong_shape(tmp_path: Path) -> None:
    state = taesd_state(encoder=False) | {"taesd_decoder.3.conv.0.bias": torch.zeros(5)}
    with pytest.raises(BadShape, match=r"taesd_decoder\.3\.conv\.0\.bias is \[5\]"):
        open_vae(write(tmp_path / "t.safetensors", state))


def test_relative_of_another_structure_is_refused(tmp_path: Path) -> None:
    """TAEHV, for video, numbers its layers in the same way and has more of them."""
    state = taesd_state(encoder=False) | {"taesd_decoder.30.weight": torch.zeros(3, 16, 3, 3)}
    with pytest.raises(NotAnAutoencoder, match=r"unexpected tensors taesd_decoder\.30\.weight"):
        open_vae(write(tmp_path / "t.safetensors", state))


@pytest.mark.parametrize(
    "shapes",
    [
        {"0.weight": (10,)},
        {"1.weight": (10,)},
        {"1.weight": ()},
        {"1.weight": (16, 4), "1.bias": (16,)},
        {"0.weight": (16, 3, 3, 3), "2.bias": (3,)},
        {"1.weight": (1 << 40, 0, 3, 3)},
        {"0.weight": (0, 3, 3, 3)},
    ],
    ids=str,
)
def test_other_networks_with_numbered_layers_are_refused(tmp_path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Any ``nn.Sequential`` has such names: upscalers, aesthetic predictors."""
    path = write(tmp_path / "t.safetensors", {name: torch.zeros(shape) for name, shape in shapes.items()})
    with pytest.raises(VaeLabError, match=r"t\.safetensors: ") as caught:
        open_vae(path)
    assert isinstance(caught.value, NotAnAutoencoder)
