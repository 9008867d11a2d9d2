"""What a file is if no VAE can be loaded from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.unit.conftest import ROOT
from tests.unit.makers import F2, F8, SD1_TEXT, SDXL_TEXT, UNET, State, diffusers_names, kl_state, prefixed, write
from tools.kinds_table import table
from vae_lab import inspect_file
from vae_lab.autoencoders import open_vae
from vae_lab.autoencoders.kl import KLConfig
from vae_lab.errors import MissingVae, OtherKind
from vae_lab.formats import open_weights
from vae_lab.library import FileRecord
from vae_lab.repair import bake, strip
from vae_lab.state_dict import KINDS_BY_ID

Z = torch.zeros
CONV, CONV3D = Z(4, 4, 3, 3), Z(4, 4, 3, 3, 3)


def inspected(folder: Path, state: State, name: str = "a.safetensors") -> FileRecord:
    return inspect_file(write(folder / name, state), probe=False)


def hunyuan_image() -> State:
    """Up- and downsampling by rearranged pixels: other shapes than an AutoencoderKL's."""
    state = kl_state(KLConfig((32, 32), 1, latent_channels=64, z_channels=64))
    return state | {"decoder.up.1.upsample.conv.weight": Z(128, 32, 3, 3)}


def asymmetric() -> State:
    return diffusers_names(kl_state(F2), 2) | {"decoder.condition_encoder.layers.0.weight": CONV}


