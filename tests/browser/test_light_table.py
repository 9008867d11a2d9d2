"""The light table: painted pixels, compared with the files from the server.

Most tests run on a static page; those of what depends on gradio's page or on the server, at the end, in the app.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import THEMES, Keep, Launch, MakeHost, close, leave, load_scripts, serve
from tests.browser.panel import LightTable, Panel, wait_as_the_page_does
from tests.browser.static_page import StaticSite, made_up_comparison, serve_static
from vae_lab.api.routes import add_routes
from vae_lab.host.standalone import StandaloneHost
from vae_lab.ui import assets
from vae_lab.ui.tab import build_tab

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]
ANIME, SHARP, B, BUILT_IN = "anime.vae.pt", "photo-a-sharp.safetensors", "photo-b.ckpt", "Built-in"
MODES = ["Grid", "A/B slider", "Blink", "Difference"]


@pytest.fixture(scope="module")
def static_url(static_site: StaticSite) -> str:
    """A page with three VAEs on two images of 128 x 128."""
    return static_site.add_comparison("table", made_up_comparison([BUILT_IN, ANIME, B]))


def open_static(page: Page, url: str) -> LightTable:
    """All in view: what the mouse is over must not scroll away."""
    page.set_viewport_size({"width": 1280, "height": 1600})
    page.goto(url)
    return LightTable(page).ready()


@pytest.fixture
def table(page: Page, static_url: str) -> LightTable:
    return open_static(page, static_url)


@pytest.fixture
def app_table(page: Page, shared_url: str) -> LightTable:
    """As ``table``, in the app."""
    page.set_viewport_size({"width": 1280, "height": 1600})
    return LightTable.open(page, shared_url, ANIME, B)


def image(table: LightTable, name: str, number: int = 0) -> np.ndarray:
    """uint8 [H,W,3] of the file."""
    return Panel(table.page).images(name)[number]


def assert_painted(table: LightTable, name: str, number: int = 0) -> None:
    seen, expected = table.seen(table.window(name), image(table, name, number))
    np.testing.assert_array_equal(seen, expected)


# --- views -----------------------------------------------------------------------------------------------------------


def test_tools_say_what_they_are_and_what_is_on(table: LightTable) -> None:
    expect(table.tools).to_have_accessible_name("Light table")
    for mode in MODES:
        table.press(mode)
        pressed = [table.button(each).get_attribute("aria-pressed") for each in MODES]
        assert pressed == [str(each == mode).lower() for each in MODES]
        assert table.stage.is_visible() == (mode != "Grid")
    assert table.pair() == (BUILT_IN, ANIME)
    assert table.marked() == (BUILT_IN, ANIME)
    expect(table.grid.get_by_role("combobox", name="Image A")).to_have_value(BUILT_IN)
    expect(table.grid.get_by_role("combobox", name="Image B")).to_have_value(ANIME)


def test_slider_shows_a_on_its_left_and_b_on_its_right(table: LightTable) -> None:
    table.press("A/B slider")
    expect(table.divider).to_have_attribute("aria-valuenow", "50")
    stage, handle = table.stage.bounding_box(), table.divider.bounding_box()
    mouse, y = table.page.mouse, stage["y"] + 100
    mouse.move(handle["x"] + handle["width"] / 2, y)
    mouse.down()
    mouse.move(stage["x"] + 0.4 * stage["width"], y, steps=3)
    mouse.up()
    table.drawn()
    expect(table.divider).to_have_attribute("aria-valuenow", "40")
    edge = round(stage["x"] + 0.4 * stage["width"])
    for side, name in (("a", BUILT_IN), ("b", ANIME)):
        layer = ".vae-lab-half img" if side == "a" else ":scope > img"
        seen, expected = table.seen(table.stage, image(table, name), layer)
        left = max(round(table.stage.locator("> img").bounding_box()["x"]), round(stage["x"]) + 2)
        cut = edge - left
        assert 40 < cut < seen.shape[1] - 40, "the divider is on the image"
        part = np.s_[:, : cut - 25] if side == "a" else np.s_[:, cut + 25 :]
        np.testing.assert_array_equal(seen[part], expected[part])
        other = np.s_[:, cut + 25 :] if side == "a" else np.s_[:, : cut - 25]
        assert not np.array_equal(seen[other], expected[other])
    table.divider.focus()
    table.key("ArrowRight")
    expect(table.divider).to_have_attribute("aria-valuenow", "41")
    table.key("Shift+ArrowLeft")
    expect(table.divider).to_have_attribute("aria-valuenow", "31")


def test_blink_shows_b_while_the_space_bar_or_the_button_is_held(table: LightTable) -> None:
    table.press("Blink")

    def shown() -> str:
        table.drawn()
        layer = ".vae-lab-half img" if table.stage.locator(".vae-lab-half").is_visible() else ":scope > img"
        for name in (BUILT_IN, ANIME):
            seen, expected = table.seen(table.stage, image(table, name), layer)
            if np.array_equal(seen, expected):
                return name
        return ""

    assert shown() == BUILT_IN
    hold = table.grid.get_by_role("button", name="Hold to see B")
    table.page.keyboard.down(" ")
    assert shown() == ANIME
    expect(hold).to_have_attribute("aria-pressed", "true")
    table.page.keyboard.up(" ")
    assert shown() == BUILT_IN
    hold.hover()
    table.page.mouse.down()
    assert shown() == ANIME
    table.page.mouse.move(10, 10)
    assert shown() == ANIME, "as long as it is held, wherever the pointer goes"
    table.page.mouse.up()
    assert shown() == BUILT_IN
    table.button("Grid").focus()
    table.key(" ")
    expect(table.button("Grid")).to_have_attribute("aria-pressed", "true")


def test_gain_goes_back_to_what_fits_the_pair(table: LightTable) -> None:
    table.press("Difference")
    gain, auto = table.grid.get_by_label("Gain"), table.grid.get_by_role("button", name="Auto")
    expect(auto).to_have_attribute("aria-pressed", "true")
    fitting = gain.input_value()
    gain.fill("64")
    expect(auto).to_have_attribute("aria-pressed", "false")
    auto.click()
    assert gain.input_value() == fitting != "64"


def test_an_image_that_has_expired_is_reported_and_leaves_no_difference_of_another_pair(table: LightTable) -> None:
    table.page.route("**/gone.png", lambda route: route.fulfill(content_type="image/png", body="gone"))
    table.press("Difference")
    largest = table.grid.locator(".vae-lab-largest")
    expect(largest).to_contain_text("Largest difference")
    table.page.evaluate(
        "document.querySelector('#vae_lab_results figure[data-vae=\"photo-b.ckpt\"] img').src = 'gone.png'"
    )
    table.key("3")
    assert table.pair() == (BUILT_IN, B)
    expect(table.message).to_contain_text("Compare again")
    expect(largest).to_be_empty()
    expect(table.grid.locator(".vae-lab-map")).to_be_hidden()
    table.key("2")
    expect(largest).to_contain_text("Largest difference")
    expect(table.grid.locator(".vae-lab-map")).to_be_visible()


def test_difference_is_exactly_the_gain_times_a_minus_b(table: LightTable) -> None:
    table.press("Difference")
    gain = table.grid.get_by_role("slider", name="Gain")
    apart = np.abs(image(table, BUILT_IN).astype(int) - image(table, ANIME))
    expect(table.grid.locator(".vae-lab-largest")).to_have_text(f"Largest difference {apart.max()} of 255")
    for value in (1, 8, 64):
        gain.fill(str(value))
        table.drawn()
        read = """canvas => [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]"""
        shown = np.array(table.stage.locator("canvas.vae-lab-map").evaluate(read), np.uint8).reshape(128, 128, 4)
        np.testing.assert_array_equal(shown[..., :3], np.minimum(apart * value, 255))
        assert (shown[..., 3] == 255).all()
    seen, expected = table.seen(table.stage, shown[..., :3], "canvas.vae-lab-map")
    np.testing.assert_array_equal(seen, expected)
    table.key("2")  # a digit is one of our keys although the focus is on the gain
    table.key("3")
    apart = np.abs(image(table, BUILT_IN).astype(int) - image(table, B))
    expect(table.grid.locator(".vae-lab-largest")).to_have_text(f"Largest difference {apart.max()} of 255")


# --- choosing --------------------------------------------------------------------------------------------------------


def test_a_and_b_are_chosen_by_keys_by_buttons_and_by_menus(table: LightTable) -> None:
    table.window(BUILT_IN).hover()
    table.key("3")
    assert table.marked() == (BUILT_IN, B)
    table.key("Shift+2")
    assert table.marked() == (ANIME, B)
    table.key("Shift+3")  # what was B becomes A: they change places
    assert table.marked() == (B, ANIME)
    table.figure(BUILT_IN).locator(".vae-lab-name").hover()
    table.key("a")
    table.figure(B).locator(".vae-lab-name").hover()
    table.key("b")
    assert table.marked() == (BUILT_IN, B)
    table.figure(ANIME).get_by_role("button", name="as image B").click()
    table.press("Blink")
    assert table.pair() == (BUILT_IN, ANIME)
    table.grid.get_by_role("combobox", name="Image A").select_option(B)
    assert table.pair() == (B, ANIME)
    seen, expected = table.seen(table.stage, image(table, B), ".vae-lab-half img")
    np.testing.assert_array_equal(seen, expected)


def test_images_of_a_batch_are_turned_together(table: LightTable) -> None:
    batch = table.tools.get_by_role("combobox", name="Image of the batch")
    expect(batch).to_have_value("0")
    table.press("200 %")
    assert_painted(table, ANIME, 0)
    batch.select_option("1")
    table.ready()
    for name in (BUILT_IN, ANIME):
        assert_painted(table, name, 1)
    table.key(",")
    assert_painted(table, ANIME, 0)
    table.key(".")
    table.key("d")
    apart = np.abs(image(table, BUILT_IN, 1).astype(int) - image(table, ANIME, 1))
    expect(table.grid.locator(".vae-lab-largest")).to_have_text(f"Largest difference {apart.max()} of 255")


# --- zoom ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dpr", [1, 1.5, pytest.param(2, marks=pytest.mark.slow)])
def test_every_image_pixel_is_a_square_of_device_pixels(browser: Browser, static_url: str, dpr: float) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 1000}, device_scale_factor=dpr)
    page = context.new_page()
    page.goto(static_url)
    table = LightTable(page).ready()
    for words, zoom in (("100 %", 1), ("200 %", 2), ("400 %", 4), ("800 %", 8)):
        table.press(words)
        for name in (BUILT_IN, ANIME):
            seen, expected = table.seen(table.window(name), image(table, name))
            # Where the page itself lies between two device pixels, browsers round as they like.
            shifts = [(0, 0)] if dpr == 1 else list(itertools.product((-1, 0, 1), repeat=2))
            moved = [np.roll(expected, shift, (0, 1))[2:-2, 2:-2] for shift in shifts]
            assert any(np.array_equal(seen[2:-2, 2:-2], each) for each in moved)
        offsets = table.offsets()
        assert offsets[0][2:] == [128 * zoom, 128 * zoom]
        assert all(each == offsets[0] for each in offsets), "the same place of every image"
    context.close()


def test_dragging_one_image_moves_them_all(table: LightTable) -> None:
    table.press("400 %")
    before = table.offsets()
    box = table.window(BUILT_IN).bounding_box()
    table.page.mouse.move(box["x"] + 150, box["y"] + 150)
    table.page.mouse.down()
    table.page.mouse.move(box["x"] + 110, box["y"] + 126, steps=4)
    table.page.mouse.up()
    table.drawn()
    after = table.offsets()
    assert after[0][:2] == [before[0][0] - 40, before[0][1] - 24]
    assert all(each == after[0] for each in after)
    for name in (BUILT_IN, ANIME):
        assert_painted(table, name)
    assert len(table.page.context.pages) == 1, "a drag opens no image"
    table.page.mouse.down()
    table.page.mouse.move(box["x"] + 5000, box["y"] + 126, steps=2)
    table.page.mouse.up()
    table.drawn()
    assert table.offsets()[0][0] == 0, "not beyond the image's edge"


def test_wheel_zooms_at_the_pointer_and_lets_other_pages_scroll(table: LightTable) -> None:
    page, box = table.page, table.window(ANIME).bounding_box()
    x, y = box["x"] + 70, box["y"] + 180

    def under() -> list[float]:
        left, top, width, height = table.offsets()[1]
        return [(x - box["x"] - left) / width, (y - box["y"] - top) / height]

    page.evaluate("document.activeElement.blur()")
    page.mouse.move(x, y)
    page.mouse.wheel(0, 100)
    page.wait_for_timeout(200)
    expect(table.button("Fit")).to_have_attribute("aria-pressed", "true")
    page.evaluate("window.scrollTo(0, 0)")
    page.mouse.click(x, y)
    place, fit, zooms = under(), box["width"] / 128, []
    for _ in range(3):
        page.mouse.wheel(0, -100)
        page.wait_for_timeout(50)
        table.drawn()
        zooms.append(table.offsets()[1][2] / 128)
        np.testing.assert_allclose(under(), place, atol=1 / 128)
    assert zooms == [int(fit) + 1, int(fit) + 2, int(fit) + 3]
    assert page.evaluate("window.scrollY") == 0
    assert_painted(table, ANIME)
    assert len(page.context.pages) == 1, "a click opens no image"


def test_zoom_and_pan_by_keyboard(table: LightTable) -> None:
    table.window(ANIME).hover()
    table.page.evaluate("document.activeElement.blur()")
    fit = int(table.window(ANIME).bounding_box()["width"] / 128)
    table.key("+")
    table.key("+")
    expect(table.tools.get_by_label("Zoom", exact=True).last).to_have_text(f"{fit + 2}00 %")
    before = table.offsets()[0]
    table.key("ArrowRight")
    table.key("ArrowDown")
    after = table.offsets()
    assert after[0][0] < before[0]
    assert after[0][1] < before[1]
    assert all(each == after[0] for each in after)
    table.key("-")
    expect(table.tools.get_by_label("Zoom", exact=True).last).to_have_text(f"{fit + 1}00 %")
    table.key("0")
    expect(table.button("Fit")).to_have_attribute("aria-pressed", "true")
    margin = (table.window(ANIME).bounding_box()["width"] - fit * 128) / 2
    assert 0 <= margin < 64, "as large as whole image pixels can be"
    assert table.offsets()[1] == pytest.approx([margin, margin, fit * 128, fit * 128], abs=1)


def test_arrows_pan_what_is_magnified_and_move_the_divider_once_it_was_chosen(table: LightTable) -> None:
    table.press("A/B slider")
    table.press("800 %")
    before = table.offsets()[-1]
    table.key("ArrowRight")
    assert table.offsets()[-1][0] < before[0]
    expect(table.divider).to_have_attribute("aria-valuenow", "50")
    table.divider.click()
    table.key("ArrowRight")
    expect(table.divider).to_have_attribute("aria-valuenow", "51")


def test_double_click_looks_closer_at_the_pointer_and_back(table: LightTable) -> None:
    zoomed = table.tools.get_by_label("Zoom", exact=True).last
    fit = zoomed.inner_text()
    window = table.window(ANIME)
    box = window.bounding_box()
    at = {"x": box["width"] * 0.75, "y": box["height"] * 0.75}
    window.dblclick(position=at)
    assert int(zoomed.inner_text().split()[0]) == 2 * int(fit.split()[0])
    left, top, width, height = table.offsets()[1]
    middle = ((box["width"] / 2 - left) / width, (box["height"] / 2 - top) / height)
    assert all(part > 0.55 for part in middle), "towards the pointer"
    window.dblclick(position=at)
    expect(zoomed).to_have_text(fit)
    assert len(table.page.context.pages) == 1


def test_loupe_magnifies_the_same_place_in_every_figure(table: LightTable) -> None:
    page, box = table.page, table.window(ANIME).locator("img").bounding_box()
    loupes = table.grid.locator("figure .vae-lab-loupe:visible")
    page.mouse.move(box["x"] + box["width"] * (40.5 / 128), box["y"] + box["height"] * (90.5 / 128))
    page.keyboard.down("l")
    page.mouse.move(box["x"] + box["width"] * (60.5 / 128), box["y"] + box["height"] * (70.5 / 128))
    table.drawn()
    expect(loupes).to_have_count(3)
    boxes = [loupe.bounding_box() for loupe in loupes.all()]
    windows = [table.window(name).bounding_box() for name in (BUILT_IN, ANIME, B)]
    places = [
        (loupe["x"] - window["x"], loupe["y"] - window["y"]) for loupe, window in zip(boxes, windows, strict=True)
    ]
    assert all(place == pytest.approx(places[0], abs=0.1) for place in places)
    read = """canvas => [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]"""
    for i, name in enumerate((BUILT_IN, ANIME, B)):
        side = loupes.nth(i).evaluate("canvas => canvas.width")
        shown = np.array(loupes.nth(i).evaluate(read), np.uint8).reshape(side, side, 4)[..., :3]
        middle = image(table, name)[64:77, 54:67].repeat(8, axis=0).repeat(8, axis=1)
        start = side // 2 - 52
        np.testing.assert_array_equal(shown[start + 2 : start + 100, start + 2 : start + 100], middle[2:100, 2:100])
    page.wait_for_timeout(400)
    page.keyboard.up("l")
    table.drawn()
    expect(loupes).to_have_count(0)
    table.press("Loupe")
    table.window(BUILT_IN).hover()
    expect(loupes).to_have_count(3)
    table.key("l")
    expect(loupes).to_have_count(0)


# --- keys ------------------------------------------------------------------------------------------------------------


def test_full_screen_has_the_same_tools(table: LightTable, keep_screenshot: Keep) -> None:
    table.press("A/B slider")
    table.key("f")
    full = "document.fullscreenElement?.classList.contains('vae-lab-grid') ?? false"
    table.page.wait_for_function(full)
    expect(table.button("Full screen")).to_have_attribute("aria-pressed", "true")
    table.drawn()
    view = table.page.viewport_size
    stage = table.stage.bounding_box()
    assert stage["y"] + stage["height"] <= view["height"], "nothing to scroll"
    assert stage["width"] > 0.9 * view["width"]
    table.key("4")
    table.key("+")
    table.key("?")
    expect(table.help).to_be_visible()
    keep_screenshot(table.page, "light-table-full")
    table.key("?")
    table.key("g")
    expect(table.stage).to_be_hidden()
    expect(table.window(ANIME)).to_be_visible()
    table.press("Full screen")
    table.page.wait_for_function(f"!({full})")


def test_help_lists_the_keys(table: LightTable) -> None:
    expect(table.help).to_be_hidden()
    table.window(ANIME).hover()
    table.key("?")
    for words in ("Space", "Shift + 1 … 9", "difference", "full screen", "loupe"):
        expect(table.help).to_contain_text(words)
    box = table.help.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 1280
    table.key("Escape")
    expect(table.help).to_be_hidden()
    table.press("Keys")
    expect(table.help).to_be_visible()
    table.help.get_by_role("button", name="Close").click()
    expect(table.help).to_be_hidden()


@pytest.mark.parametrize(
    ("key", "code", "b"),
    [("-", "Digit3", B), ("+", "Digit3", B), ("3", "Numpad3", B), ("PageDown", "Numpad3", ANIME)],
    ids=["AZERTY", "Czech", "numbers", "numbers off"],
)
def test_digits_are_identified_by_their_position(table: LightTable, key: str, code: str, b: str) -> None:
    zoomed = table.tools.get_by_label("Zoom", exact=True).last
    before = zoomed.inner_text()
    table.grid.focus()
    table.page.evaluate(
        "keys => document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {...keys, bubbles: true}))",
        {"key": key, "code": code},
    )
    table.drawn()
    assert table.marked() == (BUILT_IN, b)
    expect(zoomed).to_have_text(before)


def test_letters_are_identified_by_their_position_where_the_keyboard_has_others(table: LightTable) -> None:
    table.grid.focus()
    table.page.evaluate(
        "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key: 'ы', code: 'KeyS', bubbles: true}))"
    )
    expect(table.button("A/B slider")).to_have_attribute("aria-pressed", "true")


def test_signs_on_keys_that_are_letters_elsewhere_stay_signs(table: LightTable) -> None:
    """On AZERTY the comma and the question mark lie where M is elsewhere."""
    table.grid.focus()
    table.page.evaluate(
        "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key: '?', code: 'KeyM', bubbles: true}))"
    )
    expect(table.help).to_be_visible()


def test_n_and_p_step_b_through_all_others(table: LightTable) -> None:
    table.grid.focus()
    seen = []
    for key in ("n", "n", "n", "p"):
        table.key(key)
        seen.append(table.marked())
    assert seen == [(BUILT_IN, name) for name in (B, ANIME, B, ANIME)]


def test_keys_have_no_effect_while_typing_and_elsewhere(table: LightTable) -> None:
    field = table.page.locator("#vae_lab_source input")
    field.focus()
    table.window(ANIME).hover()
    for key in ("s", "d", "+", "4"):
        table.key(key)
    expect(table.button("Grid")).to_have_attribute("aria-pressed", "true")
    expect(table.button("Fit")).to_have_attribute("aria-pressed", "true")
    table.page.evaluate("document.activeElement.blur()")
    table.page.mouse.move(5, 5)
    table.page.evaluate("window.heard = []; addEventListener('keydown', e => heard.push([e.key, e.defaultPrevented]))")
    table.key("s")
    table.key(" ")
    expect(table.button("Grid")).to_have_attribute("aria-pressed", "true")
    assert table.page.evaluate("heard") == [["s", False], [" ", False]]
    table.window(ANIME).hover()
    table.key("Control+d")
    assert table.page.evaluate("heard.pop()")[1] is False
    table.key("s")
    expect(table.button("A/B slider")).to_have_attribute("aria-pressed", "true")


def test_what_keys_have_reached_keeps_them(table: LightTable) -> None:
    """Whatever the mouse happens to lie on meanwhile."""
    boxes = table.page.locator("#vae_lab_vaes input[type=checkbox]")
    boxes.nth(0).focus()
    table.window(ANIME).hover()
    table.page.keyboard.press("Tab")
    before = boxes.nth(1).is_checked()
    table.page.keyboard.press("Space")
    expect(boxes.nth(1)).to_be_checked(checked=not before)
    expect(table.stage).to_be_hidden()


def test_space_over_the_table_does_not_press_the_button_that_was_clicked_last(table: LightTable) -> None:
    table.page.click("#other_button")
    table.window(ANIME).hover()
    table.key(" ")
    expect(table.button("Blink")).to_have_attribute("aria-pressed", "true")
    assert table.page.evaluate("window.comparisons") == 1


def test_every_tool_is_reached_by_tab(table: LightTable) -> None:
    table.grid.focus()
    reached = []
    for _ in range(24):
        table.page.keyboard.press("Tab")
        reached.append(table.page.evaluate("document.activeElement.textContent"))
    for words in (*MODES, "Fit", "800 %", "Loupe", "Full screen", "?", "Use for this checkpoint", "Save"):
        assert any(words in text for text in reached), f"{words} is out of the keyboard's reach"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert table.page.evaluate(outline) == "solid"


# --- fingers ---------------------------------------------------------------------------------------------------------


def touch(page: Page, *steps: list[tuple[float, float]]) -> None:
    """Fingers come down at the places of the first step, and move through the others."""
    devtools = page.context.new_cdp_session(page)
    for i, places in enumerate(steps):
        points = [{"x": x, "y": y, "id": finger} for finger, (x, y) in enumerate(places)]
        devtools.send("Input.dispatchTouchEvent", {"type": "touchMove" if i else "touchStart", "touchPoints": points})
    devtools.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    devtools.detach()


def test_fingers_move_the_divider_pinch_and_pan(browser: Browser, static_site: StaticSite) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 1600}, has_touch=True)
    page = context.new_page()
    page.goto(static_site.add_comparison("fingers", made_up_comparison([BUILT_IN, ANIME], id="fingers")))
    table = LightTable(page).ready()
    box = table.window(ANIME).bounding_box()
    x, y = box["x"] + 140, box["y"] + 140
    touch(page, *[[(x - apart, y), (x + apart, y)] for apart in (20, 25, 30, 35, 40)])
    table.drawn()
    offsets = table.offsets()
    assert offsets[0] == offsets[1]
    zoom = offsets[1][2] / 128
    assert zoom == round(2 * box["width"] / 128), "twice what fits, to a whole number"
    assert_painted(table, ANIME)
    touch(page, [(x, y)], [(x - 10, y - 5)], [(x - 20, y - 10)], [(x - 30, y - 15)])
    table.drawn()
    moved = table.offsets()
    assert moved[0] == moved[1]
    assert -31 <= moved[0][0] - offsets[0][0] <= -15
    assert moved[0][1] < offsets[0][1]
    table.key("0")
    table.press("A/B slider")
    stage, handle = table.stage.bounding_box(), table.divider.bounding_box()
    middle, y = handle["x"] + handle["width"] / 2, stage["y"] + 200
    touch(page, [(middle, y)], [(middle - 50, y)], [(stage["x"] + stage["width"] / 4, y)])
    expect(table.divider).to_have_attribute("aria-valuenow", "25")
    table.press("Blink")
    hold = table.grid.get_by_role("button", name="Hold to see B").bounding_box()
    devtools = context.new_cdp_session(page)
    at = [{"x": hold["x"] + 20, "y": hold["y"] + 10}]
    devtools.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": at})
    expect(table.stage.locator(".vae-lab-half")).to_be_hidden()
    devtools.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    expect(table.stage.locator(".vae-lab-half")).to_be_visible()
    stage = table.stage.bounding_box()
    at = [{"x": stage["x"] + 60, "y": stage["y"] + 60}]
    devtools.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": at})
    expect(table.stage.locator(".vae-lab-half")).to_be_hidden()
    menu = "image => image.dispatchEvent(new MouseEvent('contextmenu', {bubbles: true, cancelable: true}))"
    assert not table.stage.locator("img").first.evaluate(menu), "a finger that holds long would get the image's menu"
    assert table.stage.evaluate("stage => getComputedStyle(stage).touchAction") == "none"
    devtools.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    expect(table.stage.locator(".vae-lab-half")).to_be_visible()
    context.close()


# --- grids come and go -----------------------------------------------------------------------------------------------


def test_a_refused_vae_has_no_part_in_it(page: Page, static_site: StaticSite) -> None:
    stored = made_up_comparison([BUILT_IN, ANIME], refused="sdxl-c.safetensors", id="refused")
    table = open_static(page, static_site.add_comparison("refused", stored))
    refused = table.figure("sdxl-c.safetensors")
    expect(refused).to_contain_text("is a VAE for SDXL")
    expect(refused.get_by_role("button")).to_have_count(0)
    menu = table.grid.get_by_role("combobox", name="Image B", include_hidden=True)
    assert [text.split()[-1] for text in menu.locator("option").all_inner_texts()] == [BUILT_IN, ANIME]
    table.press("400 %")
    for mode in MODES:
        table.press(mode)
    table.key("3")
    assert table.marked() == (BUILT_IN, ANIME)
    assert table.offsets()[0] == table.offsets()[1]


def test_a_single_image_can_be_magnified(page: Page, static_site: StaticSite) -> None:
    table = open_static(page, static_site.add_comparison("single", made_up_comparison([BUILT_IN], id="single")))
    expect(table.button("A/B slider")).to_be_disabled()
    table.press("400 %")
    assert_painted(table, BUILT_IN)
    table.key("s")
    expect(table.stage).to_be_hidden()


def test_each_grid_of_a_page_has_a_table_of_its_own(table: LightTable) -> None:
    sources = table.grid.locator("figure img").evaluate_all("all => all.map(image => image.src)")
    figures = "".join(
        f"<figure data-vae='{name}' {kind}><figcaption>{name}</figcaption><img src='{sources[2 * i]}'></figure>"
        for i, (name, kind) in enumerate((("Built-in", ""), ("Again", ""), ("Original", "data-reference")))
    )
    other = f"<div class='vae-lab' id='elsewhere'><div class='vae-lab-grid'>{figures}</div></div>"
    table.page.evaluate(
        "html => document.getElementById('vae_lab_results').insertAdjacentHTML('afterend', html)", other
    )
    second = LightTable(table.page, "#elsewhere .vae-lab-grid").ready()
    second.press("400 %")
    seen, expected = second.seen(second.window("Again"), image(table, ANIME))
    np.testing.assert_array_equal(seen, expected)
    expect(table.button("Fit")).to_have_attribute("aria-pressed", "true")
    table.page.evaluate("document.activeElement.blur()")
    table.window(ANIME).hover()
    table.key("d")
    expect(table.stage).to_be_visible()
    expect(second.stage).to_be_hidden()
    assert second.marked() == ("Original", BUILT_IN)
    expect(second.figure("Original").get_by_role("button", name="Use")).to_have_count(0)
    expect(second.figure("Again").get_by_role("button", name="Use")).to_have_count(2)


@pytest.mark.parametrize(
    ("width", "images", "columns", "side"),
    [(2560, 2, 2, 512), (1760, 3, 3, 512), (1280, 3, 3, None), (2560, 12, 6, None), (400, 3, 1, None)],
)
def test_few_images_are_shown_as_large_as_they_are(
    page: Page, static_site: StaticSite, width: int, images: int, columns: int, side: int | None
) -> None:
    """Up to 100 %, as many columns as there is room for, and all in one order."""
    page.set_viewport_size({"width": width, "height": 1200})
    page.goto(static_site.add("empty", ""))
    page.evaluate(
        """images => {
            const canvas = Object.assign(document.createElement("canvas"), {width: 512, height: 512});
            const figure = i => `<figure data-vae="${i}">${i}<img src="${canvas.toDataURL()}"></figure>`;
            const figures = [...Array(images).keys()].map(figure).join("");
            document.body.insertAdjacentHTML("afterbegin",
                `<div class="vae-lab"><div class="vae-lab-grid" id="many">${figures}</div></div>`);
        }""",
        images,
    )
    table = LightTable(page, "#many").ready()
    boxes = [table.window(str(i)).bounding_box() for i in range(images)]
    assert len({box["y"] for box in boxes}) == -(-images // columns)
    assert [box["x"] for box in boxes[:columns]] == sorted({box["x"] for box in boxes})
    assert all(box["x"] + box["width"] <= width for box in boxes)
    assert all(box["width"] == side if side else 250 < box["width"] < 512 for box in boxes)
    if side:
        expect(table.tools.get_by_label("Zoom", exact=True).last).to_have_text("100 %")
    toolbar, last = table.tools.bounding_box(), boxes[columns - 1]
    assert toolbar["x"] + toolbar["width"] >= last["x"] + last["width"] - 1


def test_names_above_the_stage_are_never_cut(page: Page, static_site: StaticSite) -> None:
    stem = "a-vae-with-a-name-that-never-ends_" * 4
    names = [f"{stem}{i}.safetensors" for i in (1, 2)]
    page.set_viewport_size({"width": 1280, "height": 1000})
    page.goto(static_site.add_comparison("names", made_up_comparison([BUILT_IN, *names], id="names")))
    table = LightTable(page).ready()
    table.grid.focus()
    table.key("Shift+2")
    table.key("3")
    for mode in MODES[1:]:
        table.press(mode)
        assert table.pair() == tuple(names)
        for name in table.grid.locator(".vae-lab-side .vae-lab-name").all():
            assert name.evaluate("element => element.scrollWidth <= element.clientWidth + 1")
            assert name.evaluate("element => element.scrollHeight <= element.clientHeight + 1")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_new_grid_continues_the_view(table: LightTable) -> None:
    """Gradio replaces the grid of a comparison by the next one's."""
    grid = table.page.evaluate("fetch(location.href).then(answer => answer.text())")
    table.press("A/B slider")
    table.key("3")
    table.key("ArrowLeft")
    table.press("400 %")
    table.page.evaluate(
        """html => {
            const results = new DOMParser().parseFromString(html, "text/html").getElementById("vae_lab_results");
            document.getElementById("vae_lab_results").replaceChildren(...results.children);
        }""",
        grid,
    )
    table.ready()
    expect(table.tools).to_have_count(1)
    assert table.pair() == (BUILT_IN, B)
    expect(table.button("400 %")).to_have_attribute("aria-pressed", "true")
    expect(table.divider).to_have_attribute("aria-valuenow", "49")


