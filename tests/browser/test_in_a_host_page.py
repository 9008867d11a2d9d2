"""Tab and accordion inside a larger page, as the WebUI builds one: rendered into a tab, with gradio's queue."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import gradio as gr
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.conftest import MakeHost, close, leave, load_module, serve, small_latents
from tests.browser.panel import Panel, RoundTripPage, slowly, wait_as_the_page_does
from vae_lab.api.routes import add_routes
from vae_lab.host.choices import AUTOMATIC, BUILT_IN
from vae_lab.host.plan import AS_IN_SETTINGS
from vae_lab.host.standalone import StandaloneHost
from vae_lab.latents import Generation
from vae_lab.latents.family import FAMILIES
from vae_lab.samples import SampleSet, sample_photos
from vae_lab.service.service import service_of
from vae_lab.ui import assets
from vae_lab.ui.panels.accordion import build_accordion
from vae_lab.ui.tab import build_tab

pytestmark = pytest.mark.browser


def host_page(host: StandaloneHost, generate: Callable[..., str]) -> gr.Blocks:
    """A page with a Generate button that is given the accordion's values, and our tab."""
    tab = build_tab(host)
    fonts_of_this_machine = gr.themes.Default(font=["sans-serif"], font_mono=["monospace"])
    with gr.Blocks(theme=fonts_of_this_machine, analytics_enabled=False) as page, gr.Tabs():
        with gr.TabItem("txt2img"):
            accordion = build_accordion(host, "txt2img")
            button, said = gr.Button("Generate", elem_id="generate"), gr.Textbox(elem_id="said", label="Said")
            button.click(generate, list(accordion.components), [said])
        with gr.TabItem("img2img"):
            build_accordion(host, "img2img")
        with gr.TabItem("VAE Lab", elem_id="tab_vae_lab"):
            tab.render()
        ready = gr.Textbox(elem_id="ready", label="State of the page")
        page.load(lambda: "ready", None, [ready])  # gradio shows buttons before it listens to them
    return page


@pytest.fixture(scope="session")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of our scripts, in a place that gradio's ``file=`` route does not refuse."""
    return shutil.copytree(assets.folder() / "javascript", tmp_path_factory.mktemp("extension") / "javascript")


@pytest.fixture
def page(new_page: Page) -> Page:
    """Scripts are added to it."""
    return new_page


@pytest.fixture(params=[True, False], ids=["queue", "no queue"])
def open_host_page(
    request: pytest.FixtureRequest, page: Page, scripts: Path, own_port: int
) -> Iterator[Callable[..., None]]:
    """Serves a host's page and opens it. Our scripts are loaded as by the WebUI: through the ``file=`` route, and
    before anything else of the page.
    """
    opened: list[gr.Blocks] = []

    def open_page(blocks: gr.Blocks, host: StandaloneHost) -> None:
        opened.append(blocks)
        if request.param:
            blocks.queue()
        app, url = serve(blocks, own_port, allowed_paths=[str(scripts)])
        add_routes(app, host)
        entry = scripts / "vae_lab.mjs"
        load_module(page, f"file={entry.as_posix()}?{entry.stat().st_mtime}")
        page.goto(url)
        expect(page.locator("#ready textarea")).to_have_value("ready")

    yield open_page
    leave(page)  # a server that stops leaves sockets of open pages unclosed
    for blocks in opened:
        close(blocks)


# For what the tests above and below do without a queue as well.
with_queue = pytest.mark.parametrize("open_host_page", [True], indirect=True, ids=["queue"])


def test_a_new_generation_is_shown_when_the_tab_becomes_visible(
    page: Page, open_host_page: Callable[..., None], make_host: MakeHost, tmp_path: Path
) -> None:
    host = make_host(latents=tmp_path)
    open_host_page(host_page(host, lambda *values: ""), host)
    panel = Panel(page)
    page.locator(".tab-nav button", has_text="VAE Lab").click()
    panel.refreshed()
    expect(panel.empty).to_contain_text("Put latents")
    for title in ("First image", "Second image"):
        page.locator(".tab-nav button", has_text="txt2img").click()
        host.generations.add(Generation(host.generations.new_id(), small_latents("cat", 16), FAMILIES["sd1"], title))
        wait_as_the_page_does(page, 400)  # longer than the script's clock: it has seen that the tab is out of view
        page.locator(".tab-nav button", has_text="VAE Lab").click()
        expect(panel.latent).to_contain_text(title)
    expect(panel.empty).to_be_hidden()
    panel.tick_only("photo-b.ckpt")
    panel.compare()
    expect(panel.figures).to_have_count(2)
    assert panel.images("Built-in").shape == (1, 128, 128, 3)


def test_files_and_images_reach_the_tab(
    page: Page, open_host_page: Callable[..., None], make_host: MakeHost, samples: SampleSet, tmp_path: Path
) -> None:
    """Through the host's queue, or without one, files take other ways than in a page of our own."""
    with Image.open(sample_photos()["cat"]) as photo:
        photo.resize((48, 40)).save(tmp_path / "my-cat.png")
    host = make_host()
    open_host_page(host_page(host, lambda *values: ""), host)
    page.locator(".tab-nav button", has_text="VAE Lab").click()
    panel = Panel(page).refreshed()
    expect(panel.latent).to_contain_text("Astronaut and brushes")
    panel.load(samples.latents["cat"])
    expect(panel.message).to_contain_text("loaded from cat.safetensors as SD1 / SD2")
    panel.encode(tmp_path / "my-cat.png", "anime.vae.pt")
    expect(panel.message).to_contain_text("my-cat.png: encoded by anime.vae.pt")
    panel.thumbnail("Brushes").click()
    expect(panel.latent).to_contain_text("Brushes")
    trip = RoundTripPage.turn_to(page)
    trip.drop(tmp_path / "my-cat.png")
    trip.tick_only("photo-b.ckpt")
    trip.run()
    expect(trip.message).to_contain_text("2 VAEs, round trip")
    assert trip.image("photo-b.ckpt").shape == (40, 48, 3)


