"""The table of numbers below a comparison: sorted, explained and copied, by mouse and by keyboard.

What the script and the style sheet do is tested on a static page; what the server makes, in the app.
"""

from __future__ import annotations

import io
import re
import urllib.request
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import THEMES, Keep, Launch, MakeHost
from tests.browser.panel import Panel
from tests.browser.static_page import StaticSite, made_up_comparison
from vae_lab.comparison.measures import EXPLANATIONS
from vae_lab.host.standalone import StandaloneHost
from vae_lab.service.service import service_of

pytestmark = pytest.mark.browser

NAMES = ["anime.vae.pt", "photo-a-sharp.safetensors", "photo-a-smooth.safetensors", "photo-b.ckpt"]
COMPARED = ["Built-in", *NAMES, "sdxl-c.safetensors"]


class Numbers:
    """The table on an open page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.box = page.locator("#vae_lab_numbers").first
        self.rows = self.box.locator("tbody tr")
        self.message = self.box.locator(".vae-lab-copied")

    def names(self) -> list[str]:
        return self.rows.evaluate_all("all => all.map(row => row.dataset.vae)")

    def heading(self, key: str) -> Locator:
        return self.box.locator(f'th[data-column="{key}"]')

    def button(self, key: str) -> Locator:
        return self.heading(key).get_by_role("button")

    def values(self, key: str) -> list[float]:
        column = list(EXPLANATIONS).index(key) + 1
        script = "(all, i) => all.map(row => row.cells[i]?.dataset.value).filter(value => value).map(Number)"
        return self.rows.evaluate_all(script, column)

    def copied(self) -> list[list[str]]:
        self.box.get_by_role("button", name="Copy table").click()
        expect(self.message).to_have_text("Copied")
        text = self.page.evaluate("navigator.clipboard.readText()")
        return [line.split("\t") for line in text.splitlines()]


@pytest.fixture(scope="module")
def static_url(static_site: StaticSite) -> str:
    """A page with the numbers of five made-up VAEs, and a refused one."""
    stored = made_up_comparison(COMPARED[:-1], refused=COMPARED[-1], size=64, id="numbers")
    return static_site.add_comparison("numbers", stored)


@pytest.fixture
def table(page: Page, static_url: str) -> Numbers:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(static_url)
    page.evaluate("window.vaeLab")
    return Numbers(page)


@pytest.fixture
def compared(page: Page, shared_url: str) -> Numbers:
    """The same in the app, of real VAEs."""
    panel = Panel.open(page, shared_url)
    panel.choose("vae_lab_source", "· Brushes · ")
    panel.tick_only(*NAMES, "sdxl-c.safetensors")
    panel.compare()
    return Numbers(page)


def test_one_row_for_each_vae_as_compared(compared: Numbers) -> None:
    assert compared.names() == COMPARED
    expect(compared.rows.last).to_contain_text("not used: sdxl-c.safetensors is a VAE for SDXL")
    for key, known in EXPLANATIONS.items():
        expect(compared.button(key)).to_contain_text(known.title)
        assert len(compared.values(key)) == 5, key
    assert compared.values("delta_e")[0] == 0
    expect(compared.rows.first).to_contain_text("equal")


def test_the_numbers_say_what_people_say(compared: Numbers) -> None:
    """The sharp VAE is sharper than the plain one, the smooth one is smoother."""
    sharpness = dict(zip(compared.names(), compared.values("sharpness"), strict=False))
    assert sharpness["photo-a-smooth.safetensors"] < sharpness["Built-in"] < sharpness["photo-a-sharp.safetensors"]


def test_sorting_by_mouse_there_back_and_as_it_was(table: Numbers) -> None:
    button = table.button("contrast")
    for order, reverse in (("descending", True), ("ascending", False)):
        button.click()
        expect(table.heading("contrast")).to_have_attribute("aria-sort", order)
        values = table.values("contrast")
        assert values == sorted(values, reverse=reverse)
        assert values != sorted(values, reverse=not reverse)
        assert table.names()[-1] == "sdxl-c.safetensors", "what has no number comes last either way"
    button.click()
    expect(table.heading("contrast")).to_have_attribute("aria-sort", "none")
    assert table.names() == COMPARED


def test_one_column_sorts_at_a_time(table: Numbers) -> None:
    table.button("psnr").click()
    assert table.names()[0] == "Built-in", "equal is the closest of all"
    table.button("name").click()
    expect(table.heading("name")).to_have_attribute("aria-sort", "ascending")
    expect(table.box.locator('th:not([aria-sort="none"])')).to_have_count(1 + len(COMPARED))  # and the rows' own
    expect(table.heading("psnr")).to_have_attribute("aria-sort", "none")
    assert table.names() == ["anime.vae.pt", "Built-in", *NAMES[1:], "sdxl-c.safetensors"]


def test_explained_and_sorted_by_keyboard(page: Page, table: Numbers) -> None:
    tip = table.heading("sharpness").get_by_role("tooltip", include_hidden=True)
    expect(tip).to_be_hidden()
    explained = f"{EXPLANATIONS['sharpness'].text} Neither more nor less is better in itself."
    expect(table.button("sharpness")).to_have_attribute("title", explained)
    described = table.button("sharpness").get_attribute("aria-describedby")
    expect(tip).to_have_id(described)
    table.button("saturation").focus()
    page.keyboard.press("Tab")
    expect(table.button("sharpness")).to_be_focused()
    expect(tip).to_be_visible()
    expect(tip).to_contain_text(EXPLANATIONS["sharpness"].text)
    page.keyboard.press("Enter")
    expect(table.heading("sharpness")).to_have_attribute("aria-sort", "descending")
    values = table.values("sharpness")
    assert values == sorted(values, reverse=True)
    expect(table.button("sharpness")).to_be_focused()
    page.keyboard.press("Tab")
    expect(tip).to_be_hidden()


def test_an_explanation_is_all_in_view(page: Page, table: Numbers) -> None:
    """Above the table: the box that scrolls would cut it off."""
    for key in EXPLANATIONS:
        table.button(key).hover()
        tip = table.heading(key).get_by_role("tooltip")
        expect(tip).to_be_visible()
        place, below = tip.bounding_box(), table.box.locator("table").bounding_box()
        assert place["y"] + place["height"] <= below["y"]
        on_top = "([x, y]) => document.elementFromPoint(x, y).closest('[role=tooltip]')?.id"
        middle = [place["x"] + 20, place["y"] + place["height"] / 2]
        assert page.evaluate(on_top, middle) == tip.get_attribute("id")


def test_largest_and_smallest_are_marked(table: Numbers) -> None:
    for key in ("contrast", "delta_e"):
        table.button(key).click()
    column = list(EXPLANATIONS).index("delta_e") + 1
    marks = table.rows.evaluate_all("(all, i) => all.map(row => row.cells[i]?.dataset.mark ?? '')", column)
    assert marks == ["largest", "", "", "smallest", "", ""], "the reference itself is not the closest to itself"


def test_copied_in_the_order_that_is_shown(table: Numbers) -> None:
    table.button("sharpness").click()
    head, *rows = table.copied()
    assert head[:2] == ["VAE", "Time s"]
    assert len(head) == 1 + len(EXPLANATIONS)
    assert [row[0] for row in rows] == table.names()
    by_name = {row[0]: row for row in rows}
    assert by_name["Built-in"][head.index("PSNR dB")] == "equal"
    assert all(re.fullmatch(r"\d+(\.\d+)?", cell) for cell in by_name["photo-b.ckpt"][1:])
    assert by_name["sdxl-c.safetensors"][1].startswith("not used: ")


def test_copied_where_the_browser_has_no_clipboard_for_scripts(page: Page, table: Numbers) -> None:
    """As on a page that is served over plain http to another machine."""
    page.evaluate(
        "Object.defineProperty(navigator, 'clipboard', {value: undefined, configurable: true}); document.copied = '';"
        "document.addEventListener('copy', () => { document.copied = document.activeElement.value; });"
    )
    table.box.get_by_role("button", name="Copy table").click()
    expect(table.message).to_have_text("Copied")
    assert page.evaluate("document.copied").startswith("VAE\tTime s\t")
    expect(page.locator("body > textarea")).to_have_count(0)


def test_save_sheet(page: Page, compared: Numbers, shared_url: str) -> None:
    with page.expect_download() as started:
        compared.box.get_by_role("link", name="Save contact sheet").click()
    assert started.value.suggested_filename == "Brushes-VAEs.png"
    with Image.open(Path(started.value.path())) as sheet:
        assert sheet.width > 5 * 192


def test_share_saves_one_page_with_the_images(page: Page, compared: Numbers, shared_url: str) -> None:
    with page.expect_download() as started:
        compared.box.get_by_role("link", name="Share").click()
    assert started.value.suggested_filename == "Brushes-VAEs.html"
    html = Path(started.value.path()).read_text(encoding="utf8")
    assert html.count("data:image/webp;base64,") == html.count("<img ") > 2


@pytest.mark.parametrize(("link", "kind"), [("Animation", "webp"), ("GIF", "gif")])
def test_save_animation(page: Page, compared: Numbers, shared_url: str, link: str, kind: str) -> None:
    with page.expect_download() as started:
        compared.box.get_by_role("link", name=link, exact=True).click()
    assert started.value.suggested_filename == f"Brushes-VAEs.{kind}"
    with Image.open(Path(started.value.path())) as animation:
        shown = page.locator("#vae_lab_results figure img").count()
        assert (animation.n_frames, animation.width) == (shown, 200)


def test_names_are_never_cut(page: Page, static_site: StaticSite) -> None:
    stem = f"a-folder-of-mine/{'very-long-name-' * 5}without end{'x' * 60}"
    names = ["Built-in", *(f"{stem}-v{version}.safetensors" for version in (1, 2))]
    page.goto(static_site.add_comparison("long-names", made_up_comparison(names, size=64, id="long-names")))
    numbers = Numbers(page)
    expect(numbers.rows).to_have_count(3)
    cut = "all => all.filter(cell => cell.scrollWidth > cell.clientWidth).length"
    assert numbers.box.locator("tbody th").evaluate_all(cut) == 0
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    expect(numbers.rows.nth(2)).to_contain_text("-v2.safetensors")


def test_numbers_go_with_their_images(page: Page, launch: Launch, make_host: MakeHost) -> None:
    """A comparison that fails leaves both of the one before; measuring that fails costs no image."""
    host = make_host()
    panel = Panel.open(page, launch(host))
    panel.tick_only("anime.vae.pt")
    panel.compare()
    host.generations.clear()
    panel.compare()
    expect(panel.message.get_by_role("alert")).to_be_visible()
    expect(Numbers(page).rows).to_have_count(2)
    expect(panel.figures).to_have_count(2)


def test_measuring_that_fails_costs_no_image(page: Page, shared_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError("no room for <b>numbers</b>")

    monkeypatch.setattr("vae_lab.comparison.measures._ssim", fail)
    panel = Panel.open(page, shared_url)
    panel.tick_only("anime.vae.pt")
    panel.compare()
    expect(panel.figures).to_have_count(2)
    numbers = Numbers(page)
    expect(numbers.box).to_contain_text("Some values could not be measured: MemoryError: no room for <b>numbers</b>")
    expect(numbers.rows.nth(1)).to_contain_text("not measured")


@pytest.mark.parametrize("theme", THEMES)
def test_it_fits_the_page(page: Page, shared_url: str, theme: str, keep_screenshot: Keep) -> None:
    panel = Panel.open(page, shared_url, theme)
    panel.choose("vae_lab_source", "· Brushes · ")
    panel.tick_only("photo-a-sharp.safetensors", "photo-a-smooth.safetensors", "sdxl-c.safetensors")
    panel.compare()
    numbers = Numbers(page)
    numbers.button("sharpness").click()
    sizes = "table => [table.offsetWidth, table.parentElement.clientWidth]"
    for width in (1280, 2560):
        page.set_viewport_size({"width": width, "height": 1000})
        numbers.box.scroll_into_view_if_needed()
        keep_screenshot(page, f"numbers-{theme}-{width}")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        wide, room = numbers.box.locator("table").evaluate(sizes)
        assert wide <= room


def test_saved_image_carries_what_made_it(shared_url: str, shared_host: StandaloneHost) -> None:
    generation = shared_host.generations.newest_first()[0]
    stored = service_of(shared_host).comparisons.compare(generation.id, ["photo-b.ckpt"])

    def infotext(path: str) -> str:
        with urllib.request.urlopen(f"{shared_url}vae-lab/v1/{path}", timeout=60) as answer:
            content = io.BytesIO(answer.read())
        with Image.open(content) as image:
            return image.text.get("parameters", "")

    for number, i, vae in ((0, 0, r"healthy\.safetensors"), (3, 1, r"photo-b\.ckpt")):
        ours = rf", VAE Lab override: {vae}, VAE Lab override hash: [0-9a-f]{{10}}"
        assert re.fullmatch(re.escape(generation.infotexts[i]) + ours, infotext(f"images/{stored.id}/{number}.png"))
    assert infotext(f"sheets/{stored.id}.png") == generation.infotexts[0]
