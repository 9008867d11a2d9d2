"""What the light table reads from the images: colours of a pixel, colour differences, histograms."""

from __future__ import annotations

import numpy as np
import pytest
from playwright.sync_api import expect
from skimage.color import deltaE_ciede2000, rgb2lab

from tests.browser.panel import LightTable, Panel

pytestmark = pytest.mark.browser

BUILT_IN, ANIME, B = "Built-in", "anime.vae.pt", "photo-b.ckpt"


def image(table: LightTable, name: str, number: int = 0) -> np.ndarray:
    """uint8 [H,W,3] of the file."""
    return Panel(table.page).images(name)[number]


def delta_e(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """CIEDE2000 of uint8 [...,3]."""
    return deltaE_ciede2000(rgb2lab(a), rgb2lab(b))


def point_at(table: LightTable, name: str, x: int, y: int) -> None:
    """Move the mouse to the middle of an image pixel in a figure."""
    box = table.window(name).locator("img").bounding_box()
    table.page.mouse.move(box["x"] + box["width"] * (x + 0.5) / 128, box["y"] + box["height"] * (y + 0.5) / 128)
    table.drawn()


def reading(table: LightTable, name: str) -> str:
    return table.figure(name).locator(".vae-lab-pixel").inner_text()


# --- the colour of a pixel -------------------------------------------------------------------------------------------


def test_every_figure_shows_the_colour_at_the_pointer_and_its_difference_from_a(table: LightTable) -> None:
    for x, y in ((0, 0), (40, 90), (127, 127)):
        point_at(table, ANIME, x, y)
        a = image(table, BUILT_IN)[y, x]
        assert reading(table, BUILT_IN) == f"RGB {a[0]} {a[1]} {a[2]}"
        for name in (ANIME, B):
            color = image(table, name)[y, x]
            assert reading(table, name) == f"RGB {color[0]} {color[1]} {color[2]} · ΔE {delta_e(a, color):.1f}"
    table.page.mouse.move(5, 5)
    table.drawn()
    assert reading(table, ANIME) == ""


def test_the_stage_shows_the_colours_of_a_and_b_in_every_view(table: LightTable) -> None:
    readout = table.grid.locator(".vae-lab-readout")
    expect(readout).to_be_hidden()
    for mode in ("A/B slider", "Blink", "Difference"):
        table.press(mode)
        box = table.stage.locator("> img").bounding_box() if mode != "Difference" else None
        box = box or table.stage.locator("canvas.vae-lab-map").bounding_box()
        table.page.mouse.move(box["x"] + box["width"] * 20.5 / 128, box["y"] + box["height"] * 30.5 / 128)
        table.drawn()
        a, b = image(table, BUILT_IN)[30, 20], image(table, ANIME)[30, 20]
        colors = [" ".join(map(str, color)) for color in (a, b)]
        expect(readout).to_have_text(f"x 20  y 30 · A {colors[0]} · B {colors[1]} · ΔE {delta_e(a, b):.1f}")


def test_hosts_do_not_hear_of_every_move_of_the_pointer(table: LightTable) -> None:
    """The WebUI runs the callbacks of all extensions whenever nodes are added or removed."""
    point_at(table, ANIME, 3, 3)
    table.page.evaluate("""
        window.heard = 0;
        new MutationObserver((all) => (heard += all.length)).observe(document, {childList: true, subtree: true});
    """)
    before = reading(table, ANIME)
    for x in range(10, 20):
        point_at(table, ANIME, x, 50)
    assert reading(table, ANIME) != before
    assert table.page.evaluate("heard") == 0


def test_the_crosshair_is_moved_by_keys_pixel_by_pixel(table: LightTable) -> None:
    crosses = table.grid.locator("figure .vae-lab-cross:visible")
    point_at(table, ANIME, 40, 60)
    table.key("x")
    expect(crosses).to_have_count(3)
    table.page.mouse.move(5, 5)
    table.grid.focus()
    for key in ("ArrowRight", "ArrowDown", "Shift+ArrowRight", "ArrowUp", "ArrowUp"):
        table.key(key)
    color = image(table, ANIME)[59, 51]
    assert reading(table, ANIME).startswith(f"RGB {color[0]} {color[1]} {color[2]} ·")
    box, cross = table.window(ANIME).locator("img").bounding_box(), crosses.nth(1).bounding_box()
    assert (cross["x"] + cross["width"] / 2 - box["x"]) / box["width"] * 128 == pytest.approx(51.5, abs=0.4)
    assert (cross["y"] + cross["height"] / 2 - box["y"]) / box["height"] * 128 == pytest.approx(59.5, abs=0.4)
    table.press("800 %")
    for _ in range(8):
        table.key("Shift+ArrowLeft")
    color = image(table, ANIME)[59, 0]
    assert reading(table, ANIME).startswith(f"RGB {color[0]} {color[1]} {color[2]} ·"), "the image's edge stops it"
    window, cross = table.window(ANIME).bounding_box(), crosses.nth(1).bounding_box()
    assert window["x"] <= cross["x"] + cross["width"] / 2 <= window["x"] + window["width"], "the view follows it"
    table.key("Escape")
    expect(crosses).to_have_count(0)
    assert reading(table, ANIME) == ""


# --- the map of colour differences -----------------------------------------------------------------------------------


def map_of(table: LightTable) -> np.ndarray:
    """uint8 [H,W,4]: the pixels of the difference map."""
    read = """canvas => [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]"""
    return np.array(table.stage.locator("canvas.vae-lab-map").evaluate(read), np.uint8).reshape(128, 128, 4)


def test_the_map_of_delta_e_has_a_fixed_scale(table: LightTable) -> None:
    table.press("Difference")
    largest = table.grid.locator(".vae-lab-largest")
    expect(largest).to_contain_text("of 255")
    table.grid.get_by_role("button", name="ΔE").click()
    table.key("3")
    a, b = image(table, BUILT_IN), image(table, B)
    expected = delta_e(a, b)
    expect(largest).to_have_text(f"ΔE mean {expected.mean():.2f}, largest {expected.max():.1f}")
    expect(table.grid.get_by_role("img", name="Scale of ΔE")).to_be_visible()
    expect(table.grid.get_by_role("slider", name="Gain")).to_be_hidden()
    shown = map_of(table)
    assert (shown[..., 3] == 255).all()
    lightness = rgb2lab(shown[..., :3])[..., 0]
    order = np.argsort(expected, axis=None)
    assert np.diff(lightness.ravel()[order]).min() > -1.0, "lighter means more"
    assert (shown[expected > 10.05][:, :3] == shown[expected > 10.05][0, :3]).all(), "the scale ends at 10"
    seen, painted = table.seen(table.stage, shown[..., :3], "canvas.vae-lab-map")
    np.testing.assert_array_equal(seen, painted)


def test_a_pixel_that_is_equal_is_black_and_the_key_turns_to_rgb_and_back(table: LightTable) -> None:
    table.page.evaluate("""() => {
        const [a, b] = ["Built-in", "photo-b.ckpt"].map((name) =>
            document.querySelector(`#vae_lab_results figure[data-vae="${name}"] img`));
        b.src = a.src;
    }""")
    table.grid.focus()
    table.key("3")
    table.key("e")
    largest = table.grid.locator(".vae-lab-largest")
    expect(largest).to_have_text("ΔE mean 0.00, largest 0.0")
    assert map_of(table)[..., :3].max() <= 4
    table.key("e")
    expect(largest).to_have_text("Largest difference 0 of 255")
    table.key("e")
    table.key("2")
    expect(largest).not_to_have_text("ΔE mean 0.00, largest 0.0")
    expect(largest).to_contain_text("ΔE mean")


# --- histograms ------------------------------------------------------------------------------------------------------


def levels(image: np.ndarray) -> np.ndarray:
    """[4,256]: how often each level occurs in luma, red, green and blue, less the ends of the scale."""
    luma = np.floor(image @ np.array([0.299, 0.587, 0.114]) + 0.5)
    channels = [luma, *np.moveaxis(image, -1, 0)]
    return np.stack([np.histogram(channel, 256, (0, 256))[0] for channel in channels])


def test_histograms_show_a_as_an_area_and_b_as_a_line(table: LightTable) -> None:
    charts = table.grid.locator(".vae-lab-histogram canvas")
    expect(charts).to_have_count(4)
    expect(charts.first).to_be_hidden()
    table.window(ANIME).hover()
    table.key("h")
    expect(table.button("Histogram")).to_have_attribute("aria-pressed", "true")
    read = """canvas => ({width: canvas.width, height: canvas.height,
        data: [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]})"""
    for number, b in ((0, "2"), (0, "3"), (1, "3")):
        table.key(b)
        table.tools.get_by_role("combobox", name="Image of the batch").select_option(str(number))
        table.ready()
        counts = [levels(image(table, name, number)) for name in (BUILT_IN, {"2": ANIME, "3": B}[b])]
        for channel, name in enumerate(("Luma", "Red", "Green", "Blue")):
            chart = table.grid.get_by_role("img", name=f"{name}: levels of A and B")
            found = chart.evaluate(read)
            alpha = np.array(found["data"]).reshape(found["height"], found["width"], 4)[..., 3]
            highest = max(count[channel][1:-1].max() for count in counts)
            for level in range(8, 248, 3):
                column = alpha[:, int((level + 0.5) * found["width"] / 256)]
                top = np.argmax(column > 100) if (column > 100).any() else found["height"]
                around = np.max([count[channel][level - 2 : level + 3] for count in counts], axis=0)  # in that column
                low, high = (found["height"] * (1 - 0.95 * count / highest) for count in (around.min(), around.max()))
                assert high - 2 <= top <= low + 2, (name, level)
    table.key("h")
    expect(charts.first).to_be_hidden()