# --- the scripts as a whole ------------------------------------------------------------------------------------------


def test_every_module_is_refreshed_before_it_is_imported() -> None:
    folder = assets.folder() / "javascript"
    entry = (folder / "vae_lab.mjs").read_text(encoding="utf8")
    listed = re.findall(r'"([\w/]+\.mjs)",', entry)
    assert sorted(listed) == sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*.mjs"))
    assert [path.name for path in folder.glob("*.*js")] == ["vae_lab.mjs"], "hosts load every script of this folder"


def test_an_update_is_used_by_a_browser_that_has_the_old_modules(page: Page, tmp_path: Path) -> None:
    """Without Cache-Control, browsers use files for a tenth of their age without asking the server."""
    with serve_static(tmp_path) as site:
        module = site.folder / "javascript" / "light_table" / "layout.mjs"
        for path in (site.folder / "javascript").rglob("*.mjs"):
            os.utime(path, (10**9, 10**9))
        url = site.add_comparison("page", made_up_comparison([BUILT_IN, ANIME]))
        page.goto(url)
        table = LightTable(page).ready()
        expect(table.button("Loupe")).to_be_visible()
        module.write_text(module.read_text(encoding="utf8").replace('t("Loupe")', 't("Lens")'), encoding="utf8")
        os.utime(module, (10**9 + 60, 10**9 + 60))
        page.goto(url)
        expect(LightTable(page).ready().button("Lens")).to_be_visible()
        page.goto("about:blank")


