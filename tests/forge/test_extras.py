"""The round trip in the Extras tab of Forge."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.forge.server import Forge
from tests.forge.test_page import page
from vae_lab.images import read_image
from vae_lab.samples import sample_photos

__all__ = ["page"]

pytestmark = [pytest.mark.host, pytest.mark.browser]
FIRST = "first.safetensors"


def test_the_image_is_that_of_a_round_trip(forge: Forge, page: Page, tmp_path: Path) -> None:
    source = tmp_path / "photo.png"
    photo = read_image(next(iter(sample_photos().values()))).image.crop((0, 0, 64, 48))
    photo.save(source)
    asked = {"image": base64.b64encode(source.read_bytes()).decode(), "vaes": [FIRST]}
    result = forge.post("/vae-lab/v1/roundtrip", asked)["results"][1]
    expected = forge.image(result["images"]["image"])
    page.click("#tabs > .tab-nav button:has-text('Extras')")
    page.set_input_files("#extras_image input[type=file]", source)
    page.wait_for_selector("#extras_image img")
    assert not page.is_visible("#vae_lab_extras_encode")
    page.click("#vae_lab_extras > .label-wrap")
    page.click("#vae_lab_extras_encode input")
    page.click(f"#vae_lab_extras_encode li:has-text('{FIRST}')")
    page.click("#extras_generate")
    expect(page.locator("#html_info_x_extras").first).to_contain_text(
        f"VAE round trip decode: {FIRST}", timeout=120_000
    )
    (file,) = forge.data.rglob("extras-images/*.png")
    with Image.open(file) as written:
        assert np.array_equal(np.asarray(written.convert("RGB")), expected)
