"""Whatever the host lacks, its page comes up and its images are made."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.unit.makers import F8, kl_state, write
from tests.unit.webui.double import Double, Fault, Kind, MakeDouble, Pages, load, vae
from vae_lab.api import routes
from vae_lab.errors import HostError

IMAGE = np.full((3, 8, 8), 127, np.uint8)
KINDS: tuple[Kind, ...] = ("webui", "forge", "reforge")
NAMES = {kind: Double(kind, Path("nowhere")).names for kind in KINDS}

PLACES = {
    "webui": "sd_model.first_stage_model",
    "forge": "sd_model.forge_objects.vae.first_stage_model",
    "reforge": "sd_model.forge_objects.vae.first_stage_model",
}

SLOW = pytest.mark.slow  # all together


def _is_quick(kind: Kind, fault: Fault) -> bool:
    """What differs most between hosts; reForge has few names of its own."""
    return fault == "missing" and kind != "reforge"


CASES = [
    pytest.param(kind, name, fault, id=f"{kind}-{name}-{fault}", marks=[] if _is_quick(kind, fault) else [SLOW])
    for kind, names in NAMES.items()
    for name in names
    for fault in ("missing", "failing")
    if fault == "missing" or "." in name
]


@pytest.mark.parametrize(("kind", "name", "fault"), CASES)
def test_a_part_is_missing_or_fails(
    make: MakeDouble,
    kind: Kind,
    name: str,
    fault: Fault,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The page comes up, images are made, and afterwards the host's functions and its VAE are its own again."""
    monkeypatch.setattr(routes, "add_routes", lambda *_: None)  # the same with every host, and slow
    double = make(kind, {name: fault})
    before, weights = double.attributes(), clones()
    tabs = double.start(load)
    assert len(tabs) == (0 if name in ("script_callbacks", "script_callbacks.on_ui_tabs") else 1)
    double.app_started(None)
    if double.generates:
        for accordion in (("Automatic", [], "As in Settings"), ("first.safetensors", ["first.safetensors"], "warn")):
            processed, _ = double.generate(*accordion)
            assert np.array_equal(processed.images[0], IMAGE)
    double.unload()
    if name not in ("script_callbacks", "script_callbacks.on_script_unloaded"):
        assert double.attributes() == before
    assert all(torch.equal(value, weights[key]) for key, value in vae().state_dict().items())
    errors = [(record.getMessage(), str(record.exc_info[1])) for record in caplog.records if record.exc_info]
    assert len(errors) == len(set(errors)), "each error is logged once"


