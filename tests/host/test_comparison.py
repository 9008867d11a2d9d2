"""Comparing in a real WebUI: the latent of a finished generation, decoded again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.host.cases import CASES, fresh
from tests.host.webui import WebUI, pixels

pytestmark = pytest.mark.host
VAES = ["first.safetensors", "second.safetensors"]


def host() -> object:
    from vae_lab.extension import the_host

    return the_host()


@pytest.mark.parametrize("case", ["txt2img", "batch-2x2", "tiling", "hires-latent", "hires-pixel", "img2img"])
def test_each_image_equals_a_generation_with_that_vae(webui: WebUI, case: str) -> None:
    made = webui.generate(**fresh(case))
    latest = host().generations.newest_first()[: CASES[case].get("n_iter", 1)][::-1]
    comparisons = [host().compare(generation.id, VAES) for generation in latest]
    assert [r.name for r in comparisons[0]] == ["Built-in", *VAES]
    skip = made.index_of_first_image
    for name in ["Built-in", *VAES]:
        compared = [image for comparison in comparisons for image in comparison[name].images]
        if name != "Built-in" and case in ("hires-pixel", "img2img"):
            continue  # the built-in VAE has encoded: another one would have made other latents
        webui.choose_natively("None" if name == "Built-in" else name)
        native = pixels(webui.generate(**fresh(case)))[skip:]
        assert len(compared) == len(native)
        assert all(np.array_equal(mine, theirs) for mine, theirs in zip(compared, native, strict=True))
    assert not np.array_equal(comparisons[0][VAES[0]].images, comparisons[0][VAES[1]].images)


def test_comparing_does_not_change_the_vae_and_samples_nothing(webui: WebUI, monkeypatch: pytest.MonkeyPatch) -> None:
    webui.generate()
    before = webui.vae_bytes()
    monkeypatch.setattr(webui.model, "apply_model", None)
    host().compare(host().generations.newest_first()[0].id, VAES)
    assert webui.vae_bytes() == before


@pytest.mark.parametrize("case", ["txt2img", "tiling"])
def test_with_too_little_memory_the_image_is_the_same(webui: WebUI, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    webui.generate(**fresh(case))
    latent = host().generations.newest_first()[0].id
    plain = host().compare(latent, VAES)
    before = webui.vae_bytes()

    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(type(webui.model), "decode_first_stage", full)
    short = host().compare(latent, VAES)
    assert webui.vae_bytes() == before
    for whole, strips in zip(plain, short, strict=True):
        assert (whole.in_strips, strips.in_strips, strips.error) == (False, True, "")
        assert np.abs(whole.images.astype(int) - strips.images).max() <= 2


def test_where_the_webui_changes_the_precision_so_does_a_comparison(webui: WebUI, monkeypatch) -> None:
    """Half precision overflows in some VAEs; the WebUI decodes again in another one, and so is no image black."""
    if webui.devices.dtype_vae != torch.float32:
        pytest.skip("it is float32 that is made to fail here")
    webui.generate()
    latent = host().generations.newest_first()[0].id
    plain, weights = host().compare(latent, VAES), webui.vae_bytes()
    last = webui.model.first_stage_model.decoder.conv_out

    def overflow(layer: torch.nn.Module, _: object, made: torch.Tensor) -> torch.Tensor:
        return made * float("nan") if layer.weight.dtype == torch.float32 else made

    def full(*_: object) -> None:
        raise MemoryError

    hook = last.register_forward_hook(overflow)
    try:
        assert not any(result.finite for result in host().compare(latent, VAES)), "float32 is all that there is"
        monkeypatch.setitem(webui.shared.opts.data, "auto_vae_precision_bfloat16", True)
        again = host().compare(latent, VAES)
        monkeypatch.setattr(type(webui.model), "decode_first_stage", full)
        in_strips = host().compare(latent, VAES)
    finally:
        hook.remove()
    assert webui.vae_bytes() == weights
    assert webui.devices.dtype_vae == torch.float32
    for result, expected in zip((*again, *in_strips), (*plain, *plain), strict=True):
        assert result.finite
        assert np.abs(result.images.astype(int) - expected.images).mean() < 8
    assert all(result.in_strips for result in in_strips)


def test_previews_have_their_own_infotexts_next_to_masks(webui: WebUI, monkeypatch) -> None:
    """The WebUI adds masks to the images, without an infotext each."""
    monkeypatch.setitem(webui.shared.opts.data, "return_mask", True)
    monkeypatch.setitem(webui.shared.opts.data, "return_mask_composite", True)
    done = webui.generate(lab={"compare": VAES}, **fresh("inpaint"))
    assert len(done.images) == len(done.infotexts) == 6
    for text, name in zip(done.infotexts[3:], ("Built-in", *VAES), strict=True):
        assert f"VAE Lab override: {name}" in text


def test_previews_are_stored_when_the_image_is(webui: WebUI) -> None:
    plain = webui.generate()
    done = webui.generate(lab={"override": "Automatic", "compare": VAES})
    assert len(done.images) == len(done.infotexts) == 4
    assert np.array_equal(pixels(done)[0], pixels(plain)[0])
    assert done.infotexts[0] == plain.infotexts[0]
    assert "VAE Lab override: second.safetensors" in done.infotexts[3]
    webui.choose_natively("second.safetensors")
    assert np.array_equal(pixels(webui.generate())[0], pixels(done)[3])


def test_a_script_gets_the_images_that_it_expects(webui: WebUI) -> None:
    """Scripts such as SD upscale put all images of a generation together; previews must not be included."""
    plain = webui.run_script("Loopback", {"Loops": 2}, **fresh("img2img"))
    done = webui.run_script("Loopback", {"Loops": 2}, lab={"compare": VAES}, **fresh("img2img"))
    assert len(done.images) == len(plain.images)


def test_equals_our_own_decoder_to_rounding(webui: WebUI, data_dir) -> None:
    """The stand-alone host's arithmetic is the ldm AutoencoderKL's."""
    from vae_lab import load_autoencoder

    webui.generate()
    generation = host().generations.newest_first()[0]
    path = data_dir / "models" / "VAE" / "first.safetensors"
    ours = load_autoencoder(path, family="sd1")
    webui.choose_natively("first.safetensors")
    device = webui.devices.device
    with torch.no_grad():
        theirs = webui.model.decode_first_stage(generation.latents.to(device)).cpu()
        assert torch.allclose(ours.decode_unclamped(generation.latents) * 2 - 1, theirs, atol=2e-5)
        image = torch.rand(1, 3, 128, 128)
        posterior = webui.model.encode_first_stage((image * 2 - 1).to(device))
        assert torch.allclose(ours.encode(image), posterior.mean.cpu() * 0.18215, atol=2e-5)
