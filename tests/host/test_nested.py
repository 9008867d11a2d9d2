"""A generation inside another one, as detailers start them, with its own checkpoint: each has its own state."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.host.webui import WebUI, pixels

pytestmark = pytest.mark.host
FIRST = {"override": "first.safetensors"}
BY_TWO = "nested by two.safetensors"
FOR_GOOD = f"{BY_TWO} for good"


@pytest.fixture
def host(webui: WebUI) -> Any:
    from vae_lab.extension import the_host

    return the_host()


@pytest.fixture
def refused_by_two(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint ``two`` is of another family: its VAE cannot be replaced by those of the first one."""
    from vae_lab.errors import FamilyMismatch

    def weights(choice: str, original: Callable[[str], Any] = host.weights) -> Any:
        if host.vae.path().endswith("two.safetensors"):
            raise FamilyMismatch(f"{choice} is for another family")
        return original(choice)

    monkeypatch.setattr(host, "weights", weights)


def digest(host: Any, data_dir: Path, checkpoint: str) -> str:
    from vae_lab.identity import short

    return short(host.file_cache.identify(str(data_dir / "models" / "Stable-diffusion" / checkpoint)).fingerprint)


def each_decode(monkeypatch: pytest.MonkeyPatch, see: Callable[[Any, torch.Tensor], None]) -> None:
    """Have ``see(job, latents)`` called after each image, while the override is in."""
    from vae_lab.webui.grey_watch import GreyWatch

    def after_decode(_: Any, job: Any, latents: torch.Tensor, decoded: Any, again: Any) -> Any:
        see(job, latents)
        return decoded

    monkeypatch.setattr(GreyWatch, "after_decode", after_decode)


# --- the latents ---------------------------------------------------------------------------------------------------


