"""The Checkup page in a browser, and its badges."""

from __future__ import annotations

import io
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from safetensors.torch import save_file

from tests.browser.conftest import THEMES, Keep, Launch, MakeHost, ServeHost, close, leave, load_scripts, serve
from tests.browser.panel import CheckupPage, Panel, slowly
from vae_lab.api.routes import add_routes
from vae_lab.checkup import Checkup, Finding, chart_png
from vae_lab.host.base import MemoryCheckup
from vae_lab.host.choices import AUTOMATIC, BUILT_IN
from vae_lab.host.standalone import StandaloneHost
from vae_lab.library import FileRecord
from vae_lab.samples import SampleSet, load_sample_vae
from vae_lab.service.service import service_of
from vae_lab.ui.assets import style_sheet
from vae_lab.ui.panels.accordion import build_accordion
from vae_lab.ui.panels.checkup import CheckupPanel
from vae_lab.ui.views import checkup as checkup_views

pytestmark = pytest.mark.browser

GREY, HEALTHY, NO_VAE = "grey-merge.safetensors", "healthy.safetensors", "no-vae.safetensors"


@pytest.fixture(scope="module")
def checked_host(make_host: MakeHost) -> StandaloneHost:
    """A host that knows all files; ``grey-merge`` is in use. Only for tests that choose nothing."""
    host = make_host()
    host.select_checkpoint(GREY)
    service_of(host).checkups.inspect([*host.checkpoints(), *host.vae_files()])
    return host


@pytest.fixture(scope="module")
def checked_url(checked_host: StandaloneHost, serve_host: ServeHost) -> Iterator[str]:
    """The page of ``checked_host``."""
    with serve_host(checked_host) as url:
        yield url


class SlowHost(StandaloneHost):
    """Checks two files normally, then waits before the third one until cancelled."""

    looked = 0

    def inspect(self, name: str) -> FileRecord:
        while self.looked == 2 and not service_of(self).runs.cancelled():
            time.sleep(0.01)
        self.looked += 1
        return super().inspect(name)


def std_of(image: bytes) -> float:
    return float(np.asarray(Image.open(io.BytesIO(image)).convert("L")).std())


# --- one file --------------------------------------------------------------------------------------------------------


def test_a_healthy_checkpoint(page: Page, launch: Launch, make_host: MakeHost) -> None:
    host = make_host()
    checkup = CheckupPage.open(page, launch(host))
    expect(page.locator("#vae_lab_checkup_file input")).to_have_value(f"{HEALTHY} · checkpoint in use")
    expect(checkup.verdict).to_contain_text("Not checked yet")
    expect(checkup.charts).to_be_hidden()
    checkup.check()
    expect(checkup.badge).to_have_text("✓ Healthy")
    expect(checkup.message).to_contain_text(f"{HEALTHY}: Healthy.")
    expect(checkup.verdict).to_contain_text("A healthy VAE of the SD1 / SD2 family")
    expect(page.locator("#vae_lab_checkup_file input")).to_have_value(f"{HEALTHY} · checkpoint in use · ✓")
    expect(checkup.for_checkpoint).to_be_hidden()
    expect(checkup.always).to_be_hidden()
    decoded = checkup.images()[1]
    assert std_of(decoded) > 0.9 * std_of(chart_png())
    page.wait_for_timeout(1000)
    expect(page.locator(".vae-lab-current-badge:not(:empty)")).to_have_count(0)


def test_the_last_of_several_quick_choices_is_shown(
    page: Page, launch: Launch, checked_host: StandaloneHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CheckupPanel, "on_file", slowly(CheckupPanel.on_file))
    checkup = CheckupPage.open(page, launch(checked_host))
    checkup.choose("anime.vae.pt")
    checkup.choose(HEALTHY)
    expect(checkup.verdict.locator(".vae-lab-name")).to_have_text(HEALTHY)
    expect(page.locator("#vae_lab_checkup_file input")).to_have_value(re.compile(HEALTHY))
    page.wait_for_timeout(2000)
    expect(checkup.verdict.locator(".vae-lab-name")).to_have_text(HEALTHY)


