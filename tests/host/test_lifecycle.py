"""The host's VAE comes back bit for bit, whatever went wrong or changed in between (see ``nothing_left_behind``)."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch

from tests.host.webui import WebUI, pixels

pytestmark = pytest.mark.host
FIRST = {"override": "first.safetensors"}


def test_exception_while_decoding(webui: WebUI, monkeypatch: pytest.MonkeyPatch) -> None:
    before = webui.vae_bytes()

    def fail(_: object) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(webui.model, "decode_first_stage", fail)
    with pytest.raises(RuntimeError, match="out of order"):
        webui.generate(lab=FIRST)
    assert webui.vae_bytes() == before
    monkeypatch.undo()
    from vae_lab.extension import the_host

    assert the_host().generations.newest_first()[0].infotexts == (), "the latents of the failed image are stored"


def test_exception_inside_xyz_plot(webui: WebUI, monkeypatch: pytest.MonkeyPatch) -> None:
    """XYZ plot never closes the copies of p that it makes, so closing p cannot be what restores."""
    before = webui.vae_bytes()
    monkeypatch.setitem(webui.shared.opts.data, "vae_lab_external", "first.safetensors")
    calls = []

    def fail_at_the_second(latent: torch.Tensor, original=webui.model.decode_first_stage) -> object:
        if latent.shape[-2:] == (16, 16):  # an image, not the chart that the VAE in memory is looked at by
            calls.append(1)
        if len(calls) > 1:
            raise RuntimeError("out of order")
        return original(latent)

    monkeypatch.setattr(webui.model, "decode_first_stage", fail_at_the_second)
    with contextlib.suppress(RuntimeError):
        webui.run_script("X/Y/Z plot", {"X type": "Seed", "X values": "1,2"})
    assert len(calls) == 2
    assert webui.vae_bytes() == before


def test_interrupt(webui: WebUI) -> None:
    from modules import script_callbacks

    before = webui.vae_bytes()

    def interrupt(params: object) -> None:
        webui.shared.state.interrupt()

    script_callbacks.on_cfg_denoised(interrupt)
    try:
        webui.generate(lab=FIRST, n_iter=2)
    finally:
        script_callbacks.remove_callbacks_for_function(interrupt)
    assert webui.vae_bytes() == before


def test_override_settings_of_the_same_request(webui: WebUI) -> None:
    """The host reloads its VAE when a request ends, and must find its own weights in the module then."""
    before = webui.vae_bytes()
    ours = webui.generate(lab={"override": "second.safetensors"}, override_settings={"sd_vae": "first.safetensors"})
    assert webui.vae_bytes() == before
    assert np.array_equal(pixels(ours)[0], pixels(webui.generate(lab={"override": "second.safetensors"}))[0])


HIRES = {
    "enable_hr": True,
    "hr_scale": 1.5,
    "hr_upscaler": "Lanczos",
    "hr_second_pass_steps": 2,
    "denoising_strength": 0.5,
}


def test_another_checkpoint_for_hires_fix(webui: WebUI) -> None:
    """The first pass by one checkpoint, the second by another one, both decoded by the override."""
    hires = HIRES | {"hr_checkpoint_name": webui.sd_models.get_closet_checkpoint_match("two.safetensors").title}
    ours = pixels(webui.generate(lab=FIRST, **hires))
    left = webui.vae_bytes()
    webui.select_checkpoint("two.safetensors")
    assert webui.vae_bytes() == left, "the other checkpoint has its own VAE"
    webui.select_checkpoint("one.safetensors")
    webui.choose_natively("first.safetensors")
    native = pixels(webui.generate(**hires))
    assert np.array_equal(ours[0], native[0])


def test_a_checkpoint_without_vae_inherits_the_hosts_and_not_ours(webui: WebUI) -> None:
    """For a checkpoint without a VAE, the host keeps using the VAE in memory."""
    hires = HIRES | {"hr_checkpoint_name": webui.sd_models.get_closet_checkpoint_match("one.ckpt").title}
    before = webui.vae_bytes()
    ours = pixels(webui.generate(lab=FIRST, **hires))
    assert webui.model.sd_checkpoint_info.filename.endswith("one.ckpt")
    assert webui.vae_bytes() == before
    webui.select_checkpoint("one.safetensors")
    webui.choose_natively("first.safetensors")
    assert np.array_equal(ours[0], pixels(webui.generate(**hires))[0])


def test_refiner(webui: WebUI) -> None:
    """The refiner's checkpoint is loaded in the middle of sampling, and its VAE would decode."""
    refiner = {
        "refiner_checkpoint": webui.sd_models.get_closet_checkpoint_match("two.safetensors").title,
        "refiner_switch_at": 0.5,
        "steps": 4,
    }
    ours = pixels(webui.generate(lab=FIRST, **refiner))
    webui.select_checkpoint("one.safetensors")
    webui.choose_natively("first.safetensors")
    assert np.array_equal(ours[0], pixels(webui.generate(**refiner))[0])


