"""The Compare page in a browser."""

from __future__ import annotations

import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import SCREENSHOTS, THEMES, Keep, Launch, MakeHost, small_latents
from tests.browser.panel import Panel
from vae_lab import compare, load_autoencoder
from vae_lab.host.choices import AUTOMATIC
from vae_lab.host.standalone import StandaloneHost
from vae_lab.latents import Generation, load_latents, save_latents
from vae_lab.latents.family import FAMILIES
from vae_lab.samples import SampleSet
from vae_lab.service.service import service_of

pytestmark = pytest.mark.browser


class WaitingHost(StandaloneHost):
    """Its model is never free; a comparison waits until it is cancelled."""

    def compare(self, generation_id, vaes, progress=None, cancelled=None, on_result=None):  # type: ignore[no-untyped-def]
        while not cancelled():
            time.sleep(0.01)
        return super().compare(generation_id, vaes, progress, cancelled, on_result)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_page_opens_without_an_error(page: Page, shared_url: str, theme: str) -> None:
    panel = Panel.open(page, shared_url, theme)
    assert page.title() == "VAE Lab"
    expect(page.locator("#vae_lab_source input")).to_have_value(re.compile("Astronaut and brushes"))
    expect(panel.deciding).to_contain_text("Built-in: no other VAE is chosen.")
    expect(panel.latent.locator("img")).to_have_count(2)
    expect(page.locator("#vae_lab_cancel")).to_be_hidden()
    expect(panel.progress).to_be_hidden()


def test_images_are_exactly_those_that_compare_makes(
    page: Page, shared_url: str, shared_host: StandaloneHost, samples: SampleSet
) -> None:
    panel = Panel.open(page, shared_url)
    panel.tick_only("photo-a-sharp.safetensors", "anime.vae.pt")
    panel.compare()
    names = ["Built-in", "anime.vae.pt", "photo-a-sharp.safetensors"]
    assert panel.figures.evaluate_all("all => all.map(figure => figure.dataset.vae)") == names
    shown = {name: panel.images(name) for name in names}
    latents = shared_host.generations.newest_first()[0].latents
    paths = {"Built-in": samples.healthy, "anime.vae.pt": samples.anime, "photo-a-sharp.safetensors": samples.sharp}
    expected = compare(latents, {name: load_autoencoder(path) for name, path in paths.items()})
    for name in names:
        np.testing.assert_array_equal(shown[name], expected[name].images)
    assert not np.array_equal(shown[names[0]], shown[names[1]])
    assert not np.array_equal(shown[names[1]], shown[names[2]])
    expect(panel.message).to_contain_text("3 VAEs decoded")


def test_browser_really_shows_the_images(page: Page, shared_url: str) -> None:
    panel = Panel.open(page, shared_url)
    panel.tick_only("anime.vae.pt")
    panel.compare()
    loaded = "all => all.map(image => [image.complete, image.naturalWidth, image.naturalHeight])"
    images = panel.figures.locator("img")
    expect(images).to_have_count(4)
    # Of the batch the second image comes when it is shown.
    for _ in range(2):
        shown = panel.figures.locator("img:visible")
        expect(shown).to_have_count(2)
        for image in shown.all():
            expect(image).to_have_js_property("naturalWidth", 128)
        assert shown.evaluate_all(loaded) == [[True, 128, 128]] * 2
        assert shown.evaluate_all("all => all.every(image => image.getBoundingClientRect().width > 200)")
        page.locator("#vae_lab_results .vae-lab-grid").focus()
        page.keyboard.press(".")


def test_vae_of_another_family_is_refused_with_a_message(page: Page, shared_url: str) -> None:
    panel = Panel.open(page, shared_url)
    panel.tick_only("anime.vae.pt", "sdxl-c.safetensors")
    panel.compare()
    card = panel.figure("sdxl-c.safetensors")
    expect(card).to_contain_text("sdxl-c.safetensors is a VAE for SDXL, but the latents are SD1 / SD2")
    expect(card.locator("img")).to_have_count(0)
    image = panel.figure("anime.vae.pt").locator(".vae-lab-window:visible").bounding_box()
    reason = card.locator(".vae-lab-reason").bounding_box()
    assert reason["width"] == pytest.approx(image["width"], abs=2)
    assert reason["height"] == pytest.approx(image["height"], abs=2)
    expect(panel.message).to_contain_text("1 VAE could not be used")


