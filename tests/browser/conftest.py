"""A real page in a real browser: the stand-alone app on a free port, and a headless Chromium that reports every error.

``VAE_LAB_SCREENSHOTS=DIR`` keeps the images that tests take; ``VAE_LAB_CHROMIUM=FILE`` names the browser.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gradio as gr
import pytest
from fastapi import FastAPI

from tests.browser.static_page import StaticSite, serve_static
from tests.chromium import find_chromium
from tests.once import each_checkup_once
from tests.sample_hosts import (
    SCREENSHOTS,
    MakeHost,
    families_of_samples,
    latents_folder,
    make_host,
    samples,
    shared_host,
    small_latents,
)
from vae_lab.host.standalone import StandaloneHost
from vae_lab.samples import SampleSet
from vae_lab.ui.assets import add_scripts, script_url

pytest.importorskip("playwright", reason="browser tests need playwright")

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

THEMES = ["light", pytest.param("dark", marks=pytest.mark.slow)]  # the layout is the same; for its screenshots
PATIENCE = 90_000  # ms: for a machine that is slow and busy
expect.set_options(timeout=PATIENCE)

# What gradio itself loads from elsewhere. The browser must not wait for it, and reports that it is missing. Nothing
# of our own may be listed here.
GRADIO_LOADS = ("cdnjs.cloudflare.com", "fonts.googleapis.com", "fonts.gstatic.com")
FLAGS = [
    "--host-resolver-rules=" + ", ".join(f"MAP {name} ~NOTFOUND" for name in GRADIO_LOADS),
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def free_port() -> int:
    """A free port; gradio's own range may be in use by other programs that are being tested."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def serve(blocks: gr.Blocks, **options: Any) -> tuple[FastAPI, str]:
    """Serve a page of a test's own; gives its application and address. Another program may take the port first."""
    for _ in range(2):
        with suppress(OSError):
            return _serve(blocks, options)
    return _serve(blocks, options)


def _serve(blocks: gr.Blocks, options: dict[str, Any]) -> tuple[FastAPI, str]:
    app, url, _ = blocks.launch(
        prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", server_port=free_port(), show_api=False,
        **options,
    )  # fmt: skip
    return app, url


def close(blocks: gr.Blocks) -> None:
    """Stop serving it, whatever the page had open."""
    blocks.server.force_exit = True  # else uvicorn waits, sometimes forever, for what the page's queue had open
    blocks.close(verbose=False)
    with warnings.catch_warnings():
        # Gradio 3 stops its server in the middle of the page's last websocket; we cannot fix that.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def load_scripts(page: Page, app: FastAPI) -> None:
    """Serve our scripts with a page of a test's own, and load them before anything else of it, as the WebUI does."""
    add_scripts(app)
    load_module(page, script_url())


def load_module(page: Page, address: str) -> None:
    """Load a module, by an address relative to the server, before anything else of every page that is opened."""
    script = f"import(new URL({json.dumps(address)}, location.origin))"
    page.add_init_script(f"if (location.protocol === 'http:') {script}")  # and not into about:blank


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests whose page is not gradio's, for they give the same result with any gradio."""
    for item in items:
        if "static_site" in getattr(item, "fixturenames", ()):
            item.add_marker("static")


@pytest.fixture(scope="session")
def static_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StaticSite]:
    """Static pages with our scripts, one site for all tests."""
    with serve_static(tmp_path_factory.mktemp("static")) as site:
        yield site


class PausingHost(StandaloneHost):
    """Compares normally up to the third image, then waits until cancelled: however fast the machine is, a
    test finds it at work.
    """

    def compare(self, generation_id, vaes, progress=None, cancelled=None, on_result=None):  # type: ignore[no-untyped-def]
        def report(done: int, total: int, what: str) -> None:
            progress(done, total, what)
            while done >= 3 and not cancelled():
                time.sleep(0.01)

        return super().compare(generation_id, vaes, report, cancelled, on_result)


@pytest.fixture
def pausing(make_host: MakeHost, many_vaes: Path) -> StandaloneHost:
    """A host with many VAEs whose comparisons stop at the third image."""
    host = make_host(vaes=many_vaes)
    host.__class__ = PausingHost
    return host


@pytest.fixture
def many_vaes(samples: SampleSet, tmp_path: Path) -> Path:
    """Twenty VAEs, the same weights under twenty names."""
    folder = tmp_path / "many"
    folder.mkdir()
    shutil.copy(samples.smooth, folder / "vae-00.safetensors")  # a link would change the sample file's entry
    for i in range(1, 20):
        os.link(folder / "vae-00.safetensors", folder / f"vae-{i:02}.safetensors")
    return folder


Launch = Callable[[StandaloneHost], str]


@pytest.fixture
def launch(page: Page) -> Iterator[Launch]:
    """Serves a host's page until the test is over; gives its address."""
    from vae_lab.ui import app

    opened = []

    def open_app(host: StandaloneHost) -> str:
        opened.append(app.launch(host))
        return opened[-1].url

    yield open_app
    page.goto("about:blank")  # it would ask a server that is gone, and call that an error
    for running in opened:
        running.close()


@pytest.fixture(scope="module")
def shared_url(shared_host: StandaloneHost) -> Iterator[str]:
    """The page of ``shared_host``."""
    from vae_lab.ui import app

    running = app.launch(shared_host)
    yield running.url
    running.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests."""
    executable = find_chromium()
    if executable is None:
        pytest.skip("no Chromium found; name one with VAE_LAB_CHROMIUM")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def context(browser: Browser) -> Iterator[BrowserContext]:
    """One profile for the tests of a file: the page's scripts are fetched and compiled once for each server."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A new page; the test fails if it reports an error, or sends a request to any other machine."""
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(f"page error: {error}"))
    page.on("console", lambda message: _note_console(message, problems))
    page.on("request", lambda request: _note_request(request.url, problems))
    yield page
    if page.url.startswith("http"):
        page.evaluate("localStorage.clear(), sessionStorage.clear()")
    page.close()
    context.clear_cookies()
    context.clear_permissions()
    assert not problems, "\n".join(problems)


def _note_console(message: object, problems: list[str]) -> None:
    where = message.location.get("url", "")
    if message.text.startswith("AbortError: "):
        return  # gradio's, of a page that leaves while its queue answers
    if "status of 409" in message.text and urlsplit(where).path.endswith(("/v1/choose", "/v1/undo")):
        return  # a refused choice, whose reason the page shows
    if message.type == "error" and urlsplit(where).hostname not in GRADIO_LOADS:
        problems.append(f"console: {message.text} ({where})")


def _note_request(url: str, problems: list[str]) -> None:
    parts = urlsplit(url)
    if parts.scheme.startswith("http") and parts.hostname not in ("127.0.0.1", *GRADIO_LOADS):
        problems.append(f"asked another machine: {url}")


Keep = Callable[[Page, str], None]


@pytest.fixture(scope="session")
def keep_screenshot() -> Keep:
    """Keeps an image of the whole page, if ``VAE_LAB_SCREENSHOTS`` names a folder."""

    def keep(page: Page, name: str) -> None:
        if SCREENSHOTS:
            Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
            page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png", full_page=True)

    return keep