def test_an_extension_that_is_installed_twice_runs_once(page: Page, static_site: StaticSite) -> None:
    shutil.copytree(static_site.folder / "javascript", static_site.folder / "other", dirs_exist_ok=True)
    script = "import('./other/vae_lab.mjs?2')"
    stored = made_up_comparison([BUILT_IN, ANIME], id="twice")
    table = open_static(page, static_site.add_comparison("twice", stored, script=script))
    page.evaluate("import('./other/vae_lab.mjs?2')")
    page.evaluate("window.vaeLab")
    expect(table.tools).to_have_count(1)
    table.grid.focus()
    table.key("l")
    expect(table.button("Loupe")).to_have_attribute("aria-pressed", "true")


def test_texts_with_values_are_translated(page: Page, static_site: StaticSite) -> None:
    """By the dictionary that the WebUI puts into the page."""
    script = f"window.localization = {(ROOT / 'localizations' / 'zh_CN.json').read_text(encoding='utf8')}"
    stored = made_up_comparison([BUILT_IN, ANIME], id="translated")
    url = static_site.add_comparison("translated", stored, script=script)
    page.goto(url)
    table = LightTable(page)
    expect(table.grid.locator(".vae-lab-toolbar")).to_contain_text("放大镜")
    table.grid.focus()
    table.key("d")
    apart = np.abs(image(table, BUILT_IN).astype(int) - image(table, ANIME))
    expect(table.grid.locator(".vae-lab-largest")).to_have_text(f"最大差异 {apart.max()}（满值 255）")
    table.grid.locator("figure img").first.evaluate("image => { image.src = 'data:image/png;base64,'; }")
    expect(table.message).to_contain_text("请重新比较")


