"""The stand-alone app over a WebUI's models: a choice for a checkpoint is the WebUI's own preference."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.makers import F8, SD1_TEXT, UNET, kl_state, prefixed, write
from vae_lab.host.choices import AUTOMATIC, BUILT_IN
from vae_lab.host.standalone import Folders, StandaloneHost


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A checkpoint, and VAEs of which two have one file name."""
    for folder in ("Stable-diffusion", "VAE/a", "VAE/b"):
        (tmp_path / "models" / folder).mkdir(parents=True)
    state = UNET | SD1_TEXT | prefixed("first_stage_model.", kl_state(F8))
    write(tmp_path / "models" / "Stable-diffusion" / "c.safetensors", state)
    for name in ("mine.safetensors", "a/same.safetensors", "b/same.safetensors"):
        write(tmp_path / "models" / "VAE" / name, kl_state(F8, len(name)))
    return tmp_path / "models"


def host_of(models: Path) -> StandaloneHost:
    return StandaloneHost(Folders.of_models(models, models.parent / "data", webui=True))


def stored(models: Path) -> dict[str, object]:
    return json.loads((models / "Stable-diffusion" / "c.json").read_text(encoding="utf8"))


@pytest.mark.parametrize(
    ("vae", "native"), [("mine.safetensors", "mine.safetensors"), (BUILT_IN, "None"), (AUTOMATIC, "Automatic")]
)
def test_a_choice_is_written_where_the_webui_reads_it(models: Path, vae: str, native: str) -> None:
    (models / "Stable-diffusion" / "c.json").write_text('{"description": "猫", "vae": "x.pt"}', encoding="utf8")
    said = host_of(models).use_for_checkpoint(vae)
    assert stored(models) == {"description": "猫", "vae": native}
    assert said.endswith("Saved in c.json, where the WebUI reads it.")
    assert host_of(models).chosen("checkpoint") == vae, "another start of the app reads it as well"


def test_what_the_webui_has_saved_is_the_choice(models: Path) -> None:
    (models / "Stable-diffusion" / "c.json").write_text('{"vae": "mine.safetensors"}')
    decision = host_of(models).decision()
    assert (decision.vae, decision.source) == ("mine.safetensors", "checkpoint")


@pytest.mark.parametrize("text", ["", "[]", '{"vae": 5}', '{"vae": null}', "\x00", '{"vae": ""}'])
def test_a_file_that_says_nothing_is_no_choice(models: Path, text: str) -> None:
    (models / "Stable-diffusion" / "c.json").write_text(text)
    assert host_of(models).chosen("checkpoint") == AUTOMATIC


def test_a_name_that_the_webui_cannot_tell_apart(models: Path) -> None:
    host = host_of(models)
    said = host.use_for_checkpoint("a/same.safetensors")
    assert "A WebUI does not learn of this choice" in said
    assert "several are called same.safetensors" in said
    assert not (models / "Stable-diffusion" / "c.json").exists()
    assert host_of(models).chosen("checkpoint") == "a/same.safetensors", "VAE Lab itself keeps it"


def test_a_file_of_another_program_is_not_overwritten(models: Path) -> None:
    (models / "Stable-diffusion" / "c.json").write_text("[1, 2]")
    said = host_of(models).use_for_checkpoint("mine.safetensors")
    assert "is not a JSON object" in said
    assert (models / "Stable-diffusion" / "c.json").read_text() == "[1, 2]"
    assert host_of(models).chosen("checkpoint") == "mine.safetensors"


def test_a_webuis_settings_cannot_be_changed_from_outside(models: Path) -> None:
    assert not host_of(models).choices_reach_all
    assert StandaloneHost(Folders.of_models(models, models.parent / "data")).choices_reach_all


def test_an_older_choice_for_every_checkpoint_does_not_decide(models: Path) -> None:
    """It could not be taken back in the app."""
    StandaloneHost(Folders.of_models(models, models.parent / "data")).use_always("mine.safetensors")
    assert host_of(models).decision().vae == BUILT_IN
