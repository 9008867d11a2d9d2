"""Buttons of the tab when the server does not answer."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import PATIENCE, VIEWPORT
from tests.browser.panel import Panel

pytestmark = pytest.mark.browser


@pytest.fixture
def unwatched(browser: Browser) -> Iterator[Page]:
    """A page that may report errors."""
    with browser.new_context(viewport=VIEWPORT) as context, context.new_page() as page:
        page.set_default_timeout(PATIENCE)
        yield page


def test_a_click_says_that_there_is_no_answer(unwatched: Page, shared_url: str) -> None:
    """Next to the button; not for what needs no server, and no longer when there is an answer again."""
    page = unwatched
    panel = Panel.open(page, shared_url)
    note = page.get_by_role("alert").filter(has_text="No response from VAE Lab.")
    expect(note).to_have_count(0)
    # Gradio 4 never ends an event whose answer is lost on the way, and then ignores the button; an event that was
    # asked for before may still be underway.
    page.route(re.compile("^(?!.*/queue/data)"), lambda route: route.abort())
    pressed = [
        "#vae_lab_all", "#vae_lab_use_for_checkpoint", "#vae_lab_compare", "#vae_lab_thumbnails [data-pick] >> nth=1"
    ]  # fmt: skip
    for selector in pressed:
        button = page.locator(selector)
        button.click()
        expect(note).to_have_count(1)
        here, there = button.bounding_box(), note.bounding_box()
        assert 0 <= there["y"] - here["y"] - here["height"] < 100, selector
        expect(page.locator("#vae_lab_panel[data-busy]")).to_have_count(0)
    page.locator("#vae_lab_latent summary").first.click()
    expect(note).to_have_count(1)
    page.unroute_all()
    panel.refresh()
    expect(note).to_have_count(0)