def test_what_is_chosen_during_a_run_outlives_it(page: Page, launch: Launch, make_host: MakeHost) -> None:
    host = make_host()
    host.select_checkpoint(GREY)
    service_of(host).checkups.inspect([GREY])
    host.__class__ = SlowHost
    checkup = CheckupPage.open(page, launch(host))
    page.click("#vae_lab_checkup_check_all")
    expect(page.locator("#vae_lab_checkup").get_by_role("progressbar")).to_have_attribute("aria-valuenow", "2")
    name = host.recommendation().name
    checkup.for_checkpoint.click()
    expect(checkup.undo).to_be_visible()
    checkup.finish(lambda: page.click("#vae_lab_checkup_cancel"))
    expect(checkup.rows).not_to_have_count(0)
    assert host.chosen("checkpoint") == name
    checkup.undo.click()
    expect(checkup.said).to_contain_text("no other VAE is chosen")
    expect(checkup.for_checkpoint).to_be_visible()
    assert host.chosen("checkpoint") == AUTOMATIC


def test_another_file_that_is_chosen_during_a_run_stays(page: Page, launch: Launch, make_host: MakeHost) -> None:
    host = make_host()
    host.__class__ = SlowHost
    checkup = CheckupPage.open(page, launch(host))
    page.click("#vae_lab_checkup_check_all")
    expect(page.locator("#vae_lab_checkup").get_by_role("progressbar")).to_have_attribute("aria-valuenow", "2")
    checkup.choose("photo-b.ckpt")
    expect(checkup.verdict).to_contain_text("photo-b.ckpt")
    checkup.finish(lambda: page.click("#vae_lab_checkup_cancel"))
    expect(checkup.rows).not_to_have_count(0)
    expect(checkup.verdict).to_contain_text("photo-b.ckpt")
    expect(page.locator("#vae_lab_checkup_file input")).to_have_value(re.compile("photo-b.ckpt"))


def test_a_grey_merge_is_shown_explained_and_remedied(
    page: Page, launch: Launch, make_host: MakeHost, samples: SampleSet, tmp_path: Path
) -> None:
    """From the first click to the choice that stays, and its parents are named where the user has them."""
    save_file(load_sample_vae("photo-a"), tmp_path / "parent-a.safetensors")
    shutil.copy(samples.photo_b, tmp_path / "parent-b.ckpt")
    host = make_host(vaes=tmp_path)
    host.select_checkpoint(GREY)
    checkup = CheckupPage.open(page, launch(host))
    checkup.check()
    expect(checkup.badge).to_have_text("✗ Broken: washed out")
    assert checkup.verdict.locator(".vae-lab-name").inner_text() == GREY
    expect(checkup.verdict).to_contain_text("Images are grey and washed out")
    expect(checkup.verdict).to_contain_text("What to do:")
    expect(page.locator("#vae_lab_checkup_details").first).to_contain_text(
        "0.80 parent-a.safetensors + 0.20 parent-b.ckpt"
    )
    expect(checkup.charts.locator("img")).to_have_count(3)
    chart, decoded, round_trip = checkup.images()
    assert std_of(chart) == std_of(chart_png())
    assert std_of(decoded) < 0.8 * std_of(chart)
    assert std_of(round_trip) < 0.5 * std_of(chart)
    name = host.recommendation().name
    assert name in ("parent-a.safetensors", "parent-b.ckpt")
    expect(checkup.remedy).to_contain_text(f"Use {name} instead: it is healthy and of the SD1 / SD2 family")
    expect(checkup.always).to_have_text(f"Use {name} always")
    expect(checkup.for_checkpoint).to_have_text(f"Use {name} for this checkpoint")
    checkup.for_checkpoint.click()
    expect(checkup.said).to_contain_text(f"Done. {name}: chosen for {GREY}.")
    expect(checkup.deciding).to_contain_text(f"{name}: chosen for {GREY}.")
    assert (host.decision().vae, host.decision().source) == (name, "checkpoint")
    expect(checkup.verdict).to_contain_text("so this checkpoint's built-in VAE has no effect")
    expect(checkup.for_checkpoint).to_be_hidden()
    checkup.undo.click()
    expect(checkup.for_checkpoint).to_be_visible()
    expect(checkup.verdict).not_to_contain_text("built-in VAE has no effect")
    assert host.decision().source == "host"
    checkup.undo.click()  # undoing can be undone
    expect(checkup.for_checkpoint).to_be_hidden()
    checkup.always.click()
    expect(checkup.deciding).to_contain_text(f"{name}: chosen for every checkpoint.")
    expect(checkup.always).to_be_hidden()
    assert host.decision().source == "always"
    checkup.undo.click()
    expect(checkup.deciding).to_contain_text(f"{name}: chosen for {GREY}.")


