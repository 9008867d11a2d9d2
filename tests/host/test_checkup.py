"""The checkup in a real WebUI: flagged on load, reported under the image, decoded again; no false alarms."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.host.cases import fresh
from tests.host.webui import WebUI, pixels
from vae_lab import bake
from vae_lab.autoencoders.taesd.module import build_decoder
from vae_lab.samples import sample_photos

pytestmark = pytest.mark.host
HEALTHY = "photo-b.safetensors"
LOOK = 120  # seconds that a look at a VAE may take on a busy machine


@pytest.fixture
def host(webui: WebUI) -> Iterator[Any]:
    """The adapter; the preferred VAE is the healthy one."""
    from vae_lab.extension import the_host
    from vae_lab.webui.preferences import PREFERRED_OPTION

    webui.shared.opts.data[PREFERRED_OPTION] = [HEALTHY]
    yield the_host()
    webui.shared.opts.data[PREFERRED_OPTION] = []


@pytest.fixture
def grey(webui: WebUI, host: Any, grey_checkpoint: str) -> WebUI:
    """The WebUI with the grey checkpoint loaded and checked."""
    from vae_lab.extension import the_background_checkup

    webui.sd_models.list_models()
    webui.select_checkpoint(grey_checkpoint)
    assert the_background_checkup().wait(LOOK)
    return webui


def test_a_grey_checkpoint_is_flagged_when_it_is_loaded(
    webui: WebUI, host: Any, grey_checkpoint: str, caplog: pytest.LogCaptureFixture
) -> None:
    from vae_lab.extension import the_background_checkup

    webui.sd_models.list_models()
    checkup = the_background_checkup()
    checkup._warned.clear()
    with caplog.at_level(logging.WARNING, "vae_lab"):
        for _ in range(2):
            webui.select_checkpoint(grey_checkpoint)
            assert checkup.wait(LOOK)
            webui.select_checkpoint("one.safetensors")
            assert checkup.wait(LOOK)
    warnings = [record.getMessage() for record in caplog.records if "VAE in grey" in record.getMessage()]
    assert len(warnings) == 1, "once, not at every load"
    assert "broken" in warnings[0]
    assert f"Recommended: {HEALTHY}" in warnings[0]
    report = host.known_reports([grey_checkpoint])[grey_checkpoint]
    assert (report.verdict.status, report.verdict.findings[0].code) == ("broken", "grey")
    assert {parent.name for parent in report.merge.parents} >= {HEALTHY}
    assert host.known_reports(["one.safetensors"])["one.safetensors"].verdict.status == "healthy"


def test_the_vae_in_memory_is_checked_too(grey: WebUI, host: Any) -> None:
    loaded = host.memory_checkup()
    assert (loaded.name, loaded.precision) == ("Built-in", str(grey.devices.dtype_vae).removeprefix("torch."))
    assert loaded.checkup.verdict.status == "broken"
    grey.choose_natively(HEALTHY)
    from vae_lab.extension import the_background_checkup

    assert the_background_checkup().wait(LOOK)
    assert host.memory_checkup().name == HEALTHY
    assert host.memory_checkup().checkup.verdict.status == "healthy"


def test_what_is_in_memory_is_of_the_checkpoint_in_use(grey: WebUI, host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the WebUI keeps several in memory, it switches between them without loading or reporting it."""
    from vae_lab.extension import the_background_checkup

    monkeypatch.setitem(grey.shared.opts.data, "sd_checkpoints_limit", 2)
    assert host.memory_checkup().checkup.verdict.status == "broken"
    grey.select_checkpoint("one.safetensors")
    assert the_background_checkup().wait(LOOK)
    assert host.memory_checkup().checkup.verdict.status == "healthy"
    grey.select_checkpoint("grey.safetensors")
    assert host.memory_checkup() is None
    grey.generate()
    assert the_background_checkup().wait(LOOK)
    assert host.memory_checkup().checkup.verdict.status == "broken"