def test_identify_shows_families_and_unticks_the_other_ones(page: Page, launch: Launch, make_host: MakeHost) -> None:
    panel = Panel.open(page, launch(make_host(unknown_families=True)))
    assert "sdxl-c.safetensors" in panel.ticked()
    panel.finish(lambda: page.click("#vae_lab_identify"))
    expect(page.locator("#vae_lab_vaes")).to_contain_text("sdxl-c.safetensors · SDXL")
    assert "anime.vae.pt · SD1 / SD2" in panel.ticked()
    assert "sdxl-c.safetensors · SDXL" not in panel.ticked()
    expect(panel.message).to_contain_text("5 of 5")
    panel.choose("vae_lab_source", "· SDXL · ")
    expect(panel.latent).to_contain_text("SDXL latent")
    expect(panel.boxes().nth(panel.labels().index("anime.vae.pt · SD1 / SD2"))).not_to_be_checked()
    assert panel.ticked() == ["sdxl-c.safetensors · SDXL"]


def test_choices_survive_a_refresh_and_new_latents(
    page: Page, launch: Launch, make_host: MakeHost, latents_folder: Path, tmp_path: Path
) -> None:
    latents = tmp_path / "latents"
    shutil.copytree(latents_folder, latents)
    panel = Panel.open(page, launch(make_host(latents=latents)))
    panel.choose("vae_lab_source", "· Brushes · ")
    panel.tick_only("photo-b.ckpt")
    sd1 = FAMILIES["sd1"]
    save_latents(Generation("", small_latents("cat", 16), sd1, "A late cat"), latents / "zz-late.safetensors")
    panel.refresh()
    expect(page.locator("#vae_lab_source input")).to_have_value(re.compile("· Brushes · "))
    assert panel.ticked() == ["photo-b.ckpt · SD1 / SD2"]
    panel.choose("vae_lab_source", "A late cat")
    expect(panel.latent).to_contain_text("A late cat")
    panel.compare()
    expect(panel.figures).to_have_count(2)


def test_what_has_vanished_is_reported_in_one_line(
    page: Page, launch: Launch, make_host: MakeHost, samples: SampleSet, tmp_path: Path
) -> None:
    shutil.copy(samples.anime, tmp_path / "anime.vae.pt")
    host = make_host(vaes=tmp_path)
    panel = Panel.open(page, launch(host))
    (tmp_path / "anime.vae.pt").unlink()
    panel.compare()
    expect(panel.figure("anime.vae.pt")).to_contain_text("no VAE named anime.vae.pt")
    host.generations.clear()
    panel.compare()
    expect(panel.message.get_by_role("alert")).to_contain_text("has been discarded; press Refresh")
    expect(panel.figures).to_have_count(2)


def test_cancel_stops_after_the_current_image(
    page: Page, launch: Launch, pausing: StandaloneHost, keep_screenshot: Keep
) -> None:
    panel = Panel.open(page, launch(pausing))
    panel.choose("vae_lab_source", "· Brushes · ")
    page.click("#vae_lab_all")
    expect(page.locator("#vae_lab_vaes input:checked")).to_have_count(10)

    def compare_and_cancel() -> None:
        page.click("#vae_lab_compare")
        expect(panel.progress).to_be_visible()
        expect(panel.progress).not_to_have_attribute("aria-valuenow", "0")
        expect(panel.progress).to_have_attribute("aria-valuemax", "11")
        expect(panel.progress).to_contain_text(re.compile(r"\d+ of 11 · vae-"))
        keep_screenshot(page, "comparing")
        page.click("#vae_lab_cancel")

    panel.finish(compare_and_cancel)
    expect(panel.message).to_contain_text("The run was cancelled. ")
    assert 0 < panel.figures.count() < 11
    expect(page.locator("#vae_lab_cancel")).to_be_hidden()
    panel.tick_only("vae-00.safetensors")
    panel.compare()
    expect(panel.message).to_contain_text("2 VAEs decoded")
    expect(panel.figure("vae-00.safetensors")).not_to_contain_text("Equal")


def test_what_is_ticked_during_a_run_stays(page: Page, launch: Launch, pausing: StandaloneHost) -> None:
    panel = Panel.open(page, launch(pausing))
    page.click("#vae_lab_compare")
    expect(panel.progress).to_have_attribute("aria-valuenow", "3")
    panel.tick_only("vae-09.safetensors")
    panel.finish(lambda: page.click("#vae_lab_cancel"))
    page.wait_for_timeout(1000)
    assert [label.split(" · ")[0] for label in panel.ticked()] == ["vae-09.safetensors"]


