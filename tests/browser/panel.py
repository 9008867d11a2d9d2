"""User actions in our panels, as Playwright page objects."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Locator, Page, expect
from playwright.sync_api import TimeoutError as NotInTime


def slowly(handler: Callable[..., Any], seconds: float = 0.7) -> Callable[..., Any]:
    """The same, but slower than a user of the page."""

    def slow(*values: Any, **more: Any) -> Any:
        time.sleep(seconds)
        return handler(*values, **more)

    return slow


def wait_as_the_page_does(page: Page, milliseconds: int) -> None:
    """Wait by the page's own timers, which come in the order in which they are due, however slow the page is."""
    page.evaluate("wait => new Promise(done => setTimeout(done, wait))", milliseconds)


class Panel:
    """The panel on an open page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        # Gradio 3 gives an HTML component's id to two elements, one inside the other.
        self.message = page.locator("#vae_lab_message").first
        self.latent = page.locator("#vae_lab_latent").first
        self.empty = page.locator("#vae_lab_empty").first
        self.figures = page.locator("#vae_lab_results").first.locator("figure")
        self.deciding = page.locator("#vae_lab_deciding").first
        self.progress = page.get_by_role("progressbar")

    @classmethod
    def open(cls, page: Page, url: str, theme: str = "light") -> Panel:
        """Load the page and wait until its lists have been filled by the script."""
        page.goto(f"{url}?__theme={theme}")
        expect(page.locator("#vae_lab_compare")).to_be_visible()
        return cls(page).refreshed()

    def refreshed(self, before: int = 0) -> Panel:
        """Wait for lists that are fresher than those of refresh number ``before``; 0 came with the page."""
        self.page.wait_for_function(
            "before => Number(document.querySelector('#vae_lab_deciding [data-asked]')?.dataset.asked ?? 0) > before",
            arg=before,
        )
        return self

    def refresh(self) -> None:
        """Press Refresh and wait for the lists."""
        asked = int(self.page.locator("#vae_lab_deciding [data-asked]").get_attribute("data-asked"))
        self.page.click("#vae_lab_refresh")
        self.refreshed(asked)

    def boxes(self) -> Locator:
        return self.page.locator("#vae_lab_vaes input[type=checkbox]")

    def labels(self) -> list[str]:
        return [text.strip() for text in self.page.locator("#vae_lab_vaes label").all_inner_texts()]

    def ticked(self) -> list[str]:
        labels = self.page.locator("#vae_lab_vaes label:has(input:checked)").all_inner_texts()
        return [text.strip() for text in labels]

    def tick_only(self, *names: str) -> None:
        folded = self.page.locator(".vae-lab-vae-fold[aria-expanded=false]:visible")
        while folded.count():
            folded.first.click()
        for i, label in enumerate(self.labels()):
            self.boxes().nth(i).set_checked(label.split(" · ")[0] in names)

    def choose(self, dropdown: str, text: str) -> None:
        """Choose an option whose words contain ``text``. As a user would, leave the field and open it again where the
        menu has lost its entries: gradio 4 leaves only the chosen one when new choices come into an open menu.
        """
        field = self.page.locator(f"#{dropdown} input")
        option = self.page.get_by_test_id("dropdown-option").filter(has_text=text).first
        for _ in range(5):
            field.click()
            try:
                option.click(timeout=10_000)
            except NotInTime:
                field.blur()
                continue
            return
        raise AssertionError(f"no option {text} in {dropdown}")

    def thumbnail(self, title: str) -> Locator:
        return self.page.locator("#vae_lab_thumbnails").first.locator(f'[data-pick][title*="{title}"]')

    def load(self, file: Path) -> None:
        """Upload a file of latents, and wait for the message."""
        self.finish(lambda: self.page.locator("input[type=file][accept*='.safetensors']").set_input_files(file))

    def encode(self, file: Path, vae: str = "") -> None:
        """Drop an image, choose who encodes it, press Encode and wait for the message."""
        page = self.page
        if not page.locator("#vae_lab_encode").is_visible():
            page.locator("#vae_lab_from_image").get_by_text("From an image").click()
        page.locator("#vae_lab_image input[type=file]").set_input_files(file)
        expect(page.locator("#vae_lab_image .download a")).to_be_attached()  # the name shows before the file is there
        if vae:
            self.choose("vae_lab_encoder", vae)
        self.finish(lambda: page.click("#vae_lab_encode"))

    def compare(self) -> None:
        """Press Compare and wait for its message, and for the numbers, which come after the images."""
        self.finish(lambda: self.page.click("#vae_lab_compare"))
        compared = self.page.locator("#vae_lab_message [data-run]").first.get_attribute("data-of")
        if compared:
            expect(self.page.locator(f'#vae_lab_results [data-comparison="{compared}"]').first).to_be_attached()
            expect(self.page.locator(f'#vae_lab_numbers [data-of="{compared}"]').first).to_be_attached()

    def finish(self, action: object) -> None:
        """Do ``action``, and wait until the panel has shown the result and is idle."""
        _finish(self.page, "vae_lab_message", "vae_lab_panel", action)

    def figure(self, name: str) -> Locator:
        return self.page.locator("#vae_lab_results").first.locator(f'figure[data-vae="{name}"]')

    def images(self, name: str) -> np.ndarray:
        """uint8 [B,H,W,3]: what the browser gets for the figure's <img> elements."""
        sources = self.figure(name).locator("img").evaluate_all("all => all.map(image => image.src)")
        answers = [self.page.request.get(source) for source in sources]
        assert all(answer.headers["content-type"] == "image/png" for answer in answers)
        return np.stack([np.asarray(Image.open(io.BytesIO(answer.body()))) for answer in answers])


