"""The stand-alone host meets the host contract; and its own features."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from tests.contract.suite import Case, HostContract
from tests.unit.makers import F8, kl_state, write
from vae_lab.errors import FamilyMismatch, HostError, UnknownChoice
from vae_lab.formats.source import LocalFile
from vae_lab.host.choices import AUTOMATIC, BUILT_IN
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.latents import Generation, save_latents
from vae_lab.latents.family import FAMILIES
from vae_lab.samples import SampleSet, load_sample_latents


def put(target: Path, source: Path) -> Path:
    """``source`` under another name; without copying where the system can."""
    target.parent.mkdir(parents=True, exist_ok=True)
    os.link(source, target)
    return target


def keep_latents(folder: Path, name: str = "cat", batch: int = 2) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    crop = load_sample_latents()[name][:, :, 16:24, 16:24]
    latents = torch.cat([crop * (1 - i / 10) for i in range(batch)])
    save_latents(Generation("g", latents, FAMILIES["sd1"], title=name), folder / f"{name}.safetensors")
    return folder / f"{name}.safetensors"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, sample_set: SampleSet) -> Path:
    """The sample set with small latents, a broken VAE, and two VAEs of one basename."""
    folder = tmp_path_factory.mktemp("contract") / "models"
    put(folder / "Stable-diffusion" / "healthy.safetensors", sample_set.healthy)
    put(folder / "Stable-diffusion" / "no-vae.safetensors", sample_set.no_vae)
    put(folder / "VAE" / "sharp.safetensors", sample_set.sharp)
    put(folder / "VAE" / "mine" / "same.ckpt", sample_set.photo_b)
    put(folder / "VAE" / "yours" / "same.ckpt", sample_set.anime)
    put(folder / "VAE" / "xl.safetensors", sample_set.sdxl)
    (folder / "VAE" / "broken.safetensors").write_bytes(b"not a VAE at all")
    keep_latents(folder / "latents")
    return folder


class TestStandalone(HostContract):
    @pytest.fixture
    def case(self, models: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
        opened: list[str] = []

        def counting(file: LocalFile, path: str, original=LocalFile.__init__) -> None:
            opened.append(path)
            original(file, path)

        monkeypatch.setattr(LocalFile, "__init__", counting)
        folders = Folders.of_models(models)
        host = StandaloneHost(folders)
        return Case(
            host=host,
            reopened=lambda: StandaloneHost(folders),
            generation=host.generations.newest_first()[0].id,
            usable=("mine/same.ckpt", "yours/same.ckpt"),
            refused={"xl.safetensors": "SDXL", "broken.safetensors": "broken.safetensors"},
            families={
                "mine/same.ckpt": "sd1",
                "yours/same.ckpt": "sd1",
                "xl.safetensors": "sdxl",
                "broken.safetensors": None,
            },
            reads=lambda: len(opened),
        )


# --- beyond the contract ---------------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Empty folders."""
    return Folders.of_models(tmp_path / "models")


