"""The Library page in a browser."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Page, expect
from safetensors.torch import save_file

from tests.browser.conftest import THEMES, Keep, Launch, MakeHost, ServeHost
from tests.browser.panel import CheckupPage, LibraryPage, Panel, slowly
from vae_lab.host.standalone import StandaloneHost
from vae_lab.samples import SampleSet, load_sample_vae
from vae_lab.service.service import service_of

pytestmark = pytest.mark.browser

GREY, HEALTHY, NO_VAE = "grey-merge.safetensors", "healthy.safetensors", "no-vae.safetensors"
SMOOTH, COPY, BUILT_IN_TOO = "photo-a-smooth.safetensors", "copies/the same, <b>renamed<∕b>.ckpt", "photo-a.safetensors"
VAES = 9  # in 11 files


@pytest.fixture(scope="module")
def library_vaes(samples: SampleSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample VAEs; one of them also in another container, the one built into ``healthy``, and one that is none."""
    folder = tmp_path_factory.mktemp("library")
    for path in samples.vaes:
        shutil.copy(path, folder / path.name)
    (folder / COPY).parent.mkdir()
    torch.save({"state_dict": load_sample_vae("photo-a-smooth")}, folder / COPY)
    save_file(load_sample_vae("photo-a"), folder / BUILT_IN_TOO)
    (folder / "nonsense.pt").write_bytes(b"not a VAE at all")
    return folder


@pytest.fixture(scope="module")
def scanned_host(make_host: MakeHost, library_vaes: Path) -> StandaloneHost:
    """A host all of whose files were scanned. Only for tests that change nothing."""
    host = make_host(vaes=library_vaes)
    service_of(host).scans.scan()
    return host


@pytest.fixture(scope="module")
def scanned_url(scanned_host: StandaloneHost, serve_host: ServeHost) -> Iterator[str]:
    """The page of ``scanned_host``."""
    with serve_host(scanned_host) as url:
        yield url


@pytest.fixture
def many_files(make_host: MakeHost, tmp_path: Path) -> StandaloneHost:
    """A host with a hundred and twenty files more, which are read in no time."""
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(120):
        (folder / f"nonsense-{i:03}.pt").write_bytes(b"not a VAE at all")
    host = make_host(vaes=folder)
    host.folders = type(host.folders)(data=host.folders.data, vaes=(folder,))
    return host


def test_a_first_scan_and_a_second_one_that_reads_nothing(
    page: Page, launch: Launch, make_host: MakeHost, tmp_path: Path, samples: SampleSet
) -> None:
    shutil.copy(samples.smooth, tmp_path / "vae.safetensors")
    host = make_host(vaes=tmp_path, unknown_families=True)
    library = LibraryPage.open(page, launch(host))
    expect(library.overview).to_contain_text("4 files, none scanned yet.")
    expect(library.table).to_be_hidden()
    library.scan()
    expect(library.message).to_contain_text(re.compile(r"4 files scanned in .* s\. All were read \(\d+\.\d MB\)\."))
    expect(library.overview).to_contain_text("4 files: 1 broken, 1 without a VAE, 2 healthy.")
    expect(library.rows).to_have_count(4)
    expect(library.progress).to_be_hidden()
    digest = hashlib.sha256((tmp_path / "vae.safetensors").read_bytes()).hexdigest()
    hashed = library.table.locator('tr[data-name="vae.safetensors"] + tr .vae-lab-hash')
    expect(hashed).to_have_text(f"Hash {digest[:10]}")  # computed in the background
    expect(hashed).to_have_attribute("title", f"SHA-256 {digest}")
    library.scan()
    expect(library.message).to_contain_text("Nothing has changed, so nothing was read.")
    expect(library.rows).to_have_count(4)
    library.find(digest[:10])
    expect(library.rows).to_have_count(1)