def test_a_checkpoint_without_a_vae_says_what_decodes_instead(
    page: Page, launch: Launch, make_host: MakeHost, samples: SampleSet, tmp_path: Path
) -> None:
    """And, as there is no VAE of its family, which kind to get."""
    shutil.copy(samples.sdxl, tmp_path / "sdxl-c.safetensors")
    host = make_host(vaes=tmp_path)
    host.select_checkpoint(NO_VAE)
    checkup = CheckupPage.open(page, launch(host))
    checkup.check()
    expect(checkup.badge).to_have_text("⚠ No VAE inside")
    expect(checkup.verdict).to_contain_text("Used instead:")
    expect(checkup.verdict).to_contain_text(host.used_instead())
    expect(checkup.charts).to_be_hidden()
    expect(checkup.remedy).to_contain_text("None of your VAEs is known to be healthy and of the SD1 / SD2 family.")
    expect(checkup.for_checkpoint).to_be_hidden()


def test_what_is_known_is_shown_immediately_and_follows_the_checkpoint(
    page: Page, launch: Launch, make_host: MakeHost
) -> None:
    host = make_host(unknown_families=True)
    service_of(host).checkups.inspect([GREY, HEALTHY])
    url = launch(host)
    checkup = CheckupPage.open(page, url)
    expect(checkup.badge).to_have_text("✓ Healthy")
    checkup.to_page("Compare")
    Panel(page).choose("vae_lab_checkpoint", GREY)
    expect(page.locator("#vae_lab_built_in").first).to_contain_text(GREY)
    checkup.to_page("Checkup")
    expect(checkup.badge).to_have_text("✗ Broken: washed out")
    expect(checkup.charts.locator("img")).to_have_count(3)
    checkup.choose(HEALTHY)
    expect(checkup.badge).to_have_text("✓ Healthy")
    checkup.choose(NO_VAE)
    expect(checkup.verdict).to_contain_text("Not checked yet")
    # Checked by another thread in the meantime, as by the WebUI's extension in the background.
    service_of(host).checkups.inspect([NO_VAE])
    host.select_checkpoint(NO_VAE)
    expect(checkup.badge).to_have_text("⚠ No VAE inside")


def test_a_broken_checkpoint_that_is_not_in_use_says_how_to_be_helped(page: Page, checked_url: str) -> None:
    checkup = CheckupPage.open(page, checked_url)
    checkup.choose(NO_VAE)
    expect(checkup.badge).to_have_text("⚠ No VAE inside")
    expect(checkup.verdict).to_contain_text("Select this checkpoint on the Compare page")
    expect(checkup.for_checkpoint).to_be_hidden()
    expect(checkup.deciding).to_be_hidden()


def test_what_is_in_memory_is_reported(page: Page, launch: Launch, make_host: MakeHost) -> None:
    host = make_host()
    finding = Finding("black", "broken", "Images come out black.")
    loaded = MemoryCheckup(Checkup("sd1", (finding,)), "fp16", BUILT_IN)
    host.__class__ = type("HostWithModel", (StandaloneHost,), {"memory_checkup": lambda self: loaded})
    service_of(host).checkups.inspect([HEALTHY])
    checkup = CheckupPage.open(page, launch(host))
    expect(checkup.verdict).to_contain_text("Currently loaded: Built-in, fp16 ✗ Broken: black images")
    host.use_always(host.vaes()[0].name)
    page.click("#vae_lab_checkup_refresh")
    expect(checkup.verdict).not_to_contain_text("Currently loaded")


