"""Which VAE fits which model: by the whole structure of both, and never by a guess."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.unit.makers import F8, SD1_TEXT, SDXL_TEXT, UNET, kl_module, kl_state, prefixed, write
from vae_lab.autoencoders.kl import KLConfig
from vae_lab.errors import VaeLabError
from vae_lab.formats import open_weights
from vae_lab.latents.chart import chart_image
from vae_lab.latents.family import FAMILIES
from vae_lab.repair import bake
from vae_lab.samples import load_sample_vae
from vae_lab.state_dict import model_family, takes_latents

State = dict[str, Tensor]
M = "model.diffusion_model."


def z(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.float16)


def of_channels(channels: int, seed: int = 0, **config: object) -> State:
    return kl_state(config_of(channels, **config), seed)


def config_of(channels: int, **config: object) -> KLConfig:
    settings = {"block_out_channels": (32,) * 4, "layers_per_block": 1, "use_quant_conv": channels != 16, **config}
    return KLConfig(latent_channels=channels, z_channels=channels, **settings)  # type: ignore[arg-type]


def of_family(family: str) -> State:
    """An encoder whose latents of the chart spread as those of a family with 16 channels do."""
    space, module = FAMILIES[family], kl_module(config_of(16))
    state = dict(module.state_dict())
    weight, bias = state["encoder.conv_out.weight"][:16], state["encoder.conv_out.bias"][:16]
    latents = module.encode(chart_image() * 2 - 1).detach()
    factor = 1 / (space.scaling_factor * latents.std())
    weight *= factor
    bias.copy_((bias - latents.mean()) * factor + space.shift_factor)
    return state


@pytest.fixture(scope="module")
def vaes() -> dict[str, State]:
    names = {"sd1": "photo-a", "sdxl": "sdxl-c"}
    return {family: load_sample_vae(name) for family, name in names.items()} | {
        family: of_family(family) for family in ("sd3", "flux")
    }


def unet(inputs: int = 4, context: int = 0, labels: int = 0, outputs: int = 4) -> State:
    layers = {f"{M}input_blocks.0.0.weight": z(8, inputs, 3, 3), f"{M}out.2.weight": z(outputs, 8, 3, 3)}
    if context:
        layers[f"{M}input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"] = z(8, context)
    return layers | ({f"{M}label_emb.0.0.weight": z(8, labels)} if labels else {})


def flux(inputs: int = 64, outputs: int = 64, **more: Tensor) -> State:
    layers = {"img_in.weight": z(8, inputs), "final_layer.linear.weight": z(outputs, 8)}
    return prefixed(M, {"double_blocks.0.img_attn.qkv.weight": z(8, 8), **layers, **more})


HUNYUAN = {"img_in.proj.weight": z(8, 16, 1, 2, 2), "double_blocks.0.img_attn_qkv.weight": z(8, 8)}
MODELS: dict[str, tuple[State, str | None]] = {
    # model, and the family of its latents
    "SD1": (unet(context=768) | SD1_TEXT, "sd1"),
    "SD1 without text encoder": (unet(context=768), "sd1"),
    "SD1 for inpainting": (unet(9, 768) | SD1_TEXT, "sd1"),
    "InstructPix2Pix": (unet(8, 768), "sd1"),
    "SD2 with depth": (unet(5, 1024) | SD1_TEXT, "sd1"),
    "Stable unCLIP": (unet(context=1024, labels=2048) | SD1_TEXT, "sd1"),
    "SDXL": (unet(context=2048, labels=2816) | SDXL_TEXT, "sdxl"),
    "SDXL without text encoders": (unet(context=2048, labels=2816), "sdxl"),
    "refiner": (unet(context=1280, labels=2560) | SDXL_TEXT, "sdxl"),
    "AuraFlow": ({"model.double_layers.0.attn.w1q.weight": z(8, 8), "model.init_x_linear.weight": z(8, 16)}, "sdxl"),
    "HunyuanDiT": (
        {"model.mlp_t5.0.weight": z(8, 8), "model.x_embedder.proj.weight": z(8, 4, 2, 2),
         "model.final_layer.linear.weight": z(32, 8)},
        "sdxl",
    ),
    "SD3": (
        {f"{M}joint_blocks.0.x_block.attn.qkv.weight": z(8, 8), f"{M}x_embedder.proj.weight": z(8, 16, 2, 2),
         f"{M}final_layer.linear.weight": z(64, 8)},
        "sd3",
    ),
    "Flux": (flux(), "flux"),
    "Flux Fill": (flux(384), "flux"),
    "Flux Canny": (flux(128), "flux"),
    "Lumina 2": ({f"{M}noise_refiner.0.attention.qkv.weight": z(8, 8), f"{M}x_embedder.weight": z(8, 64)}, "flux"),
    "HiDream": (
        {f"{M}double_stream_blocks.0.block.attn1.to_q.weight": z(8, 8), f"{M}x_embedder.proj.weight": z(8, 64)},
        "flux",
    ),
    # models of which none of the families' VAEs is right
    "Flux.2": (flux(128, 128, **{"double_stream_modulation_img.lin.weight": z(8, 8)}), None),
    "Flux.2 by its layers": (flux(128, 128), None),
    "Flux.2 by its first layer": (prefixed(M, {"double_blocks.0.a.weight": z(8, 8), "img_in.weight": z(8, 128)}), None),
    "HunyuanVideo": (prefixed(M, HUNYUAN | {"txt_in.individual_token_refiner.blocks.0.norm1.weight": z(8)}), None),
    "HunyuanVideo by its first layer": (prefixed(M, HUNYUAN), None),
    "Radiance": (prefixed(M, {"nerf_blocks.0.norm.scale": z(8), "double_blocks.0.img_attn.qkv.weight": z(8, 8)}), None),
    "DeepFloyd": (unet(3, outputs=6) | SD1_TEXT, None),
    "Stable Video Diffusion": (unet(8, 1024, 768) | SDXL_TEXT | {f"{M}input_blocks.1.1.time_stack.0.w": z(8)}, None),
    "x4 upscaler": (unet(7, 1024) | SD1_TEXT, None),
    "AudioLDM": (unet(8, outputs=8), None),
    "SDXL with 16 channels": (unet(16, 2048, 2816, 16) | SDXL_TEXT, None),
    "SD1's text encoder, SDXL's UNet": (unet(context=2048, labels=2816) | SD1_TEXT, None),
    "SDXL's text encoders, SD1's UNet": (unet(context=768) | SDXL_TEXT, None),
    "SDXL's text encoders only": ({**SDXL_TEXT, f"{M}blocks.0.weight": z(8, 8)}, None),
    "Kolors": (unet(context=2048, labels=5632), None),
    "unknown": ({f"{M}new_blocks.0.weight": z(8, 8)}, None),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_each_model_gets_a_vae_of_its_family_and_no_other(tmp_path: Path, name: str, vaes: dict[str, State]) -> None:
    model, family = MODELS[name]
    refusals = {other: refusal(tmp_path, model, state) for other, state in vaes.items()}
    assert [other for other, text in refusals.items() if not text] == ([family] if family else [])
    assert all("model.safetensors" in text for text in refusals.values() if text)


@pytest.mark.parametrize("name", MODELS)
def test_families_of_models(tmp_path: Path, name: str) -> None:
    model, family = MODELS[name]
    with open_weights(write(tmp_path / "model.safetensors", model)) as weights:
        known = model_family(weights.tensors)
        assert not family or known == family
        assert not family or takes_latents(weights.tensors, FAMILIES[family].latent_channels)


def refusal(tmp_path: Path, model: State, vae: State) -> str:
    """Why it is refused; "" if it is not."""
    path, other = write(tmp_path / "model.safetensors", model), write(tmp_path / "vae.safetensors", vae)
    out = tmp_path / "out.safetensors"
    out.unlink(missing_ok=True)
    try:
        bake(path, other, out)
    except VaeLabError as error:
        assert not out.exists()
        return str(error)
    return ""


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "incomplete"])
@pytest.mark.parametrize("prefix", ["first_stage_model.", "vae.", ""])
def test_a_vae_with_other_channels_than_the_checkpoints_own_is_refused(
    tmp_path: Path, prefix: str, whole: bool, vaes: dict[str, State]
) -> None:
    """Its channels are 16, although text encoders and UNet are SDXL's: one of both is wrong."""
    own = vaes["flux"]
    if not whole:
        own = {name: value for name, value in own.items() if ".mid." not in name}
    model = unet(context=2048, labels=2816) | SDXL_TEXT | prefixed(prefix, own)
    assert "(4 channels, not 16)" in refusal(tmp_path, model, vaes["sdxl"])