# --- in the app ------------------------------------------------------------------------------------------------------


def test_a_new_comparison_keeps_the_view(app_table: LightTable) -> None:
    table = app_table
    table.press("A/B slider")
    table.key("3")
    table.key("ArrowLeft")
    table.press("400 %")
    panel = Panel(table.page)
    panel.tick_only(SHARP, B)
    panel.compare()
    table.ready()
    expect(table.tools).to_have_count(1)
    assert table.pair() == (BUILT_IN, B)
    expect(table.button("400 %")).to_have_attribute("aria-pressed", "true")
    expect(table.divider).to_have_attribute("aria-valuenow", "49")
    seen, expected = table.seen(table.stage, image(table, B), ":scope > img")
    half = seen.shape[1] // 2 + 30
    np.testing.assert_array_equal(seen[:, half:], expected[:, half:])
    panel.tick_only(SHARP)
    panel.compare()
    table.ready()
    assert table.pair() == (BUILT_IN, SHARP), "B is gone, and another one takes its place"
    table.key("g")
    assert_painted(table, SHARP)


def test_a_new_comparison_ends_a_blind_test(app_table: LightTable) -> None:
    table = app_table
    table.grid.focus()
    table.key("t")
    blind = table.page.locator("#vae_lab_blind")
    expect(blind.get_by_role("toolbar")).to_be_visible()
    table.key("1")
    panel = Panel(table.page)
    panel.tick_only(SHARP)
    panel.compare()
    table.ready()
    expect(blind).to_have_count(0)
    assert_painted(table, SHARP)


