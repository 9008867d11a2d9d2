"""The WebUI as users run it: a server, a browser, and "Reload UI"."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from tests.browser.panel import Panel
from tests.chromium import find_chromium
from tests.host.conftest import install_extension, install_neighbour
from tests.host.webui import CPU_FLAGS

pytestmark = [pytest.mark.host, pytest.mark.browser]
CHROMIUM_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


class Server:
    """A separate WebUI process, with its log."""

    def __init__(self, webui: Path, data: Path, flags: list[str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.data = data
        self.log_file = data / "log.txt"
        command = [sys.executable, "launch.py", "--skip-prepare-environment", "--skip-version-check", "--api"]
        command += ["--do-not-download-clip", "--no-download-sd-model"]
        checkpoint = data / "models" / "Stable-diffusion" / "one.safetensors"
        command += ["--port", str(self.port), "--data-dir", str(data), "--ckpt", str(checkpoint)]
        self.webui, self.command = webui, [*command, *flags]
        self.log_file.write_text("")
        self.start()

    def start(self) -> None:
        started = self.log.count("Startup time")
        environment = {key: value for key, value in os.environ.items() if key != "COMMANDLINE_ARGS"}
        self.process = subprocess.Popen(
            self.command, cwd=self.webui, env=environment, stdout=self.log_file.open("a"), stderr=subprocess.STDOUT
        )
        self.wait(restarts=started)

    def wait(self, seconds: float = 180, restarts: int = 0) -> None:
        """Until it is up and a checkpoint is loaded, according to the log: an earlier request would make it fail."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log
            if self.log.count("Startup time") > restarts and "Model loaded in" in self.log:
                return
            time.sleep(0.5)
        raise AssertionError(f"the WebUI did not start: {self.log[-3000:]}")

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf8", errors="replace")

    @property
    def errors(self) -> int:
        """Tracebacks in the log, but for what gradio's queue says of a page that is reloaded while it asks."""
        return self.log.count("Traceback") - self.log.count("starlette.websockets.WebSocketDisconnect: 1001")

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=60) as response:
            return json.load(response)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        data = json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=300) as response:
            return json.load(response)

    def wait_idle(self, seconds: float = 120) -> None:
        """Until no task of ours is running: what a test leaves, such as the rest of a comparison, goes on."""
        end = time.monotonic() + seconds
        while self.get("/vae-lab/v1/progress")["busy"]:
            assert time.monotonic() < end, self.get("/vae-lab/v1/progress")
            time.sleep(0.5)

    def txt2img(self, lab: dict[str, Any] | None = None, **body: Any) -> dict[str, Any]:
        scripts = {"alwayson_scripts": {"VAE Lab": {"args": [lab]}}} if lab is not None else {}
        defaults = {"prompt": "a boat", "seed": 5, "steps": 3, "width": 128, "height": 128, "sampler_name": "Euler"}
        return self.post("/sdapi/v1/txt2img", defaults | scripts | body)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture(scope="module")
def server(webui_dir: Path, data_dir: Path, tmp_path_factory: pytest.TempPathFactory, request) -> Iterator[Server]:
    """A running WebUI with VAE Lab. When the tests are over its log has no traceback, and none of our errors."""
    data = tmp_path_factory.mktemp("server-data")
    shutil.copytree(data_dir / "models", data / "models")
    install_neighbour(data)
    install_extension(data)
    # Without sd_vae in the file, the WebUI keeps the VAE of a request's override_settings.
    settings = {"quicksettings_list": ["sd_model_checkpoint", "vae_lab_external"], "sd_vae": "Automatic"}
    (data / "config.json").write_text(json.dumps(settings), encoding="utf8")
    flags = request.config.getoption("--webui-flags").split()
    running = Server(webui_dir, data, flags if torch.cuda.is_available() else [*CPU_FLAGS, *flags])
    yield running
    running.close()
    assert running.errors == 0, running.log[-5000:]
    assert "VAE Lab," not in running.log, "each of our errors is logged with these words"


@pytest.fixture
def errors() -> list[str]:
    """Errors that the page has raised."""
    return []