@with_queue
def test_accordion_says_what_decodes_and_hands_over_its_values(
    page: Page, open_host_page: Callable[..., None], make_host: MakeHost
) -> None:
    host = make_host()
    open_host_page(host_page(host, lambda *values: json.dumps(values)), host)
    page.locator("#vae_lab_txt2img").get_by_text("VAE Lab").click()
    deciding = page.locator("#vae_lab_txt2img_deciding").first
    expect(deciding).to_contain_text("Built-in: no other VAE is chosen.")
    page.click("#generate")
    expect(page.locator("#said textarea")).to_have_value(json.dumps([AUTOMATIC, [], AS_IN_SETTINGS]))
    panel = Panel(page)
    panel.choose("vae_lab_txt2img_override", "photo-b.ckpt")
    expect(deciding).to_contain_text("photo-b.ckpt: chosen for this comparison.")
    panel.choose("vae_lab_txt2img_compare", "anime.vae.pt")
    page.keyboard.press("Escape")
    panel.choose("vae_lab_txt2img_on_grey", "redecode")
    page.click("#generate")
    expect(page.locator("#said textarea")).to_have_value(json.dumps(["photo-b.ckpt", ["anime.vae.pt"], "redecode"]))
    host.use_always("anime.vae.pt")
    page.reload()
    page.locator("#vae_lab_txt2img").get_by_text("VAE Lab").click()
    expect(deciding).to_contain_text("anime.vae.pt: chosen for every checkpoint.")


def test_a_menu_that_is_used_immediately_keeps_its_entries_and_what_is_chosen(
    page: Page, open_host_page: Callable[..., None], make_host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The accordion looks for new files as it opens, which takes a while where folders are large or far away."""
    host = make_host()
    open_host_page(host_page(host, lambda *values: ""), host)
    answered: list[bool] = []
    look = slowly(host.vaes, 1.5)
    monkeypatch.setattr(host, "vaes", lambda: (look(), answered.append(True))[0])
    page.locator("#vae_lab_txt2img").get_by_text("VAE Lab").click()
    page.locator("#vae_lab_txt2img_override input").click()
    options = page.get_by_test_id("dropdown-option")
    expect(options.filter(has_text="photo-b.ckpt")).to_be_visible()
    for _ in range(300):
        page.wait_for_timeout(200)
        if answered:
            break
    assert answered
    page.wait_for_timeout(1000)  # until the page has heard of it
    options.filter(has_text="photo-b.ckpt").click(timeout=20_000)
    deciding = page.locator("#vae_lab_txt2img_deciding").first
    expect(deciding).to_contain_text("photo-b.ckpt: chosen for this comparison.")
    answered.clear()
    page.click("#vae_lab_txt2img_refresh")
    Panel(page).choose("vae_lab_txt2img_override", "anime.vae.pt")
    for _ in range(300):
        page.wait_for_timeout(200)
        if answered:
            break
    page.wait_for_timeout(1000)
    expect(deciding).to_contain_text("anime.vae.pt: chosen for this comparison.")


@with_queue
def test_accordion_follows_what_is_chosen_elsewhere_and_its_badge_explains(
    page: Page, open_host_page: Callable[..., None], make_host: MakeHost
) -> None:
    host = make_host()
    host.select_checkpoint("grey-merge.safetensors")
    service_of(host).checkups.inspect(["grey-merge.safetensors"])
    open_host_page(host_page(host, lambda *values: ""), host)
    page.locator("#vae_lab_txt2img").get_by_text("VAE Lab").click()
    deciding = page.locator("#vae_lab_txt2img_deciding").first
    badge = deciding.get_by_role("button")
    expect(badge).to_have_text("Built-in VAE broken: washed out")
    page.locator(".tab-nav button", has_text="img2img").click()
    wait_as_the_page_does(page, 400)  # longer than the script's clock: it has seen that the line is out of view
    host.use_always("photo-b.ckpt")
    page.locator(".tab-nav button", has_text="txt2img").click()
    expect(deciding).to_contain_text("photo-b.ckpt: chosen for every checkpoint.")
    expect(badge).to_have_text("Built-in VAE broken: washed out, not used now")
    badge.click()
    verdict = page.locator("#vae_lab_checkup_verdict").first
    expect(verdict).to_be_visible()
    expect(verdict).to_contain_text("grey-merge.safetensors")


def test_accordion_components_are_in_their_fixed_order(make_host: MakeHost) -> None:
    host = make_host()
    with gr.Blocks():
        for _ in range(2):  # the WebUI's API builds them again
            override, compare, on_grey = build_accordion(host, "img2img").components
    assert override.elem_id == "vae_lab_img2img_override"
    assert compare.elem_id == "vae_lab_img2img_compare"
    choices = [choice[0] if isinstance(choice, tuple) else choice for choice in override.choices]
    assert choices == [AUTOMATIC, BUILT_IN, *(entry.name for entry in host.vaes())]
    assert override.value == AUTOMATIC
    assert compare.value == []
    assert on_grey.elem_id == "vae_lab_img2img_on_grey"
    choices = [choice[0] if isinstance(choice, tuple) else choice for choice in on_grey.choices]
    assert choices == [AS_IN_SETTINGS, "off", "warn", "redecode"]
    assert on_grey.value == AS_IN_SETTINGS