# --- many files ------------------------------------------------------------------------------------------------------


def test_check_all_shows_a_table_worst_first(page: Page, checked_url: str, checked_host: StandaloneHost) -> None:
    checkup = CheckupPage.open(page, checked_url)
    checkup.check_all()
    expect(checkup.message).to_contain_text("8 files checked. Broken: 1, No VAE inside: 1, Healthy: 6.")
    expect(checkup.rows).to_have_count(8)
    expect(checkup.rows.nth(0)).to_contain_text(re.compile(r"✗ Broken: washed out\s*grey-merge.*SD1 / SD2.*grey", re.S))
    expect(checkup.rows.nth(1)).to_contain_text("⚠ No VAE inside")
    expect(checkup.rows.nth(2)).to_contain_text("✓ Healthy")
    expect(checkup.row(GREY)).to_have_attribute("aria-current", "true")
    checkup.row("sdxl-c.safetensors").locator("td").last.click()
    expect(checkup.verdict).to_contain_text("A healthy VAE of the SDXL family")
    expect(checkup.row("sdxl-c.safetensors")).to_have_attribute("aria-current", "true")
    expect(page.locator("#vae_lab_checkup_file input")).to_have_value("sdxl-c.safetensors · ✓")
    checkup.choose(GREY)
    expect(checkup.row(GREY)).to_have_attribute("aria-current", "true")
    expect(checkup.badge).to_have_text("✗ Broken: washed out")


def test_cancel_keeps_what_was_reached(page: Page, launch: Launch, make_host: MakeHost) -> None:
    host = make_host()
    host.__class__ = SlowHost
    checkup = CheckupPage.open(page, launch(host))

    def check_and_cancel() -> None:
        page.click("#vae_lab_checkup_check_all")
        bar = page.get_by_role("progressbar")
        expect(bar).to_have_attribute("aria-valuenow", "2")
        expect(bar).to_have_attribute("aria-valuemax", "8")
        expect(bar).to_contain_text(re.compile(r"2 of 8 · \S+"))
        checkup.to_page("Compare")  # one run at a time, and both pages show it
        expect(page.get_by_role("progressbar")).to_contain_text("2 of 8")
        checkup.to_page("Checkup")
        page.click("#vae_lab_checkup_cancel")

    checkup.finish(check_and_cancel)
    expect(checkup.message).to_contain_text("Cancelled: 3 of 8 files checked")
    expect(page.get_by_role("progressbar")).to_be_hidden()
    expect(checkup.rows).to_have_count(8)
    expect(checkup.rows.filter(has_text="Not checked")).to_have_count(5)
    expect(checkup.rows.last).to_contain_text("Not checked")


def test_a_file_that_has_vanished_is_reported_in_one_line(
    page: Page, launch: Launch, make_host: MakeHost, samples: SampleSet, tmp_path: Path
) -> None:
    shutil.copy(samples.smooth, tmp_path / "gone.safetensors")
    checkup = CheckupPage.open(page, launch(make_host(vaes=tmp_path)))
    checkup.choose("gone.safetensors")
    expect(checkup.verdict).to_contain_text("gone.safetensors")
    (tmp_path / "gone.safetensors").unlink()
    checkup.check()
    expect(checkup.message.get_by_role("alert")).to_contain_text("gone.safetensors no longer exists")
    expect(page.locator("#vae_lab_checkup_file input")).to_have_value(f"{HEALTHY} · checkpoint in use")


# --- badges ----------------------------------------------------------------------------------------------------------


def test_the_badge_next_to_the_deciding_line_follows_a_check(page: Page, launch: Launch, make_host: MakeHost) -> None:
    host = make_host()
    host.select_checkpoint(GREY)
    panel = Panel.open(page, launch(host))
    badge = panel.deciding.locator(".vae-lab-current-badge")
    expect(badge).to_have_text("")
    checkup = CheckupPage(page).to_page("Checkup")
    checkup.check()
    checkup.to_page("Compare")
    expect(badge).to_have_text("Built-in VAE broken: washed out")
    expect(badge).to_have_attribute("title", re.compile("Images are grey"))
    panel.choose("vae_lab_decoder", "photo-b.ckpt")
    panel.finish(lambda: page.click("#vae_lab_use_for_checkpoint"))
    expect(badge).to_have_text("Built-in VAE broken: washed out, not used now")
    panel.choose("vae_lab_checkpoint", HEALTHY)
    expect(badge).to_have_text("")