def test_the_channels_of_the_models_first_layer_count_too(tmp_path: Path, vaes: dict[str, State]) -> None:
    wide = unet(16, 2048, 2816, 16) | SDXL_TEXT
    assert "4 channels" in refusal(tmp_path, wide | prefixed("first_stage_model.", vaes["sdxl"]), vaes["sdxl"])


def test_a_model_changed_for_other_latents_gets_a_vae_like_its_own(tmp_path: Path, vaes: dict[str, State]) -> None:
    wide = unet(16, 2048, 2816, 16) | SDXL_TEXT | prefixed("first_stage_model.", vaes["flux"])
    assert refusal(tmp_path, wide, vaes["flux"]) == ""
    assert "another family" in refusal(tmp_path, wide, vaes["sd3"])


def test_a_family_that_the_weights_do_not_show_is_refused(tmp_path: Path) -> None:
    assert "do not show which models" in refusal(tmp_path, unet() | SD1_TEXT, of_channels(4))


def test_quant_convs_belong_to_4_channels_only(tmp_path: Path) -> None:
    assert "has no quant_conv" in refusal(tmp_path, unet() | SD1_TEXT, kl_state(config_of(4, use_quant_conv=False)))
    assert "has quant_conv" in refusal(tmp_path, flux(), of_channels(16, use_quant_conv=True))


