"""Long lists of VAEs in a browser."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import THEMES, Keep, Launch, MakeHost
from tests.browser.panel import Panel, RoundTripPage
from vae_lab.host.standalone import StandaloneHost

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


class VaeList:
    """A list of VAEs to tick, with its search."""

    def __init__(self, page: Page, id: str = LISTS["Compare"]) -> None:  # noqa: A002
        self.whole = page.locator(id)
        self.field = self.whole.get_by_role("searchbox", name="Search the VAEs")
        self.count = self.whole.locator("output")
        self.ticked = self.whole.get_by_role("button", name="ticked")
        self.shown = self.whole.locator("label:visible")

    def names(self) -> list[str]:
        return [text.strip() for text in self.shown.all_inner_texts()]


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


def test_a_short_list_has_no_search(page: Page, shared_url: str) -> None:
    Panel.open(page, shared_url)
    vaes = VaeList(page)
    expect(vaes.shown).to_have_count(5)
    expect(vaes.whole.locator("input:checked")).to_have_count(4)
    expect(vaes.field).to_have_count(0)


@pytest.mark.parametrize("theme", THEMES)
def test_a_long_list_fits_every_width(
    page: Page, launch: Launch, long_list: StandaloneHost, keep_screenshot: Keep, theme: str
) -> None:
    Panel.open(page, launch(long_list), theme)
    vaes = VaeList(page)
    expect(vaes.count).to_have_text("30 of 30")
    for width in (1280, 400):
        page.set_viewport_size({"width": width, "height": 1000})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        too_wide = "all => all.filter(each => each.scrollWidth > each.clientWidth + 1).length"
        assert vaes.whole.locator("label, .vae-lab-vae-search").evaluate_all(too_wide) == 0
        keep_screenshot(page, f"vae-list-{theme}-{width}")