def test_checkpoints_that_the_webui_keeps(webui: WebUI, monkeypatch: pytest.MonkeyPatch) -> None:
    """With more than one in memory, one function that loads calls another, and each must find the host's own VAE."""
    monkeypatch.setitem(webui.shared.opts.data, "sd_checkpoints_limit", 2)
    title = webui.sd_models.get_closet_checkpoint_match("two.safetensors").title
    webui.select_checkpoint("two.safetensors")
    own = webui.vae_bytes()
    webui.select_checkpoint("one.safetensors")
    webui.generate(lab=FIRST, n_iter=2, **(HIRES | {"hr_checkpoint_name": title}))
    webui.select_checkpoint("two.safetensors")
    assert webui.vae_bytes() == own
    webui.select_checkpoint("one.safetensors")


def test_the_infotext_follows_a_change_of_checkpoint(webui: WebUI, data_dir) -> None:
    """``Built-in`` is the VAE of whichever checkpoint decodes, and so is its hash."""
    from vae_lab.extension import the_host
    from vae_lab.identity import short

    title = webui.sd_models.get_closet_checkpoint_match("two.safetensors").title
    info = webui.generate(lab={"override": "Built-in"}, **(HIRES | {"hr_checkpoint_name": title})).info
    facts = the_host().file_cache.identify(str(data_dir / "models" / "Stable-diffusion" / "two.safetensors"))
    assert f"VAE Lab override: Built-in, VAE Lab override hash: {short(facts.fingerprint)}" in info


def test_an_override_that_is_refused_later_is_not_claimed(webui: WebUI, monkeypatch: pytest.MonkeyPatch) -> None:
    """The VAE fits the first checkpoint, but is unavailable for the second one."""
    from vae_lab.errors import HostError
    from vae_lab.extension import the_host

    host, asked = the_host(), []

    def once(choice: str, original=host.weights) -> object:
        asked.append(choice)
        if len(asked) > 1:
            raise HostError("gone")
        return original(choice)

    monkeypatch.setattr(host, "weights", once)
    title = webui.sd_models.get_closet_checkpoint_match("two.safetensors").title
    done = webui.generate(lab=FIRST, **(HIRES | {"hr_checkpoint_name": title}))
    assert len(asked) > 1
    assert "first.safetensors" not in done.info
    assert "VAE Lab: gone. Decoded with Built-in of two.safetensors instead." in done.comments


def test_built_in_of_a_checkpoint_without_one(webui: WebUI) -> None:
    webui.select_checkpoint("without.safetensors")
    done = webui.generate(lab={"override": "Built-in", "fallback": True})
    assert "without a VAE" in done.comments
    assert "Decoded with the VAE that was in memory instead." in done.comments
    assert "VAE Lab override" not in done.info


def test_a_vae_that_is_not_there(webui: WebUI) -> None:
    plain = pixels(webui.generate())[0]
    done = webui.generate(lab={"override": "gone.safetensors", "fallback": True})
    assert np.array_equal(pixels(done)[0], plain)
    assert "no VAE named gone.safetensors" in done.comments
    assert "first.safetensors" in done.comments, "says what there is"


def test_a_vae_full_of_nan_is_refused(webui: WebUI, data_dir) -> None:
    import safetensors.torch

    source = data_dir / "models" / "VAE" / "first.safetensors"
    broken = data_dir / "models" / "VAE" / "nan.safetensors"
    state = safetensors.torch.load_file(source)
    state["decoder.conv_out.weight"][0, 0, 0, 0] = float("nan")
    safetensors.torch.save_file(state, broken)
    try:
        plain = pixels(webui.generate())[0]
        done = webui.generate(lab={"override": "nan.safetensors", "fallback": True})
        assert np.array_equal(pixels(done)[0], plain)
        assert "not finite" in done.comments
    finally:
        broken.unlink()
