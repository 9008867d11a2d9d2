"""AutoencoderKL: its configuration is derived from shapes, and misfits are refused before a weight is read."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tests.unit.makers import F2, kl_module, kl_state, write
from vae_lab.autoencoders import load_autoencoder, open_vae
from vae_lab.autoencoders.kl import AutoencoderKL, KLConfig, config_from_shapes
from vae_lab.autoencoders.kl.module import empty_module
from vae_lab.autoencoders.taesd.module import build_decoder
from vae_lab.errors import BadShape, MissingKeys, NotAnAutoencoder, NotFinite, OtherKind, UnknownChoice

CONFIGS = {
    "sd1": KLConfig(),
    "sd3": KLConfig(latent_channels=16, z_channels=16, use_quant_conv=False),
    "one level": KLConfig(block_out_channels=(32,), layers_per_block=1),
    "one block": KLConfig(block_out_channels=(32, 64), layers_per_block=1),
    "two blocks": KLConfig(block_out_channels=(32, 64), layers_per_block=2),
    "three blocks": KLConfig(block_out_channels=(32, 32), layers_per_block=3),
    "widths fall and rise": KLConfig(block_out_channels=(64, 32, 96), layers_per_block=1),
    "attention in levels": KLConfig(block_out_channels=(32, 32, 32), layers_per_block=2, attention=frozenset({0, 2})),
    "no mid attention": KLConfig(block_out_channels=(32, 32), layers_per_block=1, mid_block_add_attention=False),
    "no quant conv": KLConfig(block_out_channels=(32, 32), layers_per_block=1, use_quant_conv=False),
    "16 channels": KLConfig(block_out_channels=(32, 32), layers_per_block=1, latent_channels=16, z_channels=16),
    "latent other than z": KLConfig(block_out_channels=(32, 32), layers_per_block=1, latent_channels=4, z_channels=8),
    "four image channels": KLConfig(block_out_channels=(32, 32), layers_per_block=1, image_channels=4),
}
SMALL = {name: config for name, config in CONFIGS.items() if name not in ("sd1", "sd3")}


def shapes_of(config: KLConfig) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in empty_module(config).state_dict().items()}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_config_is_read_off_shapes(config: KLConfig) -> None:
    assert config_from_shapes(shapes_of(config)) == config


def test_real_sd1_vae_has_this_many_weights() -> None:
    """83,653,863: what every published SD1 and SDXL VAE has."""
    assert sum(math.prod(shape) for shape in shapes_of(KLConfig()).values()) == 83_653_863


@pytest.mark.parametrize("config", SMALL.values(), ids=SMALL)
def test_saved_detected_loaded_same_config_and_same_images(tmp_path: Path, config: KLConfig) -> None:
    module = kl_module(config)
    loaded = load_autoencoder(write(tmp_path / "v.safetensors", module.state_dict()), family="sd1")
    assert loaded.architecture.name == "AutoencoderKL"
    assert isinstance(loaded.module, AutoencoderKL)
    assert loaded.module.config == config
    assert loaded.latent_channels == config.latent_channels
    assert loaded.downscale == 2 ** (len(config.block_out_channels) - 1)
    side = 8
    latents = torch.randn(2, config.latent_channels, side, side)
    image = torch.rand(2, config.image_channels, side * loaded.downscale, side * loaded.downscale)
    with torch.no_grad():
        decoded, encoded = (module.decode(latents) + 1) / 2, module.encode(image * 2 - 1)
    assert torch.allclose(loaded.decode_unclamped(latents * 0.18215), decoded, atol=1e-5)
    assert torch.equal(loaded.encode(image), encoded * 0.18215)


def test_decode_is_cut_to_0_and_1_and_decode_unclamped_is_not(tmp_path: Path) -> None:
    module = kl_module()
    with torch.no_grad():
        module.decoder.conv_out.bias.copy_(torch.tensor([5.0, 0.0, -5.0]))
    loaded = load_autoencoder(write(tmp_path / "v.safetensors", module.state_dict()), family="sd1")
    latents = torch.randn(1, 4, 4, 4)
    raw, cut = loaded.decode_unclamped(latents), loaded.decode(latents)
    assert raw.max() > 1.5
    assert raw.min() < -0.5
    assert torch.equal(cut, raw.clamp(0, 1))


def test_half_precision_result_is_taken_to_pixels_in_full_precision(tmp_path: Path) -> None:
    """As the WebUI does; (x + 1) / 2 in bf16 would lose the last bits of an image."""
    module = kl_module().to(torch.bfloat16)
    path = write(tmp_path / "v.safetensors", module.state_dict())
    loaded = load_autoencoder(path, family="sd1", dtype=torch.bfloat16)
    latents = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        raw = module.decode((latents / 0.18215).bfloat16())
    found = loaded.decode_unclamped(latents)
    assert found.dtype == torch.float32
    assert torch.equal(found, (raw.float() + 1) / 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_loaded_in_the_precision_asked_for(tmp_path: Path, dtype: torch.dtype) -> None:
    loaded = load_autoencoder(write(tmp_path / "v.safetensors", kl_state()), family="sd1", dtype=dtype)
    assert loaded.dtype == dtype
    assert {parameter.dtype for parameter in loaded.module.parameters()} == {dtype}


def test_stored_precision_is_that_of_most_tensors(tmp_path: Path) -> None:
    state = {name: tensor.half() for name, tensor in kl_state().items()}
    state["decoder.conv_out.bias"] = state["decoder.conv_out.bias"].float()
    with open_vae(write(tmp_path / "v.safetensors", state)) as file:
        assert file.dtype == torch.float16


def test_weights_in_8_bits_are_read(tmp_path: Path) -> None:
    state = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in kl_state().items()}
    loaded = load_autoencoder(write(tmp_path / "v.safetensors", state), family="sd1")
    assert torch.equal(loaded.module.state_dict()["decoder.conv_in.weight"], state["decoder.conv_in.weight"].float())


# --- malformed: one test each ----------------------------------------------------------------------------------------


def without(*names: str) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in kl_state().items() if name not in names}


def reshaped(name: str, *shape: int) -> dict[str, torch.Tensor]:
    return kl_state() | {name: torch.zeros(shape)}


def test_tensor_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingKeys, match=r"incomplete: decoder\.mid\.block_1\.conv1\.weight of \d+ tensors"):
        open_vae(write(tmp_path / "v.safetensors", without("decoder.mid.block_1.conv1.weight")))


def test_several_tensors_missing_are_counted(tmp_path: Path) -> None:
    state = without("decoder.norm_out.bias", "decoder.norm_out.weight", "encoder.conv_out.bias")
    with pytest.raises(MissingKeys, match=r"decoder\.norm_out\.bias and 2 more of \d+ tensors are missing"):
        open_vae(write(tmp_path / "v.safetensors", state))


@pytest.mark.parametrize("name", ["encoder.conv_in.weight", "decoder.conv_in.weight", "decoder.conv_out.weight"])
def test_defining_tensor_missing(tmp_path: Path, name: str) -> None:
    with pytest.raises(MissingKeys, match=f"{name} is missing"):
        open_vae(write(tmp_path / "v.safetensors", without(name)))


@pytest.mark.parametrize("half", ["decoder", "encoder"])
def test_half_a_vae_does_what_the_whole_one_does(tmp_path: Path, half: str) -> None:
    """Fine-tuned decoders are published without an encoder."""
    whole = load_autoencoder(write(tmp_path / "whole.safetensors", kl_state()), family="sd1")
    parts = {"decoder": ("decoder.", "post_quant_conv."), "encoder": ("encoder.", "quant_conv.")}[half]
    path = write(tmp_path / "half.safetensors", {n: t for n, t in kl_state().items() if n.startswith(parts)})
    with open_vae(path) as file:
        assert file.half == half
        part = file.load(family="sd1")
    latents, images = torch.randn(1, part.latent_channels, 4, 6), torch.rand(1, 3, 32, 48)
    if half == "decoder":
        assert torch.equal(part.decode(latents), whole.decode(latents))
        with pytest.raises(UnknownChoice, match="only the decoder: it cannot encode"):
            part.encode(images)
    else:
        assert torch.equal(part.encode(images), whole.encode(images))
        with pytest.raises(UnknownChoice, match="only the encoder: it cannot decode"):
            part.decode(latents)


def test_a_half_with_a_missing_tensor_is_incomplete(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in kl_state().items() if name.startswith(("decoder.", "post_quant"))}
    del state["decoder.mid.block_1.conv1.weight"]
    with pytest.raises(MissingKeys, match=r"decoder\.mid\.block_1\.conv1\.weight"):
        open_vae(write(tmp_path / "v.safetensors", state))


def test_level_missing(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in kl_state().items() if not name.startswith("encoder.down.0.")}
    with pytest.raises(MissingKeys, match=r"only has the encoder levels \[1\]"):
        open_vae(write(tmp_path / "v.safetensors", state))


def test_levels_with_different_numbers_of_blocks(tmp_path: Path) -> None:
    state = kl_state(KLConfig(block_out_channels=(32, 32), layers_per_block=2))
    del state["encoder.down.1.block.1.conv1.weight"]
    with pytest.raises(MissingKeys, match=r"levels have \[2, 1\] residual blocks"):
        open_vae(write(tmp_path / "v.safetensors", state))


def test_post_quant_conv_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingKeys, match=r"post_quant_conv\.bias and 1 more of"):
        open_vae(write(tmp_path / "v.safetensors", without("post_quant_conv.weight", "post_quant_conv.bias")))


def test_wrong_shape(tmp_path: Path) -> None:
    with pytest.raises(BadShape, match=r"decoder\.norm_out\.bias is \[16\], but the rest of the VAE needs \[32\]"):
        open_vae(write(tmp_path / "v.safetensors", reshaped("decoder.norm_out.bias", 16)))


def test_channels_that_group_norm_cannot_divide(tmp_path: Path) -> None:
    with pytest.raises(BadShape, match=r"channel counts \[48, 32\] are not multiples of 32"):
        open_vae(write(tmp_path / "v.safetensors", reshaped("encoder.down.0.block.0.conv1.weight", 48, 48, 3, 3)))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("post_quant_conv.weight", (4,)),
        ("decoder.conv_out.weight", (3, 32)),
        ("encoder.down.0.block.0.conv1.weight", ()),
        ("encoder.conv_in.weight", (32, 3)),
    ],
)
def test_defining_tensor_that_is_no_convolution(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(BadShape, match=f"{name} has shape .*not that of a 2-D convolution"):
        open_vae(write(tmp_path / "v.safetensors", reshaped(name, *shape)))


def test_width_that_no_memory_could_hold(tmp_path: Path) -> None:
    """A tensor without elements may claim any length, and takes no room in the file."""
    with pytest.raises(BadShape, match="not that of a 2-D convolution"):
        open_vae(write(tmp_path / "v.safetensors", reshaped("encoder.down.1.block.0.conv1.weight", 1 << 40, 0, 3, 3)))


def test_latent_without_channels(tmp_path: Path) -> None:
    with pytest.raises(BadShape, match=r"decoder\.conv_in\.weight has shape \[32, 0, 3, 3\]"):
        open_vae(write(tmp_path / "v.safetensors", reshaped("decoder.conv_in.weight", 32, 0, 3, 3)))


def test_unknown_tensor_within_the_vae(tmp_path: Path) -> None:
    state = kl_state() | {"decoder.time_embed.weight": torch.zeros(1), "decoder.time_embed.bias": torch.zeros(1)}
    with pytest.raises(NotAnAutoencoder, match=r"unexpected tensors decoder\.time_embed\.bias and 1 more") as caught:
        open_vae(write(tmp_path / "v.safetensors", state))
    assert type(caught.value) is OtherKind


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_not_finite(tmp_path: Path, value: float) -> None:
    state = kl_state()
    state["decoder.up.0.block.0.conv1.weight"][3, 1, 0, 2] = value
    with (
        open_vae(write(tmp_path / "v.safetensors", state)) as file,
        pytest.raises(NotFinite, match=r"decoder\.up\.0\.block\.0\.conv1\.weight has NaN or infinite values"),
    ):
        file.state_dict()


def test_weights_not_finite_can_be_read_where_wanted(tmp_path: Path) -> None:
    state = kl_state()
    state["decoder.conv_out.bias"][0] = float("nan")
    with open_vae(write(tmp_path / "v.safetensors", state)) as file:
        assert file.state_dict(check_finite=False)["decoder.conv_out.bias"].isnan().any()


def test_leftover_that_is_not_finite_does_not_matter(tmp_path: Path) -> None:
    """Training states often hold such; nothing of them is used."""
    state = kl_state() | {"loss.logvar": torch.tensor([float("nan")])}
    assert load_autoencoder(write(tmp_path / "v.safetensors", state), family="sd1").latent_channels == 4


def test_nothing_is_read_for_the_structure(tmp_path: Path) -> None:
    """The check costs the header, not the weights."""
    state = kl_state(F2)
    with open_vae(write(tmp_path / "v.safetensors", state)) as file:
        assert file.weights.bytes_read < 64 * 1024 < sum(tensor.numel() * 4 for tensor in state.values())


def test_refused_file_is_closed(tmp_path: Path) -> None:
    """filterwarnings=error turns an unclosed file into a failure; on Windows it could not be deleted either."""
    path = write(tmp_path / "v.safetensors", without("decoder.norm_out.bias"))
    with pytest.raises(MissingKeys):
        open_vae(path)
    path.unlink()
    assert not path.exists()


def test_what_a_host_does_to_the_layers_of_torch_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """On some devices the WebUI replaces their ``forward``, for all threads, for as long as it samples."""
    vae, tiny = AutoencoderKL(KLConfig(block_out_channels=(32, 64), layers_per_block=1)), build_decoder(4)

    def cast(*_: object) -> None:
        raise RuntimeError("not implemented for 'Half'")

    for layer in (torch.nn.Conv2d, torch.nn.GroupNorm, torch.nn.Linear):
        monkeypatch.setattr(layer, "forward", cast)
    with torch.no_grad():
        assert vae.decoder(torch.zeros(1, 4, 8, 8)).shape == (1, 3, 16, 16)
        assert tiny(torch.zeros(1, 4, 8, 8)).shape == (1, 3, 64, 64)


def test_names_of_version_0_1_are_still_accepted() -> None:
    old = KLConfig(channels=(32, 64), blocks=1, mid_attention=False, quant_conv=False)  # type: ignore[call-arg]
    new = KLConfig((32, 64), 1, mid_block_add_attention=False, use_quant_conv=False)
    assert old == new
    from vae_lab import charts
    from vae_lab.latents import chart

    assert charts.chart_image is chart.chart_image
