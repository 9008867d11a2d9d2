"""The background checkup of the current checkpoint."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from tests.unit import bake_tree
from vae_lab.errors import Cancelled
from vae_lab.host.choices import BUILT_IN, OnBroken
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.library import FileRecord
from vae_lab.samples import SampleSet
from vae_lab.service.background_checkup import BackgroundCheckup
from vae_lab.service.service import service_of

LOOK = 60.0


@pytest.fixture
def host(sample_set: SampleSet, tmp_path: Path) -> StandaloneHost:
    """A host over the sample set, with nothing known yet."""
    folders = Folders(tmp_path, (sample_set.healthy.parent,), (sample_set.smooth.parent,))
    return StandaloneHost(folders)


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "vae_lab"]


def test_a_healthy_checkpoint_is_checked_silently(host: StandaloneHost, caplog: pytest.LogCaptureFixture) -> None:
    host.select_checkpoint("healthy.safetensors")
    checkup = BackgroundCheckup(host)
    checkup.checkpoint_changed()
    assert checkup.wait(LOOK)
    assert host.known_reports(["healthy.safetensors"])["healthy.safetensors"].verdict.status == "healthy"
    assert logged(caplog) == []


def test_a_broken_one_is_warned_about_once_with_a_remedy(
    host: StandaloneHost, caplog: pytest.LogCaptureFixture
) -> None:
    checkup = BackgroundCheckup(host)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            host.select_checkpoint("grey-merge.safetensors")
            checkup.checkpoint_changed()
            assert checkup.wait(LOOK)
    (line,) = logged(caplog)
    assert "grey-merge.safetensors is broken" in line
    found = host.recommendation()
    assert found is not None
    assert f"Recommended: {found.name}" in line


def test_what_is_done_afterwards_is_done_even_if_the_file_is_bad(
    sample_set: SampleSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "checkpoints").mkdir()
    shutil.copy(sample_set.no_vae, tmp_path / "checkpoints" / "one.safetensors")
    (tmp_path / "checkpoints" / "one.safetensors").write_bytes(b"spoilt")
    host = StandaloneHost(Folders(tmp_path, (tmp_path / "checkpoints",)))
    done: list[str] = []
    checkup = BackgroundCheckup(host, lambda: done.append(host.current_checkpoint()))
    checkup.checkpoint_changed()
    assert checkup.wait(LOOK)
    assert done == ["one.safetensors"]
    assert host.inspect(BUILT_IN).verdict.status == "unreadable"


def test_an_our_error_is_logged_and_ends_nothing(host: StandaloneHost, caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        raise RuntimeError("on purpose")

    checkup = BackgroundCheckup(host, fail)
    for _ in range(2):
        checkup.checkpoint_changed()
        assert checkup.wait(LOOK)
    assert len(calls) == 2
    assert "VAE Lab, checking the VAE in memory" in logged(caplog)[-1]


def test_after_a_stop_nothing_is_begun(host: StandaloneHost) -> None:
    checkup = BackgroundCheckup(host)
    checkup.stop()
    checkup.checkpoint_changed()
    assert checkup.wait(LOOK)
    assert host.known_reports(host.checkpoints()) == {}


def test_a_check_that_is_cancelled_says_nothing(
    host: StandaloneHost, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program ends."""

    def inspect(_: str) -> FileRecord:
        raise Cancelled("cancelled")

    monkeypatch.setattr(host, "inspect", inspect)
    checkup = BackgroundCheckup(host)
    checkup.checkpoint_changed()
    assert checkup.wait(LOOK)
    assert caplog.text == ""


# --- what to do about a broken one -----------------------------------------------------------------------------------


@pytest.fixture
def loaded(tmp_path: Path) -> StandaloneHost:
    """A host with a broken checkpoint in use, after a scan."""
    models = bake_tree.scanned(tmp_path)
    host = StandaloneHost(Folders.of_models(models, tmp_path / "data", webui=True))
    host.select_checkpoint("deep/grey.safetensors")
    return host


def json_files(host: StandaloneHost) -> dict[str, bytes]:
    folder = host.checkpoint_files()["xl.safetensors"].parent
    return {path.name: path.read_bytes() for path in folder.rglob("*.json")}


def check(host: StandaloneHost, on_broken: OnBroken) -> None:
    host.on_broken = on_broken
    checkup = BackgroundCheckup(host, fix=service_of(host).fixes.apply)
    checkup.checkpoint_changed()
    assert checkup.wait(LOOK)


def test_off_says_and_changes_nothing(loaded: StandaloneHost, caplog: pytest.LogCaptureFixture) -> None:
    check(loaded, "off")
    assert (logged(caplog), json_files(loaded)) == ([], {})


def test_ask_only_says_so(loaded: StandaloneHost, caplog: pytest.LogCaptureFixture) -> None:
    assert loaded.on_broken == "ask", "the default"
    check(loaded, "ask")
    (line,) = logged(caplog)
    assert "Recommended: plain.safetensors" in line
    assert json_files(loaded) == {}


def test_fix_chooses_the_recommended_one_with_undo(loaded: StandaloneHost, caplog: pytest.LogCaptureFixture) -> None:
    loaded.on_broken = "fix"
    checkup = BackgroundCheckup(loaded, fix=service_of(loaded).fixes.apply)
    for _ in range(2):  # the WebUI reports the checkpoint again when its VAE is loaded
        checkup.checkpoint_changed()
        assert checkup.wait(LOOK)
    assert logged(caplog) == [
        "VAE Lab: the VAE in deep/grey.safetensors is broken, so plain.safetensors was chosen for it."
    ]
    assert loaded.decision().vae == "plain.safetensors"
    fixes = service_of(loaded).fixes
    assert fixes.changed() == [("deep/grey.safetensors", "plain.safetensors")]
    fixes.undo()
    assert json_files(loaded) == {}


@pytest.mark.parametrize("vae", ["Built-in", "plain.safetensors"])
def test_fix_leaves_what_the_user_has_chosen(loaded: StandaloneHost, vae: str) -> None:
    loaded.use_for_checkpoint(vae)
    before = json_files(loaded)
    check(loaded, "fix")
    assert (json_files(loaded), service_of(loaded).fixes.changed()) == (before, [])


def test_fix_leaves_a_healthy_one(loaded: StandaloneHost, caplog: pytest.LogCaptureFixture) -> None:
    loaded.select_checkpoint("healthy.safetensors")
    check(loaded, "fix")
    assert (logged(caplog), json_files(loaded)) == ([], {})


def test_what_cannot_be_fixed_now_is_said(loaded: StandaloneHost, caplog: pytest.LogCaptureFixture) -> None:
    with service_of(loaded).runs.one_at_a_time():
        check(loaded, "fix")
    first, second = logged(caplog)
    assert "another task is running" in first
    assert "Recommended: plain.safetensors" in second
    assert json_files(loaded) == {}