def test_what_the_model_sampled_wrong_is_not_the_vaes_fault(grey: WebUI, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = grey.processing.StableDiffusionProcessingTxt2Img

    def half_nan(self: Any, *args: Any, original: Any = kind.sample, **kwargs: Any) -> Any:
        latents = original(self, *args, **kwargs)
        latents[1] = float("nan")
        return latents

    monkeypatch.setattr(kind, "sample", half_nan)
    monkeypatch.setattr(grey.devices, "test_for_nans", lambda *_: None)
    done = grey.generate(batch_size=2, lab={"on_grey": "warn"})
    assert "not numbers" not in done.comments
    assert "washed out, because Built-in of grey.safetensors is broken" in done.comments


def test_the_line_under_the_image(grey: WebUI) -> None:
    done = grey.generate(batch_size=2)
    (line,) = [line for line in done.comments.splitlines() if "VAE Lab" in line]
    assert "washed out, because Built-in of grey.safetensors is broken" in line
    assert f"Choose {HEALTHY} for this checkpoint" in line
    assert "VAE Lab" not in done.info, "nothing was changed, so the infotext says nothing"


@pytest.mark.parametrize(
    "case", ["txt2img", "img2img", "inpaint", "hires-latent", "hires-pixel", "batch-2x2", "tiling"]
)
def test_decoded_again_with_the_healthy_vae(grey: WebUI, host: Any, case: str) -> None:
    plain = grey.generate(lab={"on_grey": "off"}, **fresh(case))
    assert "VAE Lab" not in plain.comments
    weights = grey.vae_bytes()
    done = grey.generate(lab={"on_grey": "redecode"}, **fresh(case))
    assert grey.vae_bytes() == weights
    assert f"decoded again with {HEALTHY}" in done.comments
    assert f"VAE Lab override: {HEALTHY}, VAE Lab override hash: " in done.info
    assert "VAE Lab redecoded: Built-in of grey.safetensors was washed out" in done.info
    first = done.index_of_first_image
    generations = list(reversed(host.generations.newest_first()[: 2 if case == "batch-2x2" else 1]))
    expected = [image for generation in generations for image in host.compare(generation.id, [HEALTHY])[HEALTHY].images]
    if case != "inpaint":  # where the original is laid over it again
        for made, wanted in zip(pixels(done)[first:], expected, strict=True):
            assert np.array_equal(made, wanted), "the same latent, decoded by the healthy VAE"
    for made, without in zip(pixels(done), pixels(plain), strict=True):
        assert not np.array_equal(made, without)
    if case in ("txt2img", "batch-2x2", "tiling"):
        grey.choose_natively(HEALTHY)
        for made, native in zip(pixels(done), pixels(grey.generate(**fresh(case))), strict=True):
            assert np.array_equal(made, native)


def test_a_broken_encoder_is_reported_where_it_matters(webui: WebUI, host: Any, grey_checkpoint: str) -> None:
    from vae_lab.extension import the_background_checkup

    webui.sd_models.list_models()
    webui.select_checkpoint("half.safetensors")
    assert the_background_checkup().wait(LOOK)
    verdict = host.known_reports(["half.safetensors"])["half.safetensors"].verdict
    assert [finding.code for finding in verdict.faults] == ["encoder-broken"]
    assert "VAE Lab" not in webui.generate(**fresh("txt2img")).comments
    assert "VAE Lab" not in webui.generate(**fresh("hires-latent")).comments
    for case in ("img2img", "hires-pixel"):
        assert "the encoder of Built-in of half.safetensors is broken" in webui.generate(**fresh(case)).comments


def test_by_the_settings(grey: WebUI) -> None:
    from vae_lab.webui.preferences import ON_GREY_OPTION

    for mode, comment in (("off", ""), ("warn", "is broken. Choose"), ("redecode", "decoded again")):
        grey.shared.opts.data[ON_GREY_OPTION] = mode
        try:
            assert comment in grey.generate().comments
            assert ("VAE Lab" in grey.generate().comments) == bool(comment)
        finally:
            grey.shared.opts.data[ON_GREY_OPTION] = "warn"


def fog() -> Image.Image:
    photo = np.asarray(Image.open(sample_photos()["pagoda-in-fog"]).convert("RGB").resize((256, 256)), dtype=np.float32)
    return Image.fromarray((photo * 0.35 + 140).astype(np.uint8))


@pytest.mark.parametrize("mode", ["warn", "redecode"])
def test_fog_by_a_healthy_vae_is_not_flagged(webui: WebUI, host: Any, mode: str) -> None:
    options = {"img2img": True, "denoising_strength": 0.05, "width": 256, "height": 256, "steps": 4}
    plain = webui.generate(lab={"on_grey": "off"}, init_images=[fog()], **options)
    done = webui.generate(lab={"on_grey": mode}, init_images=[fog()], **options)
    assert "VAE Lab" not in done.comments
    assert done.info == plain.info
    assert np.array_equal(pixels(done)[0], pixels(plain)[0])


def test_nan_in_memory_is_reported_and_decoded_again(webui: WebUI, host: Any, grey_checkpoint: str) -> None:
    """Weights that are healthy in the file but not in memory: the host shows black, or gives up."""
    weight = webui.model.first_stage_model.decoder.norm_out.weight
    original, dtype = weight.detach().clone(), webui.devices.dtype_vae
    host.inspect(HEALTHY)
    try:
        with torch.no_grad():
            weight[0] = float("nan")
        done = webui.generate(lab={"on_grey": "redecode"})
        assert f"decoded again with {HEALTHY}" in done.comments
        assert pixels(done)[0].std() > 10
    finally:
        with torch.no_grad():
            weight.copy_(original)
        webui.devices.dtype_vae = dtype


def test_a_smaller_stand_in_is_not_blamed(grey: WebUI, host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an interrupt with fast previews: the WebUI shows a small estimate instead of decoding."""
    from modules import processing

    original = processing.decode_latent_batch

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        grey.shared.state.interrupted = True
        return original(*args, **kwargs)

    for option, value in (("live_preview_fast_interrupt", True), ("show_progress_type", "Approx cheap")):
        monkeypatch.setitem(grey.shared.opts.data, option, value)
    monkeypatch.setattr(processing, "decode_latent_batch", interrupted)
    done = grey.generate(lab={"on_grey": "redecode"})
    assert "VAE Lab" not in done.comments


@pytest.fixture
def taesd(webui: WebUI, data_dir: Path) -> Iterator[None]:
    """TAESD decodes instead of the VAE, with random weights, so its images are as bad as possible."""
    from modules import sd_vae_taesd

    file = data_dir / "models" / "VAE-taesd" / "taesd_decoder.pth"
    file.parent.mkdir(exist_ok=True)
    torch.save(build_decoder(4).state_dict(), file, _use_new_zipfile_serialization=False)
    webui.shared.opts.data["sd_vae_decode_method"] = "TAESD"
    yield
    webui.shared.opts.data["sd_vae_decode_method"] = "Full"
    sd_vae_taesd.sd_vae_taesd_models.clear()
    file.unlink()


def test_taesd_is_not_blamed(grey: WebUI, taesd: None) -> None:
    done = grey.generate(lab={"on_grey": "redecode"})
    assert "VAE Lab" not in done.comments
    assert "VAE Decoder: TAESD" in done.info


def test_checkpoint_without_a_vae_says_what_is_used(webui: WebUI, host: Any) -> None:
    from vae_lab.extension import the_background_checkup

    host.inspect("one.safetensors")
    webui.select_checkpoint("without.safetensors")
    assert the_background_checkup().wait(LOOK)
    assert host.known_reports(["without.safetensors"])["without.safetensors"].verdict.status == "missing"
    assert host.used_instead()
    webui.choose_natively("first.safetensors")
    assert host.used_instead().startswith("first.safetensors: ")


def test_a_checkpoint_with_a_healthy_vae_baked_in(grey: WebUI, data_dir: Path) -> None:
    models = data_dir / "models" / "Stable-diffusion"
    made = [models / "baked.safetensors", models / "baked.yaml"]
    grey.choose_natively(HEALTHY)
    chosen = pixels(grey.generate())[0]
    grey.choose_natively("Automatic")
    try:
        bake(models / "grey.safetensors", data_dir / "models" / "VAE" / HEALTHY, made[0])
        if (models / "grey.yaml").exists():
            shutil.copy(models / "grey.yaml", made[1])
        grey.sd_models.list_models()
        grey.select_checkpoint("baked.safetensors")
        assert np.array_equal(pixels(grey.generate())[0], chosen)
    finally:
        grey.select_checkpoint("one.safetensors")
        for path in made:
            path.unlink(missing_ok=True)
        grey.sd_models.list_models()
