"""What the Compare page says after a comparison, and what it keeps."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import Page, expect

from tests.browser.conftest import Launch, MakeHost
from tests.browser.panel import Panel
from vae_lab.host.standalone import StandaloneHost
from vae_lab.samples import SampleSet
from vae_lab.service.service import service_of

pytestmark = pytest.mark.browser

SHARP = "photo-a-sharp.safetensors"


@pytest.fixture
def grey(make_host: MakeHost, samples: SampleSet) -> StandaloneHost:
    """Its checkpoint's own VAE is a grey merge."""
    host = make_host()
    host.select_checkpoint(samples.grey_merge.name)
    return host


def answer(page: Page):  # type: ignore[no-untyped-def]
    return page.locator("#vae_lab_answer .vae-lab-answer").first


def test_from_the_answer_to_the_choice_and_back(page: Page, launch: Launch, grey: StandaloneHost) -> None:
    """No verdict is known at first: they come while the page is open."""
    panel = Panel.open(page, launch(grey))
    panel.tick_only(SHARP)
    panel.compare()
    line = answer(page).locator(".vae-lab-answer-line")
    expect(line).to_contain_text(f"Use {SHARP}: your built-in VAE loses")
    expect(panel.figure("Built-in").locator("figcaption")).to_contain_text("Broken: washed out")
    expect(panel.figure(SHARP).locator("figcaption")).to_contain_text("Healthy")
    expect(panel.figure("Built-in").locator(".vae-lab-in-use")).to_have_text("In use now")
    expect(page.locator("#vae_lab_reference input")).to_have_value(SHARP)
    expect(page.locator("#vae_lab_numbers").first).to_contain_text(f"similarity to the image of {SHARP}")

    answer(page).get_by_role("button", name=f"Use {SHARP} for this checkpoint").click()
    expect(line).to_contain_text(f"{SHARP}, in use now, is healthy")
    expect(panel.figure(SHARP).locator(".vae-lab-in-use")).to_be_visible()
    expect(panel.deciding).to_contain_text(f"{SHARP}: chosen for grey-merge.safetensors")
    assert grey.chosen("checkpoint") == SHARP

    undo = page.locator("#vae_lab_results .vae-lab-tool-message [data-undo]")
    undo.click()
    expect(line).to_contain_text(f"Use {SHARP}: your built-in VAE loses")
    assert grey.chosen("checkpoint") == "Automatic"

    panel.figure(SHARP).locator(".vae-lab-open").click()
    expect(page.locator("#vae_lab_checkup_verdict").first).to_contain_text(SHARP)


def test_a_choice_made_elsewhere_takes_older_undo_buttons_away(page: Page, launch: Launch, make_host: MakeHost) -> None:
    host = make_host()
    panel = Panel.open(page, launch(host))
    panel.choose("vae_lab_decoder", SHARP)
    page.click("#vae_lab_use_always")
    expect(panel.message.locator("[data-undo]")).to_be_visible()
    service_of(host).choices.choose("always", "anime.vae.pt")
    expect(page.locator("#vae_lab_panel [data-undo]")).to_have_count(0)
    expect(panel.deciding).to_contain_text("anime.vae.pt")


def test_a_reload_brings_the_comparison_back(page: Page, launch: Launch, make_host: MakeHost) -> None:
    url = launch(make_host())
    panel = Panel.open(page, url)
    panel.tick_only(SHARP)
    panel.compare()
    before = panel.images(SHARP)
    panel = Panel.open(page, url)
    expect(panel.figures).to_have_count(2)
    assert (panel.images(SHARP) == before).all()
    expect(page.locator("#vae_lab_numbers [data-vae]").first).to_be_visible()


def test_images_come_while_the_others_are_decoded_and_a_cancelled_run_goes(
    page: Page, launch: Launch, pausing: StandaloneHost
) -> None:
    """After a finished comparison, one that is cancelled leaves that on the page."""
    panel = Panel.open(page, launch(pausing))
    panel.choose("vae_lab_source", "· Brushes · ")
    panel.tick_only()
    panel.compare()
    expect(panel.figures).to_have_count(1)
    finished = page.locator("#vae_lab_results [data-comparison]").first.get_attribute("data-comparison")
    for box in panel.boxes().all()[:5]:
        box.check()

    def compare_and_cancel() -> None:
        page.click("#vae_lab_compare")
        expect(panel.figures).to_have_count(2)  # of six, while the third is waited for
        page.click("#vae_lab_cancel")

    panel.finish(compare_and_cancel)
    expect(panel.message).to_contain_text("you see the comparison before it")
    expect(page.locator(f'#vae_lab_results [data-comparison="{finished}"]').first).to_be_attached()
    expect(panel.figures).to_have_count(1)


def test_numbers_compared_with_any_vae(page: Page, shared_url: str) -> None:
    panel = Panel.open(page, shared_url)
    panel.tick_only(SHARP, "anime.vae.pt")
    panel.compare()
    row = page.locator('#vae_lab_numbers tr[data-vae="anime.vae.pt"]')
    expect(page.locator('#vae_lab_numbers tr[data-vae="Built-in"]')).to_contain_text("equal")
    panel.choose("vae_lab_reference", "anime.vae.pt")
    expect(row).to_contain_text("equal")
    expect(page.locator("#vae_lab_numbers").first).to_contain_text("similarity to the image of anime.vae.pt")


def test_an_image_is_encoded_by_a_healthy_vae_unless_the_user_wants_another(
    page: Page, launch: Launch, grey: StandaloneHost, tmp_path: Path
) -> None:
    for name in ("grey-merge.safetensors", SHARP):
        grey.inspect(name)
    panel = Panel.open(page, launch(grey))
    page.locator("#vae_lab_from_image").get_by_text("From an image").click()
    expect(page.locator("#vae_lab_encoder input")).to_have_value(SHARP)
    panel.choose("vae_lab_encoder", "Built-in")
    expect(page.locator("#vae_lab_encoder_note").first).to_contain_text("Built-in is broken (Washed out)")
    panel.choose("vae_lab_encoder", SHARP)
    expect(page.locator("#vae_lab_encoder_note").first).to_be_hidden()
    info = PngInfo()
    info.add_text("parameters", "a cat\nSteps: 20, Sampler: Euler, Seed: 1, Model: grey-merge")
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "grey").save(file, "png", pnginfo=info)
    (tmp_path / "grey.png").write_bytes(file.getvalue())
    panel.encode(tmp_path / "grey.png")
    expect(panel.message).to_contain_text("decoded by the broken VAE of grey-merge.safetensors (Washed out)")
    expect(panel.message).to_contain_text("generate the image again")
