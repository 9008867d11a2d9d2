"""Sources of latents in a browser: thumbnails, files, and images."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from playwright.sync_api import Page, expect

from tests.browser.conftest import THEMES, Keep, Launch, MakeHost, small_latents
from tests.browser.panel import Panel, slowly
from vae_lab import load_autoencoder
from vae_lab.images import prepared
from vae_lab.latents import Generation, load_latents
from vae_lab.latents.family import FAMILIES
from vae_lab.samples import SampleSet, sample_photos
from vae_lab.ui.panels.comparison import ComparisonPanel

pytestmark = pytest.mark.browser


def pressed(panel: Panel) -> list[str]:
    buttons = panel.page.locator('#vae_lab_thumbnails [aria-pressed="true"]')
    return buttons.evaluate_all("all => all.map(button => button.title)")


@pytest.mark.parametrize("theme", THEMES)
def test_small_images_choose_the_latent(page: Page, shared_url: str, keep_screenshot: Keep, theme: str) -> None:
    panel = Panel.open(page, shared_url, theme)
    buttons = page.locator("#vae_lab_thumbnails").first.locator("[data-pick]")
    expect(buttons).to_have_count(3)
    expect(panel.thumbnail("Astronaut")).to_have_attribute("aria-pressed", "true")
    for image in buttons.locator("img").all():
        expect(image).to_have_js_property("complete", True)
        assert image.evaluate("image => image.naturalWidth") in (16, 24, 64)
    panel.thumbnail("Brushes").click()
    expect(panel.latent).to_contain_text("Brushes")
    expect(page.locator("#vae_lab_source input")).to_have_value(re.compile("· Brushes · "))
    expect(panel.thumbnail("Brushes")).to_have_attribute("aria-pressed", "true")
    assert len(pressed(panel)) == 1
    panel.choose("vae_lab_source", "· SDXL · ")
    expect(panel.thumbnail("· SDXL · ")).to_have_attribute("aria-pressed", "true")
    assert len(pressed(panel)) == 1
    page.locator("#vae_lab_from_image").get_by_text("From an image").click()
    expect(page.locator("#vae_lab_encode")).to_be_visible()
    keep_screenshot(page, f"sources-{theme}")


def test_the_last_of_several_quick_choices_is_shown(
    page: Page, launch: Launch, make_host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ComparisonPanel, "on_source", slowly(ComparisonPanel.on_source))
    panel = Panel.open(page, launch(make_host()))
    panel.choose("vae_lab_source", "· SDXL · ")
    panel.choose("vae_lab_source", "· Brushes · ")
    expect(panel.latent).to_contain_text("Brushes")
    expect(page.locator("#vae_lab_source input")).to_have_value(re.compile("· Brushes · "))
    assert "sdxl-c.safetensors · SDXL" not in panel.ticked()
    panel.thumbnail("Astronaut").click()
    panel.thumbnail("· SDXL · ").click()
    expect(panel.latent).to_contain_text("SDXL latent")
    expect(page.locator("#vae_lab_source input")).to_have_value(re.compile("· SDXL · "))
    ticked = page.locator("#vae_lab_vaes label:has(input:checked)")
    expect(ticked).to_have_text(["sdxl-c.safetensors · SDXL"])


def test_a_small_image_whose_latent_is_gone_is_reported(page: Page, launch: Launch, make_host: MakeHost) -> None:
    host = make_host()
    panel = Panel.open(page, launch(host))
    for image in page.locator("#vae_lab_thumbnails").first.locator("img").all():
        expect(image).to_have_js_property("complete", True)  # an image that is asked for later is not found
    host.generations.clear()
    panel.thumbnail("Brushes").click()
    expect(panel.message.get_by_role("alert")).to_contain_text("has been discarded; press Refresh")


def test_small_images_by_keyboard(page: Page, shared_url: str) -> None:
    panel = Panel.open(page, shared_url)
    first = panel.thumbnail("Astronaut")
    expect(first).to_have_attribute("tabindex", "0")
    first.focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    focused = "document.activeElement.title"
    assert "Brushes" in page.evaluate(focused)
    page.keyboard.press("Enter")
    expect(panel.latent).to_contain_text("Brushes")
    assert "Brushes" in page.evaluate(focused), "the focus stays where it was"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    expect(panel.latent).to_contain_text("SDXL latent")
    page.keyboard.press("Home")
    assert "Astronaut" in page.evaluate(focused)
    expect(page.locator('#vae_lab_thumbnails [tabindex="0"]')).to_have_count(1)


def test_saved_and_loaded_again(page: Page, launch: Launch, make_host: MakeHost, tmp_path: Path) -> None:
    host = make_host()
    panel = Panel.open(page, launch(host))
    with page.expect_download() as download:
        panel.latent.get_by_text("Save latent").click()
    assert download.value.suggested_filename == "Astronaut-and-brushes.safetensors"
    file = tmp_path / "mine.safetensors"
    download.value.save_as(file)
    saved, stored = load_latents(file), host.generations.newest_first()[0]
    assert torch.equal(saved.latents, stored.latents)
    assert saved.infotexts == stored.infotexts
    host.generations.clear()
    panel.refresh()
    expect(panel.empty).to_be_visible()
    panel.load(file)
    expect(panel.message).to_contain_text(
        re.compile(r"Astronaut and brushes: loaded from \S+ as SD1 / SD2\. Its generation parameters are included\.")
    )
    expect(panel.latent).to_contain_text("Astronaut and brushes")
    expect(panel.empty).to_be_hidden()
    expect(panel.latent.locator("pre").first).to_have_text(
        "an astronaut, <b>bold</b>\nSteps: 20, Sampler: Euler, Seed: 1"
    )
    panel.tick_only("anime.vae.pt")
    panel.compare()
    expect(panel.message).to_contain_text("2 VAEs decoded")
    assert torch.equal(host.generations.newest_first()[0].latents, stored.latents)


@pytest.mark.parametrize("kind", ["no latents", "a pickle", "several tensors"])
def test_other_files_are_refused_with_a_message(
    page: Page, launch: Launch, make_host: MakeHost, samples: SampleSet, tmp_path: Path, kind: str
) -> None:
    file = tmp_path / "wrong.safetensors"
    if kind == "no latents":
        file.write_bytes(b"hello " * 100)
    elif kind == "a pickle":
        torch.save({"latents": torch.zeros(1, 4, 8, 8)}, file)
    else:
        file.write_bytes(samples.smooth.read_bytes())
    host = make_host()
    panel = Panel.open(page, launch(host))
    panel.load(file)
    words = {"several tensors": "wrong.safetensors: "}.get(kind, "wrong.safetensors: not a .safetensors file")
    expect(panel.message.get_by_role("alert")).to_contain_text(words)
    assert len(host.generations.newest_first()) == 3
    expect(panel.latent).to_contain_text("Astronaut")


def test_an_image_becomes_a_latent(
    page: Page, launch: Launch, make_host: MakeHost, samples: SampleSet, tmp_path: Path, keep_screenshot: Keep
) -> None:
    file, text = tmp_path / "my-cat.png", PngImagePlugin.PngInfo()
    text.add_text("parameters", "a cat <i>here</i>\nSteps: 30, Seed: 5")
    with Image.open(sample_photos()["cat"]) as image:
        image.resize((131, 90)).save(file, pnginfo=text)
    host = make_host()
    panel = Panel.open(page, launch(host))
    panel.encode(file, "anime.vae.pt")
    encoded = "my-cat.png: encoded by anime.vae.pt and stored as SD1 / SD2."
    expect(panel.message).to_contain_text(f"{encoded} The image was cropped to 128 x 88, multiples of 8.")
    expect(panel.latent).to_contain_text("my-cat.png")
    expect(panel.latent.locator("pre")).to_have_text("a cat <i>here</i>\nSteps: 30, Seed: 5")
    expect(panel.thumbnail("my-cat.png")).to_have_attribute("aria-pressed", "true")
    keep_screenshot(page, "from-image")
    stored = host.generations.newest_first()[0]
    with Image.open(file) as image:
        expected = load_autoencoder(samples.anime).encode(prepared(image).image)
    assert torch.equal(stored.latents, expected)
    panel.tick_only()
    panel.compare()
    assert panel.images("Built-in").shape == (1, 88, 128, 3)


def test_the_vae_decides_the_family_and_the_exif_the_orientation(
    page: Page, launch: Launch, make_host: MakeHost, tmp_path: Path
) -> None:
    pixels = np.zeros((64, 32, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif)
    host = make_host()
    panel = Panel.open(page, launch(host))
    panel.encode(tmp_path / "turned.jpg", "sdxl-c.safetensors")
    expect(panel.message).to_contain_text("turned.jpg: encoded by sdxl-c.safetensors and stored as SDXL.")
    stored = host.generations.newest_first()[0]
    assert (stored.family.id, list(stored.latents.shape)) == ("sdxl", [1, 4, 4, 8])
    assert stored.infotexts == ()


def test_what_is_no_image_is_reported_in_one_line(
    page: Page, launch: Launch, make_host: MakeHost, tmp_path: Path
) -> None:
    host = make_host()
    panel = Panel.open(page, launch(host))
    page.locator("#vae_lab_from_image").get_by_text("From an image").click()
    panel.finish(lambda: page.click("#vae_lab_encode"))
    expect(panel.message.get_by_role("alert")).to_contain_text("There is no image yet")
    (tmp_path / "story.png").write_bytes(b"once upon a time")
    panel.encode(tmp_path / "story.png")
    expect(panel.message.get_by_role("alert")).to_contain_text("story.png: not a readable PNG, JPEG, WebP")
    assert len(host.generations.newest_first()) == 3


def test_many_latents_are_listed_newest_first(page: Page, launch: Launch, make_host: MakeHost, tmp_path: Path) -> None:
    host = make_host(latents=tmp_path)
    for i in range(30):
        one = small_latents("cat", 16)
        host.generations.add(Generation(host.generations.new_id(), one, FAMILIES["sd1"], f"Cat {i:02}"))
    flux = Generation(host.generations.new_id(), torch.randn(1, 16, 16, 16), FAMILIES["flux"], "A flux one")
    host.generations.add(flux)
    panel = Panel.open(page, launch(host))
    buttons = page.locator("#vae_lab_thumbnails").first.locator("[data-pick]")
    expect(buttons).to_have_count(24)
    expect(buttons.first).to_contain_text("Flux")
    expect(page.locator("#vae_lab_thumbnails").first).to_contain_text(
        "7 others, older ones or parts of an image, are only in the menu."
    )
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    buttons.nth(23).click()
    expect(panel.latent).to_contain_text("Cat 07")
