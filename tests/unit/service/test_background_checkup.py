"""The background checkup of the current checkpoint."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from vae_lab.errors import Cancelled
from vae_lab.host.choices import BUILT_IN
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.library import FileRecord
from vae_lab.samples import SampleSet
from vae_lab.service.background_checkup import BackgroundCheckup

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
