"""Doubles of the hosts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.unit.makers import F8, SD1_TEXT, UNET, kl_state, prefixed, write
from tests.unit.webui.double import Double, Fault, Kind, MakeDouble, forget, installed
from vae_lab.service.background_task import BackgroundTask


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A host's folder with one checkpoint and one VAE."""
    folder = tmp_path_factory.mktemp("host")
    for name in ("Stable-diffusion", "VAE"):
        (folder / "models" / name).mkdir(parents=True)
    built_in = prefixed("first_stage_model.", kl_state(F8))
    write(folder / "models" / "Stable-diffusion" / "one.safetensors", {**UNET, **SD1_TEXT, **built_in})
    write(folder / "models" / "VAE" / "first.safetensors", kl_state(F8, seed=1))
    return folder


@pytest.fixture
def make(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeDouble]:
    """Makes a double that is the host now."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(BackgroundTask, "start", lambda *_: None)  # the checkup in the background takes seconds

    def make(kind: Kind = "webui", broken: Mapping[str, Fault] | None = None) -> Double:
        double = Double(kind, models, broken)
        installed(double, monkeypatch)
        return double

    yield make
    forget()
