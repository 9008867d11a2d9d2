"""A user's story: a grey picture, the tab, the remedy. Its screenshot is the README's.

Needs a checkpoint whose VAE has the sample VAEs' architecture, since only those can be shown to repair something.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from playwright.sync_api import Page

from tests.host.conftest import built_in, install_extension
from tests.host.test_server import Server, compare_in_tab, errors, page  # noqa: F401  fixtures
from tests.host.webui import CPU_FLAGS
from vae_lab.samples import build_sample_set, sample_photos

pytestmark = [pytest.mark.host, pytest.mark.browser]


@pytest.fixture(scope="module")
def server(webui_dir: Path, small_checkpoint: Path, tmp_path_factory, request) -> Iterator[Server]:
    """A WebUI with one checkpoint, whose built-in VAE is a grey merge, and the sample VAEs in models/VAE."""
    data = tmp_path_factory.mktemp("story")
    samples = build_sample_set(tmp_path_factory.mktemp("samples"))
    state = safetensors.torch.load_file(small_checkpoint)
    merged = built_in(samples.grey_merge)
    own = built_in(small_checkpoint)
    if {key: value.shape for key, value in own.items()} != {key: value.shape for key, value in merged.items()}:
        pytest.skip(f"the VAE of {small_checkpoint.name} has another architecture than the sample VAEs")
    state |= {f"first_stage_model.{name}": tensor.float() for name, tensor in merged.items()}
    folder = data / "models" / "Stable-diffusion"
    folder.mkdir(parents=True)
    safetensors.torch.save_file(state, folder / "one.safetensors")
    if small_checkpoint.with_suffix(".yaml").exists():
        shutil.copy(small_checkpoint.with_suffix(".yaml"), folder / "one.yaml")
    shutil.copytree(samples.folder / "VAE", data / "models" / "VAE")
    install_extension(data)
    flags = request.config.getoption("--webui-flags").split()
    running = Server(webui_dir, data, flags if torch.cuda.is_available() else [*CPU_FLAGS, *flags])
    yield running
    running.close()
    assert "Traceback" not in running.log, running.log[-5000:]


def contrast(picture: np.ndarray) -> float:
    return float(picture.astype(np.float32).mean(axis=2).std())


def test_from_grey_to_good(server: Server, page: Page) -> None:  # noqa: F811
    photo = Image.open(sample_photos()["mountains"]).convert("RGB")
    file = io.BytesIO()
    photo.save(file, "PNG")
    body = {
        "init_images": [base64.b64encode(file.getvalue()).decode()],
        "prompt": "mountains",
        "steps": 4,
        "denoising_strength": 0.05,
        "width": 512,
        "height": 512,
        "seed": 1,
        "sampler_name": "Euler",
        # Encoded by a healthy VAE, as a latent that was sampled is; the checkpoint's own one damages both ways.
        "alwayson_scripts": {"VAE Lab": {"args": [{"override": "photo-a-smooth.safetensors"}]}},
    }
    good = np.asarray(Image.open(io.BytesIO(base64.b64decode(server.post("/sdapi/v1/img2img", body)["images"][0]))))
    pictures = compare_in_tab(page)
    shown = [np.asarray(Image.open(io.BytesIO(page.request.get(address).body()))) for address in pictures]
    assert contrast(shown[0]) < 0.6 * contrast(good), "the built-in VAE's picture is washed out"
    assert any(np.array_equal(picture, good) for picture in shown[1:])
    assert "SDXL" in page.inner_text("#vae_lab_results"), "the VAE of another family is refused with the reason"
    shots = os.environ.get("VAE_LAB_SCREENSHOTS")
    if shots:
        page.set_viewport_size({"width": 1600, "height": 900})
        page.wait_for_timeout(500)
        page.screenshot(path=str(Path(shots) / "webui-tab.png"))
    preference = server.data / "models" / "Stable-diffusion" / "one.json"
    page.click("#vae_lab_decoder input")
    page.click("#vae_lab_decoder li:has-text('photo-a-smooth')")
    page.click("#vae_lab_use_for_checkpoint")
    page.wait_for_selector("#vae_lab_message:has-text('Saved for one.safetensors')")
    assert json.loads(preference.read_text(encoding="utf8"))["vae"] == "photo-a-smooth.safetensors"
    del body["alwayson_scripts"]
    after = np.asarray(Image.open(io.BytesIO(base64.b64decode(server.post("/sdapi/v1/img2img", body)["images"][0]))))
    assert contrast(after) > 0.9 * contrast(good)