def test_hashes_are_computed_in_the_background(page: Page, launch: Launch, make_host: MakeHost, tmp_path: Path) -> None:
    """Their progress is shown, other runs can start, and they can be cancelled."""
    for name in ("a.pt", "b.pt"):
        (tmp_path / name).write_bytes(name.encode())
    host = make_host(vaes=tmp_path)
    host.folders = type(host.folders)(data=host.folders.data, vaes=(tmp_path,))
    service = service_of(host)
    library = LibraryPage.open(page, launch(host))
    # The hashes wait for ever, as for another run.
    service.runs.idle.wait = lambda seconds: time.sleep(0.01)  # type: ignore[method-assign, assignment, return-value]
    library.scan()
    expect(library.message).to_contain_text("2 files scanned")
    expect(library.progress).to_contain_text(re.compile(r"0 of 2 · hashing [ab]\.pt"))
    library.scan()
    expect(library.message).to_contain_text("Nothing has changed, so nothing was read.")
    expect(library.progress).to_be_visible()
    page.click("#vae_lab_library_cancel")
    expect(library.progress).to_be_hidden()
    assert service.hashes.wait(10)
    assert host.file_cache.sha256(str(tmp_path / "a.pt")) == ""


def test_the_worst_come_first_and_duplicates_are_named(page: Page, scanned_url: str) -> None:
    """As soon as the page is opened: what an earlier scan has found is shown, and nothing is read for it."""
    library = LibraryPage.open(page, scanned_url)
    expect(library.overview).to_contain_text("11 files: 1 unreadable, 1 broken, 1 without a VAE, 8 healthy.")
    expect(library.overview).to_contain_text(
        "1 VAE file is a copy of another. Deleting it yourself would free 8.2 MB; VAE Lab never deletes a file."
    )
    expect(library.rows).to_have_count(VAES)
    expect(library.position).to_have_text("11 files")
    assert library.names()[:3] == ["nonsense.pt", GREY, NO_VAE]
    expect(library.rows.nth(0)).to_contain_text("✗ Unreadable")
    expect(library.row(GREY)).to_contain_text("✗ Broken: washed out")
    expect(library.row(GREY)).to_contain_text("Images are grey and washed out")
    expect(library.unfolded(GREY)).to_contain_text("Merge: 0.80 photo-a.safetensors + 0.20 photo-b.ckpt")
    expect(library.row(NO_VAE)).to_contain_text("⚠ No VAE inside")
    expect(library.row("sdxl-c.safetensors")).to_contain_text(re.compile(r"✓ Healthy.*VAE.*2\.9 MB.*SDXL", re.S))


def test_files_are_folded_below_their_vae(page: Page, scanned_url: str) -> None:
    library = LibraryPage.open(page, scanned_url)
    expect(library.fold(SMOOTH)).to_have_text("2 files, the same VAE")
    library.fold(SMOOTH).press("Enter")
    expect(library.fold(SMOOTH)).to_have_attribute("aria-expanded", "true")
    copy = library.unfolded(SMOOTH).locator("li")
    expect(copy).to_have_count(1)
    expect(copy).to_contain_text(COPY)
    expect(copy).to_contain_text("VAE · 8.2 MB")
    expect(copy.locator(".vae-lab-badge")).to_have_count(0)
    expect(library.unfolded(BUILT_IN_TOO)).to_contain_text(f"Built into {HEALTHY}")
    expect(library.unfolded(BUILT_IN_TOO).locator("li")).to_contain_text(f"{HEALTHY} checkpoint")
    library.fold(SMOOTH).press("Enter")
    expect(library.table.locator(".vae-lab-library-more:visible")).to_have_count(1)
    library.find(HEALTHY)
    expect(library.rows).to_have_count(1)
    assert library.names() == [HEALTHY], "what is searched for is on top"
    expect(library.unfolded(HEALTHY)).to_contain_text(f"Contains {BUILT_IN_TOO}; selecting it changes nothing.")
    library.unfolded(HEALTHY).get_by_role("button", name=BUILT_IN_TOO).press("Enter")
    expect(CheckupPage(page).verdict.locator("[data-file]")).to_have_attribute("data-file", BUILT_IN_TOO)


def test_of_a_vae_in_many_files_all_can_be_listed(
    page: Page, launch: Launch, make_host: MakeHost, samples: SampleSet, tmp_path: Path
) -> None:
    shutil.copy(samples.smooth, tmp_path / "copy-1.safetensors")
    for i in range(2, 61):
        os.link(tmp_path / "copy-1.safetensors", tmp_path / f"copy-{i}.safetensors")
    host = make_host(vaes=tmp_path)
    service_of(host).scans.scan()
    library = LibraryPage.open(page, launch(host))
    first = "copy-1.safetensors"
    expect(library.fold(first)).to_have_text("60 files, the same VAE")
    expect(library.unfolded(first).locator("li")).to_have_count(5)
    library.unfolded(first).get_by_role("button", name="Show all 60 files").click()
    expect(library.rows).to_have_count(50)
    expect(library.position).to_have_text("Page 1 of 2, 60 files")
    library.next.click()
    expect(library.rows).to_have_count(10)
    expect(library.fold("copy-60.safetensors")).to_have_text("Details")
    library.find("")
    expect(library.fold(first)).to_have_text("60 files, the same VAE")