CARD = """<div class='card' data-name='{0}' onclick='this.dataset.clicks = 1 + Number(this.dataset.clicks ?? 0)'
  style='position: relative; display: inline-block; width: 190px; height: 260px; background: #345; color: #eee'>
  <div class='name' style='padding-top: 220px'>{0}</div></div>"""
CARDS = (
    f"<div id='txt2img_checkpoints_cards'>{''.join(map(CARD.format, ('grey-merge', 'no-vae', 'healthy', 'new')))}</div>"
    f"<div id='img2img_checkpoints_cards'>{CARD.format('grey-merge')}</div>"
)


@pytest.fixture
def page_with_cards(new_page: Page, checked_host: StandaloneHost, own_port: int) -> Iterator[Callable[[], Page]]:
    """A host's page with cards of checkpoints and the accordion, and our script in its head, as in the WebUI."""
    fonts_of_this_machine = gr.themes.Default(font=["sans-serif"], font_mono=["monospace"])
    with gr.Blocks(theme=fonts_of_this_machine, css=style_sheet(), analytics_enabled=False) as blocks:
        gr.HTML(CARDS)
        build_accordion(checked_host, "txt2img")

    def open_page() -> Page:
        app, url = serve(blocks, own_port)
        add_routes(app, checked_host)
        load_scripts(new_page, app)
        new_page.goto(url)
        return new_page

    yield open_page
    leave(new_page)
    close(blocks)


def test_cards_of_checkpoints_and_the_accordion_have_badges(
    page_with_cards: Callable[[], Page], keep_screenshot: Keep
) -> None:
    page = page_with_cards()
    grey = page.locator("#txt2img_checkpoints_cards .card[data-name=grey-merge]")
    badge = grey.locator(".vae-lab-card-badge")
    expect(badge).to_have_text("VAE broken: washed out")
    expect(badge).to_have_attribute("aria-label", re.compile("VAE Lab: VAE broken: washed out. Images are grey"))
    expect(page.locator(".card[data-name=no-vae] .vae-lab-card-badge")).to_have_text("No VAE inside")
    expect(page.locator("#img2img_checkpoints_cards .vae-lab-card-badge")).to_have_count(1)
    expect(page.locator(".vae-lab-card-badge")).to_have_count(3)
    box, card = badge.bounding_box(), grey.bounding_box()
    assert card["height"] == page.locator(".card[data-name=healthy]").bounding_box()["height"]
    assert abs(grey.locator(".name").bounding_box()["y"] - card["y"]) < 5, "it takes no place in the card's layout"
    assert badge.evaluate("element => getComputedStyle(element).color") == "rgb(255, 255, 255)"
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(grey).to_have_attribute("data-clicks", "1")
    keep_screenshot(page, "cards")
    # The WebUI draws its cards again when they are refreshed or sorted.
    page.evaluate("all = document.getElementById('txt2img_checkpoints_cards'); all.innerHTML = all.innerHTML")
    page.evaluate("document.querySelectorAll('.vae-lab-card-badge').forEach(badge => badge.remove())")
    expect(page.locator(".vae-lab-card-badge")).to_have_count(3)
    page.locator("#vae_lab_txt2img").get_by_text("VAE Lab").click()
    line = page.locator("#vae_lab_txt2img_deciding .vae-lab-current-badge").first
    expect(line).to_have_text("Built-in VAE broken: washed out")
    expect(page.locator("#vae_lab_txt2img_on_grey input")).to_have_value("As in Settings")
    keep_screenshot(page, "accordion")


# --- by keyboard, in every width -------------------------------------------------------------------------------------


