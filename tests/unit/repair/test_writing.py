"""What the writers write: every tensor, enough precision, under a name that hosts read, compared after writing."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.unit.makers import (
    CONTAINERS,
    F2,
    F8,
    SD1_TEXT,
    UNET,
    diffusers_names,
    kl_state,
    prefixed,
    taesd_state,
    write,
    write_zip,
)
from vae_lab.autoencoders.kl import KLConfig
from vae_lab.errors import FamilyMismatch, MalformedFile, UnreadableFile, VaeLabError
from vae_lab.library import inspect_file
from vae_lab.new_file import new_file
from vae_lab.repair import bake, extract, strip, writing
from vae_lab.samples import build_sample_set, load_sample_vae

State = dict[str, Tensor]
PREFIX = "first_stage_model."
SD1 = UNET | SD1_TEXT
FLUX2 = {
    "model.diffusion_model.double_stream_modulation_img.lin.weight": torch.zeros(4, 4),
    "model.diffusion_model.double_blocks.0.img_attn.qkv.weight": torch.zeros(4, 4),
    "model.diffusion_model.img_in.weight": torch.zeros(4, 128),
}
FLUX2_VAE = kl_state(KLConfig((32,) * 4, 1, latent_channels=32, z_channels=32))
STATISTICS = {
    "bn.running_mean": torch.rand(128),
    "bn.running_var": torch.rand(128),
    "bn.num_batches_tracked": torch.tensor(7),
}
LEFTOVERS = {"loss.logvar": torch.zeros(1), "model_ema.decay": torch.tensor(0.9)}


@pytest.fixture(scope="module")
def sample() -> State:
    return load_sample_vae("photo-a")


def equal(found: State, wanted: State) -> bool:
    return found.keys() == wanted.keys() and all(
        found[name].dtype == wanted[name].dtype and torch.equal(found[name], wanted[name]) for name in wanted
    )


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- every tensor ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("prefix", ["", PREFIX])
def test_tensors_of_no_known_architecture_are_extracted_too(tmp_path: Path, container: str, prefix: str) -> None:
    """The statistics of Flux.2's latents: without them the VAE makes other latents."""
    model = UNET if prefix else {}
    path = CONTAINERS[container](tmp_path / "in", model | prefixed(prefix, FLUX2_VAE | STATISTICS | LEFTOVERS))
    extract(path, tmp_path / "out.safetensors")
    assert equal(load_file(tmp_path / "out.safetensors"), FLUX2_VAE | STATISTICS)


def test_of_two_tensors_for_one_name_none_is_chosen(tmp_path: Path) -> None:
    """Half converted: some weights are there with both names, others with one."""
    ldm, diffusers = kl_state(F8), diffusers_names(kl_state(F8, seed=1), 4)
    both = {name: value for name, value in ldm.items() if not name.startswith("encoder.mid.block_1.")}
    both |= {name: value for name, value in diffusers.items() if name.startswith("encoder.mid_block.")}
    both |= {name: value for name, value in diffusers.items() if name.startswith("encoder.down_blocks.")}
    with pytest.raises(MalformedFile, match="not clear which"):
        extract(write(tmp_path / "vae.safetensors", both), tmp_path / "out.safetensors")


def test_what_belongs_to_taesd_is_extracted_too(tmp_path: Path) -> None:
    tiny = taesd_state() | {"vae_scale": torch.tensor(1.0)}
    extract(write(tmp_path / "in.safetensors", tiny), tmp_path / "out.safetensors")
    assert equal(load_file(tmp_path / "out.safetensors"), tiny)


def test_flux2_gets_a_vae_with_its_statistics_only(tmp_path: Path) -> None:
    path = write(tmp_path / "model.safetensors", FLUX2 | prefixed("vae.", FLUX2_VAE | STATISTICS))
    whole = write(tmp_path / "whole.safetensors", FLUX2_VAE | STATISTICS)
    bake(path, whole, tmp_path / "out.safetensors")
    assert equal(load_file(tmp_path / "out.safetensors"), load_file(path))
    with pytest.raises(FamilyMismatch, match=r"bn\.num_batches_tracked"):
        bake(path, write(tmp_path / "bare.safetensors", FLUX2_VAE), tmp_path / "new.safetensors")


