"""Forge's page with VAE Lab, and saved choices."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import numpy as np
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.browser.panel import Panel
from tests.chromium import find_chromium
from tests.forge.server import Forge
from tests.host.test_server import CHROMIUM_FLAGS

pytestmark = [pytest.mark.host, pytest.mark.browser]


@pytest.fixture
def page(forge: Forge) -> Iterator[Page]:
    """Forge in a browser; an error on the page fails the test."""
    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(90_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(forge.url)
        page.wait_for_selector("#txt2img_prompt textarea")
        page.wait_for_timeout(5000)
        yield page
        browser.close()
    assert errors == []


def open_tab(page: Page) -> None:
    page.click("#tabs > .tab-nav button:has-text('VAE Lab')")
    page.wait_for_selector("#vae_lab_panel", state="visible")


def status(forge: Forge, name: str, wanted: str) -> bool:
    """Whether the checkpoint is known to be so, within a while."""
    end = time.monotonic() + 240
    while time.monotonic() < end:
        rows = {row["name"]: row["status"] for row in forge.get("/vae-lab/v1/checkpoints")["checkpoints"]}
        if rows[name] == wanted:
            return True
        time.sleep(0.5)
    return False


def test_a_generation_and_a_comparison(forge: Forge, page: Page) -> None:
    """As a user does it: by the page, where Forge generates in another thread than for its API."""
    assert page.is_visible("#vae_lab_txt2img")
    page.fill("#txt2img_prompt textarea", "a harbour")
    for field, value in (("steps", "1"), ("width", "64"), ("height", "64")):
        page.fill(f"#txt2img_{field} input[type=number]", value)
    page.click("#txt2img_generate")
    end = time.monotonic() + 240
    while "a harbour" not in forge.get("/vae-lab/v1/latents")["latents"][0]["label"]:
        assert time.monotonic() < end
        time.sleep(0.5)
    page.wait_for_selector("#txt2img_gallery img")
    open_tab(page)
    panel = Panel(page)
    expect(panel.latent).to_contain_text("a harbour")  # the page learns of it now, and ticks VAEs for it
    panel.tick_only("first.safetensors", "small.safetensors")
    panel.compare()
    expect(panel.message).to_contain_text("2 VAEs decoded", timeout=90_000)
    page.wait_for_function(
        "[...document.querySelectorAll('#vae_lab_results figure img')].every(i => i.complete && i.naturalWidth)"
    )
    assert "does not fit" in page.inner_text("#vae_lab_results")
    for name in ("Checkup", "Round trip", "Library"):
        page.click(f"#tab_vae_lab button[role=tab]:has-text('{name}')")
        page.wait_for_timeout(1500)
    assert page.locator(".toast-wrap .error").count() == 0


def test_settings_section(forge: Forge, page: Page) -> None:
    page.click("#tabs > .tab-nav button:has-text('Settings')")
    page.click("#settings .tab-nav button:has-text('VAE Lab')")
    for name in ("external", "keep_mb", "on_grey", "preferred"):
        expect(page.locator(f"#setting_vae_lab_{name}")).to_be_visible()


def test_the_source_of_the_decision_is_shown(forge: Forge, page: Page) -> None:
    def deciding(line: str) -> None:
        page.click("#vae_lab_refresh")
        expect(page.locator("#vae_lab_deciding").first).to_contain_text(line, timeout=90_000)

    open_tab(page)
    deciding("Built-in: no VAE is selected in Forge's menu")
    forge.choose_natively("first.safetensors")
    deciding("first.safetensors: selected in Forge's menu VAE / Text Encoder")
    forge.set(vae_lab_external="second.safetensors")
    deciding("second.safetensors: Settings > VAE Lab > External VAE")


def test_grey_checkpoint_from_badge_to_remedy(forge: Forge, page: Page) -> None:
    """Reported in the log and under the image, and one button, whose choice is only for this checkpoint."""
    forge.select_checkpoint("grey.safetensors")
    forge.set(vae_lab_preferred=["photo-b.safetensors"])
    pale = forge.generate().images[0]
    assert status(forge, "grey.safetensors", "broken")
    warning = "VAE Lab: the VAE in grey.safetensors is broken."
    end = time.monotonic() + 120
    while warning not in forge.log and time.monotonic() < end:
        time.sleep(0.5)  # what to recommend is looked for first
    forge.set(vae_lab_on_grey="redecode")
    redecoded = forge.generate()
    assert "VAE Lab override: photo-b.safetensors" in redecoded.infotexts[0]
    assert "VAE Lab redecoded: " in redecoded.infotexts[0]
    wanted = forge.generate({"override": "photo-b.safetensors"}).images[0]
    assert np.array_equal(redecoded.images[0], wanted)
    assert not np.array_equal(wanted, pale)
    forge.set(vae_lab_on_grey="warn")
    assert np.array_equal(forge.generate().images[0], pale)

    page.goto(forge.url)
    page.wait_for_selector("#txt2img_prompt textarea")
    page.wait_for_timeout(5000)
    open_tab(page)
    page.click("#tab_vae_lab button[role=tab]:has-text('Checkup')")
    page.wait_for_selector("#vae_lab_checkup_verdict:has-text('Broken: washed out')")
    page.click("#vae_lab_checkup_use_for_checkpoint")
    page.wait_for_selector("#vae_lab_checkup_said:has-text('Saved for grey.safetensors')")
    preference = forge.data / "models" / "Stable-diffusion" / "grey.json"
    try:
        assert json.loads(preference.read_text(encoding="utf8")) == {"vae_lab_vae": "photo-b.safetensors"}
        assert np.array_equal(forge.generate().images[0], wanted)
        forge.select_checkpoint("one.safetensors")
        assert "VAE Lab" not in forge.generate().infotexts[0]
        assert forge.log.count(warning) == 1
    finally:
        preference.unlink(missing_ok=True)
        forge.set(vae_lab_preferred=[])
