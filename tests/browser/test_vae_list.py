"""Long lists of VAEs in a browser."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import THEMES, Keep, Launch, MakeHost, ServeHost
from tests.browser.panel import Panel, RoundTripPage
from vae_lab.host.standalone import StandaloneHost
from vae_lab.samples import SampleSet

pytestmark = pytest.mark.browser

LISTS = {"Compare": "#vae_lab_vaes", "Round trip": "#vae_lab_roundtrip_vaes"}


@pytest.fixture
def long_list(make_host: MakeHost, tmp_path: Path) -> StandaloneHost:
    """A host with thirty VAEs, of which nothing is known."""
    folder = tmp_path / "vaes"
    folder.mkdir()
    (folder / "vae-1.pt").write_bytes(b"not a VAE at all")
    for i in range(2, 30):
        os.link(folder / "vae-1.pt", folder / f"vae-{i}.pt")
    os.link(folder / "vae-1.pt", folder / f"A very long name {'that goes on and on ' * 6}Anime.pt")
    return make_host(vaes=folder)


@pytest.fixture(scope="module")
def families_url(
    make_host: MakeHost, serve_host: ServeHost, samples: SampleSet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The page of a host with VAEs of two families, some of them copies, some unusable, and some not identified."""
    folder = tmp_path_factory.mktemp("families")
    copies = {"sdxl-c.safetensors": 4, "photo-a-smooth.safetensors": 3, "anime.vae.pt": 1}
    for name, count in copies.items():
        first = folder / name
        shutil.copy(samples.smooth.parent / name, first)
        for i in range(1, count):
            os.link(first, folder / f"copy-{i}-of-{name}")
    for i in range(2):
        (folder / f"nonsense-{i}.pt").write_bytes(b"not a VAE at all")
    host = make_host(vaes=folder)
    host.identify()
    for i in range(2):
        (folder / f"later-{i}.pt").write_bytes(b"neither is this")
    host.refresh()
    with serve_host(host) as url:
        yield url


class VaeList:
    """A list of VAEs to tick, with its search."""

    def __init__(self, page: Page, id: str = LISTS["Compare"]) -> None:  # noqa: A002
        self.whole = page.locator(id)
        self.field = self.whole.get_by_role("searchbox", name="Search the VAEs")
        self.count = self.whole.locator("output")
        self.ticked = self.whole.get_by_role("button", name="ticked")
        self.shown = self.whole.locator("label:visible")
        self.fold = self.whole.get_by_role("button", name="files, the same VAE")
        self.lines = self.whole.locator("[data-testid=checkbox-group] > :visible")

    def names(self) -> list[str]:
        return [text.strip() for text in self.shown.all_inner_texts()]

    def all_lines(self) -> list[str]:
        """Boxes, headings and buttons that are shown."""
        return [text.strip() for text in self.lines.all_inner_texts()]


@pytest.mark.parametrize("where", LISTS)
def test_a_long_list_is_searched_by_keyboard(page: Page, launch: Launch, long_list: StandaloneHost, where: str) -> None:
    Panel.open(page, launch(long_list))
    if where == "Round trip":
        RoundTripPage.turn_to(page)
    vaes = VaeList(page, LISTS[where])
    expect(vaes.count).to_have_text("30 of 30")
    assert vaes.names()[1:] == [f"vae-{i}.pt" for i in range(1, 30)], "2 before 10"
    expect(vaes.ticked).to_have_text("4 ticked")
    vaes.field.focus()
    page.keyboard.type("PT vae-2")
    expect(vaes.count).to_have_text("11 of 30")
    assert vaes.names() == ["vae-2.pt", *(f"vae-{i}.pt" for i in range(20, 30))]
    for key in ("Tab", "Tab", "Tab", "Space"):
        page.keyboard.press(key)
    expect(vaes.ticked).to_have_text("5 ticked")
    vaes.field.fill("no such VAE")
    expect(vaes.count).to_have_text("0 of 30")
    vaes.field.fill("")
    vaes.ticked.press("Enter")
    expect(vaes.count).to_have_text("5 of 30")
    expect(vaes.whole.locator("label:has(input:checked):visible")).to_have_count(5)
    vaes.ticked.press("Enter")
    expect(vaes.count).to_have_text("30 of 30")


def test_what_is_searched_for_stays_when_the_list_changes(
    page: Page, launch: Launch, long_list: StandaloneHost
) -> None:
    panel, vaes = Panel.open(page, launch(long_list)), VaeList(page)
    vaes.field.fill("vae-2")
    expect(vaes.count).to_have_text("11 of 30")
    folder = long_list.folders.vaes[0]
    (folder / "vae-20.pt").unlink()
    (folder / "vae-200.pt").write_bytes(b"new")
    (folder / "vae-201.pt").write_bytes(b"new")
    panel.refresh()
    expect(vaes.count).to_have_text("12 of 31")
    assert vaes.names() == ["vae-2.pt", *(f"vae-{i}.pt" for i in (*range(21, 30), 200, 201))]


SD1, SDXL = " · SD1 / SD2", " · SDXL"
SAME = ["copy-1-of-photo-a-smooth.safetensors", "copy-2-of-photo-a-smooth.safetensors", "photo-a-smooth.safetensors"]
LINES = [
    *("SD1 / SD2 · 4", f"anime.vae.pt{SD1}", f"{SAME[0]}{SD1}", "3 files, the same VAE"),
    *("SDXL · 4", f"copy-1-of-sdxl-c.safetensors{SDXL}", "4 files, the same VAE"),
    *("Not identified yet · 2", "later-0.pt", "later-1.pt", "Cannot be used · 2"),
]