def test_an_sd1_model_gets_no_vae_with_unknown_tensors(tmp_path: Path, sample: State) -> None:
    vae = write(tmp_path / "vae.safetensors", sample | STATISTICS)
    with pytest.raises(FamilyMismatch, match=r"'bn\.num_batches_tracked' \(and 2 more\)"):
        bake(write(tmp_path / "model.safetensors", SD1), vae, tmp_path / "out.safetensors")


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(
    "copies",
    [
        ["first_stage_model.", "vae.", ""],
        ["first_stage_model.", "autoencoder."],
        [""],
        ["vae.", "module.first_stage_model."],
    ],
)
def test_strip_removes_every_copy(tmp_path: Path, container: str, copies: list[str]) -> None:
    """But not an image encoder that is part of the model's conditioning, nor a text encoder."""
    kept = SD1 | {
        "conditioner.embedders.3.encoder.encoder.conv_in.weight": torch.ones(32, 3, 3, 3),
        "encoder.block.0.layer.0.SelfAttention.q.weight": torch.ones(2, 2),
    }
    state = dict(kept)
    for number, prefix in enumerate(copies):
        names = diffusers_names(kl_state(F8), 4) if number == 1 else kl_state(F8)
        state |= prefixed(prefix, names)
    strip(CONTAINERS[container](tmp_path / "in", state), tmp_path / "out.safetensors")
    assert equal(load_file(tmp_path / "out.safetensors"), kept)


def test_strip_removes_a_half_and_an_incomplete_copy(tmp_path: Path) -> None:
    decoder = {name: value for name, value in kl_state(F8).items() if name.startswith("decoder.")}
    middle = {name: value for name, value in kl_state(F8).items() if ".mid." in name}
    path = write(tmp_path / "in.safetensors", SD1 | decoder | prefixed(PREFIX, middle))
    strip(path, tmp_path / "out.safetensors")
    assert equal(load_file(tmp_path / "out.safetensors"), SD1)


def test_bake_leaves_one_copy(tmp_path: Path, sample: State) -> None:
    copies = {prefix + name: value.clone() for prefix in (PREFIX, "vae.", "") for name, value in sample.items()}
    path = write(tmp_path / "in.safetensors", SD1 | copies)
    bake(path, write(tmp_path / "vae.safetensors", sample), tmp_path / "out.safetensors")
    assert equal(load_file(tmp_path / "out.safetensors"), SD1 | prefixed(PREFIX, sample))


# --- precision ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8])
def test_a_vae_is_never_cut_below_fp16(tmp_path: Path, sample: State, dtype: torch.dtype) -> None:
    own = {name: value.to(dtype) for name, value in sample.items()}
    path = write(tmp_path / "model.safetensors", SD1 | prefixed(PREFIX, own))
    vae = write(tmp_path / "vae.safetensors", {name: value.float() for name, value in sample.items()})
    bake(path, vae, tmp_path / "out.safetensors")
    assert equal(load_file(tmp_path / "out.safetensors"), SD1 | prefixed(PREFIX, sample))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float8_e4m3fn])
