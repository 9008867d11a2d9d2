"""Which VAE decodes, who decides, and which choices persist."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from tests.host.conftest import built_in
from tests.host.webui import WebUI, pasted_override, pixels
from tests.unit.makers import diffusers_names
from vae_lab.errors import HostError, UnknownChoice

pytestmark = pytest.mark.host


@pytest.fixture
def host(webui: WebUI, data_dir: Path) -> Iterator[object]:
    """The adapter, with nothing chosen before and after."""
    from vae_lab.extension import the_host

    preferences = data_dir / "models" / "Stable-diffusion" / "one.json"
    preferences.unlink(missing_ok=True)
    webui.sd_vae.refresh_vae_list()
    yield the_host()
    webui.shared.opts.data["vae_lab_external"] = "Automatic"
    the_host().use_for_checkpoint("Automatic")
    preferences.unlink(missing_ok=True)


@contextmanager
def copied(data_dir: Path, vae: str, to: str) -> Iterator[None]:
    """One more VAE, in its own folder."""
    vaes = data_dir / "models" / "VAE"
    file = vaes / to
    file.parent.mkdir()
    file.write_bytes((vaes / vae).read_bytes())
    try:
        yield
    finally:
        file.unlink()
        file.parent.rmdir()


def test_nothing_chosen(host) -> None:
    decision = host.decision()
    assert (decision.vae, decision.source) == ("Built-in", "host")
    assert decision.path.endswith("one.safetensors")


def test_the_hosts_own_setting(webui: WebUI, host) -> None:
    webui.choose_natively("first.safetensors")
    decision = host.decision()
    assert (decision.vae, decision.source) == ("first.safetensors", "host")
    assert "SD VAE" in decision.reason


def test_for_this_checkpoint(webui: WebUI, host, data_dir: Path) -> None:
    preferences = data_dir / "models" / "Stable-diffusion" / "one.json"
    preferences.write_text(json.dumps({"notes": "mine", "vae": "Automatic"}), encoding="utf8")
    message = host.use_for_checkpoint("second.safetensors")
    assert message.startswith("Saved for one.safetensors. second.safetensors: ")
    assert json.loads(preferences.read_text(encoding="utf8")) == {"notes": "mine", "vae": "second.safetensors"}
    assert host.decision().source == "checkpoint"
    chosen = pixels(webui.generate())[0]
    host.use_for_checkpoint("Automatic")
    assert host.decision().vae == "Built-in"
    webui.choose_natively("second.safetensors")
    assert np.array_equal(chosen, pixels(webui.generate())[0])


def test_for_this_checkpoint_while_something_outranks_it(webui: WebUI, host) -> None:
    webui.choose_natively("first.safetensors")
    message = host.use_for_checkpoint("second.safetensors")
    assert "it has no effect yet. first.safetensors: Settings" in message


def test_always(webui: WebUI, host) -> None:
    assert host.use_always("first.safetensors").startswith("first.safetensors: ")
    assert host.decision().source == "always"
    assert host.decision("second.safetensors").source == "generation"
    ours = webui.generate()
    assert "VAE Lab override: first.safetensors" in ours.info
    saved = json.loads(Path(webui.shared.config_filename).read_text(encoding="utf8"))
    assert saved["vae_lab_external"] == "first.safetensors"
    host.use_always("Automatic")
    assert "VAE Lab" not in webui.generate().info


def test_what_the_webui_itself_cannot_load(webui: WebUI, host, data_dir: Path, small_checkpoint: Path) -> None:
    """The WebUI copies what fits, fails, and can generate no more images. VAE Lab loads such a file."""
    file = data_dir / "models" / "VAE" / "from-diffusers.safetensors"
    own = built_in(small_checkpoint)
    own["decoder.conv_out.weight"] = own["decoder.conv_out.weight"] * 0.8
    levels = 1 + max(int(name.split(".")[2]) for name in own if name.startswith("decoder.up."))
    safetensors.torch.save_file(
        {name: value.contiguous() for name, value in diffusers_names(own, levels).items()}, file
    )
    before, weights = pixels(webui.generate())[0], webui.vae_bytes()
    try:
        with pytest.raises(HostError, match=r"layout that the WebUI itself cannot load \(diffusers.*Use always"):
            host.use_for_checkpoint("from-diffusers.safetensors")
        assert not (data_dir / "models" / "Stable-diffusion" / "one.json").exists()
        assert webui.vae_bytes() == weights
        assert np.array_equal(pixels(webui.generate())[0], before)
        host.use_always("from-diffusers.safetensors")
        assert not np.array_equal(pixels(webui.generate())[0], before)
        host.use_always("Automatic")
    finally:
        file.unlink()


def test_a_pickled_vae_in_a_wrapper(webui: WebUI, host, data_dir: Path) -> None:
    """The usual form of .vae.pt files: ``{"state_dict": …}``, which the WebUI unwraps."""
    folder = data_dir / "models" / "VAE"
    file = folder / "wrapped.vae.pt"
    state = safetensors.torch.load_file(folder / "first.safetensors")
    torch.save({"state_dict": state, "epoch": 1}, file, _use_new_zipfile_serialization=False)
    try:
        assert host.use_for_checkpoint("wrapped.vae.pt").startswith("Saved for one.safetensors. wrapped.vae.pt: ")
        ours = pixels(webui.generate())[0]
        host.use_for_checkpoint("first.safetensors")
        assert np.array_equal(ours, pixels(webui.generate())[0])
    finally:
        host.use_for_checkpoint("Automatic")
        file.unlink()


def test_a_vae_in_a_subfolder_keeps_its_name(webui: WebUI, host, data_dir: Path) -> None:
    """The name under which it and its checkup are listed."""
    with copied(data_dir, "first.safetensors", "sub/third.safetensors"):
        message = host.use_for_checkpoint("sub/third.safetensors")
        assert message.startswith("Saved for one.safetensors. sub/third.safetensors: ")
        assert host.decision().vae == host.chosen("checkpoint") == "sub/third.safetensors"
        host.use_for_checkpoint("Automatic")


@pytest.mark.parametrize("kind", ["frozen", "read-only"])
def test_settings_that_cannot_be_saved(webui: WebUI, host, monkeypatch, kind: str) -> None:
    def fail(_: str) -> None:
        raise PermissionError("config.json is read-only")

    if kind == "frozen":
        monkeypatch.setattr(webui.shared.cmd_opts, "freeze_settings", True)
    else:
        monkeypatch.setattr(webui.shared.opts, "save", fail, raising=False)
    with pytest.raises(HostError, match="does not save this setting"):
        host.use_always("first.safetensors")
    assert host.chosen("always") == "Automatic"


def test_a_file_that_fails_to_load_is_not_chosen(webui: WebUI, host, data_dir: Path, monkeypatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(webui.sd_vae, "reload_vae_weights", fails)
    with pytest.raises(HostError, match=r"could not load first\.safetensors, so it was not chosen: out of memory"):
        host.use_for_checkpoint("first.safetensors")
    monkeypatch.undo()
    assert host.decision().source == "host"


@pytest.mark.parametrize("checkpoint", ["one.safetensors", "without.safetensors"])
def test_a_load_that_fails_half_way_is_repaired(webui: WebUI, host, monkeypatch, checkpoint: str) -> None:
    """Otherwise the WebUI's VAE would be a mixture, and its model without its hooks."""
    webui.select_checkpoint(checkpoint)
    before, weights = pixels(webui.generate())[0], webui.vae_bytes()

    def fails_half_way(model: Any, state: dict[str, Any]) -> None:
        monkeypatch.undo()
        half = {name: value for name, value in state.items() if name.startswith("decoder.up.")}
        model.first_stage_model.load_state_dict(half, strict=False)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(webui.sd_vae, "_load_vae_dict", fails_half_way)
    with pytest.raises(HostError, match=r"could not load first\.safetensors, so it was not chosen: out of memory"):
        host.use_for_checkpoint("first.safetensors")
    assert webui.vae_bytes() == weights
    assert np.array_equal(pixels(webui.generate())[0], before)
    host.use_for_checkpoint("first.safetensors")
    assert host.decision().vae == "first.safetensors"
    assert webui.vae_bytes() != weights
    host.use_for_checkpoint("Automatic")