def test_the_vae_of_an_image_is_used_from_now_on(page: Page, launch: Launch, make_host: MakeHost) -> None:
    host = make_host()
    table = LightTable.open(page, launch(host), ANIME, B)
    panel = Panel(page)
    undo = table.message.get_by_role("button", name="Undo")
    # By key, for the answer above, which comes after the images, moves the buttons.
    table.figure(B).get_by_role("button", name="Use for this checkpoint").press("Enter")
    expect(panel.deciding).to_contain_text(f"{B}: chosen for healthy.safetensors.")
    expect(table.message).to_contain_text(f"{B}: chosen for healthy.safetensors.")
    assert (host.decision().vae, host.decision().source) == (B, "checkpoint")
    expect(page.locator("#vae_lab_decoder input")).to_have_value(B)
    undo.press("Enter")
    expect(page.locator("#vae_lab_decoder input")).to_have_value("Automatic")
    assert host.decision().source == "host"
    expect(undo).to_be_enabled()  # undoing can be undone
    host.select_checkpoint("grey-merge.safetensors")  # by someone else, whose choice is not undone
    undo.press("Enter")
    expect(table.message).to_contain_text("was for healthy.safetensors, but the checkpoint has changed since")
    expect(undo).to_have_count(0)
    assert host.decision().source == "host"
    host.select_checkpoint("healthy.safetensors")
    table.figure(ANIME).get_by_role("button", name="Use always").press("Enter")
    expect(panel.deciding).to_contain_text(f"{ANIME}: chosen for every checkpoint.")
    assert (host.decision().vae, host.decision().source) == (ANIME, "always")
    expect(page.locator("#vae_lab_picked")).to_be_hidden()
    expect(table.grid.get_by_role("group", name="Send to")).to_have_count(0)
    expect(table.grid.get_by_text("img2img")).to_have_count(0)


