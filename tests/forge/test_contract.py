"""Forge meets the host contract. It is booted in this process, in addition to the one that the other tests use."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

from tests.contract.suite import Case, HostContract
from tests.forge.server import CPU_FLAGS, FLAGS, known
from tests.host.webui import WebUI

pytestmark = pytest.mark.host


def boot(folder: Path, data: Path, flags: list[str]) -> WebUI:
    """As Forge's ``webui.py --nowebui``, with its data in ``data``."""
    os.environ.pop("COMMANDLINE_ARGS", None)
    sys.argv = [str(folder / "webui.py"), *known(folder, [*FLAGS, *flags]), "--nowebui", "--data-dir", str(data)]
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    import webui as _  # noqa: F401  parses sys.argv, and loads everything
    from fastapi import FastAPI
    from modules import script_callbacks
    from modules.api.api import Api
    from modules.call_queue import queue_lock
    from modules_forge import main_entry

    app = FastAPI()
    api = Api(app, queue_lock)
    script_callbacks.before_ui_callback()
    script_callbacks.app_started_callback(None, app)
    booted = WebUI(api, app, data / "outputs")
    booted.runner(False)
    main_entry.checkpoint_change("one.safetensors", save=False)
    return booted


@pytest.fixture(autouse=True)
def nothing_left_behind(webui: WebUI) -> None:
    """The suite itself compares what is decoded before and after; and it needs no second Forge."""


@pytest.fixture(scope="module")
def webui(forge_dir: Path, data_dir: Path, request: pytest.FixtureRequest) -> WebUI:
    flags = request.config.getoption("--webui-flags").split()
    return boot(forge_dir, data_dir, flags if torch.cuda.is_available() else [*CPU_FLAGS, *flags])


@pytest.fixture(scope="module")
def generation(webui: WebUI) -> str:
    """Of an image that Forge has made; each test decodes it."""
    from vae_lab.extension import the_host

    webui.generate(batch_size=2, steps=1, width=64, height=64, cfg_scale=1)
    return the_host().generations.newest_first()[0].id


class TestForge(HostContract):
    @pytest.fixture
    def case(self, webui: WebUI, generation: str) -> Case:
        from vae_lab.extension import the_host

        host = the_host()
        assert host.name == "Forge"
        return Case(
            host=host,
            reopened=lambda: host,
            generation=generation,
            usable=("first.safetensors", "second.safetensors"),
            refused={"xl.safetensors": "SDXL", "broken.safetensors": "broken.safetensors"},
            families={"xl.safetensors": "sdxl", "broken.safetensors": None},
        )
