"""The HTML file that a comparison is shared as, opened from a disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.panel import LightTable
from tests.browser.static_page import made_up_comparison, made_up_images
from vae_lab.service.share import share_html

pytestmark = [pytest.mark.browser, pytest.mark.static]

BUILT_IN, HOSTILE = "Built-in", "</script><img src=x onerror=\"document.title='bad'\">.pt"


@pytest.fixture(scope="module")
def shared_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two VAEs, one of them with a hostile name, on two images of 128 x 128."""
    stored = made_up_comparison([BUILT_IN, HOSTILE])
    file = tmp_path_factory.mktemp("share") / "shared.html"
    file.write_bytes(share_html(replace(stored, generation=replace(stored.generation, title=HOSTILE))))
    return file


@pytest.fixture
def table(page: Page, shared_file: Path) -> LightTable:
    page.set_viewport_size({"width": 1280, "height": 1600})
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(shared_file.as_uri())
    table = LightTable(page, ".vae-lab-grid").ready()
    assert not [url for url in requests if not url.startswith(("data:", "blob:", shared_file.as_uri()))]
    return table


def test_the_light_table_works_from_a_disk(table: LightTable) -> None:
    images = made_up_images([BUILT_IN, HOSTILE])
    a, b = images[BUILT_IN][0], images[HOSTILE][0]
    assert table.page.title() == f"VAE Lab: {HOSTILE}"
    expect(table.page.locator("h1")).to_have_text(HOSTILE)
    table.press("200 %")
    seen, expected = table.seen(table.grid.locator("figure .vae-lab-window:visible").nth(1), b)
    np.testing.assert_array_equal(seen, expected)
    table.press("Fit")
    table.press("A/B slider")
    assert table.pair() == (BUILT_IN, HOSTILE)
    table.press("Difference")
    largest = np.abs(a.astype(int) - b).max()
    expect(table.grid.locator(".vae-lab-largest")).to_have_text(f"Largest difference {largest} of 255")
    table.key("e")
    expect(table.grid.locator(".vae-lab-largest")).to_contain_text("ΔE mean")
    table.key("h")
    expect(table.grid.locator(".vae-lab-histogram")).to_be_visible()
    expect(table.page.locator("tbody tr")).to_have_count(2)
    table.key("g")
    expect(table.grid.get_by_role("link", name="Open")).to_have_count(0)
    expect(table.grid.get_by_role("button", name="Use always")).to_have_count(0)
    with table.page.expect_download() as download:
        table.grid.get_by_role("link", name="Save").first.click()
    assert download.value.suggested_filename == "Built-in-1.webp"


def test_a_blind_test_works_from_a_disk(table: LightTable) -> None:
    table.grid.focus()
    table.key("t")
    blind = LightTable(table.page, "#vae_lab_blind .vae-lab-grid").ready()
    blind.key("1")
    blind.grid.get_by_role("button", name="End and reveal").click()
    expect(table.page.locator("#vae_lab_blind")).to_contain_text("in 1 of 1")


def test_without_scripts_the_images_and_numbers_are_shown(browser: Browser, shared_file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(shared_file.as_uri())
    expect(page.locator("figure img")).to_have_count(4)
    box = page.locator("figure img").last.bounding_box()
    assert box["width"] >= 128
    expect(page.locator("tbody tr")).to_have_count(2)
    context.close()