def test_a_comparison_during_the_run_of_another_page_is_answered_immediately(
    page: Page, launch: Launch, pausing: StandaloneHost
) -> None:
    url = launch(pausing)
    panel = Panel.open(page, url)
    page.click("#vae_lab_compare")
    expect(panel.progress).to_have_attribute("aria-valuenow", "3")
    with page.context.new_page() as second:
        # As if it had not heard of the run yet: its own script would hold the click back.
        second.route("**/vae-lab/v1/progress", lambda route: route.abort())
        other = Panel.open(second, url)
        second.click("#vae_lab_compare")
        expect(other.message.get_by_role("alert")).to_contain_text("another task is running")
    page.click("#vae_lab_cancel")
    expect(panel.progress).to_be_hidden()


def test_about_this_host_can_be_copied_into_a_bug_report(page: Page, shared_url: str) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    Panel.open(page, shared_url)
    box = page.locator("#vae_lab_about details")
    expect(box.locator("table")).not_to_be_visible()
    box.get_by_text("About this host").click()
    expect(box.get_by_role("row", name="gradio")).to_contain_text(gr.__version__)
    box.get_by_role("button", name="Copy").click()
    expect(box.get_by_role("status")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()").splitlines()
    assert copied[0] == "Host: VAE Lab, stand-alone"
    assert f"gradio: {gr.__version__}" in copied


def test_another_message_does_not_hide_a_run(page: Page, launch: Launch, pausing: StandaloneHost) -> None:
    panel = Panel.open(page, launch(pausing))
    page.click("#vae_lab_compare")
    expect(panel.progress).to_have_attribute("aria-valuenow", "3")
    panel.choose("vae_lab_decoder", "vae-00.safetensors")
    page.click("#vae_lab_use_always")
    expect(panel.message).to_contain_text("chosen for every checkpoint")
    page.wait_for_timeout(1000)
    expect(panel.progress).to_be_visible()
    page.click("#vae_lab_cancel")
    expect(panel.progress).to_be_hidden()


def test_cancelled_before_the_first_image(page: Page, launch: Launch, make_host: MakeHost) -> None:
    """The previous results stay, also while a host's model is busy."""
    host = make_host()
    panel = Panel.open(page, launch(host))
    panel.tick_only("anime.vae.pt")
    panel.compare()
    host.__class__ = WaitingHost
    page.click("#vae_lab_compare")
    panel.finish(lambda: page.click("#vae_lab_cancel"))
    expect(panel.message).to_contain_text("ancelled")
    expect(panel.figures).to_have_count(2)
    expect(page.locator("#vae_lab_numbers").first.locator("tbody tr")).to_have_count(2)


def test_cancelled_before_the_server_has_heard_of_the_run(page: Page, launch: Launch, make_host: MakeHost) -> None:
    host = make_host()
    host.__class__ = WaitingHost
    panel = Panel.open(page, launch(host))
    requests: list[Route] = []
    page.route(re.compile("/(queue/join|run/predict)"), lambda route: requests.append(route))

    def compare_and_cancel() -> None:
        page.click("#vae_lab_compare")
        with page.expect_response("**/vae-lab/v1/cancel"):
            page.click("#vae_lab_cancel")
        assert not service_of(host).runs.status.busy
        assert requests
        for route in requests:
            route.continue_()

    panel.finish(compare_and_cancel)
    expect(panel.message).to_contain_text("ancelled")


def test_a_file_of_latents_that_cannot_be_used_is_reported(
    page: Page, launch: Launch, make_host: MakeHost, tmp_path: Path
) -> None:
    panel = Panel.open(page, launch(make_host(latents=tmp_path)))
    (tmp_path / "bad.safetensors").write_bytes(b"not latents")
    page.click("#vae_lab_refresh")
    expect(panel.message.get_by_role("alert")).to_contain_text("bad.safetensors: ")


def test_a_page_opened_during_a_run_shows_its_progress(page: Page, launch: Launch, pausing: StandaloneHost) -> None:
    panel = Panel.open(page, launch(pausing))
    page.click("#vae_lab_compare")
    # The bar is no proof: it appears at the click, before the server receives the request.
    expect(panel.progress).to_have_attribute("aria-valuenow", "3")
    page.reload()
    expect(page.get_by_role("progressbar")).to_be_visible()
    page.click("#vae_lab_cancel")
    expect(page.get_by_role("progressbar")).to_be_hidden()


def test_a_vae_is_not_chosen_for_another_checkpoint_than_the_images(
    page: Page, launch: Launch, make_host: MakeHost
) -> None:
    host = make_host()
    panel = Panel.open(page, launch(host))
    panel.tick_only("anime.vae.pt")
    panel.compare()
    grid = page.locator("#vae_lab_results .vae-lab-grid").first
    assert grid.get_attribute("data-checkpoint") == "healthy.safetensors"
    host.select_checkpoint("grey-merge.safetensors")
    figure = grid.locator('figure[data-vae="anime.vae.pt"]')
    figure.get_by_role("button", name="Use for this checkpoint").press("Enter")  # the answer above moves the button
    expect(grid.locator(".vae-lab-tool-message")).to_contain_text(
        "This choice is for healthy.safetensors, but grey-merge.safetensors is in use now."
    )
    assert host.chosen("checkpoint") == AUTOMATIC


def test_the_page_follows_what_is_chosen_elsewhere(page: Page, launch: Launch, make_host: MakeHost) -> None:
    """In a second tab, or by a program; nobody presses Refresh."""
    host = make_host()
    Panel.open(page, launch(host))
    line, menu = page.locator("#vae_lab_deciding .vae-lab-deciding"), page.locator("#vae_lab_decoder input")
    expect(line).to_contain_text("Built-in: no other VAE is chosen.")
    host.use_always("anime.vae.pt")
    expect(line).to_contain_text("anime.vae.pt: chosen for every checkpoint.")
    expect(menu).to_have_value("anime.vae.pt")
    host.use_always(AUTOMATIC)
    host.select_checkpoint("grey-merge.safetensors")
    expect(line).to_contain_text("Built-in: no other VAE is chosen.")
    expect(page.locator("#vae_lab_built_in").first).to_contain_text("grey-merge.safetensors")
    expect(page.locator("#vae_lab_checkpoint input")).to_have_value("grey-merge.safetensors")


def test_a_script_of_another_version_is_refused_with_a_message(page: Page, shared_url: str) -> None:
    panel = Panel.open(page, shared_url)
    for text in (
        *("1|anime.vae.pt", "[]", "null", '{"kind": "latent"}', '{"kind": "x", "name": "g1"}'),
        *('{"kind": "latent", "name": 1}', '{"kind": [], "name": "g1"}'),
    ):
        panel.finish(
            lambda text=text: page.evaluate(
                """text => {
                    const field = document.querySelector("#vae_lab_picked").querySelector("textarea, input");
                    field.value = text;
                    field.dispatchEvent(new Event("input", {bubbles: true}));
                }""",
                text,
            )
        )
        expect(panel.message.get_by_role("alert")).to_contain_text("loaded by another version of VAE Lab")


def test_use_for_this_checkpoint_changes_what_decodes(page: Page, launch: Launch, make_host: MakeHost) -> None:
    host = make_host()
    panel = Panel.open(page, launch(host))
    panel.choose("vae_lab_decoder", "photo-b.ckpt")
    panel.finish(lambda: page.click("#vae_lab_use_for_checkpoint"))
    expect(panel.deciding).to_contain_text("photo-b.ckpt: chosen for healthy.safetensors.")
    assert host.decision().vae == "photo-b.ckpt"
    panel.choose("vae_lab_decoder", "anime.vae.pt")
    panel.finish(lambda: page.click("#vae_lab_use_always"))
    expect(panel.deciding).to_contain_text("anime.vae.pt: chosen for every checkpoint.")
    page.reload()
    expect(panel.deciding).to_contain_text("anime.vae.pt: chosen for every checkpoint.")


def test_compare_by_keyboard_only(page: Page, shared_url: str) -> None:
    panel = Panel.open(page, shared_url)
    panel.tick_only("photo-b.ckpt")
    page.evaluate("document.activeElement.blur()")
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "vae_lab_compare":
            break
    panel.finish(lambda: page.keyboard.press("Enter"))
    expect(panel.figures).to_have_count(2)


def test_empty_folders_say_what_to_do(page: Page, launch: Launch, tmp_path: Path, keep_screenshot: Keep) -> None:
    from vae_lab.host.standalone import Folders

    host = StandaloneHost(Folders.of_models(tmp_path))
    panel = Panel.open(page, launch(host))
    empty = panel.empty
    expect(empty).to_contain_text("Put latents")
    expect(empty).to_contain_text(str(tmp_path / "latents"))
    expect(empty).to_contain_text("Or drop an image into “From an image”")
    expect(page.locator("#vae_lab_encode")).to_be_visible()
    expect(page.locator("#vae_lab_built_in").first).to_contain_text("your VAE folders are empty")
    keep_screenshot(page, "empty")
    panel.compare()
    expect(panel.message.get_by_role("alert")).to_contain_text("There is no latent to decode yet.")
    panel.finish(lambda: page.click("#vae_lab_use_for_checkpoint"))
    expect(panel.message.get_by_role("alert")).to_contain_text("there is no checkpoint")
    (tmp_path / "latents").mkdir()
    sd1 = FAMILIES["sd1"]
    save_latents(Generation("", small_latents("cat", 16), sd1, "A cat"), tmp_path / "latents" / "cat.safetensors")
    panel.refresh()
    expect(empty).to_be_hidden()
    expect(page.locator("#vae_lab_source input")).to_have_value(re.compile("A cat"))
    page.reload()
    expect(panel.latent).to_contain_text("A cat")
    expect(page.locator("#vae_lab_encode")).to_be_hidden()


def test_long_names_wrap_and_are_never_cut(
    page: Page, launch: Launch, make_host: MakeHost, samples: SampleSet, tmp_path: Path
) -> None:
    name = "x" * 60 + "_with-a-name-that-never-ends_" * 5 + "<i>v1.safetensors"
    shutil.copy(samples.smooth, tmp_path / name)
    panel = Panel.open(page, launch(make_host(vaes=tmp_path)))
    panel.compare()
    title = panel.page.locator(".vae-lab-name", has_text="never-ends")
    assert title.inner_text() == name
    expect(page.locator("#vae_lab_vaes label")).to_have_text(f"{name} · SD1 / SD2")
    fits = "element => element.scrollWidth <= element.clientWidth + 1"
    assert title.evaluate(fits)
    assert page.locator("#vae_lab_vaes label").first.evaluate(fits)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.parametrize("theme", THEMES)
def test_every_width_shows_all_results(page: Page, shared_url: str, keep_screenshot: Keep, theme: str) -> None:
    panel = Panel.open(page, shared_url, theme)
    panel.choose("vae_lab_source", "· Brushes · ")
    expect(panel.latent).to_contain_text("Brushes")
    panel.tick_only(*(label.split(" · ")[0] for label in panel.labels()))
    panel.compare()
    expect(panel.figures).to_have_count(6)
    page.wait_for_function("[...document.querySelectorAll('#vae_lab_results img')].every(image => image.complete)")
    for width, height in ((1280, 1000), (2560, 1400)):
        page.set_viewport_size({"width": width, "height": height})
        boxes = [figure.bounding_box() for figure in panel.figures.all()]
        assert all(box["width"] >= 250 and box["x"] + box["width"] <= width for box in boxes)
        keep_screenshot(page, f"comparison-{theme}-{width}")


def test_the_demo_shows_what_grey_is(
    page: Page, launch: Launch, make_host: MakeHost, samples: SampleSet, tmp_path: Path, keep_screenshot: Keep
) -> None:
    """The page that the README shows: a checkpoint with a grey merge, and one latent decoded by other VAEs."""
    folder = samples.folder / "latents"
    if not SCREENSHOTS:  # whole latents take half a minute to decode; their middles show the same
        for file in folder.iterdir():
            whole = load_latents(file)
            middle = whole.latents[:, :, 24:40, 24:40].contiguous()
            save_latents(replace(whole, latents=middle), tmp_path / file.name)
        folder = tmp_path
    host = make_host(latents=folder)
    host.select_checkpoint(samples.grey_merge.name)
    panel = Panel.open(page, launch(host))
    panel.choose("vae_lab_source", "Eileen Collins · ")
    page.click("#vae_lab_all")
    panel.compare()
    expect(panel.figures).to_have_count(5)  # the built-in one and the four of its family
    grey, healthy = (panel.images(name).std() for name in ("Built-in", "photo-b.ckpt"))
    assert grey < 0.8 * healthy, "the built-in VAE's image has lost contrast"
    if SCREENSHOTS:  # with the answer, for which all VAEs are checked
        expect(page.locator("#vae_lab_answer .vae-lab-answer[data-waiting]")).to_have_count(0)
        expect(page.locator("#vae_lab_results figure .vae-lab-badge[data-status]")).to_have_count(5)
    page.set_viewport_size({"width": 1600, "height": 1000})
    keep_screenshot(page, "comparison")