def weights(path: Path) -> Path:
    """A file that is only a weight file by its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_folders_that_are_not_there(folders: Folders) -> None:
    host = StandaloneHost(folders)
    assert (host.vaes(), host.checkpoints(), host.current_checkpoint()) == ([], [], "")
    assert host.generations.newest_first() == []
    assert host.decision().vae == BUILT_IN
    assert host.decision().path == ""
    assert str(folders.latents[0]) in host.how_to_begin
    with pytest.raises(HostError, match="no checkpoint to choose a VAE for"):
        host.use_for_checkpoint(BUILT_IN)


def test_comparison_without_any_checkpoint(folders: Folders) -> None:
    keep_latents(folders.latents[0])
    host = StandaloneHost(folders)
    comparison = host.compare(host.generations.newest_first()[0].id, [])
    assert comparison[BUILT_IN].error == "there is no checkpoint"


def test_checkpoint_without_vae_has_no_built_in(models: Path, tmp_path: Path) -> None:
    host = StandaloneHost(Folders.of_models(models, data=tmp_path))
    host.select_checkpoint("no-vae.safetensors")
    comparison = host.compare(host.generations.newest_first()[0].id, ["sharp.safetensors"])
    assert "a checkpoint without a VAE" in comparison[BUILT_IN].error
    assert comparison["sharp.safetensors"].images is not None


def test_checkpoint_is_selected_to_stay(models: Path, tmp_path: Path) -> None:
    folders = Folders.of_models(models, data=tmp_path)
    StandaloneHost(folders).select_checkpoint("no-vae.safetensors")
    host = StandaloneHost(folders)
    assert host.current_checkpoint() == "no-vae.safetensors"
    with pytest.raises(UnknownChoice, match=r"no checkpoint named gone; available: healthy\.safetensors, no-vae"):
        host.select_checkpoint("gone")


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("why", ["No space left on device", "File exists"])
def test_choices_that_cannot_be_saved_hold_until_the_end(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    folders = Folders.of_models(models, data=tmp_path / "data")
    host = StandaloneHost(folders)
    if why == "File exists":
        shutil.rmtree(folders.data)
        folders.data.write_bytes(b"")
    else:
        monkeypatch.setattr(Path, "replace", full_disk)
    said = [
        host.select_checkpoint("no-vae.safetensors"),
        host.use_for_checkpoint(BUILT_IN),
        host.use_always("sharp.safetensors"),
    ]
    file = folders.data / "choices.json"
    assert all(line.endswith(f"until VAE Lab is closed: {file}: {why}.") for line in said)
    assert host.current_checkpoint() == "no-vae.safetensors"
    assert (host.chosen("always"), host.chosen("checkpoint")) == ("sharp.safetensors", BUILT_IN)
    assert host.decision().vae == "sharp.safetensors"
    assert not list(tmp_path.rglob("choices.json*"))


def test_a_folder_that_cannot_be_entered_is_skipped(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, original=Path.stat, **options: bool) -> os.stat_result:
        if "mine" in path.parts:
            raise PermissionError(errno.EACCES, "Permission denied")
        return original(path, **options)

    monkeypatch.setattr(Path, "stat", refuse)
    host = StandaloneHost(Folders.of_models(models, data=tmp_path))
    names = [entry.name for entry in host.vaes()]
    assert "yours/same.ckpt" in names
    assert "mine/same.ckpt" not in names


def test_a_chosen_vae_that_does_not_fit_is_not_active(models: Path, tmp_path: Path) -> None:
    """It was chosen for every checkpoint, when one of another family was in use."""
    host = StandaloneHost(Folders.of_models(models, data=tmp_path))
    (tmp_path / "choices.json").write_text(
        json.dumps({"checkpoint": "healthy.safetensors", "always": "xl.safetensors", "per_checkpoint": {}})
    )
    before, host = host, StandaloneHost(Folders.of_models(models, data=tmp_path))
    decision = host.decision()
    assert (decision.vae, decision.source, decision.path) == (BUILT_IN, "host", before.decision().path)
    assert decision.reason == (
        "Built-in: no other VAE is chosen. This choice is refused: xl.safetensors: chosen for every checkpoint. "
        "The reason is: xl.safetensors is a VAE for SDXL, healthy.safetensors is SD1 / SD2."
    )
    assert host.decision("sharp.safetensors").vae == "sharp.safetensors"
    assert host.decision("broken.safetensors").vae == BUILT_IN


def test_choice_is_only_for_its_checkpoint(models: Path, tmp_path: Path) -> None:
    host = StandaloneHost(Folders.of_models(models, data=tmp_path))
    host.use_for_checkpoint("sharp.safetensors")
    host.select_checkpoint("no-vae.safetensors")
    assert host.decision().vae == BUILT_IN
    host.select_checkpoint("healthy.safetensors")
    assert host.decision().vae == "sharp.safetensors"


def test_vaes_next_to_checkpoints_are_vaes(folders: Folders) -> None:
    """``NAME.vae.EXT`` among the checkpoints: where the WebUI's users keep the VAE that belongs to a checkpoint."""
    for name in ("anything.ckpt", "anything.vae.pt", "sub/other.VAE.safetensors"):
        weights(folders.checkpoints[0] / name)
    host = StandaloneHost(folders)
    assert host.checkpoints() == ["anything.ckpt"]
    assert [entry.name for entry in host.vaes()] == ["anything.vae.pt", "sub/other.VAE.safetensors"]
    assert host.vae_file("anything.vae.pt") == folders.checkpoints[0] / "anything.vae.pt"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"checkpoint": 1}', '{"checkpoint": "", "always": "x", "per_checkpoint": 5}']
)
def test_damaged_choices_are_no_choices(folders: Folders, text: str) -> None:
    folders.data.mkdir(parents=True)
    (folders.data / "choices.json").write_text(text)
    assert StandaloneHost(folders).decision().source == "host"