def test_latents_belong_to_the_checkpoint_that_decoded_them(
    webui: WebUI, host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the outer generation ends, the model in memory is still the inner one's."""
    from vae_lab.latents.family import FAMILIES

    def family(vae: Any) -> Any:
        return FAMILIES["sdxl" if vae.path().endswith("two.safetensors") else "sd1"]

    monkeypatch.setattr(type(host.vae), "family", family)
    webui.generate(prompt=BY_TWO, lab={"on_grey": "off"})
    assert webui.model.sd_checkpoint_info.filename.endswith("two.safetensors")
    outer, inner = host.generations.newest_first()[:2]
    assert (outer.title, outer.family.id, Path(outer.checkpoint).name) == (BY_TWO, "sd1", "one.safetensors")
    assert (inner.title, inner.family.id, Path(inner.checkpoint).name) == ("inner", "sdxl", "two.safetensors")


def test_images_next_to_the_own_are_by_the_right_checkpoint(webui: WebUI, host: Any, data_dir: Path) -> None:
    done = webui.generate(prompt=BY_TWO, lab={"on_grey": "off", "compare": ["first.safetensors"]})
    assert len(done.images) == 3
    own = f"VAE Lab override: Built-in, VAE Lab override hash: {digest(host, data_dir, 'one.safetensors')}"
    assert own in done.infotexts[1]
    outer = host.generations.newest_first()[0].latents.clone()
    webui.select_checkpoint("one.safetensors")
    with torch.no_grad():
        image = (webui.model.decode_first_stage(outer.to(webui.devices.device))[0].float().cpu() + 1.0) / 2.0
    expected = (255.0 * image.clamp(0.0, 1.0)).movedim(0, 2).numpy()
    assert np.abs(pixels(done)[1].astype(float) - expected).max() <= 1.0


def test_batches_by_different_checkpoints_are_filed_apart(webui: WebUI, host: Any) -> None:
    webui.generate(prompt=FOR_GOOD, n_iter=2, lab={"on_grey": "off"})
    outer = [generation for generation in host.generations.newest_first()[:4] if generation.title == FOR_GOOD]
    assert [Path(generation.checkpoint).name for generation in outer] == ["two.safetensors", "one.safetensors"]
    assert ["Seed: 8" in outer[0].infotexts[0], "Seed: 7" in outer[1].infotexts[0]] == [True, True]


def test_a_long_run_keeps_no_more_latents_than_the_setting_allows(
    webui: WebUI, host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vae_lab.webui.capture import Jobs
    from vae_lab.webui.preferences import KEEP_OPTION

    counts: list[int] = []

    def file(self: Any, job: Any, processed: Any, original: Callable[..., None] = Jobs._file) -> None:
        counts.append(len(job.captured))
        original(self, job, processed)

    monkeypatch.setattr(Jobs, "_file", file)
    monkeypatch.setitem(webui.shared.opts.data, KEEP_OPTION, 0)
    done = webui.generate(n_iter=3, batch_size=2, lab={"on_grey": "off", "compare": ["first.safetensors"]})
    assert counts == [1]
    newest = host.generations.newest_first()[0]
    assert newest.infotexts == tuple(done.infotexts[done.index_of_first_image :][4:6]), "each with its own text"
    assert "2 of 3 batches" in done.comments


# --- the infotext --------------------------------------------------------------------------------------------------


def test_the_outer_infotext_names_what_decoded_the_outer_image(webui: WebUI, host: Any, data_dir: Path) -> None:
    one = f"VAE Lab override: Built-in, VAE Lab override hash: {digest(host, data_dir, 'one.safetensors')}"
    done = webui.generate(prompt=BY_TWO, n_iter=2, lab={"override": "Built-in", "on_grey": "off"})
    assert [one in text for text in done.infotexts[done.index_of_first_image :]] == [True, True]


def test_the_infotext_follows_a_checkpoint_that_stays(webui: WebUI, host: Any, data_dir: Path) -> None:
    done = webui.generate(prompt=FOR_GOOD, n_iter=2, lab={"override": "Built-in", "on_grey": "off"})
    texts = done.infotexts[done.index_of_first_image :]
    for text, name in zip(texts, ("one.safetensors", "two.safetensors"), strict=True):
        assert f"VAE Lab override hash: {digest(host, data_dir, name)}" in text


def test_an_override_that_the_inner_checkpoint_refuses_is_still_reported(webui: WebUI, refused_by_two: None) -> None:
    plain = webui.generate(prompt="nested by one.safetensors", n_iter=2, lab=FIRST | {"on_grey": "off"})
    done = webui.generate(prompt=BY_TWO, n_iter=2, lab=FIRST | {"on_grey": "off"})
    assert all("VAE Lab override: first.safetensors" in text for text in done.infotexts)
    assert "VAE Lab" not in done.comments
    assert "VAE Lab" not in plain.comments


def test_an_override_that_the_next_batch_refuses_is_not_reported(webui: WebUI, refused_by_two: None) -> None:
    done = webui.generate(prompt=FOR_GOOD, n_iter=2, lab=FIRST | {"on_grey": "off"})
    texts = done.infotexts[done.index_of_first_image :]
    assert ["first.safetensors" in text for text in texts] == [True, False]
    assert done.comments.count("first.safetensors is for another family") == 1


# --- the weights ---------------------------------------------------------------------------------------------------


def test_what_the_webui_has_chosen_is_not_in_memory_while_an_override_is(
    webui: WebUI, host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its setting still says ``first``, and the module holds ``second``."""
    from vae_lab.webui.job import Job

    webui.choose_natively("first.safetensors")
    native, expected = webui.vae_bytes(), pixels(webui.generate())[0]
    seen: dict[str, Any] = {}

    def see(job: Any, latents: torch.Tensor) -> None:
        seen["within"] = webui.vae_bytes()
        seen["decoded"] = job.decoded_with(host.weights("first.safetensors"), latents)
        inner = Job(SimpleNamespace(extra_generation_params={}), job.vae, job.own_name, job)
        inner.override(lambda: host.weights("first.safetensors"))
        seen["inner"] = webui.vae_bytes()
        inner.close()
        seen["after"] = webui.vae_bytes()

    each_decode(monkeypatch, see)
    webui.generate(lab={"override": "second.safetensors"})
    decoded = (255.0 * seen["decoded"][0].clamp(0.0, 1.0)).movedim(0, 2).numpy().astype(np.uint8)
    assert np.array_equal(decoded, expected)
    assert seen["inner"] == native
    assert seen["within"] == seen["after"] != native


def test_a_vae_that_is_in_no_list_costs_no_walk_for_each_image(
    webui: WebUI, host: Any, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with --vae-path. Building the page goes through the folders too, and so does the checkup in its thread."""
    from vae_lab.webui.grey_watch import GreyWatch

    file = data_dir / "unlisted.safetensors"
    file.write_bytes((data_dir / "models" / "VAE" / "first.safetensors").read_bytes())
    walks: list[int] = []
    watching = threading.local()

    def watched(*args: Any, original: Callable[..., Any] = GreyWatch.after_decode) -> Any:
        watching.now = True
        try:
            return original(*args)
        finally:
            watching.now = False

    def counted(original: Callable[[], Any] = host.list_files) -> Any:
        if getattr(watching, "now", False):
            walks.append(1)
        return original()

    monkeypatch.setattr(GreyWatch, "after_decode", watched)
    monkeypatch.setattr(host, "list_files", counted)
    monkeypatch.setattr(host, "recommendation", lambda **_: None)  # asked for where an image looks pale
    webui.sd_vae.vae_dict[file.name] = str(file)
    try:
        webui.shared.opts.set("sd_vae", file.name)
        webui.generate(n_iter=4, lab={"on_grey": "warn"})
    finally:
        webui.choose_natively("Automatic")
        file.unlink()
    assert len(walks) <= 1
