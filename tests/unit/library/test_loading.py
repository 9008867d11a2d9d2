"""VAEs that VAE Lab reads, but hosts do not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from tests.unit.makers import CONTAINERS, F8, SD1_TEXT, UNET, diffusers_names, kl_state, prefixed, write
from vae_lab.autoencoders import open_vae
from vae_lab.library import inspect_file
from vae_lab.library.loading import loading_findings
from vae_lab.repair import bake, extract
from vae_lab.state_dict.canonical import read_by_hosts


def codes(path: Path) -> dict[str, str]:
    with open_vae(path) as file:
        return {finding.code: finding.severity for finding in loading_findings(file)}


def flat_attention() -> dict:
    return {name: t[:, :, 0, 0] if ".attn_1." in name and t.ndim == 4 else t for name, t in kl_state(F8).items()}


def test_usual_files_have_no_finding(tmp_path: Path) -> None:
    assert codes(write(tmp_path / "a.safetensors", kl_state(F8))) == {}
    assert codes(write(tmp_path / "b.safetensors", UNET | prefixed("first_stage_model.", kl_state(F8)))) == {}
    assert codes(write(tmp_path / "c.safetensors", diffusers_names(kl_state(F8), 4))) == {}


@pytest.mark.parametrize("prefix", ["vae.", "module.first_stage_model.", "autoencoder."])
def test_prefix_that_no_host_reads(tmp_path: Path, prefix: str) -> None:
    path = write(tmp_path / "model.safetensors", UNET | SD1_TEXT | prefixed(prefix, kl_state(F8)))
    assert codes(path) == {"missing": "missing"}
    mended = tmp_path / "mended.safetensors"
    bake(path, path, mended)
    assert codes(mended) == {}
    with safe_open(mended, "pt") as file:
        assert not [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118  not a dict


def test_diffusers_names_inside_a_checkpoint(tmp_path: Path) -> None:
    state = UNET | prefixed("first_stage_model.", diffusers_names(kl_state(F8), 4))
    assert codes(write(tmp_path / "model.safetensors", state)) == {"missing": "missing"}


def test_attention_as_diffusers_has_it_under_ldm_names(tmp_path: Path) -> None:
    alone = write(tmp_path / "vae.safetensors", flat_attention())
    inside = write(tmp_path / "model.safetensors", UNET | prefixed("first_stage_model.", flat_attention()))
    assert codes(alone) == codes(inside) == {"host-shapes": "suspect"}
    extract(alone, tmp_path / "mended.safetensors")
    assert codes(tmp_path / "mended.safetensors") == {}


def test_a_second_vae_is_mentioned(tmp_path: Path) -> None:
    state = UNET | prefixed("first_stage_model.", kl_state(F8)) | prefixed("vae.", kl_state(F8, seed=1))
    assert codes(write(tmp_path / "model.safetensors", state)) == {"second-vae": "information"}


def test_flux_checkpoints_get_the_prefix_that_is_read_there(tmp_path: Path) -> None:
    flux = {"model.diffusion_model.double_blocks.0.img_attn.qkv.weight": torch.zeros(4, 4)}
    vae = write(tmp_path / "vae.safetensors", kl_state(F8))
    with open_vae(vae) as file:
        file.load = lambda: pytest.fail("its family is not needed")  # type: ignore[method-assign,assignment]
    model = write(tmp_path / "model.safetensors", flux | prefixed("vae.", kl_state(F8)))
    with open_vae(model) as file:
        assert read_by_hosts(file.layout, file.weights.tensors)


def test_of_two_sets_of_names_the_one_that_hosts_load_is_judged(tmp_path: Path) -> None:
    """As model mergers write it that bake a VAE with diffusers names into a checkpoint with ldm names."""
    first, second = kl_state(F8), kl_state(F8, seed=1)
    both = prefixed("first_stage_model.", first) | prefixed("first_stage_model.", diffusers_names(second, 4))
    path = write(tmp_path / "model.safetensors", UNET | both)
    assert codes(path) == {"second-vae": "information"}
    with open_vae(path) as file:
        assert file.layout.naming == "ldm"
        state = file.state_dict()
    assert state.keys() == first.keys()
    assert (state["decoder.mid.block_1.conv1.weight"] == first["decoder.mid.block_1.conv1.weight"]).all()


WHOLE = UNET | SD1_TEXT | prefixed("first_stage_model.", kl_state(F8))


@pytest.mark.parametrize(
    ("container", "name", "state", "new_name"),
    [
        ("safetensors", "a.ckpt", WHOLE, "a.safetensors"),
        ("safetensors", "a.CKPT", UNET | SD1_TEXT, "a.safetensors"),
        ("safetensors", "a b.vae.pt", kl_state(F8), "a b.vae.safetensors"),
        ("safetensors", "a.pth", kl_state(F8), "a.safetensors"),
        ("safetensors", "a.bin", diffusers_names(kl_state(F8), 4), "a.safetensors"),
        ("zip", "a.safetensors", WHOLE, "a.ckpt"),
        ("legacy", "a.Safetensors", UNET | SD1_TEXT, "a.ckpt"),
        ("zip", "a.vae.safetensors", kl_state(F8), "a.vae.pt"),
        ("legacy", "a.sft", kl_state(F8), "a.pt"),
        ("zip", "a.safetensors", {**kl_state(F8), "decoder.conv_out.bias": torch.full((3,), float("nan"))}, "a.pt"),
    ],
)
def test_a_name_of_the_other_format_is_named_with_the_right_one(
    tmp_path: Path, container: str, name: str, state: dict, new_name: str
) -> None:
    """Hosts choose the reader by the name, and fail."""
    record = inspect_file(CONTAINERS[container](tmp_path / name, state), probe=False)
    (finding,) = (finding for finding in record.verdict.findings if finding.code == "wrong-extension")
    assert "Loads in: VAE Lab, not in: the WebUI, Forge, ComfyUI." in finding.text
    assert finding.remedy == f"Rename it to {new_name!r}."
    assert record.status not in ("healthy", "unchecked")


@pytest.mark.parametrize(
    ("container", "names"),
    [
        ("safetensors", ["a.safetensors", "a.vae.SAFETENSORS", "a.sft", "0f3c", "a.safetensors.1"]),
        ("zip", ["a.ckpt", "a.vae.pt", "a.pth", "a.bin", "0f3c", "a.ckpt.old"]),
        ("legacy", ["a.ckpt", "a.pt"]),
    ],
)
def test_a_right_name_and_one_that_says_nothing_are_not_mentioned(
    tmp_path: Path, container: str, names: list[str]
) -> None:
    for name in names:
        record = inspect_file(CONTAINERS[container](tmp_path / name, kl_state(F8)), probe=False)
        assert record.verdict.findings == (), name


def test_another_kind_of_model_is_not_accused(tmp_path: Path) -> None:
    lora = {f"lora_unet_down_{i}.lora_{half}.weight": torch.zeros(4, 4) for i in range(4) for half in ("up", "down")}
    record = inspect_file(write(tmp_path / "lora.pt", lora), probe=False)
    assert record.status == "no-vae"