def test_save_gives_the_image_that_is_shown(app_table: LightTable) -> None:
    table = app_table
    table.tools.get_by_role("combobox", name="Image of the batch").select_option("1")
    with table.page.expect_download() as download:
        table.figure(ANIME).get_by_role("link", name="Save").click()
    assert re.fullmatch(r"Astronaut and brushes-anime-\d\.png", download.value.suggested_filename)
    saved = np.asarray(Image.open(io.BytesIO(Path(download.value.path()).read_bytes())))
    np.testing.assert_array_equal(saved, image(table, ANIME, 1))


SWITCHES = """
    window.turned = [];
    for (const name of ["img2img", "inpaint", "extras"]) {
        window["switch_to_" + name] = () => {
            turned.push(name);
            document.querySelectorAll("#tabs button")[0].click();
        };
    }
"""
IMAGES = ("img2img_image", "img2maskimg", "extras_image")


@pytest.fixture
def webui_page(new_page: Page, shared_host: StandaloneHost, own_port: int) -> Iterator[Callable[[], Page]]:
    """A page with the images of the WebUI, and our scripts in its head."""
    old = {"img2img_image": {"tool": "editor"}, "img2maskimg": {"tool": "sketch"}, "extras_image": {}}
    options = old if gr.__version__.startswith("3.") else {each: {} for each in IMAGES}
    fonts_of_this_machine = gr.themes.Default(font=["sans-serif"], font_mono=["monospace"])
    tab = build_tab(shared_host)
    with gr.Blocks(theme=fonts_of_this_machine, css=assets.style_sheet(), analytics_enabled=False) as blocks:  # noqa: SIM117
        with gr.Tabs(elem_id="tabs"):
            with gr.TabItem("img2img"):
                images = [gr.Image(elem_id=each, type="pil", interactive=True, **options[each]) for each in IMAGES]
                read, said = gr.Button("Read", elem_id="read"), gr.Textbox(elem_id="said")
                turns = itertools.count()
                read.click(lambda *shown: json.dumps([next(turns), *map(digest, shown)]), images, [said], queue=False)
            with gr.TabItem("VAE Lab"):
                tab.render()

    def open_page() -> Page:
        app, url = serve(blocks, own_port)
        add_routes(app, shared_host)
        new_page.add_init_script(SWITCHES)
        load_scripts(new_page, app)
        new_page.goto(url)
        new_page.locator("#tabs button", has_text="VAE Lab").first.click()
        return new_page

    yield open_page
    leave(new_page)
    close(blocks)


