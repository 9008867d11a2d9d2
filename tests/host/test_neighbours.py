"""Next to extensions that generate on their own, and next to the WebUI's own ways to choose a VAE."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.host.webui import WebUI, pixels

pytestmark = pytest.mark.host
FIRST = {"override": "first.safetensors", "on_grey": "off"}


@pytest.fixture
def host(webui: WebUI) -> Any:
    from vae_lab.extension import the_host

    the_host().generations.clear()
    return the_host()


def stored(host: Any) -> list[tuple[int, str]]:
    """Width in pixels and part of each stored generation, newest first."""
    return [(8 * one.latents.shape[-1], one.part) for one in host.generations.newest_first()]


def test_a_detailed_image_keeps_its_own_latent(webui: WebUI, host: Any) -> None:
    webui.generate(prompt="detailed", n_iter=2, lab=FIRST)
    assert stored(host) == [(128, ""), (128, ""), (64, "inside another image"), (64, "inside another image")]


def test_also_if_the_detailer_bypasses_us(webui: WebUI, host: Any) -> None:
    """ADetailer with ControlNet."""
    done = webui.generate(prompt="detailed past", n_iter=2, lab=FIRST)
    assert stored(host) == [(128, ""), (128, "")]
    assert all("VAE Lab override: first.safetensors" in text for text in done.infotexts)
    assert "VAE Lab" not in done.comments


@pytest.mark.parametrize("prompt", ["detailed with second.safetensors", "detailed past with second.safetensors"])
def test_a_detailer_gets_the_vae_that_it_names(webui: WebUI, host: Any, prompt: str) -> None:
    webui.choose_natively("first.safetensors")
    expected = pixels(webui.generate(prompt=prompt, n_iter=2, lab={"on_grey": "off"}))
    webui.choose_natively("Automatic")
    done = webui.generate(prompt=prompt, n_iter=2, lab=FIRST)
    assert all(np.array_equal(*pair) for pair in zip(pixels(done), expected, strict=True))
    assert all("VAE Lab override: first.safetensors" in text for text in done.infotexts)
    assert "has no effect" not in done.comments


def test_a_detailer_that_names_none_inherits_the_choice(
    webui: WebUI, host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = pixels(webui.generate(prompt="detailed", lab=FIRST))
    monkeypatch.setitem(webui.shared.opts.data, "vae_lab_external", "second.safetensors")
    assert np.array_equal(pixels(webui.generate(prompt="detailed", lab=FIRST))[0], expected[0])


@pytest.mark.parametrize(("named", "said"), [("second.safetensors", True), ("first.safetensors", False)])
def test_a_vae_in_the_settings_of_a_generation_is_not_overruled_in_silence(
    webui: WebUI, host: Any, named: str, said: bool
) -> None:
    expected = pixels(webui.generate(lab=FIRST))[0]
    done = webui.generate(lab=FIRST, override_settings={"sd_vae": named})
    assert np.array_equal(pixels(done)[0], expected)
    assert (f"{named}, named as SD VAE for this generation, has no effect" in done.comments) == said


def test_the_plots_own_axis_is_not_overruled_in_silence(
    webui: WebUI, host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(webui.shared.opts.data, "vae_lab_external", "first.safetensors")
    axis = {"X type": "VAE", "X values": ["second.safetensors", "None"]}
    done = webui.run_script("X/Y/Z plot", axis)
    assert "second.safetensors, named as SD VAE for this generation, has no effect" in done.comments
    assert "Settings > VAE Lab > External VAE" in done.comments


def test_tiles_of_an_upscaler_are_grouped(webui: WebUI, host: Any) -> None:
    start = Image.fromarray(np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8))
    done = webui.run_script(
        "SD upscale",
        {"Scale Factor": 2, "Tile overlap": 16, "Upscaler": "Lanczos"},
        img2img=True,
        init_images=[start],
        denoising_strength=0.3,
        do_not_save_samples=False,
        outpath_samples=str(webui.outputs),
    )
    assert done.images[0].size == (256, 256)
    tiles = host.generations.newest_first()
    assert len(tiles) > 3
    assert {one.part for one in tiles} == {"tile of SD upscale"}
    assert len({one.group for one in tiles}) == 1
