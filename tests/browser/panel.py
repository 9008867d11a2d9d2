"""What a user does in the comparison panel, for Playwright."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from playwright.sync_api import Locator, Page, expect


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
            "before => Number(document.querySelector('#vae_lab_panel [data-asked]')?.dataset.asked ?? 0) > before",
            arg=before,
        )
        return self

    def refresh(self) -> None:
        """Press Refresh and wait for the lists."""
        asked = int(self.page.locator("#vae_lab_panel [data-asked]").get_attribute("data-asked"))
        self.page.click("#vae_lab_refresh")
        self.refreshed(asked)

    def boxes(self) -> Locator:
        return self.page.locator("#vae_lab_vaes input[type=checkbox]")

    def labels(self) -> list[str]:
        return [text.strip() for text in self.page.locator("#vae_lab_vaes label").all_inner_texts()]

    def ticked(self) -> list[str]:
        boxes, labels = self.boxes(), self.labels()
        return [label for i, label in enumerate(labels) if boxes.nth(i).is_checked()]

    def tick_only(self, *names: str) -> None:
        for i, label in enumerate(self.labels()):
            self.boxes().nth(i).set_checked(label.split(" · ")[0] in names)

    def choose(self, dropdown: str, text: str) -> None:
        """Choose an option whose words contain ``text``."""
        field = self.page.locator(f"#{dropdown} input")
        field.click()
        self.page.get_by_test_id("dropdown-option").filter(has_text=text).first.click()

    def compare(self) -> None:
        """Press Compare and wait for its message."""
        self.finish(lambda: self.page.click("#vae_lab_compare"))

    def finish(self, action: object) -> None:
        """Do ``action``, and wait until the panel has told how it went and is at rest."""
        mark = "document.querySelector('#vae_lab_message [data-run]')?.dataset.run"
        before = self.page.evaluate(mark)
        action()
        self.page.wait_for_function(f"before => {mark} && {mark} !== before", arg=before)
        expect(self.page.locator("#vae_lab_panel[data-busy]")).to_have_count(0)

    def figure(self, name: str) -> Locator:
        return self.page.locator("#vae_lab_results").first.locator(f'figure[data-vae="{name}"]')

    def pictures(self, name: str) -> np.ndarray:
        """uint8 [B,H,W,3]: what the browser gets for the figure's <img> elements."""
        sources = self.figure(name).locator("img").evaluate_all("all => all.map(image => image.src)")
        answers = [self.page.request.get(source) for source in sources]
        assert all(answer.headers["content-type"] == "image/png" for answer in answers)
        return np.stack([np.asarray(Image.open(io.BytesIO(answer.body()))) for answer in answers])