def digest(image: Image.Image | dict[str, Image.Image] | None) -> str:
    """Of the image's pixels. Gradio 3 gives an image that can be drawn upon together with its mask."""
    image = image["image"] if isinstance(image, dict) else image
    return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest() if image else ""


def to_tab(page: Page) -> None:
    """Turn to our tab, if it is not in view, and wait for the refresh that this brings."""
    if page.locator("#vae_lab_panel").is_hidden():
        asked = int(page.locator("#vae_lab_deciding [data-asked]").get_attribute("data-asked"))
        wait_as_the_page_does(page, 400)  # longer than the script's clock: it has seen that the tab is out of view
        page.locator("#tabs button", has_text="VAE Lab").first.click()
        Panel(page).refreshed(asked)


def test_images_are_sent_to_the_images_of_the_webui(webui_page: Callable[[], Page]) -> None:
    page = webui_page()
    panel = Panel(page).refreshed()
    panel.tick_only(ANIME, B)
    panel.compare()
    table = LightTable(page).ready()
    expected = {name: hashlib.sha256(image(table, name).tobytes()).hexdigest() for name in (ANIME, B)}
    for name in (ANIME, B):  # the second time into images that are not empty
        for i, target in enumerate(("img2img", "inpaint", "extras")):
            to_tab(page)
            table.figure(name).get_by_role("button", name=f"Send to {target}").click()
            page.wait_for_function(f"turned.at(-1) === '{target}'")
            expect(page.locator(f"#{IMAGES[i]}").first).to_be_visible()
            expect(page.locator(f"#{IMAGES[i]}").first.locator("img, canvas").first).to_be_attached()
            expect(table.message).to_have_text(f"{name}: sent to {target}.")
        for _ in range(30):  # an image's field has its value some time after it shows the image
            before = page.locator("#said textarea").input_value()
            page.click("#read")
            page.wait_for_function("before => document.querySelector('#said textarea').value !== before", arg=before)
            found = json.loads(page.locator("#said textarea").input_value())[1:]
            if found == [expected[name]] * 3:
                break
            page.wait_for_timeout(200)
        assert found == [expected[name]] * 3