def test_what_was_found_outlives_the_program(page: Page, launch: Launch, scanned_host: StandaloneHost) -> None:
    again = StandaloneHost(scanned_host.folders)
    again.select_checkpoint(HEALTHY)
    library = LibraryPage.open(page, launch(again))
    expect(library.rows).to_have_count(VAES)
    library.scan()
    expect(library.message).to_contain_text("nothing was read.")


def test_filter_status_and_order(page: Page, scanned_url: str) -> None:
    library = LibraryPage.open(page, scanned_url)
    expect(library.rows).to_have_count(VAES)
    library.find("grey WASHED")
    expect(library.rows).to_have_count(1)
    assert library.names() == [GREY]
    library.find("no such words")
    expect(library.table).to_contain_text("No matching files")
    library.find("")
    expect(library.rows).to_have_count(VAES)
    library.choose("status", "Healthy")
    expect(library.rows).to_have_count(6)
    expect(library.position).to_contain_text("8 files")
    library.choose("sort", "Duplicates first")
    expect(library.rows.nth(0)).to_have_attribute("data-name", SMOOTH)
    library.choose("status", "All")
    library.choose("sort", "Size, largest first")
    expect(library.rows.nth(0)).to_have_attribute("data-name", re.compile(f"{GREY}|{HEALTHY}"))
    expect(library.rows.nth(VAES - 1)).to_have_attribute("data-name", "nonsense.pt")
    library.choose("sort", "Name")
    expect(library.rows.nth(0)).to_have_attribute("data-name", "anime.vae.pt")