def test_a_model_that_needs_no_vae_gets_none_even_if_it_has_one(tmp_path: Path, vaes: dict[str, State]) -> None:
    radiance = MODELS["Radiance"][0] | prefixed("vae.", vaes["flux"])
    assert "needs no VAE: it is Chroma Radiance" in refusal(tmp_path, radiance, vaes["flux"])


def test_of_unknown_families_only_the_same_latents_fit(tmp_path: Path) -> None:
    own = of_channels(32)
    decoder = {name: value * 1.01 if name.startswith("decoder.") else value for name, value in own.items()}
    scaled = {name: value * 2 if name.startswith("quant_conv.") else value for name, value in own.items()}
    model = MODELS["Flux.2"][0] | prefixed("vae.", own)
    assert refusal(tmp_path, model, scaled).endswith("it could produce garbage")
    assert refusal(tmp_path, model, of_channels(32, seed=1)).endswith("it could produce garbage")
    assert refusal(tmp_path, model, decoder) == ""


def test_a_vae_like_its_own_for_a_model_of_a_known_family(tmp_path: Path) -> None:
    """Rescaled latents, say, which show no family: both were made for the same model."""
    own = kl_state(F8)
    model = UNET | SD1_TEXT | prefixed("first_stage_model.", own)
    assert refusal(tmp_path, model, kl_state(F8, seed=1)).endswith("it could produce garbage")
    assert refusal(tmp_path, model, {**own, "decoder.conv_out.bias": torch.ones(3)}) == ""


FIRST_STAGE = ("SD1", "SD1 without text encoder", "SDXL", "refiner", "SD3")
BELOW_VAE = ("Flux", "AuraFlow", "HunyuanDiT", "Lumina 2", "HiDream")


@pytest.mark.parametrize(
    ("name", "previous"),
    [
        *((name, None) for name in (*FIRST_STAGE, *BELOW_VAE)),
        *((name, prefix) for name in ("SD1", "AuraFlow") for prefix in ("first_stage_model.", "vae.", "autoencoder.")),
    ],
)
def test_the_prefix_is_the_one_that_hosts_read_for_the_family(
    tmp_path: Path, name: str, previous: str | None, vaes: dict[str, State]
) -> None:
    model, family = MODELS[name]
    vae, prefix = vaes[family or ""], "vae." if name in BELOW_VAE else "first_stage_model."
    own = {} if previous is None else prefixed(previous, {name: value.clone() for name, value in vae.items()})
    assert refusal(tmp_path, model | own, vae) == ""
    with open_weights(tmp_path / "out.safetensors") as weights:
        assert weights.tensors.keys() == {*model, *(prefix + name for name in vae)}
