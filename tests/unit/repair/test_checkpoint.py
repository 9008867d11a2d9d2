"""VAEs extracted from and baked into checkpoints: contents of the new files, without loss."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from tests.unit.makers import CONTAINERS, SD1_TEXT, SDXL_TEXT, UNET, prefixed, taesd_state, write
from vae_lab import bake, extract, inspect_file, strip
from vae_lab.cli import main
from vae_lab.errors import Cancelled, FamilyMismatch, NotAnAutoencoder, UnreadableFile, VaeLabError
from vae_lab.repair import checkpoint as baking
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
    monkeypatch.setattr(baking.shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
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