def test_what_is_not_there(host) -> None:
    with pytest.raises(UnknownChoice, match="no VAE named gone"):
        host.use_always("gone")
    with pytest.raises(UnknownChoice, match=r"found .*first\.safetensors"):
        host.use_for_checkpoint("gone")


def test_same_name_in_two_folders(webui: WebUI, host, data_dir: Path) -> None:
    """The host sees one of them, and not necessarily the intended one."""
    with copied(data_dir, "second.safetensors", "other/first.safetensors"):
        host.refresh()
        names = [entry.name for entry in host.vaes()]
        assert {"first.safetensors", "other/first.safetensors"} <= set(names)
        ours = pixels(webui.generate(lab={"override": "other/first.safetensors"}))[0]
        assert np.array_equal(ours, pixels(webui.generate(lab={"override": "second.safetensors"}))[0])
        problems = []
        for name in ("first.safetensors", "other/first.safetensors"):
            try:
                host.use_for_checkpoint(name)
            except HostError as error:
                problems.append(str(error))
        assert len(problems) == 1
        assert "rename one" in problems[0]


def test_paste_finds_a_renamed_file_by_its_weights(webui: WebUI, data_dir: Path) -> None:
    from modules.infotext_utils import parse_generation_parameters

    info = webui.generate(lab={"override": "first.safetensors"}).info
    folder = data_dir / "models" / "VAE"
    (folder / "first.safetensors").rename(folder / "renamed.safetensors")
    try:
        from modules import script_callbacks

        from vae_lab.extension import the_host

        the_host().identify()
        parameters = parse_generation_parameters(info)
        script_callbacks.infotext_pasted_callback(info, parameters)
        assert "VAE" not in parameters, "one VAE, chosen once"
        assert pasted_override(parameters) == "renamed.safetensors"
        assert pasted_override({}) == "Automatic"
    finally:
        (folder / "renamed.safetensors").rename(folder / "first.safetensors")
