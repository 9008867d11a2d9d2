"""Where a new VAE belongs in each host, and that the host lists it without a restart."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.webui.double import Double, Kind, MakeDouble, Part, load


def host_of(double: Double) -> Any:
    (tab,) = double.start(load)
    return tab[0]


@pytest.mark.parametrize("kind", ["webui", "forge"])
def test_a_new_vae_belongs_into_the_folder_of_the_options(
    make: MakeDouble, kind: Kind, models: Path, tmp_path: Path
) -> None:
    double = make(kind)
    host = host_of(double)
    assert host.vae_folder() == models / "models" / "VAE"
    double.part("shared.cmd_opts").vae_dir = str(tmp_path / "nowhere")
    assert host.vae_folder() == models / "models" / "VAE"
    double.part("shared.cmd_opts").vae_dirs = [str(tmp_path)]
    assert host.vae_folder() == tmp_path


def test_a_webui_with_files_only_has_it_too(make: MakeDouble, models: Path) -> None:
    host = host_of(make("webui", {"sd_models.reload_model_weights": "missing"}))
    assert host.not_found
    assert host.vae_folder() == models / "models" / "VAE"


@pytest.mark.parametrize("kind", ["webui", "forge"])
def test_the_hosts_own_lists_are_refreshed(
    make: MakeDouble, kind: Kind, tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    double, called = make(kind), []
    host = host_of(double)
    double.part("sd_vae").refresh_vae_list = lambda: called.append("webui")
    forge = Part("modules_forge.main_entry")
    forge.refresh_models = lambda: called.append("forge")
    monkeypatch.setitem(sys.modules, "modules_forge", Part("modules_forge"))
    monkeypatch.setitem(sys.modules, "modules_forge.main_entry", forge)
    double.part("shared.cmd_opts").vae_dir = str(tmp_path)
    assert host.vae_files().keys() == {"first.safetensors"}
    shutil.copy(models / "models" / "VAE" / "first.safetensors", tmp_path / "new.safetensors")
    host.refresh_vaes()
    assert called == (["webui"] if kind == "webui" else ["webui", "forge"])
    assert host.vae_files().keys() == {"first.safetensors", "new.safetensors"}


def test_a_refresh_that_fails_is_no_error_of_the_download(make: MakeDouble) -> None:
    double = make()
    host = host_of(double)

    def fail() -> None:
        raise RuntimeError("the host's own")

    double.part("sd_vae").refresh_vae_list = fail
    host.refresh_vaes()
    assert host.vae_files().keys() == {"first.safetensors"}