def test_the_table_follows_quick_typing(
    page: Page, launch: Launch, scanned_host: StandaloneHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = LibraryPage.open(page, launch(scanned_host))
    expect(library.rows).to_have_count(VAES)
    service = service_of(scanned_host)
    monkeypatch.setattr(service.scans, "vaes", slowly(service.scans.vaes))
    field = page.locator("#vae_lab_library_filter").locator("input, textarea")
    field.press_sequentially("grey washed", delay=60)
    expect(library.rows).to_have_count(1)
    assert library.names() == [GREY]
    field.fill("")
    page.wait_for_timeout(100)
    library.choose("status", "Unreadable")
    library.choose("sort", "Name")
    expect(library.rows).to_have_count(1)
    expect(library.rows.nth(0)).to_have_attribute("data-name", "nonsense.pt")
    page.wait_for_timeout(2000)
    assert library.names() == ["nonsense.pt"]


def test_paging(page: Page, launch: Launch, many_files: StandaloneHost) -> None:
    service_of(many_files).scans.scan()
    library = LibraryPage.open(page, launch(many_files))
    expect(library.rows).to_have_count(50)
    expect(library.position).to_have_text("Page 1 of 3, 120 files")
    expect(library.previous).to_be_disabled()
    library.next.click()
    expect(library.position).to_have_text("Page 2 of 3, 120 files")
    expect(library.rows.nth(0)).to_have_attribute("data-name", "nonsense-050.pt")
    library.next.press("Enter")
    expect(library.position).to_have_text("Page 3 of 3, 120 files")
    expect(library.rows).to_have_count(20)
    expect(library.next).to_be_disabled()
    library.previous.click()
    expect(library.position).to_have_text("Page 2 of 3, 120 files")
    page.locator(".tab-nav button", has_text="Checkup").click()
    page.locator(".tab-nav button", has_text="Library").click()
    page.wait_for_timeout(1000)
    expect(library.position).to_have_text("Page 2 of 3, 120 files")
    expect(library.jump).to_have_value("2")
    library.jump.fill("3")
    expect(library.position).to_have_text("Page 3 of 3, 120 files")
    library.jump.fill("99")
    expect(library.jump).to_have_value("3")
    library.jump.fill("1")
    expect(library.position).to_have_text("Page 1 of 3, 120 files")
    library.find("nonsense-11")
    expect(library.rows).to_have_count(10)
    expect(library.previous).to_be_hidden()
    expect(library.jump).to_be_hidden()


def test_progress_cancel_and_going_on(page: Page, launch: Launch, many_files: StandaloneHost) -> None:
    runs, scans = service_of(many_files).runs, service_of(many_files).scans
    report = runs.report

    def pausing(done: int, total: int, what: str) -> None:
        report(done, total, what)
        while done >= 3 and not runs.cancelled():
            time.sleep(0.01)

    runs.report = pausing  # type: ignore[method-assign]
    library = LibraryPage.open(page, launch(many_files))
    page.click("#vae_lab_library_scan")
    expect(library.progress).to_have_attribute("aria-valuenow", "3")
    expect(library.progress).to_have_attribute("aria-valuemax", "240")
    expect(library.progress).to_contain_text(re.compile(r"3 of 240 · reading nonsense-\d+\.pt"))
    page.click("#vae_lab_library_cancel")
    expect(library.message).to_contain_text(
        re.compile(r"Stopped after \d\d? of 120 files in .*\. Press Scan to resume\.")
    )
    expect(library.progress).to_be_hidden()
    expect(library.overview).to_contain_text(re.compile(r"120 files:\s+\d+\s+unreadable,\s+\d+\s+new\."))
    known = scans.inventory().overview.counts["unreadable"]
    runs.report = report  # type: ignore[method-assign]
    library.scan()
    expect(library.message).to_contain_text(re.compile(rf"120 files scanned in .* s\. {120 - known} read"))
    expect(library.overview).to_contain_text("120 files: 120 unreadable.")


def test_a_row_opens_the_checkup(page: Page, scanned_url: str) -> None:
    library = LibraryPage.open(page, scanned_url)
    link = library.row(GREY).locator("th").get_by_role("button")
    link.focus()
    link.press("Enter")
    checkup = CheckupPage(page)
    expect(checkup.verdict.locator("[data-file]")).to_have_attribute("data-file", GREY)
    expect(checkup.badge).to_have_text("✗ Broken: washed out")
    page.wait_for_timeout(1000)
    expect(checkup.verdict.locator("[data-file]")).to_have_attribute("data-file", GREY)
    expect(checkup.charts.locator("img")).to_have_count(3)


def test_reports_can_be_downloaded(page: Page, scanned_url: str) -> None:
    library = LibraryPage.open(page, scanned_url)
    expect(library.rows).to_have_count(VAES)
    for words, name in (("JSON lines", "jsonl"), ("CSV", "csv"), ("HTML page", "html")):
        with page.expect_download() as download:
            page.get_by_role("link", name=words).click()
        assert download.value.suggested_filename == f"vae-lab-library.{name}"
        assert GREY in Path(download.value.path()).read_text(encoding="utf8")


def test_a_host_without_files(page: Page, launch: Launch, make_host: MakeHost, tmp_path: Path) -> None:
    host = make_host(vaes=tmp_path)
    host.folders = type(host.folders)(data=host.folders.data)
    library = LibraryPage.open(page, launch(host))
    expect(library.overview).to_contain_text("No files yet")
    library.scan()
    expect(library.message).to_contain_text("No checkpoint or VAE was found")


@pytest.mark.parametrize("theme", THEMES)
def test_nothing_is_cut(page: Page, scanned_url: str, keep_screenshot: Keep, theme: str) -> None:
    library = LibraryPage.open(page, scanned_url, theme)
    expect(library.rows).to_have_count(VAES)
    library.unfolded(SMOOTH)
    cut = "all => all.filter(cell => cell.scrollWidth > cell.clientWidth + 1).map(cell => cell.innerText)"
    high = "all => all.filter(cell => cell.scrollHeight > 60).map(cell => cell.innerText)"
    for width in (400, 1280, 2560):
        page.set_viewport_size({"width": width, "height": 1000})
        keep_screenshot(page, f"library-{width}-{theme}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert library.rows.locator("td, th").evaluate_all(cut) == []
        assert width == 400 or library.rows.evaluate_all(high) == [], "one or two lines"
    names = library.rows.locator("th button").all_inner_texts()
    assert set(names) == set(library.names())


def test_the_library_asks_nothing_while_it_is_not_in_view(
    page: Page, launch: Launch, make_host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listing ten thousand files takes seconds: opening another page must not wait for it."""
    host = make_host()
    service = service_of(host)
    asked: list[object] = []
    monkeypatch.setattr(service.scans, "inventory", lambda **how: asked.append(how))
    Panel.open(page, launch(host))
    page.wait_for_timeout(1000)
    assert asked == []
