"""The round trip in the Extras tab of a real WebUI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.host.test_server import Server, errors, page, server
from tests.host.webui import WebUI
from vae_lab.images import prepared
from vae_lab.samples import sample_photos

__all__ = ["errors", "page", "server"]

pytestmark = pytest.mark.host
FIRST, SECOND = "first.safetensors", "second.safetensors"
SINGLE, FOLDER = 0, 2  # of the host's tabs


def photo(size: tuple[int, int] = (64, 48), start: int = 0) -> Image.Image:
    """A piece of a sample photo, with generation parameters."""
    whole = Image.open(next(iter(sample_photos().values()))).convert("RGB")
    return whole.crop((start, start, start + size[0], start + size[1]))


def expected(image: Image.Image, vae: str) -> np.ndarray:
    """What the project's own round trip makes of it."""
    from vae_lab.extension import the_host

    result = the_host().round_trip(prepared(image).image, [vae])[vae]
    assert result.error == ""
    return result.image


def extras(webui: WebUI, mode: int, source: Any, output: Path, **values: Any) -> tuple[list[Any], str]:
    """Run the host's own function for the tab; returns its images and its line about them."""
    import gradio as gr
    from modules.call_queue import queue_lock
    from modules.postprocessing import run_postprocessing

    runner = webui.scripts.scripts_postproc
    with gr.Blocks():
        inputs = [component.value for component in runner.setup_ui()]
    script = next(script for script in runner.scripts if script.name == "VAE round trip")
    assert inputs[script.args_from : script.args_to] == [False, "Automatic", "Automatic"]
    inputs[script.args_from : script.args_to] = [values.get(name, "Automatic") for name in script.controls]
    image, folder = (None, str(source)) if mode == FOLDER else (source, "")
    with queue_lock:
        images, line, _ = run_postprocessing(mode, image, None, folder, str(output), True, *inputs)
    return images, line


@pytest.fixture
def saved(tmp_path: Path, webui: WebUI, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "saved"
    monkeypatch.setitem(webui.shared.opts.data, "outdir_samples", str(folder))
    return folder


def test_one_image(webui: WebUI, saved: Path) -> None:
    image = photo()
    (found,), line = extras(webui, SINGLE, image, saved, enabled=True, encode=FIRST)
    assert np.array_equal(np.asarray(found), expected(image, FIRST))
    assert not np.array_equal(np.asarray(found), expected(image, SECOND))
    assert f"VAE round trip encode: {FIRST} (" in line
    (file,) = saved.rglob("*.png")
    with Image.open(file) as written:
        assert np.array_equal(np.asarray(written), np.asarray(found))
        assert f"VAE round trip decode: {FIRST} (" in written.info["postprocessing"]


def test_the_vae_in_use(webui: WebUI, saved: Path) -> None:
    image = photo()
    webui.choose_natively(SECOND)
    (found,), line = extras(webui, SINGLE, image, saved, enabled=True)
    assert np.array_equal(np.asarray(found), expected(image, SECOND))
    assert SECOND in line


def test_a_folder(webui: WebUI, saved: Path, tmp_path: Path) -> None:
    """Of any sizes, one of them transparent, and one that is no image."""
    folder = tmp_path / "images"
    folder.mkdir()
    images = {"a": photo(), "b": photo((40, 56), 20), "odd": photo((37, 29))}
    for name, image in images.items():
        image.save(folder / f"{name}.png")
    clear = photo((32, 32)).convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize((32, 32)))
    clear.save(folder / "clear.png")
    (folder / "broken.png").write_bytes(b"no image")
    found, _ = extras(webui, FOLDER, folder, saved, enabled=True, encode=FIRST)
    a, b, transparent, odd = found  # in the order of their names
    for image, name in ((a, "a"), (b, "b")):
        assert np.array_equal(np.asarray(image), expected(images[name], FIRST))
    assert (odd.size, transparent.mode) == ((37, 29), "RGBA")
    assert np.array_equal(np.asarray(transparent)[..., 3], np.asarray(clear)[..., 3])
    assert np.array_equal(np.asarray(transparent)[..., :3], expected(clear.convert("RGB"), FIRST))
    assert len(list(saved.rglob("*.png"))) == 4


@pytest.mark.parametrize("values", [{"enabled": False}, {"enabled": True, "encode": "gone.safetensors"}])
def test_off_or_impossible_the_image_is_as_it_was(webui: WebUI, saved: Path, values: dict[str, Any]) -> None:
    image = photo()
    (found,), line = extras(webui, SINGLE, image, saved, **values)
    assert np.array_equal(np.asarray(found), np.asarray(image))
    assert ("no VAE and no checkpoint named gone.safetensors" in line) == values["enabled"]


def test_interrupted_the_image_is_as_it_was(webui: WebUI, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the button, while the image is encoded."""
    from vae_lab.autoencoders import Autoencoder

    encode = Autoencoder.encode

    def encode_and_press(vae: Autoencoder, images: Any) -> Any:
        webui.shared.state.interrupt()
        return encode(vae, images)

    monkeypatch.setattr(Autoencoder, "encode", encode_and_press)
    image = photo()
    try:
        (found,), line = extras(webui, SINGLE, image, saved, enabled=True, encode=FIRST)
    finally:
        webui.shared.state.interrupted = False
    assert np.array_equal(np.asarray(found), np.asarray(image))
    assert "VAE round trip not done" in line


def test_over_the_api_extras_are_as_without_vae_lab(webui: WebUI) -> None:
    from modules.api.api import encode_pil_to_base64
    from modules.api.models import ExtrasSingleImageRequest

    body = {"image": encode_pil_to_base64(photo()).decode(), "upscaling_resize": 1, "upscaler_1": "None"}
    answer = webui.api.extras_single_image_api(ExtrasSingleImageRequest(**body))
    assert "VAE round trip" not in answer.html_info


@pytest.mark.browser
def test_the_page(server: Server, page: Page, errors: list[str], tmp_path: Path) -> None:
    """As a user goes about it, with the accordion, which opens to switch the round trip on."""
    source = tmp_path / "photo.png"
    photo().save(source)
    page.click("#tabs > .tab-nav button:has-text('Extras')")
    page.set_input_files("#extras_image input[type=file]", source)
    page.wait_for_selector("#extras_image img")
    assert not page.is_visible("#vae_lab_extras_encode")
    page.click("#vae_lab_extras > .label-wrap")
    page.click("#vae_lab_extras_encode input")
    page.click(f"#vae_lab_extras_encode li:has-text('{FIRST}')")
    page.click("#extras_generate")
    line = page.locator("#html_info_x_extras").first  # gradio gives this id twice
    expect(line).to_contain_text(f"VAE round trip decode: {FIRST}", timeout=120_000)
    page.wait_for_selector("#extras_gallery img")
    (file,) = (server.data / "outputs").rglob("*.png")
    with Image.open(file) as written:
        assert np.array_equal(np.asarray(written.convert("RGB")), expected(photo(), FIRST))
    page.click("#vae_lab_extras > .label-wrap")
    expect(page.locator("#vae_lab_extras_encode")).not_to_be_visible()
    page.click("#extras_generate")
    expect(line).not_to_contain_text("VAE round trip", timeout=60_000)