@pytest.mark.parametrize("theme", THEMES)
def test_every_width_shows_the_whole_table(page: Page, shared_url: str, keep_screenshot: Keep, theme: str) -> None:
    panel = Panel.open(page, shared_url, theme)
    panel.choose("vae_lab_source", "· Brushes · ")
    expect(panel.latent).to_contain_text("Brushes")
    panel.tick_only(ANIME, SHARP, B)
    panel.compare()
    table = LightTable(page).ready()
    for width, height in ((1280, 1000), (2560, 1400)):
        page.set_viewport_size({"width": width, "height": height})
        for mode in MODES:
            table.press(mode)
            inside = table.grid.locator("button:visible, select:visible, a:visible")
            edges = inside.evaluate_all(
                "all => all.map(each => each.getBoundingClientRect()).map(box => [box.left, box.right])"
            )
            assert len(edges) > 20
            assert all(left >= 0 and right <= width for left, right in edges)
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
            keep_screenshot(page, f"light-table-{mode.replace('/', '')}-{theme}-{width}")
        table.press("Grid")
        table.press("200 %")
        table.press("Loupe")
        table.window(SHARP).hover()
        table.drawn()
        keep_screenshot(page, f"light-table-loupe-{theme}-{width}")
        table.press("Loupe")
        table.press("Fit")
