"""The language of the stand-alone app: that of the browser until the user chooses another one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import VIEWPORT, Keep, watched
from tests.browser.panel import LightTable, Panel
from vae_lab.ui.assets import folder

pytestmark = pytest.mark.browser

CHINESE: dict[str, str] = json.loads((folder() / "localizations" / "zh_CN.json").read_text(encoding="utf8"))
ENGLISH = [text for text, translated in CHINESE.items() if text != translated]
PAGES = {  # id of each page -> its title, and what a refresh fills
    "compare": ("Compare", "deciding"),
    "roundtrip": ("Round trip", "roundtrip_built_in"),
    "checkup": ("Checkup", "checkup_deciding"),
    "library": ("Library", "library_overview"),
}

# Texts in view for which there is a translation; the values of fields are gradio's.
LEFT_OVER = """(english) => {
    const known = new Set(english), shown = [];
    const walk = document.createTreeWalker(document.querySelector(".gradio-container"), NodeFilter.SHOW_TEXT);
    const isInView = (element) => element.checkVisibility({visibilityProperty: true});
    while (walk.nextNode()) {
        if (isInView(walk.currentNode.parentElement)) shown.push(walk.currentNode.nodeValue.trim());
    }
    for (const name of ["title", "placeholder", "aria-label"]) {
        const elements = [...document.querySelectorAll(`[${name}]`)].filter(isInView);
        shown.push(...elements.map((each) => each.getAttribute(name)));
    }
    return shown.filter((text) => known.has(text));
}"""


@pytest.fixture
def chinese_page(browser: Browser) -> Iterator[Page]:
    """A page of a browser that asks for Chinese."""
    with browser.new_context(viewport=VIEWPORT, locale="zh-CN") as context, context.new_page() as page, watched(page):
        yield page


def choose(page: Page, language: str) -> None:
    """Choose it, and wait for the page to be loaded again."""
    with page.expect_navigation():
        page.locator(".vae-lab-language select").select_option(label=language)
    expect(page.locator("#vae_lab_compare")).to_be_visible()
    Panel(page).refreshed()


def test_a_chinese_browser_gets_a_chinese_page(chinese_page: Page, shared_url: str, keep_screenshot: Keep) -> None:
    """All four pages, with a comparison; over two seconds: the language is then changed on the same page."""
    page = chinese_page
    table = LightTable.open(page, shared_url, "anime.vae.pt")
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    expect(page.locator("#vae_lab_compare")).to_have_text(CHINESE["Compare"])
    expect(table.button(CHINESE["Difference"])).to_be_visible()
    expect(page.locator("#vae_lab_numbers thead")).to_contain_text("对比度")
    expect(page.locator("#vae_lab_numbers a[href*=shares]")).to_have_attribute("href", re.compile(r"\?language=zh_CN$"))
    for name, (title, filled) in PAGES.items():
        page.locator(".tab-nav button", has_text=CHINESE[title]).click()
        expect(page.locator(f"#vae_lab_{filled}").first).to_contain_text(re.compile("[\u4e00-\u9fff]"))
        page.wait_for_function(f"(english) => !({LEFT_OVER})(english).length", arg=ENGLISH)  # the page refreshes itself
        keep_screenshot(page, f"chinese-{name}")


def test_a_language_is_chosen_and_remembered(page: Page, shared_url: str, keep_screenshot: Keep) -> None:
    """Over two seconds: the page is loaded four times."""
    Panel.open(page, shared_url)
    menu = page.get_by_role("combobox", name="Language")
    expect(menu).to_have_value("en")
    keep_screenshot(page, "language")
    choose(page, "中文")
    expect(page.locator("#vae_lab_built_in").first).to_contain_text(CHINESE["is always included"])
    expect(page.locator("h1 + p")).to_have_text(
        next(each for key, each in CHINESE.items() if key.startswith("One latent,"))
    )
    page.reload()
    expect(page.locator("#vae_lab_compare")).to_have_text(CHINESE["Compare"])
    choose(page, "English")
    expect(page.locator("#vae_lab_compare")).to_have_text("Compare")
    expect(page.locator("#vae_lab_built_in").first).to_contain_text("is always included")
