"""Options and settings that all tests share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from vae_lab.samples import SampleSet


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("VAE Lab")
    group.addoption("--webui-dir", default="", help="a WebUI 1.10.1 or a Forge that runs; the host tests drive it")
    group.addoption("--webui-flags", default="", help="command line flags for that WebUI, such as --medvram")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "host: needs a WebUI, given by --webui-dir")
    config.addinivalue_line("markers", "browser: drives a headless Chromium")
    config.addinivalue_line("markers", "static: of our scripts alone, on a page without gradio")
    config.addinivalue_line("markers", "slow: over a CPU second, and a faster test covers the main behaviour")


@pytest.fixture(scope="session", autouse=True)
def user_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's cache folder, which only this run uses; processes that tests start have it too."""
    folder = tmp_path_factory.mktemp("user-cache")
    for variable in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        os.environ[variable] = str(folder)
    return folder


@pytest.fixture(scope="session")
def sample_set(tmp_path_factory: pytest.TempPathFactory) -> SampleSet:
    """The sample set expanded into a folder like the WebUI's ``models``, once for all tests; read-only."""
    from vae_lab.samples import build_sample_set

    return build_sample_set(tmp_path_factory.mktemp("samples") / "models")