def test_groups_and_copies(page: Page, families_url: str) -> None:
    panel = Panel.open(page, families_url)
    vaes = VaeList(page)
    expect(vaes.count).to_have_text("12 of 12")
    assert vaes.all_lines()[:-2] == LINES
    assert [name.partition(" · ")[0] for name in vaes.all_lines()[-2:]] == ["nonsense-0.pt", "nonsense-1.pt"]
    assert panel.ticked() == [f"anime.vae.pt{SD1}", f"{SAME[0]}{SD1}", "later-0.pt", "later-1.pt"]
    vaes.fold.first.press("Enter")
    expect(vaes.fold.first).to_have_attribute("aria-expanded", "true")
    assert vaes.all_lines()[2:6] == [f"{SAME[0]}{SD1}", "3 files, the same VAE", f"{SAME[1]}{SD1}", f"{SAME[2]}{SD1}"]
    vaes.whole.get_by_label(SAME[1]).check()
    panel.refresh()
    assert len(vaes.all_lines()) == len(LINES) + 4, "what is open stays open"
    panel.choose("vae_lab_source", " · SDXL · ")
    expect(vaes.lines.first).to_have_text("SDXL · 4")
    panel.choose("vae_lab_source", "· Brushes · ")
    expect(vaes.lines.first).to_have_text("SD1 / SD2 · 4")
    vaes.fold.first.click()
    expect(vaes.lines).to_have_count(len(LINES) + 2)


def test_copies_are_found_and_all_ticks_what_is_found(page: Page, families_url: str) -> None:
    panel = Panel.open(page, families_url)
    vaes = VaeList(page)
    page.click("#vae_lab_none")
    expect(vaes.ticked).to_have_text("0 ticked")
    vaes.field.fill("copy")
    expect(vaes.count).to_have_text("5 of 12")
    assert vaes.fold.count() == 0
    page.click("#vae_lab_all")
    expect(vaes.ticked).to_have_text("1 ticked")
    assert panel.ticked() == [f"{SAME[0]}{SD1}"], "SDXL does not fit, and a copy is the same VAE"
    vaes.field.fill("")
    page.click("#vae_lab_all")
    expect(vaes.ticked).to_have_text("4 ticked")
    assert len(vaes.all_lines()) == len(LINES) + 2


def test_ticked_copies_are_shown(page: Page, families_url: str) -> None:
    Panel.open(page, families_url)
    vaes = VaeList(page)
    expect(vaes.lines).to_have_count(len(LINES) + 2)
    vaes.field.fill(SAME[1])
    expect(vaes.shown).to_have_count(1)
    vaes.shown.click()
    vaes.field.fill("")
    expect(vaes.lines).to_have_count(len(LINES) + 4)
    expect(vaes.whole.get_by_label(SAME[1])).to_be_checked()


def test_what_was_compared_comes_first(page: Page, launch: Launch, long_list: StandaloneHost) -> None:
    panel = Panel.open(page, launch(long_list))
    vaes = VaeList(page)
    expect(vaes.lines.first).to_have_text("Not identified yet · 30")
    long_list.note_used(["vae-20.pt", "vae-3.pt"])
    panel.refresh()
    expect(vaes.lines.first).to_have_text("Recently used · 2")
    assert vaes.all_lines()[1:4] == ["vae-3.pt", "vae-20.pt", "Not identified yet · 28"]


def test_menus_show_the_end_of_a_long_name(page: Page, launch: Launch, long_list: StandaloneHost) -> None:
    panel = Panel.open(page, launch(long_list))
    panel.choose("vae_lab_decoder", "Anime.pt")
    field = page.locator("#vae_lab_decoder input")
    field.blur()
    expect(field).to_have_value(re.compile("^A very long name .*Anime.pt$"))
    page.wait_for_function(
        """() => {
            const field = document.querySelector("#vae_lab_decoder input");
            const isLong = field.scrollWidth > field.clientWidth;
            return isLong && field.scrollLeft + field.clientWidth > field.scrollWidth - 2;
        }"""
    )
    field.click()
    option = page.get_by_test_id("dropdown-option").filter(has_text="Anime.pt")
    assert option.evaluate("element => element.scrollWidth <= element.clientWidth + 1")


def test_a_short_list_has_no_search(page: Page, shared_url: str) -> None:
    Panel.open(page, shared_url)
    vaes = VaeList(page)
    expect(vaes.shown).to_have_count(5)
    expect(vaes.whole.locator("input:checked")).to_have_count(4)
    expect(vaes.field).to_have_count(0)


@pytest.mark.parametrize("theme", THEMES)
def test_a_long_list_fits_every_width(
    page: Page, launch: Launch, long_list: StandaloneHost, families_url: str, keep_screenshot: Keep, theme: str
) -> None:
    for name, url in {"groups": families_url, "list": launch(long_list)}.items():
        Panel.open(page, url, theme)
        vaes = VaeList(page)
        expect(vaes.lines.first).to_contain_text(" · ")
        fits_every_width(page, vaes, keep_screenshot, f"vae-{name}-{theme}")


def fits_every_width(page: Page, vaes: VaeList, keep_screenshot: Keep, name: str) -> None:
    for width in (1280, 400):
        page.set_viewport_size({"width": width, "height": 1000})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        too_wide = "all => all.filter(each => each.scrollWidth > each.clientWidth + 1).length"
        assert vaes.whole.locator("label, button, p, .vae-lab-vae-search").evaluate_all(too_wide) == 0
        keep_screenshot(page, f"{name}-{width}")