def test_everything_is_reached_by_keyboard(page: Page, checked_url: str) -> None:
    checkup = CheckupPage.open(page, checked_url)

    def tab_to(wanted: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("wanted => document.activeElement.matches(wanted)", wanted):
                return
        pytest.fail(f"{wanted} is out of the keyboard's reach")

    page.evaluate("document.activeElement.blur()")
    tab_to("#vae_lab_checkup_check_all")
    checkup.finish(lambda: page.keyboard.press("Enter"))
    tab_to('tr[data-file="photo-b.ckpt"] button')
    page.keyboard.press("Enter")
    expect(checkup.verdict).to_contain_text("photo-b.ckpt")
    assert page.evaluate("document.activeElement.textContent") == "photo-b.ckpt", "the keyboard keeps its place"
    page.keyboard.press("Shift+Tab")
    checkup.choose(GREY)
    expect(checkup.for_checkpoint).to_be_visible()
    tab_to("#vae_lab_checkup_verdict summary")
    page.keyboard.press("Enter")
    expect(checkup.verdict).to_contain_text("contrast retained")
    tab_to("#vae_lab_checkup_use_for_checkpoint")
    tab_to("#vae_lab_checkup_use_always")


@pytest.mark.parametrize("theme", THEMES)
def test_every_width_shows_the_whole_card(page: Page, checked_url: str, keep_screenshot: Keep, theme: str) -> None:
    checkup = CheckupPage.open(page, checked_url, theme)
    expect(checkup.for_checkpoint).to_be_visible()
    expect(checkup.charts.locator("img")).to_have_count(3)
    for width, height in ((1280, 1000), (2560, 1400)):
        page.set_viewport_size({"width": width, "height": height})
        boxes = [figure.bounding_box() for figure in checkup.charts.locator("figure").all()]
        assert all(box["width"] >= 200 and box["x"] + box["width"] <= width for box in boxes)
        assert len({box["y"] for box in boxes}) == 1, "side by side"
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert page.locator("#vae_lab_checkup_use_always").bounding_box()["y"] < height
        keep_screenshot(page, f"checkup-{theme}-{width}")
    page.set_viewport_size({"width": 1280, "height": 1000})
    checkup.check_all()
    page.get_by_text("All measurements").click()
    expect(page.get_by_text("Expected", exact=True)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    keep_screenshot(page, f"checkup-all-{theme}")
    checkup.to_page("Compare")
    expect(Panel(page).deciding.locator(".vae-lab-current-badge")).to_have_text("Built-in VAE broken: washed out")
    keep_screenshot(page, f"badge-{theme}")


# --- without a browser -----------------------------------------------------------------------------------------------

HOSTILE = "<img src=x onerror=alert(1)>\"'&.pt"


def test_names_and_findings_cannot_smuggle_markup() -> None:
    finding = Finding("grey", "broken", HOSTILE, (), HOSTILE)
    report = FileRecord(
        HOSTILE, kind="checkpoint", layout=HOSTILE, dtype=HOSTILE, fingerprint=HOSTILE, file_findings=(finding,)
    )
    pieces = [
        checkup_views.unchecked(HOSTILE),
        checkup_views.verdict(HOSTILE, report, True),
        checkup_views.details(report),
        checkup_views.overview([HOSTILE], {HOSTILE: report}, ""),
        checkup_views.checked({HOSTILE: report}, 1),
        checkup_views.used_instead(HOSTILE),
        checkup_views.remedied(HOSTILE),
        checkup_views.in_memory(MemoryCheckup(Checkup("", (finding,)), HOSTILE, HOSTILE)),
    ]
    assert all("<img src=x" not in piece for piece in pieces)
    assert all("\"'&.pt" not in piece for piece in pieces)


def test_a_remedy_of_another_checkpoint_is_not_chosen(make_host: MakeHost) -> None:
    host = make_host()
    host.select_checkpoint(GREY)
    service_of(host).checkups.inspect([GREY])
    panel = CheckupPanel(host)
    memory = panel._show(GREY, None, False, [GREY])[-1]
    host.select_checkpoint(HEALTHY)
    assert "the checkpoint has changed" in str(panel.on_use_for_checkpoint(memory)[-1])
    assert host.decision().source == "host"