def test_chosen_vae_that_was_deleted(folders: Folders, sample_set: SampleSet) -> None:
    """The page must still open, and report what is missing."""
    weights(folders.checkpoints[0] / "c.safetensors")
    path = folders.vaes[0] / "mine.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(sample_set.sharp, path)
    host = StandaloneHost(folders)
    host.use_always("mine.safetensors")
    path.unlink()
    for instance in (host, StandaloneHost(folders)):
        assert "mine.safetensors" in instance.decision().reason
        assert "missing" in instance.decision().reason
    assert host.use_always(AUTOMATIC)
    assert host.decision().vae == BUILT_IN


def test_choices_are_readable_by_people(folders: Folders, sample_set: SampleSet) -> None:
    weights(folders.checkpoints[0] / "c.safetensors")
    folders.vaes[0].mkdir(parents=True, exist_ok=True)
    shutil.copy(sample_set.sharp, folders.vaes[0] / "动漫.safetensors")
    StandaloneHost(folders).use_for_checkpoint("动漫.safetensors")
    text = (folders.data / "choices.json").read_text(encoding="utf8")
    assert json.loads(text)["per_checkpoint"] == {"c.safetensors": "动漫.safetensors"}


def test_latents_are_listed_by_name(folders: Folders) -> None:
    for name in ("cat", "astronaut", "mountains"):
        keep_latents(folders.latents[0], name)
    titles = [generation.title for generation in StandaloneHost(folders).generations.newest_first()]
    assert titles == ["astronaut", "cat", "mountains"]


def test_refresh_finds_new_and_changed_latents(folders: Folders) -> None:
    path = keep_latents(folders.latents[0])
    host = StandaloneHost(folders)
    host.refresh()
    assert len(host.generations.newest_first()) == 1, "nothing new, nothing twice"
    keep_latents(folders.latents[0], "astronaut")
    host.refresh()
    assert {generation.title for generation in host.generations.newest_first()} == {"cat", "astronaut"}
    stat = path.stat()
    keep_latents(folders.latents[0], batch=3)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
    host.refresh()
    assert host.generations.newest_first()[0].latents.shape[0] == 3


def test_bad_latents_are_named_and_the_others_loaded(folders: Folders) -> None:
    keep_latents(folders.latents[0])
    (folders.latents[0] / "bad.safetensors").write_bytes(b"not latents")
    host = StandaloneHost(folders)
    assert [generation.title for generation in host.generations.newest_first()] == ["cat"]
    (problem,) = host.refresh()
    assert "bad.safetensors" in problem
    assert host.refresh() == [], "reported once"


def test_taesd_of_the_webuis_folder_is_offered(folders: Folders) -> None:
    weights(folders.vaes[1] / "taesd_decoder.safetensors")
    assert [entry.name for entry in StandaloneHost(folders).vaes()] == ["taesd_decoder.safetensors"]


def test_vae_of_unknown_family_is_taken_to_be_the_checkpoints(models: Path, tmp_path: Path) -> None:
    """Weights of unknown family, such as random ones, can still encode."""
    (tmp_path / "VAE").mkdir()
    unknown = write(tmp_path / "VAE" / "unknown.safetensors", kl_state(F8))
    folders = Folders(tmp_path / "data", (models / "Stable-diffusion",), (unknown.parent,))
    host = StandaloneHost(folders)
    image = torch.rand(1, 3, 16, 16)
    with pytest.raises(FamilyMismatch, match="could not be determined"):
        host.encode(image, "unknown.safetensors")
    host.inspect(BUILT_IN)  # now the checkpoint's own family is known
    latent, family = host.encode(image, "unknown.safetensors")
    assert (family.id, list(latent.shape)) == ("sd1", [1, 4, 2, 2])
    (_, result) = host.round_trip(image, ["unknown.safetensors"])
    assert result.error == ""
