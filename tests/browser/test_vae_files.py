"""Extract and deduplicate on the Library page, in a browser."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import THEMES, Keep, Launch
from tests.browser.panel import LibraryPage
from tests.unit import extract_tree
from tests.unit.extract_tree import WRITTEN, state_of
from vae_lab.errors import Cancelled
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.library.hashes import hash_files
from vae_lab.progress import Progress
from vae_lab.service import extracts
from vae_lab.service.service import service_of

pytestmark = [pytest.mark.browser, pytest.mark.skipif(os.name == "nt", reason="inodes are those of POSIX")]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """With a VAE file and two copies of it."""
    models = extract_tree.scanned(tmp_path)
    vaes = models / "VAE"
    for name in ("mine-copy.pt", "downloads/mine-again.pt"):
        (vaes / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(vaes / "mine.pt", vaes / name)
    os.utime(vaes / "mine.pt", ns=(10**18, 10**18))
    host = host_of(models)
    state = state_of("external")
    for path in vaes.rglob("*.pt"):
        extract_tree.add_record(path, "vae", "external", state, host.file_cache)
    hash_files(host.listing(fresh=True).files, host.file_cache)
    host.file_cache.close()
    return models


def host_of(models: Path) -> StandaloneHost:
    return StandaloneHost(Folders.of_models(models, models.parent / "data", webui=True))


def section(page: Page) -> Locator:
    return page.locator("#vae_lab_library_vae_files").first


def table(page: Page, name: str) -> Locator:
    return section(page).locator(f".vae-lab-{name}-table tbody tr")


def links(models: Path) -> set[int]:
    return {path.stat().st_ino for path in (models / "VAE").rglob("*.pt")}


def test_extract_replace_reload_and_undo(page: Page, launch: Launch, models: Path) -> None:
    host = host_of(models)
    url = launch(host)
    library = LibraryPage.open(page, url)
    page.click("#vae_lab_library_vae_files_open")
    rows = table(page, "extract")
    expect(rows).to_have_count(5)
    expect(rows.filter(has_text="grey.safetensors")).to_contain_text("it is broken")
    expect(rows.filter(has_text="deep/second.ckpt")).to_contain_text("1 other checkpoint has the same VAE")
    rows.filter(has_text="anything-v3").locator("input").uncheck()
    extract = section(page).locator("[data-files=extract]")
    expect(extract).to_have_text("Extract these VAEs (2)")
    with service_of(host).runs.one_at_a_time():
        extract.click()
        expect(library.message).to_contain_text("another task is running")
        expect(extract).to_be_enabled()
    rows.filter(has_text="anything-v3").locator("input").uncheck()
    extract.click()
    expect(library.message).to_contain_text("Extracted: 2 files.")
    written = {path.name for path in (models / "VAE").glob("vae-*")}
    assert written == set(WRITTEN.values()) - {"vae-anything-v3.safetensors"}
    expect(library.row("vae-anything.safetensors")).to_be_visible()
    copies = table(page, "copies")
    expect(copies).to_have_count(2)
    assert len(links(models)) == 3
    section(page).locator("[data-files=dedupe]").click()
    expect(library.message).to_contain_text("Replaced by links: 2 files.")
    expect(section(page).get_by_role("listitem")).to_have_count(2)
    assert len(links(models)) == 1 or all(path.stat().st_nlink == 1 for path in (models / "VAE").rglob("*.pt"))
    library = LibraryPage.open(page, url)
    expect(section(page).get_by_role("listitem")).to_have_count(2)
    section(page).get_by_role("button", name="Undo all").click()
    expect(library.message).to_contain_text("Independent again: 2 files.")
    expect(section(page)).to_be_hidden()
    assert len(links(models)) == 3


def test_progress_and_cancel(page: Page, launch: Launch, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that is at 40 % until it is cancelled."""
    cancelled_soon = threading.Event()

    def writing(source: Path, out: Path, *, progress: Progress, cancelled: Callable[[], bool]) -> None:
        progress(700_000, 1_750_400, "")
        while not cancelled():
            cancelled_soon.wait(0.05)
        raise Cancelled("cancelled")

    monkeypatch.setattr(extracts, "extract", writing)
    library = LibraryPage.open(page, launch(host_of(models)))
    page.click("#vae_lab_library_vae_files_open")
    expect(table(page, "extract")).to_have_count(5)
    section(page).locator("[data-files=extract]").click()
    expect(library.progress).to_contain_text("0.7 MB of 2.6 MB")
    expect(library.progress).to_contain_text("vae-")
    page.click("#vae_lab_library_cancel")
    expect(library.message).to_contain_text("Extracted: 0 files. Stopped. What is complete stays.")
    expect(library.progress).to_be_hidden()
    expect(section(page).locator("[data-files=extract]")).to_be_enabled()


@pytest.mark.parametrize("theme", THEMES)
def test_nothing_is_cut(page: Page, launch: Launch, models: Path, keep_screenshot: Keep, theme: str) -> None:
    page.set_viewport_size({"width": 1280, "height": 1200})
    library = LibraryPage.open(page, launch(host_of(models)), theme)
    page.click("#vae_lab_library_vae_files_open")
    expect(table(page, "copies")).to_have_count(2)
    cut = "all => all.filter(cell => cell.scrollWidth > cell.clientWidth + 1).map(cell => cell.innerText)"
    for width in (1280, 400):
        page.set_viewport_size({"width": width, "height": 1200})
        keep_screenshot(page, f"vae-files-{width}-{theme}")
        assert section(page).locator("td, th").evaluate_all(cut) == []
        assert section(page).evaluate("section => section.getBoundingClientRect().right <= innerWidth")
    page.set_viewport_size({"width": 1280, "height": 1200})
    section(page).locator("[data-files=dedupe]").click()
    expect(library.message).to_contain_text("Replaced by links: 2 files.")
    keep_screenshot(page, f"vae-files-replaced-{theme}")
