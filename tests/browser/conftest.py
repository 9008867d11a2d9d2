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
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gradio as gr
import pytest
from fastapi import FastAPI

from tests.browser.panel import LightTable
from tests.browser.static_page import StaticSite, made_up_comparison, serve_static
from tests.chromium import find_chromium
from tests.once import each_checkup_once, each_image_once
from tests.publisher import publisher
from tests.sample_hosts import (
    SCREENSHOTS,
    MakeHost,
    families_of_samples,
    grey_host,
    latents_folder,
    make_host,
    samples,
    shared_host,
    small_latents,
)
from vae_lab.errors import HostError
from vae_lab.host.standalone import StandaloneHost
from vae_lab.samples import SampleSet
from vae_lab.ui.assets import add_scripts, script_url

pytest.importorskip("playwright", reason="browser tests need playwright")

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

THEMES = ["light", "dark"] if SCREENSHOTS else ["light"]  # the layout is the same
VIEWPORT = {"width": 1280, "height": 1000}
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


def serve(blocks: gr.Blocks, port: int = 0, **options: Any) -> tuple[FastAPI, str]:
    """Serve a page of a test's own; gives its application and address. Another program may take the port first."""
    for _ in range(2):
        with suppress(OSError):
            return _serve(blocks, port or free_port(), options)
    return _serve(blocks, free_port(), options)


def _serve(blocks: gr.Blocks, port: int, options: dict[str, Any]) -> tuple[FastAPI, str]:
    app, url, _ = blocks.launch(
        prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", server_port=port, show_api=False, **options
    )
    return app, url


def close(blocks: gr.Blocks) -> None:
    """Stop serving it, whatever the page had open."""
    blocks.server.force_exit = True  # else uvicorn waits, sometimes forever, for what the page's queue had open
    blocks.close(verbose=False)
    collect_sockets()


@pytest.fixture(scope="session", autouse=True)
def few_objects_to_collect() -> None:
    """Leave everything that was imported out of :func:`collect_sockets`, which takes half a second otherwise."""
    gc.freeze()


def collect_sockets() -> None:
    """Gradio leaves sockets unclosed: its own first request, and the page's last websocket. We cannot fix that."""
    with warnings.catch_warnings():
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


@pytest.fixture(scope="session")
def three_vaes_url(static_site: StaticSite) -> str:
    """A page with three VAEs on two images of 128 x 128."""
    names = ["Built-in", "anime.vae.pt", "photo-b.ckpt"]
    return static_site.add_comparison("three", made_up_comparison(names, id="three"))


@pytest.fixture
def table(page: Page, three_vaes_url: str) -> LightTable:
    """The light table of that page."""
    page.set_viewport_size({"width": 1280, "height": 1600})
    page.goto(three_vaes_url)
    return LightTable(page).ready()


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
    """Ten VAEs, the same weights under ten names; two more than are ticked at first."""
    folder = tmp_path / "many"
    folder.mkdir()
    shutil.copy(samples.smooth, folder / "vae-00.safetensors")  # a link would change the sample file's entry
    for i in range(1, 10):
        os.link(folder / "vae-00.safetensors", folder / f"vae-{i:02}.safetensors")
    return folder


Launch = Callable[[StandaloneHost], str]
ServeHost = Callable[[StandaloneHost], AbstractContextManager[str]]


@pytest.fixture(scope="session")
def serve_host() -> ServeHost:
    """Serves a host's page while a ``with`` block runs; gives its address.

    A port that is free again is taken first: of that address, the browser has the page's scripts already.
    """
    from vae_lab.ui import app

    free_again: list[int] = []

    @contextmanager
    def serving(host: StandaloneHost) -> Iterator[str]:
        try:
            running = app.launch(host, free_again.pop() if free_again else 0)
        except HostError:  # another program has taken it
            running = app.launch(host)
        try:
            yield running.url
        finally:
            running.close()
            collect_sockets()
            free_again.append(urlsplit(running.url).port)

    return serving


@pytest.fixture(scope="session")
def own_port() -> int:
    """For pages of a test's own, of which one is served at a time; as ``serve_host``, for the sake of the browser."""
    return free_port()


@pytest.fixture
def launch(page: Page, serve_host: ServeHost) -> Iterator[Launch]:
    """Serves a host's page until the test is over; gives its address."""
    with ExitStack() as opened:
        yield lambda host: opened.enter_context(serve_host(host))
        leave(page)  # it would ask a server that is gone, and call that an error


@pytest.fixture(scope="module")
def shared_url(shared_host: StandaloneHost, serve_host: ServeHost) -> Iterator[str]:
    """The page of ``shared_host``."""
    with serve_host(shared_host) as url:
        yield url


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


@pytest.fixture(scope="session")
def context(browser: Browser) -> Iterator[BrowserContext]:
    """One profile for all tests: the page's scripts are fetched once for each address."""
    context = browser.new_context(viewport=VIEWPORT)
    yield context
    context.close()


@pytest.fixture(scope="module")
def tab(context: BrowserContext) -> Iterator[Page]:
    """One tab for the tests of a file: each further one is a process that compiles the page's scripts again."""
    tab = context.new_page()
    yield tab
    tab.close()


@pytest.fixture
def page(tab: Page) -> Iterator[Page]:
    """An empty page; the test fails if it reports an error, or sends a request to any other machine."""
    tab.set_viewport_size(VIEWPORT)
    tab.mouse.move(0, 0)
    with watched(tab):
        yield tab


@pytest.fixture
def new_page(context: BrowserContext) -> Iterator[Page]:
    """As ``page``, for a test that adds scripts to it, which stay for ever."""
    with context.new_page() as page, watched(page):
        yield page


def leave(page: Page) -> None:
    """Remove what the page has stored, and go to an empty one."""
    if page.url.startswith("http"):
        page.evaluate("localStorage.clear(), sessionStorage.clear()")
    page.goto("about:blank")


@contextmanager
def watched(page: Page) -> Iterator[None]:
    """Notes what the page reports and requests; at the end nothing of it is left."""
    page.set_default_timeout(PATIENCE)
    problems: list[str] = []
    listeners: dict[str, Callable[[Any], None]] = {
        "pageerror": lambda error: problems.append(f"page error: {error}"),
        "console": lambda message: _note_console(message, problems),
        "request": lambda request: _note_request(request.url, problems),
    }
    for event, listener in listeners.items():
        page.on(event, listener)  # type: ignore[call-overload]
    yield
    for event, listener in listeners.items():
        page.remove_listener(event, listener)
    page.unroute_all()
    leave(page)
    page.context.clear_cookies()
    page.context.clear_permissions()
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