def test_values_that_overflow_are_refused(tmp_path: Path, sample: State, dtype: torch.dtype) -> None:
    wide = {name: value.float() for name, value in sample.items()}
    wide["decoder.norm_out.bias"][0] = 1e5
    path = write(tmp_path / "in.safetensors", SD1 | prefixed(PREFIX, {n: v.to(dtype) for n, v in sample.items()}))
    with pytest.raises(VaeLabError, match=r"decoder\.norm_out\.bias.* up to 1e\+05.*float16"):
        bake(path, write(tmp_path / "vae.safetensors", wide), tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()
    bare = write(tmp_path / "bare.safetensors", SD1)
    bake(bare, tmp_path / "vae.safetensors", tmp_path / "out.safetensors")
    assert equal(load_file(tmp_path / "out.safetensors"), SD1 | prefixed(PREFIX, wide))


# --- the new file ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.ckpt", "x.pt", "x.vae.pt", "x.bin", "x"])
def test_a_name_that_hosts_read_as_a_pickle_is_refused(tmp_path: Path, name: str) -> None:
    vae, model = write(tmp_path / "vae.safetensors", kl_state(F8)), tmp_path / "model.safetensors"
    write(model, SD1 | prefixed(PREFIX, kl_state(F8)))
    for action in (
        lambda: extract(vae, tmp_path / name),
        lambda: strip(model, tmp_path / name),
        lambda: bake(model, model, tmp_path / name),
    ):
        with pytest.raises(UnreadableFile, match=rf"{name}: the new file is a safetensors file.*\.safetensors"):
            action()
    assert names_in(tmp_path) == ["model.safetensors", "vae.safetensors"]


def test_a_type_that_safetensors_does_not_have_is_refused(tmp_path: Path) -> None:
    state = SD1 | prefixed(PREFIX, kl_state(F8)) | {"model.diffusion_model.odd": torch.zeros(2, dtype=torch.complex128)}
    with pytest.raises(MalformedFile, match="model.diffusion_model.odd"):
        strip(write_zip(tmp_path / "model.ckpt", state), tmp_path / "out.safetensors")
    assert names_in(tmp_path) == ["model.ckpt"]


def test_another_programs_unfinished_file_is_not_touched(tmp_path: Path) -> None:
    part = tmp_path / "out.safetensors.part"
    part.write_text("a download")
    extract(write(tmp_path / "vae.safetensors", kl_state(F2)), tmp_path / "out.safetensors")
    assert part.read_text() == "a download"


def test_a_file_that_appears_meanwhile_stays(tmp_path: Path) -> None:
    """Two writers with one output: the second one changes nothing, and says so."""
    vae, out = write(tmp_path / "vae.safetensors", kl_state(F2)), tmp_path / "out.safetensors"

    def other_writer(done: int, total: int, _: str) -> None:
        if done and not out.exists():
            extract(vae, out)
            mine.append(out.stat().st_ino)

    mine: list[int] = []
    with pytest.raises(UnreadableFile, match=r"out\.safetensors: already exists; nothing was written"):
        extract(vae, out, progress=other_writer)
    assert [out.stat().st_ino] == mine
    assert names_in(tmp_path) == ["out.safetensors", "vae.safetensors"]


@pytest.mark.skipif(os.name == "nt", reason="links need a permission there")
def test_the_samples_follow_no_link(tmp_path: Path) -> None:
    mine = write(tmp_path / "mine.safetensors", kl_state(F2))
    content = mine.read_bytes()
    for name in ("healthy.safetensors", "healthy.safetensors.part"):
        (tmp_path / "models" / "Stable-diffusion").mkdir(parents=True, exist_ok=True)
        (tmp_path / "models" / "Stable-diffusion" / name).symlink_to(mine)
    build_sample_set(tmp_path / "models")
    assert mine.read_bytes() == content


def test_what_was_not_written_as_it_should_be_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A faulty disk: a byte of the last tensor is another one."""
    vae = write(tmp_path / "vae.safetensors", kl_state(F2))

    class Faulty(io.FileIO):
        def write(self, data: memoryview) -> int:  # type: ignore[override]
            done = self.tell() + len(data)
            return super().write(data if done < vae.stat().st_size - 99 else bytes(data[:-1]) + bytes([data[-1] ^ 1]))

    @contextmanager
    def damaged(target: Path) -> Iterator[Faulty]:
        with new_file(target) as file, Faulty(file.name, "r+b") as faulty:
            yield faulty

    monkeypatch.setattr(writing, "new_file", damaged)
    with pytest.raises(UnreadableFile, match=r"out\.safetensors: was not read back as it should be \(tensor "):
        extract(vae, tmp_path / "out.safetensors")
    assert names_in(tmp_path) == ["vae.safetensors"]


def test_the_result_is_what_the_checkup_reads(tmp_path: Path, sample: State) -> None:
    path = write(tmp_path / "model.safetensors", SD1)
    bake(path, write(tmp_path / "vae.safetensors", sample), tmp_path / "out.safetensors")
    assert inspect_file(tmp_path / "out.safetensors").verdict.status == "healthy"