def clones() -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in vae().state_dict().items()}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_missing(make: MakeDouble, kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    """Else the doubles would lack something, and their tests show nothing."""
    double = make(kind)
    (tab,) = double.start(load)
    assert tab[0].not_found is None
    assert [option.label for option in double.plot.axis_options] == ["[VAE Lab] VAE"]
    app = FastAPI()
    double.app_started(app)
    said = TestClient(app).get("/vae-lab/v1/host").json()
    assert (said["works"], said["not_found"]) == (True, [])
    assert said["facts"]["VAE in memory"].startswith(PLACES[kind])
    assert ("Tiling" in said["facts"], "VAE Lab: Host: " in caplog.text) == (True, True)
    caplog.clear()
    _, p = double.generate("first.safetensors")
    assert p.extra_generation_params["VAE Lab override"] == "first.safetensors"
    assert p.comments == []
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("kind", "part", "said"),
    [
        ("webui", "processing.decode_latent_batch", "modules.processing.decode_latent_batch"),
        ("forge", "sd_models.model_data.forge_hash", "modules.sd_models.model_data.forge_hash"),
        ("webui", "call_queue", "modules.call_queue"),
    ],
)
def test_without_a_needed_part_only_files(
    make: MakeDouble, kind: Kind, part: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The tab says what was not found, and works on the host's files; nothing of ours is in a generation."""
    double = make(kind, {part: "missing"})
    functions = double.attributes()
    (tab,) = double.start(load)
    host = tab[0]
    assert host.not_found == (said,)
    assert said in caplog.text
    assert "Traceback" not in caplog.text
    assert (host.checkpoints(), [entry.name for entry in host.vaes()]) == (["one.safetensors"], ["first.safetensors"])
    with pytest.raises(HostError, match="cannot choose"):
        host.use_always("first.safetensors")
    assert double.scripts == []
    assert double.attributes() == functions
    app = FastAPI()
    double.app_started(app)
    answer = TestClient(app).get("/vae-lab/v1/vaes").json()
    assert [vae["name"] for vae in answer["vaes"]] == ["first.safetensors"]
    about = TestClient(app).get("/vae-lab/v1/host").json()
    assert (about["works"], about["not_found"]) == (False, [said])
    assert said in about["facts"]["Status"]


def test_flags_and_extensions_are_named_without_their_values(make: MakeDouble) -> None:
    double = make("webui")
    flags = double.part("shared.cmd_opts")
    flags.medvram, flags.no_half, flags.ckpt_dir = True, False, "/home/me/models"
    (tab,) = double.start(load)
    facts = tab[0].about()
    assert "medvram" in facts["Flags"]
    assert "ckpt_dir" in facts["Flags"]
    assert "no_half" not in facts["Flags"].split(", ")
    assert not [value for value in facts.values() if "/home/me" in value]


@pytest.mark.parametrize(("password", "status"), [(None, 401), ("wrong", 401), ("se:cret", 200)])
def test_the_login_of_the_api_counts_where_the_page_has_none(
    make: MakeDouble, password: str | None, status: int
) -> None:
    double = make("webui")
    double.part("shared.cmd_opts").api_auth = "you:other,me:se:cret"
    double.start(load)
    app = FastAPI()
    double.app_started(app)
    answer = TestClient(app).get("/vae-lab/v1/vaes", auth=("me", password) if password else None)
    assert answer.status_code == status


@pytest.mark.parametrize(("option", "value"), [("vae_dir", "folder"), ("vae_dirs", "list"), ("vae_dirs", "none")])
def test_folders_are_found_under_either_option(make: MakeDouble, tmp_path: Path, option: str, value: str) -> None:
    """One folder, a list of folders, or no such option."""
    write(tmp_path / "more.safetensors", kl_state(F8))
    double = make("forge", {f"shared.cmd_opts.{name}": "missing" for name in ("vae_dir", "vae_dirs")})
    if value != "none":
        setattr(double.part("shared.cmd_opts"), option, str(tmp_path) if value == "folder" else [str(tmp_path)])
    (tab,) = double.start(load)
    assert tab[0].not_found is None
    assert ("more.safetensors" in {entry.name for entry in tab[0].vaes()}) == (value != "none")


def test_without_fp8_a_checkpoint_is_still_followed(make: MakeDouble, caplog: pytest.LogCaptureFixture) -> None:
    """The WebUI 1.6 and 1.7: an override stays through what they call before every batch."""
    double = make("webui", {"sd_models.check_fp8": "missing", "devices.fp8": "missing"})
    double.start(load)
    double.before_decode = lambda: double.part("sd_models.reload_model_weights")()
    _, p = double.generate("first.safetensors")
    assert p.extra_generation_params["VAE Lab override"] == "first.safetensors"
    assert caplog.text == ""


def test_without_a_hook_for_circular_padding_a_comparison_still_decodes(make: MakeDouble) -> None:
    """Forge Neo has no ``sd_hijack``."""
    double = make("forge", {"sd_hijack": "missing"})
    (tab,) = double.start(load)
    double.generate()
    host = tab[0]
    results = host.compare(host.generations.newest_first()[0].id, ["first.safetensors"])
    assert [(result.name, result.error) for result in results] == [("Built-in", ""), ("first.safetensors", "")]


def test_an_error_while_the_tab_is_built_leaves_the_files(make: MakeDouble, caplog: pytest.LogCaptureFixture) -> None:
    """The tab of the adapter fails, so the tab shows what works on any host."""
    double = make()

    class Failing(Pages):
        def build_tab(self, host: Any) -> Any:
            assert host.not_found is not None, "an adapter"
            return super().build_tab(host)

    (tab,) = double.start(lambda: importlib.import_module("vae_lab.extension").load(Failing()))
    assert tab[0].not_found == ()
    assert tab[0].checkpoints() == ["one.safetensors"]
    assert "see the error above" in caplog.text


def test_the_tab_says_what_was_not_found(make: MakeDouble) -> None:
    """The real tab."""
    double = make("webui", {"processing.decode_latent_batch": "missing"})
    pages = importlib.import_module("vae_lab.ui.pages").WebuiPages()
    ((blocks, _, _),) = double.start(lambda: importlib.import_module("vae_lab.extension").load(pages))
    shown = [str(block.value) for block in blocks.blocks.values() if getattr(block, "elem_id", "") == "vae_lab_limited"]
    assert len(shown) == 1
    assert "Not found in this WebUI: modules.processing.decode_latent_batch." in shown[0]


def test_the_vae_that_reforge_keeps_is_named(make: MakeDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reports no external VAE, but the weights in memory are not those of the checkpoint."""
    double = make("reforge")
    (tab,) = double.start(load)
    host = tab[0]
    assert host.decision().vae == "Built-in"
    module = vae()
    before = clones()
    try:
        module.load_state_dict(kl_state(F8, seed=5))
        assert host.decision().vae == "a VAE of unknown origin"
        assert "still in memory" in host.decision().reason
        host.vaes()
    finally:
        module.load_state_dict(before)
    assert host.decision().vae == "Built-in"
