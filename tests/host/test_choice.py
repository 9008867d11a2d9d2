"""Which VAE decodes, who says so, and what sticks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.host.webui import WebUI, pixels
from vae_lab.errors import HostError, UnknownChoice

pytestmark = pytest.mark.host


@pytest.fixture
def host(webui: WebUI, data_dir: Path) -> Iterator[object]:
    """The adapter, with nothing chosen before and after."""
    from vae_lab.host.extension import the_host

    preferences = data_dir / "models" / "Stable-diffusion" / "one.json"
    preferences.unlink(missing_ok=True)
    webui.sd_vae.refresh_vae_list()
    yield the_host()
    webui.shared.opts.data["vae_lab_external"] = "Automatic"
    the_host().use_for_checkpoint("Automatic")
    preferences.unlink(missing_ok=True)


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
    said = host.use_for_checkpoint("second.safetensors")
    assert said.startswith("Saved for one.safetensors. second.safetensors decodes")
    assert json.loads(preferences.read_text(encoding="utf8")) == {"notes": "mine", "vae": "second.safetensors"}
    assert host.decision().source == "checkpoint"
    chosen = pixels(webui.generate())[0]
    host.use_for_checkpoint("Automatic")
    assert host.decision().vae == "Built-in"
    webui.choose_natively("second.safetensors")
    assert np.array_equal(chosen, pixels(webui.generate())[0])


def test_for_this_checkpoint_while_something_outranks_it(webui: WebUI, host) -> None:
    webui.choose_natively("first.safetensors")
    said = host.use_for_checkpoint("second.safetensors")
    assert "without effect for now: first.safetensors decodes: Settings" in said


def test_always(webui: WebUI, host) -> None:
    assert host.use_always("first.safetensors").startswith("first.safetensors decodes")
    assert host.decision().source == "always"
    assert host.decision("second.safetensors").source == "generation"
    ours = webui.generate()
    assert "VAE Lab override: first.safetensors" in ours.info
    saved = json.loads(Path(webui.shared.config_filename).read_text(encoding="utf8"))
    assert saved["vae_lab_external"] == "first.safetensors"
    host.use_always("Automatic")
    assert "VAE Lab" not in webui.generate().info


def test_what_is_not_there(host) -> None:
    with pytest.raises(UnknownChoice, match="no VAE named gone"):
        host.use_always("gone")
    with pytest.raises(UnknownChoice, match=r"found .*first\.safetensors"):
        host.use_for_checkpoint("gone")


def test_same_name_in_two_folders(webui: WebUI, host, data_dir: Path) -> None:
    """The host sees one of them, and not necessarily the one that was meant."""
    folder = data_dir / "models" / "VAE"
    twin = folder / "other" / "first.safetensors"
    twin.parent.mkdir()
    twin.write_bytes((folder / "second.safetensors").read_bytes())
    try:
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
    finally:
        twin.unlink()
        twin.parent.rmdir()


def test_paste_finds_a_renamed_file_by_its_weights(webui: WebUI, data_dir: Path) -> None:
    from modules.infotext_utils import parse_generation_parameters, paste_fields

    info = webui.generate(lab={"override": "first.safetensors"}).info
    folder = data_dir / "models" / "VAE"
    (folder / "first.safetensors").rename(folder / "renamed.safetensors")
    try:
        from modules import script_callbacks

        from vae_lab.host.extension import the_host

        the_host().identify()
        parameters = parse_generation_parameters(info)
        script_callbacks.infotext_pasted_callback(info, parameters)
        assert "VAE" not in parameters, "one VAE, chosen once"
        choose = next(
            field
            for component, field in paste_fields["txt2img"]["fields"]
            if getattr(component, "elem_id", "") == "vae_lab_txt2img_override"
        )
        assert choose(parameters) == "renamed.safetensors"
        assert choose({}) == "Automatic"
    finally:
        (folder / "renamed.safetensors").rename(folder / "first.safetensors")
