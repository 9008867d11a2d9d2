"""A real page in a real browser: the stand-alone app on a free port, and a headless Chromium that tells every error.

``VAE_LAB_SCREENSHOTS=DIR`` keeps the images that tests take; ``VAE_LAB_CHROMIUM=FILE`` names the browser.
"""

from __future__ import annotations

import gc
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
import torch
from fastapi import FastAPI

from vae_lab.comparison import Comparison
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.latents import Generation, save_latents
from vae_lab.latents.family import FAMILIES
from vae_lab.samples import SampleSet, build_sample_set, load_sample_latents

pytest.importorskip("playwright", reason="browser tests need playwright")

from playwright.sync_api import Browser, Page, expect, sync_playwright

PATIENCE = 90_000  # ms: for a machine that is slow and busy
expect.set_options(timeout=PATIENCE)

SCREENSHOTS = os.environ.get("VAE_LAB_SCREENSHOTS", "")
CHROMIUM = os.environ.get("VAE_LAB_CHROMIUM", "/usr/bin/chromium")
# What gradio itself loads from elsewhere. The browser is not to wait for it, and reports that it is not there; nothing
# of ours may be here.
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


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> SampleSet:
    """The sample set, unfolded once for all browser tests; nothing may be changed in it, nor linked to: the cache
    would no longer know the files.
    """
    return build_sample_set(tmp_path_factory.mktemp("samples"))


def small_latents(name: str, size: int, family: str = "sd1") -> torch.Tensor:
    """[1,4,size,size] out of the middle of a sample latent: decoding it takes a fraction of a second."""
    start = (64 - size) // 2
    return load_sample_latents(family)[name][:, :, start : start + size, start : start + size].contiguous()


@pytest.fixture(scope="session")
def latents_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small latents, by name: ``astronaut`` (a batch of two, with infotexts), ``brushes``, and ``later-sdxl``."""
    folder = tmp_path_factory.mktemp("latents")
    sd1, sdxl = FAMILIES["sd1"], FAMILIES["sdxl"]
    pair = torch.cat([small_latents("astronaut", 16), small_latents("brushes", 16)])
    texts = ("an astronaut, <b>bold</b>\nSteps: 20, Seed: 1", "brushes\nSteps: 20, Seed: 2")
    save_latents(Generation("", pair, sd1, "Astronaut and brushes", texts), folder / "astronaut.safetensors")
    brushes = small_latents("brushes", 64 if SCREENSHOTS else 24)  # kept screenshots deserve a whole image
    save_latents(Generation("", brushes, sd1, "Brushes"), folder / "brushes.safetensors")
    last = small_latents("astronaut", 16, "sdxl")
    save_latents(Generation("", last, sdxl, "SDXL"), folder / "later-sdxl.safetensors")
    return folder


def free_port() -> int:
    """A port that nobody uses; gradio's own range may be in use by other programs that are being tested."""
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
    blocks.server.force_exit = True  # else uvicorn waits, for ever at times, for what the page's queue had open
    blocks.close(verbose=False)
    with warnings.catch_warnings():
        # Gradio 3 stops its server in the middle of the page's last websocket; that is not ours to mend.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


MakeHost = Callable[..., StandaloneHost]


@pytest.fixture(scope="session")
def families_of_samples(samples: SampleSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data in which the families of the samples are known; telling them takes a second for each."""
    data = tmp_path_factory.mktemp("known")
    host = StandaloneHost(Folders(data, (samples.healthy.parent,), (samples.smooth.parent,)))
    host.identify()
    for path in host.checkpoint_files().values():
        host.facts.identify(str(path))
    host.facts.close()
    return data


@pytest.fixture(scope="session")
def make_host(
    samples: SampleSet, latents_folder: Path, families_of_samples: Path, tmp_path_factory: pytest.TempPathFactory
) -> MakeHost:
    """Makes a host over the samples, with ``healthy`` in use, that remembers nothing of the others.

    It knows the samples' families, unless it is to look at them first (``strangers``).
    """

    def make(vaes: Path | None = None, latents: Path | None = None, *, strangers: bool = False) -> StandaloneHost:
        data = tmp_path_factory.mktemp("data")
        if not strangers:
            shutil.copytree(families_of_samples, data, dirs_exist_ok=True)
        folders = Folders(
            data=data,
            checkpoints=(samples.healthy.parent,),
            vaes=(vaes or samples.smooth.parent,),
            latents=(latents or latents_folder,),
        )
        host = StandaloneHost(folders)
        host.select_checkpoint(samples.healthy.name)
        return host

    return make


class PausingHost(StandaloneHost):
    """Compares as ever up to the third image, then waits until it is cancelled: however fast the machine is, a
    test finds it at work.
    """

    def compare(self, generation_id, vaes, progress=None, cancelled=None):  # type: ignore[no-untyped-def]
        def report(done: int, total: int, what: str) -> None:
            progress(done, total, what)
            while done >= 3 and not cancelled():
                time.sleep(0.01)

        return super().compare(generation_id, vaes, report, cancelled)


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


class RememberingHost(StandaloneHost):
    """Decodes what it is asked for once, and gives the same images to whoever asks for it again."""

    made: dict[object, Comparison]

    def compare(self, generation_id, vaes, progress=None, cancelled=None):  # type: ignore[no-untyped-def]
        asked = (generation_id, *vaes)
        if asked not in self.made:
            self.made[asked] = super().compare(generation_id, vaes, progress, cancelled)
        return self.made[asked]


@pytest.fixture(scope="module")
def shared_host(make_host: MakeHost) -> StandaloneHost:
    """One host for the tests that leave no trace in it."""
    host = make_host()
    host.__class__, host.made = RememberingHost, {}
    return host


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
    if not Path(CHROMIUM).exists():
        pytest.skip(f"no browser at {CHROMIUM}; name one with VAE_LAB_CHROMIUM")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A new page; the test fails if it reports an error, or asks any other machine for anything."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(f"page error: {error}"))
    page.on("console", lambda message: _note_console(message, problems))
    page.on("request", lambda request: _note_request(request.url, problems))
    yield page
    context.close()
    assert not problems, "\n".join(problems)


def _note_console(message: object, problems: list[str]) -> None:
    where = message.location.get("url", "")
    if message.text.startswith("AbortError: "):
        return  # gradio's, of a page that leaves while its queue answers
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