FILES: dict[str, list[State]] = {
    "lora": [
        {"lora_unet_down_blocks_0.lora_up.weight": Z(4, 2), "lora_te1_text_model.alpha": Z(1)},
        {"unet.down_blocks.0.attn1.to_q.lora_A.weight": Z(4, 2)},
        {"unet.mid_block.attn1.processor.to_q_lora.down.weight": Z(4, 2)},
        {"model.diffusion_model.blocks.0.self_attn.q.lora_B.weight": Z(4, 2)},
        {"lycoris_blocks_0.lokr_w1": Z(4, 2), "lycoris_blocks_0.alpha": Z(1)},
        {"single_blocks_0.hada_w1_a": Z(4, 2)},
    ],
    "controlnet": [
        {"control_model.input_blocks.0.0.weight": CONV},
        {"controlnet_cond_embedding.conv_in.weight": CONV, "down_blocks.0.resnets.0.conv1.weight": CONV},
        {"lora_controlnet": Z(1), "input_hint_block.0.weight": CONV},
        {"adapter.body.0.in_conv.weight": CONV},
    ],
    "ip-adapter": [{"ip_adapter.1.to_k_ip.weight": Z(4, 4), "image_proj.proj.weight": Z(4, 4)}],
    "motion-module": [{"down_blocks.0.motion_modules.0.temporal_transformer.norm.weight": Z(4)}],
    "embedding": [
        {"string_to_param.*": Z(2, 768)},
        {"emb_params": Z(2, 768)},
        {"clip_l": Z(2, 768), "clip_g": Z(2, 1280)},
        {"<cat>": Z(768)},
    ],
    "hypernetwork": [{"320.0.linear.0.weight": Z(4, 4)}],
    "face-restorer": [{"params_ema.stylegan_decoder.style_mlp.1.weight": Z(4, 4)}],
    "upscaler": [
        {"params_ema.conv_first.weight": CONV},
        {"model.0.weight": Z(64, 3, 3, 3), "model.1.sub.0.RDB1.conv1.0.weight": Z(32, 64, 3, 3)},
    ],
    "vae-approx": [{"conv1.weight": Z(8, 4, 7, 7), "conv1.bias": Z(8)}],
    "svd-vae": [
        kl_state(F2) | {"decoder.conv_out.time_mix_conv.weight": CONV3D},
        {"decoder.conv_in.weight": CONV, "decoder.mid_block.resnets.0.spatial_res_block.conv1.weight": CONV},
    ],
    "wan-vae": [
        {"decoder.conv1.weight": CONV3D, "decoder.middle.0.residual.0.gamma": Z(4, 1, 1, 1)},
        {"decoder.conv_in.weight": CONV3D, "decoder.mid_block.resnets.0.norm1.gamma": Z(4, 1, 1, 1)},
    ],
    "mochi-vae": [
        {"blocks.0.0.stack.0.weight": Z(4), "blocks.1.blocks.0.stack.2.weight": CONV3D},
        {"decoder.conv_in.weight": CONV3D, "decoder.block_in.resnets.0.norm1.norm_layer.weight": Z(4)},
    ],
    "cogvideox-vae": [
        {"decoder.conv_in.conv.weight": CONV3D, "decoder.mid_block.resnets.0.norm1.conv_y.conv.weight": CONV3D}
    ],
    "cosmos-vae": [{"decoder.unpatcher3d.wavelets": Z(2)}, {"decoder.conv_in.conv_s.weight": CONV3D}],
    "ltx-vae": [
        {"decoder.up_blocks.0.res_blocks.0.conv1.conv.weight": CONV3D, "decoder.conv_in.conv.weight": CONV3D},
        {"decoder.conv_in.conv.weight": Z(4, 128, 3, 3, 3), "latents_mean": Z(128)},
    ],
    "allegro-vae": [{"decoder.conv_in.weight": CONV, "decoder.temp_conv_in.weight": CONV3D}],
    "hunyuan-video-vae": [
        {"decoder.conv_in.conv.weight": CONV3D, "decoder.mid_block.resnets.0.conv1.conv.weight": CONV3D}
    ],
    "tiny-video-vae": [{"decoder.1.weight": Z(64, 16, 3, 3), "decoder.7.conv.weight": Z(64, 64, 1, 1)}],
    "consistency-decoder": [
        {"decoder_unet.conv_in.weight": CONV, "encoder.conv_in.weight": CONV},
        {"embed_image.conv.weight": CONV},
    ],
    "asymmetric-vae": [asymmetric()],
    "dc-ae": [
        {"decoder.conv_in.weight": CONV, "decoder.up_blocks.0.0.conv1.weight": CONV},
        {"decoder.stages.0.op_list.0.main.conv1.conv.weight": CONV},
    ],
    "stage-a": [{"vquantizer.codebook.weight": Z(8, 4), "in_block.1.weight": CONV}],
    "stage-c": [{"backbone.1.0.block.0.1.num_batches_tracked": Z(1)}, {"blocks.11.num_batches_tracked": Z(1)}],
    "vq": [
        kl_state(F2) | {"quantize.embedding.weight": Z(8, 4), "encoder.conv_out.weight": Z(4, 32, 3, 3)},
        UNET | prefixed("first_stage_model.", {"quantize.embedding.weight": Z(8, 3), "decoder.conv_in.weight": CONV}),
    ],
    "audio-vae": [{"decoder.layers.1.layers.0.beta": Z(4)}],
    "shape-vae": [{"geo_decoder.cross_attn_decoder.ln_1.bias": Z(4)}],
    "hunyuan-image-vae": [hunyuan_image()],
    "video-vae": [{"decoder.conv_in.weight": CONV3D}],
    "radiance": [{"model.diffusion_model.double_blocks.0.q": Z(1), "model.diffusion_model.nerf_blocks.0.q": Z(1)}],
    "pixel-unet": [
        {"conv_in.weight": Z(32, 3, 3, 3), "down_blocks.0.resnets.0.conv1.weight": CONV},
        {"input_blocks.0.0.weight": Z(32, 6, 3, 3)},
    ],
    "diffusion-model": [
        {"conv_in.weight": CONV, "down_blocks.0.resnets.0.conv1.weight": CONV},
        {"double_blocks.0.img_attn.qkv.weight": Z(4)},
    ],
    "image-encoder": [{"vision_model.embeddings.class_embedding": Z(4)}],
    "text-encoder": [
        {"text_model.encoder.layers.0.mlp.fc1.weight": Z(4, 4)},
        {"encoder.block.0.layer.0.SelfAttention.q.weight": Z(4, 4), "shared.weight": Z(8, 4)},
    ],
}
STATUSES = {
    "vae": ("not-checked", "other-kind"),
    "model": ("no-vae", "other-model"),
    "pixels": ("no-vae", "needs-no-vae"),
}


def test_every_kind_is_tried() -> None:
    assert FILES.keys() == KINDS_BY_ID.keys()


@pytest.mark.parametrize("kind", FILES)
def test_kind_is_named(tmp_path: Path, kind: str) -> None:
    for i, state in enumerate(FILES[kind]):
        path = write(tmp_path / f"{i}.safetensors", {name: value.clone() for name, value in state.items()})
        with pytest.raises(OtherKind) as caught:
            open_vae(path)
        assert caught.value.kind == kind
        record = inspect_file(path, probe=False)
        (finding,) = record.verdict.findings
        known = KINDS_BY_ID[kind]
        assert (record.status, finding.code) == STATUSES[known.answer]
        assert known.title in finding.text
        assert finding.remedy == known.remedy


@pytest.mark.parametrize("config", [F2, F8], ids=["F2", "F8"])
def test_damaged_vae_is_no_other_kind(tmp_path: Path, config: KLConfig) -> None:
    for state in (kl_state(config), diffusers_names(kl_state(config), len(config.block_out_channels))):
        for name in list(state)[::9]:
            if "conv_in.weight" in name:
                continue
            record = inspected(tmp_path, {key: value for key, value in state.items() if key != name})
            assert record.status in ("broken", "unchecked"), name
            assert not record.verdict.has("half-converted")


