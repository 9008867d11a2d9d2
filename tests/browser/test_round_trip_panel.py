"""The Round trip page in a browser."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.conftest import SCREENSHOTS, THEMES, Keep, Launch, MakeHost
from tests.browser.panel import LightTable, RoundTripPage
from vae_lab import load_autoencoder
from vae_lab.comparison import to_pixels
from vae_lab.host.standalone import StandaloneHost
from vae_lab.images import prepared
from vae_lab.samples import SampleSet, sample_photos

pytestmark = pytest.mark.browser


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PNG of 70 x 45 pixels out of a sample photo; larger if screenshots are saved."""
    file = tmp_path_factory.mktemp("photo") / "cat.png"
    with Image.open(sample_photos()["cat"]) as image:
        image.resize((320, 203) if SCREENSHOTS else (70, 45)).save(file)
    return file


def test_images_losses_and_latents(page: Page, shared_url: str, samples: SampleSet, photo: Path) -> None:
    trip = RoundTripPage.open(page, shared_url)
    expect(trip.empty).to_contain_text("Drop an image on the left")
    trip.drop(photo)
    trip.tick_only("anime.vae.pt", "sdxl-c.safetensors")
    trip.run()
    expect(trip.empty).to_be_hidden()
    expect(trip.message).to_contain_text("3 VAEs, round trip in")
    expect(trip.message).to_contain_text("multiples of 8")
    names = ["Original", "Built-in", "anime.vae.pt", "sdxl-c.safetensors"]
    assert trip.figures.evaluate_all("all => all.map(figure => figure.dataset.vae)") == names
    with Image.open(photo) as image:
        fit = prepared(image)
    original = trip.image("Original")
    np.testing.assert_array_equal(original, (fit.image[0].permute(1, 2, 0) * 255).round().numpy())
    vae = load_autoencoder(samples.anime)
    again = to_pixels(vae.decode(vae.encode(fit.image)))[0]
    np.testing.assert_array_equal(trip.image("anime.vae.pt"), again)
    expect(trip.figure("anime.vae.pt")).to_contain_text(re.compile(r"PSNR \d+\.\d dB · SSIM 0\.\d{3} · ΔE \d+\.\d\d"))
    expect(trip.figure("Built-in")).to_contain_text("of healthy.safetensors")
    assert trip.losses.evaluate_all("all => all.map(figure => figure.dataset.vae)") == names
    expect(trip.figure("anime.vae.pt")).to_contain_text("Use for this checkpoint")
    for loss in trip.losses.all():
        expect(loss.locator("img")).to_have_js_property("naturalWidth", original.shape[1])
        expect(loss).to_contain_text("Save")
        expect(loss).not_to_contain_text("Use for this checkpoint")
    expect(page.locator(".vae-lab-legend").first).to_contain_text("barely visible side by side")
    latent = trip.latent("sdxl-c.safetensors")
    expect(latent.locator("figure")).to_have_count(5)
    expect(trip.latent("Built-in")).to_contain_text("Built-in, anime.vae.pt SD1 / SD2 · 4 channels, ")
    expect(trip.latent("Built-in")).to_contain_text(" · identical latents")
    expect(latent.locator("figure").nth(1)).to_contain_text(re.compile(r"Channel 1\s*-?\d+\.\d\d to -?\d+\.\d\d"))
    size = "image => [image.naturalWidth, image.naturalHeight, getComputedStyle(image).imageRendering]"
    for image in latent.locator("img").all():
        expect(image).to_have_js_property("naturalWidth", original.shape[1] // 8)
        assert image.evaluate(size) == [original.shape[1] // 8, original.shape[0] // 8, "pixelated"]


def test_losses_as_a_table(page: Page, shared_url: str, photo: Path) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    trip = RoundTripPage.open(page, shared_url)
    trip.drop(photo)
    trip.tick_only("anime.vae.pt", "photo-b.ckpt")
    trip.run()
    table = page.locator("#vae_lab_roundtrip_results .vae-lab-tabular")
    rows, psnr = table.locator("tbody tr"), table.locator("th[data-column=psnr]")
    expect(rows).to_have_count(3)
    psnr.get_by_role("button").hover()
    expect(psnr.get_by_role("tooltip")).to_contain_text("Peak signal-to-noise ratio against the original")
    values = "all => all.map(row => Number(row.cells[1].dataset.value))"
    orders = []
    for _ in range(2):
        psnr.get_by_role("button").click()
        orders.append(rows.evaluate_all(values))
    assert sorted(orders) == sorted([sorted(orders[0]), sorted(orders[0], reverse=True)])
    table.get_by_role("button", name="Copy table").click()
    expect(table.locator(".vae-lab-copied")).to_have_text("Copied")
    copied = [line.split("\t") for line in page.evaluate("navigator.clipboard.readText()").splitlines()]
    assert copied[0] == ["VAE", "PSNR dB", "SSIM", "ΔE mean", "Encode s", "Decode s"]
    assert [float(line[1]) for line in copied[1:]] == [round(value, 1) for value in orders[1]]


def test_without_an_image_it_offers_a_sample_photo(page: Page, shared_url: str) -> None:
    trip = RoundTripPage.open(page, shared_url)
    trip.run()
    expect(trip.message.get_by_role("alert")).to_contain_text("There is no image yet")
    expect(trip.empty).to_be_visible()
    page.get_by_role("button", name="Use a sample photo").click()
    photo = page.locator("#vae_lab_roundtrip_image img")
    expect(photo).to_be_visible()
    assert photo.evaluate("image => image.decode().then(() => image.naturalWidth)") == 512


def test_too_small_an_image_is_reported_in_one_line(page: Page, shared_url: str, tmp_path: Path) -> None:
    Image.new("RGB", (40, 7)).save(tmp_path / "line.png")
    trip = RoundTripPage.open(page, shared_url)
    trip.drop(tmp_path / "line.png")
    trip.run()
    expect(trip.message.get_by_role("alert")).to_contain_text("40 x 7 pixels are too few")


def test_large_images_are_resampled_as_chosen(page: Page, shared_url: str, tmp_path: Path) -> None:
    Image.new("RGB", (1040, 16), (200, 100, 50)).save(tmp_path / "wide.png")
    trip = RoundTripPage.open(page, shared_url)
    trip.drop(tmp_path / "wide.png")
    trip.tick_only()
    trip.run()
    expect(trip.message).to_contain_text("downscaled from 1040 x 16 to 1024 x 16")
    trip.choose("vae_lab_roundtrip_longest", "512 pixels")
    trip.run()
    expect(trip.message).to_contain_text("downscaled from 1040 x 16 to 512 x 8")
    assert trip.image("Original").shape == (8, 512, 3)


def test_transparent_images_lie_on_white(page: Page, shared_url: str, tmp_path: Path) -> None:
    Image.new("RGBA", (32, 32), (0, 0, 0, 0)).save(tmp_path / "glass.png")
    trip = RoundTripPage.open(page, shared_url)
    trip.drop(tmp_path / "glass.png")
    trip.tick_only()
    trip.run()
    assert trip.image("Original").min() == 255


def test_all_none_and_a_vae_that_cannot_be_used(
    page: Page, launch: Launch, make_host: MakeHost, samples: SampleSet, photo: Path, tmp_path: Path
) -> None:
    (tmp_path / "good.safetensors").write_bytes(samples.smooth.read_bytes())
    (tmp_path / "bad.safetensors").write_bytes(b"not a VAE")
    trip = RoundTripPage.open(page, launch(make_host(vaes=tmp_path)))
    page.click("#vae_lab_roundtrip_none")
    expect(page.locator("#vae_lab_roundtrip_vaes input:checked")).to_have_count(0)
    page.click("#vae_lab_roundtrip_all")
    expect(page.locator("#vae_lab_roundtrip_vaes input:checked")).to_have_count(2)
    trip.drop(photo)
    trip.run()
    expect(trip.message).to_contain_text("2 VAEs, round trip")
    expect(trip.message).to_contain_text("1 VAE could not be used")
    refused = trip.figure("bad.safetensors")
    expect(refused).to_contain_text("bad.safetensors: ")
    expect(refused.locator("img")).to_have_count(0)
    page.click("#vae_lab_roundtrip_refresh")  # what is known now is shown, and what was ticked and fits stays
    expect(page.locator("#vae_lab_roundtrip_vaes")).to_contain_text(re.compile("good.safetensors · SD1"))


class SlowHost(StandaloneHost):
    """Runs up to the third step, then waits until cancelled."""

    def round_trip(self, image, vaes, progress=None, cancelled=None):  # type: ignore[no-untyped-def]
        def report(done: int, total: int, what: str) -> None:
            progress(done, total, what)
            while done >= 3 and not cancelled():
                time.sleep(0.01)

        return super().round_trip(image, vaes, report, cancelled)


def test_progress_and_cancel(
    page: Page, launch: Launch, make_host: MakeHost, many_vaes: Path, photo: Path, keep_screenshot: Keep
) -> None:
    host = make_host(vaes=many_vaes)
    host.__class__ = SlowHost
    trip = RoundTripPage.open(page, launch(host))
    trip.drop(photo)
    page.click("#vae_lab_roundtrip_all")
    expect(page.locator("#vae_lab_roundtrip_vaes input:checked")).to_have_count(10)

    def run_and_cancel() -> None:
        page.click("#vae_lab_roundtrip_run")
        expect(trip.progress).to_contain_text(re.compile(r"3 of 22 · vae-00.safetensors, decoding"))
        keep_screenshot(page, "roundtrip-running")
        page.click("#vae_lab_roundtrip_cancel")

    trip.finish(run_and_cancel)
    expect(trip.message).to_contain_text("The run was cancelled.")
    expect(trip.figure("Built-in")).to_be_visible()
    assert trip.figures.count() < 11
    expect(page.locator("#vae_lab_roundtrip_cancel")).to_be_hidden()


def test_images_are_served_and_not_inlined(page: Page, shared_url: str, photo: Path) -> None:
    trip = RoundTripPage.open(page, shared_url)
    trip.drop(photo)
    trip.tick_only()
    trip.run()
    images = page.locator("#vae_lab_roundtrip_results").first.locator("figure img")
    sources = images.evaluate_all("all => all.map(image => image.src)")
    assert len(sources) == 2 + 2 + 5
    assert all(re.search(r"/vae-lab/v1/roundtrips/[\w-]{20,}/\d+/[\w-]+\.png$", source) for source in sources)
    for source in sources:
        with Image.open(io.BytesIO(page.request.get(source).body())) as image:
            assert image.format == "PNG"


@pytest.mark.parametrize("theme", THEMES)
def test_every_width_shows_all(page: Page, shared_url: str, photo: Path, keep_screenshot: Keep, theme: str) -> None:
    trip = RoundTripPage.open(page, shared_url, theme)
    trip.drop(photo)
    page.click("#vae_lab_roundtrip_all")
    expect(page.locator("#vae_lab_roundtrip_vaes input:checked")).to_have_count(5)
    trip.run()
    expect(trip.figures).to_have_count(7)
    page.wait_for_function("[...document.querySelectorAll('#vae_lab_roundtrip_results img')].every(i => i.complete)")
    for width, height in ((1280, 1000), (2560, 1400)):
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_function("width => innerWidth === width", arg=width)
        LightTable(page, "#vae_lab_roundtrip_results .vae-lab-grid").drawn()
        boxes = [figure.bounding_box() for figure in trip.figures.all()]
        assert all(box["width"] >= 250 and box["x"] + box["width"] <= width for box in boxes)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        losses = [figure.bounding_box()["x"] for figure in trip.losses.all()]
        assert losses == [box["x"] for box in boxes], "each loss map in its image's column"
        keep_screenshot(page, f"roundtrip-{theme}-{width}")
