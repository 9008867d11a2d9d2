"""The blind test of the light table."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.panel import LightTable, Panel
from tests.browser.static_page import StaticSite, made_up_comparison

pytestmark = pytest.mark.browser

BUILT_IN, ANIME = "Built-in", "anime.vae.pt"


@pytest.fixture(scope="module")
def blind_url(static_site: StaticSite) -> str:
    """A page with two VAEs on two images of 128 x 128."""
    return static_site.add_comparison("blind", made_up_comparison([BUILT_IN, ANIME], id="blind"))


@pytest.fixture
def table(page: Page, blind_url: str) -> LightTable:
    page.set_viewport_size({"width": 1280, "height": 1600})
    page.goto(blind_url)
    return LightTable(page).ready()


def images(table: LightTable) -> dict[bytes, tuple[str, int]]:
    """Pixels of a file -> name of its VAE, number of the image."""
    panel = Panel(table.page)
    return {pixels.tobytes(): (name, i) for name in (BUILT_IN, ANIME) for i, pixels in enumerate(panel.images(name))}


def begin(table: LightTable) -> LightTable:
    """The table of the test."""
    table.grid.focus()
    table.key("t")
    return LightTable(table.page, "#vae_lab_blind .vae-lab-grid").ready()


READ = """async image => {
    await image.decode();
    const canvas = Object.assign(document.createElement("canvas"), {width: 128, height: 128});
    canvas.getContext("2d").drawImage(image, 0, 0);
    return canvas.toDataURL().split(",")[1];
}"""


def shown(blind: LightTable, known: dict[bytes, tuple[str, int]]) -> list[tuple[str, int]]:
    """What is really on the left and on the right."""
    found = []
    for image in blind.grid.locator("figure img").all():
        png = base64.b64decode(image.evaluate(READ))
        found.append(known[np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).tobytes()])
    return found


def test_the_side_that_is_preferred_is_revealed_with_an_interval(table: LightTable) -> None:
    known = images(table)
    blind = begin(table)
    count = blind.grid.locator(".vae-lab-blind-count")
    sides, numbers = set(), []
    for i in range(18):
        expect(count).to_have_text(f"Judged: {i}")
        (left, number), (right, other) = shown(blind, known)
        assert {left, right} == {BUILT_IN, ANIME}
        assert number == other, "both of one latent"
        sides.add(left)
        numbers.append(number)
        preferred = ANIME if i < 14 else BUILT_IN
        blind.key("1" if left == preferred else "2")
    for _ in range(2):
        blind.key("0")
    expect(count).to_have_text("Judged: 20")
    assert sides == {BUILT_IN, ANIME}, "18 times on one side has a chance of 1 in 130,000"
    assert [sorted(numbers[i : i + 2]) for i in range(0, 18, 2)] == [[0, 1]] * 9, "every image equally often"
    blind.grid.get_by_role("button", name="End and reveal").click()
    result = table.page.locator("#vae_lab_blind")
    # Wilson, by hand: (14/18 + 1.96²/36 ± 1.96 √(14/18 · 4/18 / 18 + 1.96²/1296)) / (1 + 1.96²/18)
    expect(result).to_contain_text(
        f"You prefer {ANIME} over {BUILT_IN} in 14 of 18 (78 %, 95 % interval 55 to 91 %). "
        f"No preference between {ANIME} and {BUILT_IN}: 2."
    )
    result.get_by_role("button", name="Back to the images").click()
    expect(result).to_have_count(0)
    expect(table.window(ANIME)).to_be_visible()
    table.key("s")
    assert table.pair() == (BUILT_IN, ANIME)


def test_nothing_in_the_page_says_whose_image_is_shown(table: LightTable) -> None:
    blind = begin(table)
    for mode in ("A/B slider", "Blink", "Difference", "Grid"):
        blind.press(mode)
    blind.key("2")
    html = table.page.locator("#vae_lab_results").evaluate("element => element.outerHTML")
    for name in (BUILT_IN, ANIME, "anime", "vae-lab/v1/images", "Save", "Use always"):
        assert name not in html
    sources = "all => all.map(image => image.src)"
    assert all(source.startswith("blob:") for source in blind.grid.locator("img").evaluate_all(sources))
    before = set(blind.grid.locator("figure img").evaluate_all(sources))
    blind.key("0")
    blind.ready()
    assert not before & set(blind.grid.locator("figure img").evaluate_all(sources))


def test_the_tools_work_on_left_and_right(table: LightTable) -> None:
    known = images(table)
    blind = begin(table)
    expect(blind.tools.get_by_role("button", name="Blind test")).to_have_count(0)
    blind.key("s")
    assert blind.pair() == ("Left", "Right")
    blind.key("d")
    pixels = {place: np.frombuffer(data, np.uint8).astype(int) for data, place in known.items()}
    left, right = shown(blind, known)
    largest = np.abs(pixels[left] - pixels[right]).max()
    expect(blind.grid.locator(".vae-lab-largest")).to_have_text(f"Largest difference {largest} of 255")
    expect(table.page.locator("#vae_lab_blind .vae-lab-blind-count")).to_have_text("Judged: 0")
    blind.grid.get_by_role("button", name="End and reveal").click()
    expect(table.page.locator("#vae_lab_blind")).to_contain_text("Nothing was judged.")


def test_expired_images_are_reported_and_the_table_stays(page: Page, static_site: StaticSite) -> None:
    page.set_viewport_size({"width": 1280, "height": 1600})
    page.goto(static_site.add_comparison("blind-gone", made_up_comparison([BUILT_IN, ANIME], id="blind-gone")))
    table = LightTable(page).ready()
    page.evaluate("window.fetch = async () => new Response('', {status: 404})")
    table.grid.focus()
    table.key("t")
    expect(table.message).to_contain_text("Compare again")
    expect(table.window(ANIME)).to_be_visible()
    expect(page.locator("#vae_lab_blind")).to_have_count(0)
