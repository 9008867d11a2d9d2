"""The same weights, saved and run by diffusers: equal images and equal latents."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.unit.makers import diffusers_names, write
from vae_lab.autoencoders import load_autoencoder, open_vae

diffusers = pytest.importorskip("diffusers")

TOLERANCE = 1e-5
KL = {
    "sd1": {"block_out_channels": (32, 64, 64), "layers_per_block": 2, "latent_channels": 4},
    "sdxl": {"block_out_channels": (32, 64), "layers_per_block": 1, "latent_channels": 4},
    "sd3": {
        "block_out_channels": (32, 64),
        "layers_per_block": 2,
        "latent_channels": 16,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    },
    "flux": {
        "block_out_channels": (32, 32),
        "layers_per_block": 1,
        "latent_channels": 16,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "mid_block_add_attention": False,
    },
}
SCALING = {"sd1": (0.18215, 0.0), "sdxl": (0.13025, 0.0), "sd3": (1.5305, 0.0609), "flux": (0.3611, 0.1159)}


def kl(family: str, **more: object):
    torch.manual_seed(1)
    options = KL[family] | more
    levels = len(options["block_out_channels"])
    defaults = {
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
    }
    return diffusers.AutoencoderKL(**(defaults | options)).eval()


def saved(model, folder: Path) -> Path:
    model.save_pretrained(folder, safe_serialization=True)
    return folder / "diffusion_pytorch_model.safetensors"


def assert_same(path: Path, model, family: str) -> None:
    ours = load_autoencoder(path, family=family)
    scale, shift = SCALING[family]
    image = torch.rand(2, 3, 32, 32)
    latents = torch.randn(2, model.config.latent_channels, 8, 8)
    with torch.no_grad():
        mean = model.encode(image * 2 - 1).latent_dist.mode()
        decoded = model.decode(latents / scale + shift).sample
    assert torch.allclose(ours.encode(image), (mean - shift) * scale, atol=TOLERANCE)
    assert torch.allclose(ours.decode_unclamped(latents), (decoded + 1) / 2, atol=TOLERANCE)


@pytest.mark.parametrize("family", KL)
def test_autoencoder_kl(tmp_path: Path, family: str) -> None:
    model = kl(family)
    path = saved(model, tmp_path)
    with open_vae(path) as file:
        assert file.layout.naming == "diffusers"
    assert_same(path, model, family)


def test_autoencoder_kl_with_attention_in_its_levels(tmp_path: Path) -> None:
    down, up = ("DownEncoderBlock2D", "AttnDownEncoderBlock2D"), ("AttnUpDecoderBlock2D", "UpDecoderBlock2D")
    model = kl("sdxl", down_block_types=down, up_block_types=up)
    assert_same(saved(model, tmp_path), model, "sdxl")


def test_attention_named_as_before_diffusers_0_14(tmp_path: Path) -> None:
    model = kl("sd1")
    new = load_file(saved(model, tmp_path))
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = {}
    for name, tensor in new.items():
        for ours, theirs in names.items():
            name = name.replace(f"attentions.0.{ours}.", f"attentions.0.{theirs}.")
        old[name] = tensor
    path = write(tmp_path / "old.safetensors", old)
    with open_vae(path) as file:
        assert file.layout.naming == "diffusers-old"
    assert_same(path, model, "sd1")


def test_makers_names_are_diffusers_own(tmp_path: Path) -> None:
    """Tests elsewhere make diffusers files without diffusers."""
    path = saved(kl("sd1"), tmp_path)
    stored = load_file(path)
    with open_vae(path) as file:
        made = diffusers_names(file.state_dict(), levels=3)
    assert made.keys() == stored.keys()
    assert all(torch.equal(made[name], stored[name]) for name in stored)


def test_autoencoder_tiny(tmp_path: Path) -> None:
    torch.manual_seed(1)
    widths = (16, 16, 16, 16)
    model = diffusers.AutoencoderTiny(encoder_block_out_channels=widths, decoder_block_out_channels=widths).eval()
    ours = load_autoencoder(saved(model, tmp_path), family="sd1")
    image, latents = torch.rand(1, 3, 32, 32), torch.randn(1, 4, 4, 4) * 2
    with torch.no_grad():
        encoded = model.encode(image * 2 - 1).latents
        decoded = model.decode(latents).sample
    assert torch.allclose(ours.encode(image), encoded, atol=TOLERANCE)
    assert torch.allclose(ours.decode_unclamped(latents), (decoded + 1) / 2, atol=TOLERANCE)