@pytest.fixture
def page(server: Server, errors: list[str]) -> Iterator[Page]:
    """The WebUI in a browser; an error on the page fails the test."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(server.url)
        page.wait_for_selector("#txt2img_prompt textarea", timeout=60_000)
        yield page
        # The WebUI's gradio never finishes an event whose page goes away under it, and then cannot restart.
        page.wait_for_timeout(3000)
        browser.close()
        assert errors == []


GONE = "VAE Lab override: gone.safetensors, VAE Lab override hash: 0123456789, Version: v1"


def image(encoded: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))


def test_override_and_comparison_over_the_api(server: Server) -> None:
    plain = server.txt2img()
    ours = server.txt2img(lab={"override": "first.safetensors", "compare": ["second.safetensors"]})
    native = server.txt2img(override_settings={"sd_vae": "first.safetensors"})
    assert np.array_equal(image(ours["images"][0]), image(native["images"][0]))
    infotexts = json.loads(ours["info"])["infotexts"]
    assert [text.count("VAE Lab override:") for text in infotexts] == [1, 1, 1]
    assert "VAE Lab override: second.safetensors" in infotexts[2]
    assert len(ours["images"]) == 3, "the image, the built-in VAE's, and the one asked for"
    assert np.array_equal(image(ours["images"][1]), image(plain["images"][0]))
    latents = server.get("/vae-lab/v1/latents")["latents"]
    compared = server.post("/vae-lab/v1/compare", {"latents": latents[0]["id"], "vaes": ["first.safetensors"]})
    with urllib.request.urlopen(server.url + compared["results"][1]["images"][0], timeout=60) as response:
        assert np.array_equal(np.asarray(Image.open(response)), image(native["images"][0]))


# The WebUI 1.10.1 raises this twice at the first generation of a page, with and without VAE Lab.
HOSTS_OWN_ERROR = "Cannot read properties of undefined (reading 'props')"


def generate(page: Page, errors: list[str]) -> None:
    page.click("#txt2img_generate")
    page.wait_for_selector("#txt2img_gallery img", timeout=60_000)
    page.wait_for_selector("#txt2img_interrupt", state="hidden", timeout=60_000)
    page.wait_for_timeout(1000)
    errors[:] = [error for error in errors if error != HOSTS_OWN_ERROR]


def compare_in_tab(page: Page) -> list[str]:
    """Go through the tab as a user does; returns the addresses of the images."""
    page.click("#tabs > .tab-nav button:has-text('VAE Lab')")
    page.click("#vae_lab_refresh")
    page.wait_for_function("document.querySelectorAll('#vae_lab_vaes input').length >= 2")
    page.click("#vae_lab_all")
    page.wait_for_function("document.querySelectorAll('#vae_lab_vaes input:checked').length >= 2")
    page.set_default_timeout(120_000)  # six VAEs at 512 px take longer than Playwright's 30 s
    expect.set_options(timeout=60_000)  # and their numbers longer than its 5 s
    Panel(page).compare()
    page.wait_for_function(
        "[...document.querySelectorAll('#vae_lab_results figure img')].every(i => i.complete && i.naturalWidth)"
    )
    return page.eval_on_selector_all("#vae_lab_results figure img", "images => images.map(i => i.src)")


def test_tab(page: Page, errors: list[str]) -> None:
    page.fill("#txt2img_prompt textarea", "a harbour")
    page.fill("#txt2img_steps input[type=number]", "3")
    page.fill("#txt2img_width input[type=number]", "256")
    page.fill("#txt2img_height input[type=number]", "256")
    generate(page, errors)
    assert len(compare_in_tab(page)) >= 3


def test_from_the_gallery_to_the_comparison(page: Page, errors: list[str]) -> None:
    """Of the image that is selected, not of the newest one."""
    page.click("#vae_lab_compare_txt2img")
    expect(page.locator(".vae-lab-gallery-note")).to_have_text("There is no image yet: generate one first.")
    page.fill("#txt2img_steps input[type=number]", "3")
    page.fill("#txt2img_width input[type=number]", "256")
    page.fill("#txt2img_height input[type=number]", "256")
    page.fill("#txt2img_seed input[type=number]", "4711")
    page.fill("#txt2img_batch_count input[type=number]", "2")
    page.fill("#txt2img_prompt textarea", "a lighthouse")
    generate(page, errors)
    images = page.locator("#txt2img_gallery .thumbnails button, #txt2img_gallery .grid-wrap button")
    images.nth(1).click()  # after the grid of both, the first one
    expect(page.locator("#html_info_txt2img").first).to_contain_text("Seed: 4711")
    page.click("#vae_lab_compare_txt2img")
    panel = Panel(page)
    expect(panel.latent).to_contain_text("Seed: 4711", timeout=60_000)
    expect(panel.figures.first.locator("img")).to_be_visible(timeout=120_000)


@pytest.fixture
def checked(server: Server, data_dir: Path) -> Server:
    """The server, which knows what is healthy."""
    if not (data_dir / "models" / "Stable-diffusion" / "unrelated.safetensors").exists():
        pytest.skip("the checkpoint's VAE has another architecture than the sample VAEs")
    names = ["one.safetensors", "grey.safetensors", "photo-b.safetensors"]
    server.wait_idle()
    server.post("/vae-lab/v1/inspect", {"names": names})
    return server


def test_checkpoint_merger_warns_and_bakes_in_a_healthy_vae(checked: Server, page: Page) -> None:
    page.click("#tabs > .tab-nav button:has-text('Checkpoint Merger')")
    said, panel = page.locator(".vae-lab-merger"), Panel(page)
    for letter in "AB":  # the names in the menus are outdated once the WebUI has hashed a checkpoint
        page.click(f"#refresh_checkpoint_{letter}")
    panel.choose("modelmerger_primary_model_name", "one.safetensors")
    panel.choose("modelmerger_secondary_model_name", "one.safetensors")
    expect(said).to_contain_text("The VAE of this merge would be healthy.", timeout=60_000)
    panel.choose("modelmerger_secondary_model_name", "unrelated.safetensors")
    expect(said).to_contain_text("The VAE of this merge would be broken: washed out.", timeout=60_000)
    said.get_by_role("button", name="Bake in photo-b.safetensors").click()
    expect(page.locator("#modelmerger_bake_in_vae input")).to_have_value("photo-b.safetensors")
    expect(said).to_be_empty()
    folder = checked.data / "models" / "Stable-diffusion"
    page.fill("#modelmerger_custom_name input, #modelmerger_custom_name textarea", "merged")
    page.click("#modelmerger_merge")
    expect(page.locator("#modelmerger_result").first).to_contain_text("merged.safetensors", timeout=120_000)
    answer = checked.post("/vae-lab/v1/inspect", {"names": ["merged.safetensors", "photo-b.safetensors"]})
    merged, donor = answer["reports"]
    assert merged["verdict"]["status"] == "healthy"
    assert merged["fingerprint"] == donor["fingerprint"]
    (folder / "merged.safetensors").unlink()


def test_baked_on_the_page_it_is_what_the_webui_decodes_with(checked: Server, page: Page) -> None:
    """The copy, with its built-in VAE, gives the pixels of the original with the donor chosen natively."""
    page.click("#tabs > .tab-nav button:has-text('VAE Lab')")
    page.click("#vae_lab_pages button:has-text('Checkup')")
    panel = Panel(page)
    panel.choose("vae_lab_checkup_file", "grey.safetensors")
    box = page.locator("#vae_lab_bake")
    box.get_by_text("Bake a VAE into a copy of this checkpoint").click()
    expect(box).to_contain_text("Recommended: ")
    panel.choose("vae_lab_bake_vae", "photo-b.safetensors")
    page.locator("#vae_lab_bake_file").locator("input, textarea").fill("baked")
    page.click("#vae_lab_bake_run")
    expect(page.locator("#vae_lab_checkup_message").first).to_contain_text(
        "baked.safetensors was written", timeout=60_000
    )
    folder = checked.data / "models" / "Stable-diffusion"
    if (folder / "grey.yaml").exists():
        shutil.copy(folder / "grey.yaml", folder / "baked.yaml")

    def generated(checkpoint: str, vae: str) -> np.ndarray:
        override = {"sd_model_checkpoint": checkpoint, "sd_vae": vae}
        answer = checked.txt2img(override_settings=override, override_settings_restore_afterwards=True)
        return image(answer["images"][0])

    native = generated("grey.safetensors", "photo-b.safetensors")
    assert np.array_equal(generated("baked.safetensors", "None"), native)
    assert not np.array_equal(generated("grey.safetensors", "None"), native)
    for file in folder.glob("baked.*"):
        file.unlink()


def test_settings_section_and_quick_setting(server: Server, page: Page) -> None:
    assert page.is_visible("#quicksettings #setting_vae_lab_external")
    page.click("#tabs > .tab-nav button:has-text('Settings')")
    page.click("#settings .tab-nav button:has-text('VAE Lab')")
    page.wait_for_selector("#setting_vae_lab_keep_mb", state="visible")
    assert server.get("/sdapi/v1/options")["vae_lab_external"] == "Automatic"


def test_infotext_pastes_back_into_the_accordion(server: Server, page: Page) -> None:
    made = server.txt2img(lab={"override": "first.safetensors"})
    page.fill("#txt2img_prompt textarea", json.loads(made["info"])["infotexts"][0])
    page.click("#paste")
    value = "document.querySelector('#vae_lab_txt2img_override input').value"
    page.wait_for_function(f"{value} === 'first.safetensors'", timeout=20_000)
    deciding = "document.querySelector('#vae_lab_txt2img_deciding').textContent"
    page.wait_for_function(f"{deciding}.includes('first.safetensors: chosen in the VAE Lab accordion')", timeout=20_000)
    assert not page.is_visible("#txt2img_override_settings"), "one VAE, chosen once: none for the host's own setting"


def test_a_request_that_cannot_be_carried_out(server: Server) -> None:
    for lab in ({"override": "gone.safetensors"}, {"overide": "first.safetensors"}):
        with pytest.raises(urllib.error.HTTPError) as refused:
            server.txt2img(lab=lab)
        assert refused.value.code == 422
        assert json.load(refused.value)["detail"].startswith(("no VAE named gone", "unknown argument overide"))


def test_pasting_a_vae_that_is_not_here_says_so(server: Server, page: Page) -> None:
    made = server.txt2img(lab={"override": "first.safetensors"})
    infotext = json.loads(made["info"])["infotexts"][0]
    page.fill("#txt2img_prompt textarea", re.sub(r"VAE Lab override.*", GONE, infotext))
    page.click("#paste")
    page.wait_for_selector("#vae_lab_txt2img_not_here [role=alert]", state="visible", timeout=20_000)
    assert "by gone.safetensors (0123456789), which is not among your VAEs" in page.inner_text(
        "#vae_lab_txt2img_not_here [role=alert]"
    )
    page.fill("#txt2img_prompt textarea", infotext)
    page.click("#paste")
    page.wait_for_selector("#vae_lab_txt2img_not_here [role=alert]", state="hidden", timeout=20_000)


def test_the_accordion_follows_changes_made_elsewhere(server: Server, page: Page) -> None:
    page.click("#vae_lab_txt2img > .label-wrap")
    line = page.locator("#vae_lab_txt2img_deciding .vae-lab-deciding").first
    nothing_chosen = "Built-in: no external VAE"
    expect(line).to_contain_text(nothing_chosen, timeout=20_000)
    for option, value, why in (
        ("vae_lab_external", "second.safetensors", "second.safetensors: Settings > VAE Lab"),
        ("sd_vae", "first.safetensors", "first.safetensors: Settings > VAE > SD VAE"),
    ):
        server.post("/sdapi/v1/options", {option: value})
        try:
            expect(line).to_contain_text(why, timeout=10_000)
        finally:
            server.post("/sdapi/v1/options", {option: "Automatic"})
        expect(line).to_contain_text(nothing_chosen, timeout=10_000)


def test_always_by_setting(server: Server) -> None:
    native = server.txt2img(override_settings={"sd_vae": "second.safetensors"})
    server.post("/sdapi/v1/options", {"vae_lab_external": "second.safetensors"})
    try:
        ours = server.txt2img()
    finally:
        server.post("/sdapi/v1/options", {"vae_lab_external": "Automatic"})
    assert np.array_equal(image(ours["images"][0]), image(native["images"][0]))


def reload_ui(server: Server, page: Page) -> None:
    """Press "Reload UI", and open the page again when the WebUI is up.

    The page would ask again and again, and then load: a request in the middle of the start can end the WebUI, and
    leaving a page that still loads leaves events that keep it from closing. So it is left in between.
    """
    started, closed = server.log.count("Startup time"), server.log.count("Closing server")
    page.click("#footer a:has-text('Reload UI')")
    for _ in range(120):
        if server.log.count("Closing server") > closed:
            break
        page.wait_for_timeout(500)
    assert server.log.count("Closing server") > closed, f"the WebUI did not close: {server.log[-3000:]}"
    page.goto("about:blank")
    server.wait(restarts=started)
    page.goto(server.url)
    page.wait_for_selector("#txt2img_prompt textarea", timeout=60_000)


def test_reload_ui_twice(server: Server, page: Page) -> None:
    plain = server.txt2img()
    native = server.txt2img(override_settings={"sd_vae": "first.safetensors"})
    for _ in range(2):
        reload_ui(server, page)
        assert server.txt2img()["images"] == plain["images"]
        ours = server.txt2img(lab={"override": "first.safetensors"})
        assert np.array_equal(image(ours["images"][0]), image(native["images"][0]))
        assert server.txt2img()["images"] == plain["images"]
    assert len(compare_in_tab(page)) >= 3
