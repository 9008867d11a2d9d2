"""The views of the stage: the slider's dividers and opacity, and Blink by itself."""

from __future__ import annotations

import numpy as np
import pytest
from playwright.sync_api import Locator, expect

from tests.browser.panel import LightTable, Panel

pytestmark = pytest.mark.browser

BUILT_IN, ANIME, B = "Built-in", "anime.vae.pt", "photo-b.ckpt"


def tool(table: LightTable, words: str) -> Locator:
    """A tool of the stage."""
    return table.grid.locator(".vae-lab-middle").get_by_role("button", name=words, exact=True)


def image(table: LightTable, name: str) -> np.ndarray:
    """uint8 [H,W,3] of the file."""
    return Panel(table.page).images(name)[0]


def test_a_horizontal_divider_shows_a_above_and_b_below(table: LightTable) -> None:
    table.press("A/B slider")
    tool(table, "Horizontal").click()
    table.drawn()
    expect(table.divider).to_have_attribute("aria-orientation", "vertical")
    stage, handle = table.stage.bounding_box(), table.divider.bounding_box()
    mouse, x = table.page.mouse, stage["x"] + stage["width"] / 2 + 60
    mouse.move(x, handle["y"] + handle["height"] / 2)
    mouse.down()
    mouse.move(x, stage["y"] + 0.4 * stage["height"], steps=3)
    mouse.up()
    table.drawn()
    expect(table.divider).to_have_attribute("aria-valuenow", "40")
    expect(table.divider).to_have_attribute("aria-valuetext", "40 % from the top")
    edge = round(stage["y"] + 0.4 * stage["height"])
    top = max(round(table.stage.locator("> img").bounding_box()["y"]), round(stage["y"]) + 2)
    for name, part in ((BUILT_IN, np.s_[: edge - top - 25]), (ANIME, np.s_[edge - top + 25 :])):
        seen, expected = table.seen(table.stage, image(table, name), ":scope > img")
        assert seen[part].shape[0] > 40, "the divider is on the image"
        np.testing.assert_array_equal(seen[part], expected[part])
    table.divider.focus()
    table.key("ArrowDown")
    expect(table.divider).to_have_attribute("aria-valuenow", "41")
    table.key("Shift+ArrowUp")
    expect(table.divider).to_have_attribute("aria-valuenow", "31")
    table.key("v")
    expect(tool(table, "Vertical")).to_have_attribute("aria-pressed", "true")
    expect(table.divider).to_have_attribute("aria-valuetext", "31 % from the left")


def test_opacity_mixes_a_and_b(table: LightTable) -> None:
    table.grid.focus()
    table.key("o")
    expect(table.divider).to_be_hidden()
    opacity = table.grid.get_by_role("slider", name="Opacity of B")
    expect(opacity).to_have_value("50")
    a, b = (image(table, name).astype(float) for name in (BUILT_IN, ANIME))
    for percent in (0, 25, 100):
        opacity.fill(str(percent))
        table.drawn()
        mixed = (a + (b - a) * percent / 100).round().astype(np.uint8)
        seen, expected = table.seen(table.stage, mixed, ":scope > img")
        assert np.abs(seen.astype(int) - expected).max() <= (0 if percent in (0, 100) else 1)
    table.grid.focus()
    table.key("Shift+ArrowLeft")
    expect(opacity).to_have_value("90")
    stage = table.stage.bounding_box()
    table.page.mouse.click(stage["x"] + 0.3 * stage["width"], stage["y"] + 50)
    expect(opacity).to_have_value("30")
    table.key("s")
    table.key("v")
    expect(table.divider).to_be_visible()


def test_the_slider_follows_the_mouse_only_if_told_to(table: LightTable) -> None:
    table.press("A/B slider")
    stage = table.stage.bounding_box()
    move = lambda share: table.page.mouse.move(stage["x"] + share * stage["width"], stage["y"] + 100)  # noqa: E731
    move(0.2)
    table.drawn()
    expect(table.divider).to_have_attribute("aria-valuenow", "50")
    table.key("m")
    expect(tool(table, "Follow the mouse")).to_have_attribute("aria-pressed", "true")
    for share in (0.2, 0.7):
        move(share)
        expect(table.divider).to_have_attribute("aria-valuenow", str(round(100 * share)))
    table.key("m")
    move(0.4)
    table.drawn()
    expect(table.divider).to_have_attribute("aria-valuenow", "70")


def test_the_loupe_shows_what_the_stage_shows(table: LightTable) -> None:
    """Around a horizontal divider, and through an opacity."""
    table.press("A/B slider")
    tool(table, "Horizontal").click()
    table.press("Loupe")
    box = table.stage.locator("> img").bounding_box()
    x, y = box["x"] + box["width"] * 64.5 / 128, box["y"] + box["height"] * 64.5 / 128
    table.page.mouse.move(x, y)
    table.drawn()
    loupe = table.stage.locator(".vae-lab-loupe")
    read = """canvas => [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]"""

    def magnified() -> np.ndarray:
        side = loupe.evaluate("canvas => canvas.width")
        return np.array(loupe.evaluate(read), np.uint8).reshape(side, side, 4)[..., :3]

    scale = 2 * round(box["width"] / 128)
    shown, middle = magnified(), loupe.evaluate("canvas => canvas.width") // 2
    a, b = image(table, BUILT_IN), image(table, ANIME)
    assert shown[middle - scale, middle].tolist() == a[63, 64].tolist()
    assert shown[middle + scale, middle].tolist() == b[65, 64].tolist()
    table.key("o")
    mixed = (a[64, 64].astype(int) + b[64, 64]) / 2
    assert np.abs(magnified()[middle, middle] - mixed).max() <= 1


def test_blink_runs_by_itself_once_it_is_started_and_stops_with_blink(table: LightTable) -> None:
    half = table.stage.locator(".vae-lab-half")
    table.page.emulate_media(reduced_motion="reduce")
    table.press("Blink")
    expect(tool(table, "Blink automatically")).to_have_attribute("aria-pressed", "false")
    rate = table.grid.get_by_role("slider", name="Changes per second")
    assert (rate.get_attribute("min"), rate.get_attribute("max")) == ("0.5", "4")
    rate.fill("4")
    expect(half).to_be_visible()
    table.grid.focus()
    table.key("r")
    expect(tool(table, "Blink automatically")).to_have_attribute("aria-pressed", "true")
    for _ in range(2):
        expect(half).to_be_hidden()
        expect(half).to_be_visible()
    table.key("g")
    table.press("Blink")
    expect(tool(table, "Blink automatically")).to_have_attribute("aria-pressed", "false")
    table.grid.focus()
    table.key("r")
    expect(half).to_be_hidden()
    table.page.keyboard.down(" ")
    expect(tool(table, "Blink automatically")).to_have_attribute("aria-pressed", "false")
    expect(half).to_be_hidden()
    table.page.keyboard.up(" ")
    expect(half).to_be_visible()
    table.page.emulate_media(reduced_motion="no-preference")
