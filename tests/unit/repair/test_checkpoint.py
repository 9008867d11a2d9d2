"""VAEs extracted from and baked into checkpoints: contents of the new files, without loss."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from tests.unit.makers import CONTAINERS, SD1_TEXT, SDXL_TEXT, UNET, kl_state, prefixed, taesd_state, write
from vae_lab import bake, extract, inspect_file, strip
from vae_lab.autoencoders import open_vae
from vae_lab.autoencoders.kl import KLConfig
from vae_lab.cli import main
from vae_lab.errors import Cancelled, FamilyMismatch, NotAnAutoencoder, UnreadableFile, VaeLabError
from vae_lab.repair import writing
from vae_lab.samples import load_sample_vae

State = dict[str, Tensor]
PREFIX = "first_stage_model."
REST = (
    UNET | SD1_TEXT | {"model_ema.decay": torch.tensor(0.5), "model.diffusion_model.time": torch.arange(6).bfloat16()}
)


def checkpoint(vae: State, text: State = SD1_TEXT) -> State:
    return REST | text | prefixed(PREFIX, vae)


@pytest.fixture(scope="module")
def own() -> State:
    return {name: value.half() for name, value in load_sample_vae("photo-a").items()}


@pytest.fixture(scope="module")
def other() -> State:
    return {name: value.float() for name, value in load_sample_vae("photo-b").items()}


def same(found: State, wanted: State) -> bool:
    return found.keys() == wanted.keys() and all(
        found[name].dtype == wanted[name].dtype and torch.equal(found[name], wanted[name]) for name in wanted
    )


@pytest.mark.parametrize("container", CONTAINERS)
def test_taken_out_and_put_back_it_is_what_it_was(tmp_path: Path, container: str, own: State) -> None:
    source = CONTAINERS[container](tmp_path / "model.ckpt", checkpoint(own))
    extract(source, tmp_path / "vae.safetensors")
    strip(source, tmp_path / "bare.safetensors")
    bake(tmp_path / "bare.safetensors", tmp_path / "vae.safetensors", tmp_path / "whole.safetensors")
    assert same(load_file(tmp_path / "vae.safetensors"), own)
    whole = load_file(tmp_path / "whole.safetensors")
    assert same({name: whole[name] for name in checkpoint(own)}, checkpoint(own))
    assert inspect_file(tmp_path / "bare.safetensors").verdict.status == "missing"
    assert inspect_file(tmp_path / "whole.safetensors").fingerprint == inspect_file(source).fingerprint


def test_put_into_the_place_and_the_precision_of_the_one_before(tmp_path: Path, own: State, other: State) -> None:
    leftover = {f"{PREFIX}loss.logvar": torch.zeros(3)}
    source = write(tmp_path / "model.safetensors", checkpoint(own) | leftover, {"format": "pt", "sshs_model_hash": "1"})
    before = source.read_bytes()
    vae = write(tmp_path / "vae.safetensors", other)
    bake(source, vae, tmp_path / "new.safetensors")
    found = load_file(tmp_path / "new.safetensors")
    assert same(found, checkpoint({name: value.half() for name, value in other.items()}))
    with safe_open(tmp_path / "new.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}, "the hash of another file is dropped"
    assert source.read_bytes() == before
    assert inspect_file(tmp_path / "new.safetensors").verdict.status == "healthy"


def test_an_incomplete_vae_is_replaced(tmp_path: Path, own: State, other: State) -> None:
    half = {name: value for name, value in own.items() if not name.startswith("decoder.mid")}
    source = write(tmp_path / "model.safetensors", checkpoint(half))
    bake(source, write(tmp_path / "vae.safetensors", other), tmp_path / "new.safetensors")
    assert same(load_file(tmp_path / "new.safetensors"), checkpoint(other))


def test_what_is_refused_leaves_nothing_behind(tmp_path: Path, own: State, other: State) -> None:
    model, sdxl = write(tmp_path / "model.safetensors", checkpoint(own)), tmp_path / "sdxl.safetensors"
    write(sdxl, UNET | SDXL_TEXT)
    vae, tiny = write(tmp_path / "vae.safetensors", other), write(tmp_path / "tiny.safetensors", taesd_state())
    broken = write(tmp_path / "nan.safetensors", other | {"decoder.conv_out.bias": torch.full((3,), float("nan"))})
    out = tmp_path / "out.safetensors"
    files = sorted(tmp_path.iterdir())
    for action, error in (
        (lambda: bake(sdxl, vae, out), FamilyMismatch),
        (lambda: bake(model, tiny, out), NotAnAutoencoder),
        (lambda: bake(model, broken, out), VaeLabError),
        (lambda: bake(vae, vae, out), NotAnAutoencoder),
        (lambda: strip(vae, out), NotAnAutoencoder),
        (lambda: strip(sdxl, out), NotAnAutoencoder),
        (lambda: extract(sdxl, out), NotAnAutoencoder),
        (lambda: strip(model, model), UnreadableFile),
        (lambda: bake(model, vae, tmp_path / "no such folder" / "out.safetensors"), UnreadableFile),
        (lambda: bake(model, vae, out, cancelled=iter([False] * 9 + [True]).__next__), Cancelled),
    ):
        with pytest.raises(error):
            action()
    assert sorted(tmp_path.iterdir()) == files


def test_a_full_disk_is_reported_before_anything_is_written(
    tmp_path: Path, own: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "model.safetensors", checkpoint(own))
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    with pytest.raises(UnreadableFile, match=r"not enough disk space: 0\.01 GB needed, 0\.00 GB free"):
        extract(source, tmp_path / "out.safetensors")
    assert sorted(tmp_path.iterdir()) == [source]


def test_on_the_command_line(tmp_path: Path, own: State, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = write(tmp_path / "model.safetensors", checkpoint(own)), tmp_path / "vae.safetensors"
    assert main(["extract", str(source), "-o", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert main(["bake", str(source), str(out), "-o", str(tmp_path / "new.safetensors")]) == 0
    assert main(["strip", str(source), "-o", str(out)]) == 2
    assert "already exists" in capsys.readouterr().err
    assert main(["strip", str(source), "-o", str(tmp_path / "x.ckpt")]) == 2
    assert "Choose 'x.safetensors'" in capsys.readouterr().err


SDXL_UNET = UNET | {"model.diffusion_model.label_emb.0.0.weight": torch.zeros(4, 2816)}
X4_UNET = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(8, 7, 3, 3)}
UNKNOWN = {"model.diffusion_model.new_blocks.0.weight": torch.zeros(4, 4)}


def of_shape(**config: object) -> State:
    return kl_state(KLConfig(**{"block_out_channels": (32,) * 4, "layers_per_block": 1, **config}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "vae", "reason"),
    [
        (UNET | SD1_TEXT, of_shape(latent_channels=32, z_channels=32), "32 channels"),
        (UNET | SD1_TEXT, of_shape(block_out_channels=(32,) * 3), "at 1/4 of the size"),
        (SDXL_UNET, load_sample_vae("photo-a"), "is a VAE for SD1"),
        (UNKNOWN, load_sample_vae("photo-a"), "it is not known which VAE"),
        (X4_UNET | SD1_TEXT, of_shape(), "it is not known which VAE"),
        (
            UNKNOWN | prefixed("first_stage_model.", of_shape()),
            of_shape(latent_channels=16, z_channels=16),
            "other latents",
        ),
    ],
)
def test_a_vae_that_does_not_fit_is_refused(tmp_path: Path, model: State, vae: State, reason: str) -> None:
    checkpoint, other = write(tmp_path / "model.safetensors", model), write(tmp_path / "vae.safetensors", vae)
    with pytest.raises(FamilyMismatch, match=reason):
        bake(checkpoint, other, tmp_path / "new.safetensors")
    assert not (tmp_path / "new.safetensors").exists()


def test_a_model_of_unknown_family_gets_a_vae_like_its_own(tmp_path: Path) -> None:
    f4 = of_shape(block_out_channels=(32,) * 3)
    checkpoint = write(tmp_path / "model.safetensors", X4_UNET | SD1_TEXT | prefixed("first_stage_model.", f4))
    bake(checkpoint, write(tmp_path / "vae.safetensors", f4), tmp_path / "new.safetensors")
    with open_vae(tmp_path / "new.safetensors") as file:
        assert file.layout.prefix == "first_stage_model."