class LightTable:
    """A grid of images with its tools, of the comparison or of any other panel."""

    def __init__(self, page: Page, grid: str = "#vae_lab_results .vae-lab-grid") -> None:
        self.page = page
        self.grid = page.locator(grid)
        self.tools = self.grid.get_by_role("toolbar")
        self.stage = self.grid.locator(".vae-lab-stage")
        self.divider = self.grid.get_by_role("slider", name="Divider between A and B")
        self.help = self.grid.get_by_role("dialog", name="Keys of the light table")
        self.message = self.grid.locator(".vae-lab-tool-message")

    @classmethod
    def open(cls, page: Page, url: str, *vaes: str, theme: str = "light") -> LightTable:
        """Load the page and compare the built-in VAE and ``vaes`` on the latent that is chosen at first."""
        panel = Panel.open(page, url, theme)
        panel.tick_only(*vaes)
        panel.compare()
        return cls(page).ready()

    def ready(self) -> LightTable:
        """Wait until all images have come that are shown."""
        expect(self.tools).to_be_visible()
        self.page.wait_for_function(
            "[...document.querySelectorAll('.vae-lab-grid img[src]')].every("
            "image => image.naturalWidth > 0 || (image.loading === 'lazy' && image.offsetParent === null))"
        )
        self.drawn()
        return self

    def drawn(self) -> None:
        """Wait for the table's next frame, and for the browser to have painted it."""
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def button(self, words: str) -> Locator:
        return self.tools.get_by_role("button", name=words, exact=True)

    def press(self, words: str) -> None:
        self.button(words).click()
        self.drawn()

    def key(self, key: str) -> None:
        self.page.keyboard.press(key)
        self.drawn()

    def figure(self, name: str) -> Locator:
        return self.grid.locator(f'figure[data-vae="{name}"]')

    def window(self, name: str) -> Locator:
        """Through which the image of a VAE is seen."""
        return self.figure(name).locator(".vae-lab-window:visible")

    def pair(self) -> tuple[str, str]:
        """Names of A and B as they are written above the stage."""
        a, b = (self.grid.locator(f".vae-lab-side[data-side={side}] .vae-lab-name") for side in "ab")
        return a.inner_text(), b.inner_text()

    def marked(self) -> tuple[str, str]:
        """Names of the figures whose buttons A and B are pressed."""
        pressed = (self.grid.locator(f"figure:has([data-value={side}][aria-pressed=true])") for side in "ab")
        a, b = (figure.get_attribute("data-vae") for figure in pressed)
        return a, b

    def offsets(self) -> list[list[float]]:
        """[left, top, width, height] of each figure's image in its window, in device pixels."""
        return self.grid.locator("figure[data-vae] .vae-lab-window:visible").evaluate_all(
            """all => all.map(box => {
                const [outer, inner] = [box, box.querySelector("img")].map(each => each.getBoundingClientRect());
                return [inner.x - outer.x, inner.y - outer.y, inner.width, inner.height].map(
                    length => Math.round(length * devicePixelRatio * 100) / 100);
            })"""
        )

    def _at_rest(self, window: Locator, layer: Locator) -> tuple[dict, dict, np.ndarray]:
        """Where both are, and a screenshot of the page, uint8 [H,W,3], in which they have not moved: what comes above
        them after the images (the answer) moves them.
        """
        for _ in range(10):
            window.evaluate("element => element.scrollIntoView({block: 'center'})")
            self.drawn()
            before = window.bounding_box(), layer.bounding_box()
            shot = np.asarray(Image.open(io.BytesIO(self.page.screenshot())).convert("RGB"))
            if before == (window.bounding_box(), layer.bounding_box()):
                return *before, shot
        raise AssertionError("the page does not come to rest")

    def seen(self, window: Locator, image: np.ndarray, layer: str = "img") -> tuple[np.ndarray, np.ndarray]:
        """What the browser really paints of an image, and what it should.

        Args:
            window: that the image is seen through.
            image: uint8 [H,W,3], as the file has it.
            layer: selector of the element in the window that shows it.

        Returns:
            Two uint8 [h,w,3] over the part of the window that is in view, less a rim of two device pixels: the
            screenshot, and ``image`` repeated a whole number of times, from where the element begins.
        """
        outer, inner, shot = self._at_rest(window, window.locator(layer).first)
        dpr = self.page.evaluate("devicePixelRatio")
        zoom = inner["width"] * dpr / image.shape[1]
        assert abs(zoom - round(zoom)) < 0.01, f"{zoom} device pixels for an image pixel"
        large = image.repeat(round(zoom), axis=0).repeat(round(zoom), axis=1)
        x, y = round(inner["x"] * dpr), round(inner["y"] * dpr)
        ends = {"left": outer["x"], "top": outer["y"]}
        ends |= {"right": outer["x"] + outer["width"], "bottom": outer["y"] + outer["height"]}
        left, top = max(round(ends["left"] * dpr) + 2, x, 0), max(round(ends["top"] * dpr) + 2, y, 0)
        right = min(round(ends["right"] * dpr) - 2, x + large.shape[1], shot.shape[1])
        bottom = min(round(ends["bottom"] * dpr) - 2, y + large.shape[0], shot.shape[0])
        assert right - left > 50, "too little of the image is in view"
        assert bottom - top > 50, "too little of the image is in view"
        return shot[top:bottom, left:right], large[top - y : bottom - y, left - x : right - x]


