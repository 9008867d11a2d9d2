"""What VAE Lab writes, loaded by the WebUI: files that it extracts and bakes, and infotexts that it adds to."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from tests.host.webui import WebUI, pasted_override, pixels
from tests.unit.makers import diffusers_names
from vae_lab.errors import FamilyMismatch, HostError
from vae_lab.host.infotext import with_override
from vae_lab.repair import bake, extract

pytestmark = pytest.mark.host

State = dict[str, Tensor]


def _diffusers(state: State, folder: Path) -> Path:
    path = folder / "donor.safetensors"
    safetensors.torch.save_file({n: t.contiguous() for n, t in diffusers_names(state, 4).items()}, path)
    return path


def _fp32(state: State, folder: Path) -> Path:
    path = folder / "donor.safetensors"
    safetensors.torch.save_file({name: tensor.float() for name, tensor in state.items()}, path)
    return path


def _pickle(state: State, folder: Path) -> Path:
    torch.save({"state_dict": state}, folder / "donor.ckpt")
    return folder / "donor.ckpt"


def _built_in(state: State, folder: Path) -> Path:
    path = folder / "donor.safetensors"
    unet = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(8, 4, 3, 3)}
    safetensors.torch.save_file({f"first_stage_model.{n}": t for n, t in state.items()} | unet, path)
    return path


DONORS = {"diffusers": _diffusers, "fp32": _fp32, "pickle": _pickle, "built into a checkpoint": _built_in}


@pytest.mark.parametrize("donor", DONORS.values(), ids=DONORS)
@pytest.mark.parametrize("checkpoint", ["one", "without"])
def test_a_baked_file_gives_the_image_of_the_vae_chosen_natively(
    webui: WebUI, data_dir: Path, tmp_path: Path, donor: Callable[[State, Path], Path], checkpoint: str
) -> None:
    models = data_dir / "models" / "Stable-diffusion"
    state = safetensors.torch.load_file(data_dir / "models" / "VAE" / "first.safetensors")
    webui.choose_natively("first.safetensors")
    expected = pixels(webui.generate())[0]
    webui.choose_natively("Automatic")
    baked = models / "baked.safetensors"
    config = models / f"{checkpoint}.yaml"
    try:
        try:
            bake(models / f"{checkpoint}.safetensors", donor(state, tmp_path), baked)
        except FamilyMismatch:
            if checkpoint == "one":
                raise
            pytest.skip("the small checkpoint's model is of no known family, so nothing says which VAE fits")
        if config.exists():
            shutil.copy(config, baked.with_suffix(".yaml"))
        webui.sd_models.list_models()
        webui.select_checkpoint("baked.safetensors")
        assert np.array_equal(pixels(webui.generate())[0], expected)
    finally:
        baked.unlink(missing_ok=True)
        baked.with_suffix(".yaml").unlink(missing_ok=True)
        webui.sd_models.list_models()
        webui.select_checkpoint("one.safetensors")


def test_an_extracted_file_gives_the_image_of_the_built_in_vae(webui: WebUI, data_dir: Path) -> None:
    extracted = data_dir / "models" / "VAE" / "extracted.safetensors"
    webui.choose_natively("Automatic")
    expected = pixels(webui.generate())[0]
    try:
        extract(data_dir / "models" / "Stable-diffusion" / "one.safetensors", extracted)
        webui.sd_vae.refresh_vae_list()
        webui.choose_natively("extracted.safetensors")
        assert np.array_equal(pixels(webui.generate())[0], expected)
    finally:
        webui.choose_natively("Automatic")
        extracted.unlink(missing_ok=True)
        webui.sd_vae.refresh_vae_list()


FORMS = {
    "as usual": "a cat\nNegative prompt: dog\n{line}",
    "a negative prompt last": "a cat\n{line}\nNegative prompt: dog",
    "lines of a template": "a cat\n{line}\nTemplate: a {{cat|dog}}\nNegative Template: x",
    "a trailing line break": "a cat\n{line}\n",
    "a colon in the prompt": "style: a cat, mood: dark\n{line}",
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_what_was_added_to_an_infotext_is_the_choice_when_it_is_pasted(webui: WebUI, form: str) -> None:
    from modules import script_callbacks
    from modules.infotext_utils import parse_generation_parameters

    line = "Steps: 1, Sampler: Euler, CFG scale: 7.0, Seed: 1, Size: 64x64, VAE: old.pt, VAE hash: 0123456789"
    before = form.format(line=line)
    text = with_override(before, "first.safetensors", "")
    parameters = parse_generation_parameters(text)
    for key, value in parse_generation_parameters(before).items():
        if key in ("Steps", "Seed", "Size-1"):
            assert parameters[key] == value
    script_callbacks.infotext_pasted_callback(text, parameters)
    assert "VAE" not in parameters, "one VAE, chosen once"
    assert pasted_override(parameters) == "first.safetensors"


def test_a_vae_that_arrives_while_the_webui_runs(webui: WebUI, data_dir: Path) -> None:
    from vae_lab.extension import the_host

    vaes = data_dir / "models" / "VAE"
    arrived = vaes / "arrived.safetensors"
    expected = pixels(webui.generate(lab={"override": "second.safetensors"}))[0]
    shutil.copy(vaes / "second.safetensors", arrived)
    try:
        the_host().refresh()
        assert arrived.name in {entry.name for entry in the_host().vaes()}
        assert np.array_equal(pixels(webui.generate(lab={"override": arrived.name}))[0], expected)
    finally:
        arrived.unlink()
        the_host().refresh()


def test_a_checkpoint_that_arrives_while_the_webui_runs(webui: WebUI, data_dir: Path) -> None:
    from vae_lab.extension import the_host

    models = data_dir / "models" / "Stable-diffusion"
    arrived = models / "arrived.safetensors"
    shutil.copy(models / "two.safetensors", arrived)
    try:
        the_host().refresh()
        assert arrived.name in the_host().checkpoints()
        assert webui.sd_models.get_closet_checkpoint_match(arrived.name) is not None
    finally:
        arrived.unlink()
        webui.sd_models.list_models()
    the_host().refresh()
    assert arrived.name not in the_host().checkpoints()


def test_a_preference_that_cannot_be_written_changes_nothing(
    webui: WebUI, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a read-only folder, which root could write to."""
    from vae_lab.extension import the_host

    preference = data_dir / "models" / "Stable-diffusion" / "one.json"
    preference.unlink(missing_ok=True)
    before = the_host().decision()
    opens = Path.open

    def read_only(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        if path.parent == preference.parent and "x" in mode:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opens(path, mode, *args, **options)

    monkeypatch.setattr(Path, "open", read_only)
    with pytest.raises(HostError, match="the preference could not be written to .*one.json: Permission denied"):
        the_host().use_for_checkpoint("first.safetensors")
    assert the_host().decision() == before
    assert not preference.exists()
    webui.generate()