def test_shard(tmp_path: Path) -> None:
    record = inspected(tmp_path, {"model.layers.0.weight": Z(1)}, "model-00001-of-00003.safetensors")
    assert (record.status, record.verdict.findings[0].code) == ("no-vae", "shard")
    assert "Part 1 of 3" in record.verdict.findings[0].text
    whole = inspected(tmp_path, kl_state(F2), "vae-00001-of-00001.safetensors")
    assert whole.status == "unchecked"


def test_half_converted_names(tmp_path: Path) -> None:
    ldm, diffusers = kl_state(F8), diffusers_names(kl_state(F8), 4)
    mixed = {name: value for name, value in ldm.items() if name.startswith("encoder.")}
    mixed |= {name: value for name, value in diffusers.items() if not name.startswith("encoder.")}
    record = inspected(tmp_path, mixed)
    assert (record.status, record.verdict.findings[0].code) == ("suspect", "half-converted")
    assert "vae-lab extract" in record.verdict.findings[0].remedy
    del mixed["decoder.up_blocks.1.resnets.0.conv1.weight"]
    record = inspected(tmp_path, mixed)
    assert (record.status, record.verdict.findings[0].code) == ("broken", "half-converted")


# --- checkpoints whose model is elsewhere ---------------------------------------------------------------------------

MODELS = {
    "AuraFlow": {"model.double_layers.0.attn.w1q.weight": Z(4, 4), "text_encoders.t5.shared.weight": Z(4, 4)},
    "HunyuanDiT": {"model.mlp_t5.0.weight": Z(4, 4)},
    "Lumina 2": {"model.diffusion_model.noise_refiner.0.attention.qkv.weight": Z(4, 4)},
    "HiDream": {"model.diffusion_model.double_stream_blocks.0.block.attn1.to_q.weight": Z(4, 4)},
    "Cosmos": {"net.blocks.block0.blocks.0.block.attn.to_q.0.weight": Z(4, 4)},
}


@pytest.mark.parametrize("model", MODELS)
def test_all_in_one_file_is_a_checkpoint(tmp_path: Path, model: str) -> None:
    channels = 16 if model in ("Lumina 2", "HiDream") else 4
    config = KLConfig((32,) * 4, 1, latent_channels=channels, z_channels=channels, use_quant_conv=channels == 4)
    vae = kl_state(config)
    vae["encoder.conv_out.weight"] *= 9  # latents that spread like those of no known family
    path = write(tmp_path / "all.safetensors", MODELS[model] | prefixed("vae.", vae))
    with open_vae(path) as file:
        assert (file.layout.kind, file.layout.prefix) == ("checkpoint", "vae.")
    strip(path, tmp_path / "stripped.safetensors")
    with open_weights(tmp_path / "stripped.safetensors") as weights:
        assert weights.tensors.keys() == MODELS[model].keys()
    with pytest.raises(MissingVae):
        open_vae(tmp_path / "stripped.safetensors")
    # Which VAE Cosmos needs is only known while it has one.
    target = path if model == "Cosmos" else tmp_path / "stripped.safetensors"
    bake(target, path, tmp_path / "baked.safetensors")
    with open_vae(tmp_path / "baked.safetensors") as file:
        assert file.layout.prefix == "vae."


def test_video_checkpoint_suggests_no_image_family(tmp_path: Path) -> None:
    video = kl_state(F2) | {"decoder.conv_out.time_mix_conv.weight": CONV3D}
    record = inspected(tmp_path, UNET | SDXL_TEXT | prefixed("first_stage_model.", video))
    assert (record.status, record.kind, record.hint_id) == ("not-checked", "checkpoint", "")


def test_checkpoint_with_more_models_is_missing_a_vae(tmp_path: Path) -> None:
    state = UNET | SD1_TEXT | {"control_model.input_blocks.0.0.weight": CONV}
    assert inspected(tmp_path, state).status == "missing"


def test_bake_refuses_a_checkpoint_of_another_kind(tmp_path: Path) -> None:
    video = write(tmp_path / "v.safetensors", UNET | {"vae.decoder.middle.0.residual.0.gamma": Z(4)})
    vae = write(tmp_path / "vae.safetensors", kl_state(F2))
    with pytest.raises(OtherKind):
        bake(video, vae, tmp_path / "out.safetensors")


def test_table_in_the_documentation() -> None:
    assert table() in (ROOT / "docs" / "files.md").read_text(encoding="utf8"), "run python -m tools.kinds_table"