class CheckupPage:
    """The checkup on an open page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.message = page.locator("#vae_lab_checkup_message").first
        self.verdict = page.locator("#vae_lab_checkup_verdict").first
        self.badge = self.verdict.locator(".vae-lab-status .vae-lab-badge")
        self.charts = page.locator("#vae_lab_checkup_charts").first
        self.remedy = page.locator("#vae_lab_checkup_remedy").first
        self.said = page.locator("#vae_lab_checkup_said").first
        self.undo = self.said.get_by_role("button", name="Undo")
        self.deciding = page.locator("#vae_lab_checkup_deciding").first
        self.for_checkpoint = page.locator("#vae_lab_checkup_use_for_checkpoint")
        self.always = page.locator("#vae_lab_checkup_use_always")
        self.rows = page.locator("#vae_lab_checkup_overview").first.locator("tbody tr")

    @classmethod
    def open(cls, page: Page, url: str, theme: str = "light") -> CheckupPage:
        """Load the page, turn to the checkup, and wait until it shows what the host has."""
        Panel.open(page, url, theme)
        checkup = cls(page).to_page("Checkup")
        expect(checkup.deciding).to_be_visible()  # only a refresh fills it
        return checkup

    def to_page(self, name: str) -> CheckupPage:
        """Turn to the page ``Compare`` or ``Checkup``, and wait until it is in view; the former, until it is fresh."""
        asked = int(self.page.locator("#vae_lab_deciding [data-asked]").get_attribute("data-asked"))
        self.page.locator(".tab-nav button", has_text=name).click()
        panel = {"Compare": "#vae_lab_panel", "Checkup": "#vae_lab_checkup"}[name]
        expect(self.page.locator(panel)).to_be_visible()
        if name == "Compare":
            Panel(self.page).refreshed(asked)
        return self

    def choose(self, text: str) -> None:
        Panel(self.page).choose("vae_lab_checkup_file", text)

    def check(self) -> None:
        """Press Check and wait for its message."""
        self.finish(lambda: self.page.click("#vae_lab_checkup_check"))

    def check_all(self) -> None:
        """Press Check all and wait for its message."""
        self.finish(lambda: self.page.click("#vae_lab_checkup_check_all"))

    def finish(self, action: object) -> None:
        """Do ``action``, and wait until the page has shown the result and is idle."""
        _finish(self.page, "vae_lab_checkup_message", "vae_lab_checkup", action)

    def row(self, name: str) -> Locator:
        return self.page.locator(f'#vae_lab_checkup tr[data-file="{name}"]')

    def images(self) -> list[bytes]:
        """PNG of the charts, once the browser has really drawn each of them."""
        images = self.charts.locator("img")
        for image in images.all():
            expect(image).to_have_js_property("naturalWidth", 192)
        sources = images.evaluate_all("all => all.map(image => image.src)")
        return [base64.b64decode(source.partition(",")[2]) for source in sources]


class LibraryPage:
    """The library on an open page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.message = page.locator("#vae_lab_library_message").first
        self.overview = page.locator("#vae_lab_library_overview").first
        self.table = page.locator("#vae_lab_library_table").first
        self.rows = self.table.locator("tbody tr[data-name]")
        self.jump = page.locator("#vae_lab_library_jump input")
        self.position = page.locator("#vae_lab_library_position").first
        self.previous = page.locator("#vae_lab_library_previous")
        self.next = page.locator("#vae_lab_library_next")
        self.progress = page.locator("#vae_lab_library").get_by_role("progressbar")

    @classmethod
    def open(cls, page: Page, url: str, theme: str = "light") -> LibraryPage:
        """Load the page, turn to the library, and wait until it shows what the host has."""
        Panel.open(page, url, theme)
        page.locator(".tab-nav button", has_text="Library").click()
        library = cls(page)
        expect(library.overview).to_contain_text("file")  # only a refresh fills it
        return library

    def scan(self) -> None:
        """Press Scan and wait for its message."""
        mark, panel = "vae_lab_library_message", "vae_lab_library"
        _finish(self.page, mark, panel, lambda: self.page.click("#vae_lab_library_scan"))

    def find(self, text: str) -> None:
        self.page.locator("#vae_lab_library_filter").locator("input, textarea").fill(text)

    def choose(self, dropdown: str, text: str) -> None:
        Panel(self.page).choose(f"vae_lab_library_{dropdown}", text)

    def row(self, name: str) -> Locator:
        return self.table.locator(f'tr[data-name="{name}"]')

    def fold(self, name: str) -> Locator:
        """The button of a row that shows its details."""
        return self.row(name).locator(".vae-lab-library-fold")

    def unfolded(self, name: str) -> Locator:
        """The details below a row, which are shown now."""
        if self.fold(name).get_attribute("aria-expanded") == "false":
            self.fold(name).click()
        details = self.table.locator(f'tr[data-name="{name}"] + tr')
        expect(details).to_be_visible()
        return details

    def names(self) -> list[str]:
        return self.rows.evaluate_all("all => all.map(row => row.dataset.name)")


class RoundTripPage:
    """The round trip on an open page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.message = page.locator("#vae_lab_roundtrip_message").first
        self.empty = page.locator("#vae_lab_roundtrip_empty").first
        self.results = page.locator("#vae_lab_roundtrip_results").first
        self.figures = self.results.locator(".vae-lab-grid:not(.vae-lab-losses) figure")
        self.losses = self.results.locator(".vae-lab-losses figure")
        self.progress = page.locator("#vae_lab_roundtrip").get_by_role("progressbar")

    @classmethod
    def open(cls, page: Page, url: str, theme: str = "light") -> RoundTripPage:
        """Load the page and turn to the round trip."""
        Panel.open(page, url, theme)
        return cls.turn_to(page)

    @classmethod
    def turn_to(cls, page: Page) -> RoundTripPage:
        """Open its tab."""
        page.locator(".tab-nav button", has_text="Round trip").click()
        expect(page.locator("#vae_lab_roundtrip_run")).to_be_visible()
        # Until the page has refreshed itself: an answer that comes later would put back what is ticked meanwhile.
        page.wait_for_function(
            "() => Number(document.querySelector('#vae_lab_roundtrip_built_in [data-asked]')?.dataset.asked) > 0"
        )
        return cls(page)

    def drop(self, file: Path) -> None:
        """Choose a file for the image, and wait until it is shown."""
        self.page.locator("#vae_lab_roundtrip_image input[type=file]").first.set_input_files(file)
        expect(self.page.locator("#vae_lab_roundtrip_image img")).to_be_visible()

    def tick_only(self, *names: str) -> None:
        boxes = self.page.locator("#vae_lab_roundtrip_vaes input[type=checkbox]")
        labels = self.page.locator("#vae_lab_roundtrip_vaes label").all_inner_texts()
        for i, label in enumerate(labels):
            boxes.nth(i).set_checked(label.strip().split(" · ")[0] in names)

    def choose(self, dropdown: str, text: str) -> None:
        Panel(self.page).choose(dropdown, text)

    def run(self) -> None:
        """Press Round trip and wait for its message."""
        expect(self.page.locator("#vae_lab_roundtrip[data-busy]")).to_have_count(0)  # it would ignore the click
        self.finish(lambda: self.page.click("#vae_lab_roundtrip_run"))

    def finish(self, action: object) -> None:
        """Do ``action``, and wait until the page has shown the result and is idle."""
        _finish(self.page, "vae_lab_roundtrip_message", "vae_lab_roundtrip", action)

    def figure(self, name: str) -> Locator:
        return self.results.locator(f'.vae-lab-grid:not(.vae-lab-losses) figure[data-vae="{name}"]')

    def latent(self, name: str) -> Locator:
        return self.results.locator(f'.vae-lab-latent-row[data-vae="{name}"]')

    def image(self, name: str) -> np.ndarray:
        """uint8 [H,W,3]: what the browser gets for the figure's <img>."""
        answer = self.page.request.get(self.figure(name).locator("img").evaluate("image => image.src"))
        return np.asarray(Image.open(io.BytesIO(answer.body())))


def _finish(page: Page, message: str, panel: str, action: object) -> None:
    mark = f"document.querySelector('#{message} [data-run]')?.dataset.run"
    before = page.evaluate(mark)
    action()
    page.wait_for_function(f"before => {mark} && {mark} !== before", arg=before)
    expect(page.locator(f"#{panel}[data-busy]")).to_have_count(0)
