"""The answer above a comparison, by what is known of the VAEs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.unit.makers import F8, kl_state, write
from vae_lab.checkup import Checkup, Finding
from vae_lab.checkup.findings import Evidence
from vae_lab.comparison import Comparison, Decoded
from vae_lab.host.choices import BUILT_IN
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.latents import Generation
from vae_lab.latents.family import FAMILIES
from vae_lab.library import FileRecord
from vae_lab.messages import use_language
from vae_lab.service.answers import answer, default_reference
from vae_lab.service.comparisons import StoredComparison
from vae_lab.ui.views import answers as views

SD1 = FAMILIES["sd1"]
HOSTILE = "<img src=x onerror=alert(1)>.pt"


def record(*findings: Finding, contrast: float = 1.0) -> FileRecord:
    measured = (Evidence("decoder only: contrast retained in a photo", contrast),)
    checkup = Checkup("sd1", findings, measured)
    return FileRecord("x", family_id="sd1", architecture="AutoencoderKL", checkup=checkup)


GREY = Finding("grey", "broken", "Images are grey.")
HEALTHY = record()
BROKEN = record(GREY, contrast=0.59)
MISSING = FileRecord("x", file_findings=(Finding("missing", "missing", "There is no VAE in it."),))


class Facts:
    """In place of the cache: what is known about each file, by its name."""

    def __init__(self, **records: FileRecord) -> None:
        self.records = records

    def checked(self, path: str) -> FileRecord | None:
        return self.records.get(Path(path).stem)

    identify = known = checked


@pytest.fixture
def host(tmp_path: Path) -> StandaloneHost:
    """A checkpoint and three VAEs; the tests say what is known of them."""
    for folder, name in (("Stable-diffusion", "model"), ("VAE", "a"), ("VAE", "b"), ("VAE", "c")):
        (tmp_path / folder).mkdir(exist_ok=True)
        write(tmp_path / folder / f"{name}.safetensors", kl_state(F8))
    return StandaloneHost(Folders.of_models(tmp_path, tmp_path / "data"))


def compared(*names: str, failed: str = "", pixels: dict[str, np.ndarray] | None = None) -> StoredComparison:
    images = {name: (pixels or {}).get(name, np.full((1, 16, 16, 3), 9, np.uint8)) for name in names}
    results = tuple(
        Decoded(name, error="refused") if name == failed else Decoded(name, images[name], 0.1) for name in names
    )
    generation = Generation("g", torch.zeros(1, 4, 2, 2), SD1)
    return StoredComparison("id", generation, Comparison(SD1, results), "model.safetensors")


def know(host: StandaloneHost, **records: FileRecord) -> None:
    host.file_cache = Facts(**records)  # type: ignore[assignment]


def sentence(host: StandaloneHost, stored: StoredComparison, *, waiting: bool = False) -> str:
    return views.answer(answer(host, stored), stored, waiting=waiting)


THREE = (BUILT_IN, "a.safetensors", "b.safetensors")


def test_a_broken_built_in_vae_is_replaced_by_a_healthy_one(host: StandaloneHost) -> None:
    know(host, model=BROKEN, a=record(GREY), b=record(contrast=0.99))
    stored = compared(*THREE)
    html = sentence(host, stored)
    assert "Use b.safetensors: your built-in VAE loses 41 % of the contrast" in html
    assert "b.safetensors keeps 99 % of it" in html
    assert 'data-use="b.safetensors"' in html
    assert 'data-checkpoint="model.safetensors"' in html
    assert default_reference(answer(host, stored), stored) == "b.safetensors"


def test_a_healthy_built_in_vae_is_kept(host: StandaloneHost) -> None:
    know(host, model=HEALTHY, a=HEALTHY, b=record(GREY))
    stored = compared(*THREE)
    html = sentence(host, stored)
    assert "The built-in VAE is healthy" in html
    assert "data-use" not in html
    assert default_reference(answer(host, stored), stored) == BUILT_IN


def test_a_checkpoint_without_a_vae(host: StandaloneHost) -> None:
    know(host, model=MISSING, a=HEALTHY)
    html = sentence(host, compared(*THREE, failed=BUILT_IN))
    assert "this checkpoint has no VAE inside" in html
    assert 'data-use="a.safetensors"' in html


def test_a_broken_choice_of_the_user_goes_back_to_the_built_in_vae(host: StandaloneHost) -> None:
    know(host, model=HEALTHY, a=BROKEN)
    host.use_for_checkpoint("a.safetensors")
    html = sentence(host, compared(*THREE))
    assert "Use Built-in: a.safetensors, in use now, loses 41 % of the contrast" in html


def test_a_healthy_choice_of_the_user_is_kept_and_marked(host: StandaloneHost) -> None:
    know(host, model=BROKEN, a=HEALTHY, b=HEALTHY)
    host.use_for_checkpoint("a.safetensors")
    html = sentence(host, compared(*THREE))
    assert "a.safetensors, in use now, is healthy" in html
    assert 'data-now="a.safetensors"' in html


def test_a_choice_for_every_checkpoint_is_replaced_by_another_one(host: StandaloneHost) -> None:
    """One for this checkpoint would have no effect."""
    know(host, model=HEALTHY, a=BROKEN, b=HEALTHY)
    host.use_always("a.safetensors")
    html = sentence(host, compared(*THREE))
    assert 'data-reach="always"' in html
    assert "Use Built-in always" in html


@pytest.mark.parametrize("other", [None, record(GREY), record(Finding("half", "information", "No encoder."))])
def test_only_a_vae_that_is_known_to_be_healthy_is_recommended(host: StandaloneHost, other: FileRecord | None) -> None:
    know(host, model=BROKEN, **({"a": other} if other else {}))
    html = sentence(host, compared(*THREE))
    assert "none of the other VAEs compared is known to be healthy" in html
    assert "data-use" not in html


def test_a_refused_vae_is_not_recommended(host: StandaloneHost) -> None:
    know(host, model=BROKEN, a=HEALTHY, b=HEALTHY)
    assert 'data-use="b.safetensors"' in sentence(host, compared(*THREE, failed="a.safetensors"))


def test_before_the_verdicts_nothing_is_claimed(host: StandaloneHost) -> None:
    know(host, a=HEALTHY)
    stored = compared(*THREE)
    html = sentence(host, stored, waiting=True)
    assert "Checking which of these VAEs are healthy" in html
    assert "data-waiting" in html
    assert "data-use" not in html
    assert "not known yet" in sentence(host, stored)
    assert default_reference(answer(host, stored), stored) == BUILT_IN


def test_what_cannot_be_judged_is_neither_praised_nor_blamed(host: StandaloneHost) -> None:
    know(host, model=record(Finding("not-checked", "not-checked", "No chart for this kind.")), a=HEALTHY)
    html = sentence(host, compared(*THREE))
    assert "Built-in cannot be judged" in html
    assert "data-use" not in html


def test_healthy_vaes_are_told_apart_by_what_they_do_to_the_image(host: StandaloneHost) -> None:
    know(host, model=HEALTHY, a=HEALTHY, b=record(GREY))
    grey = np.random.default_rng(0).integers(100, 140, (1, 32, 32, 1), dtype=np.uint8).repeat(3, axis=3)
    vivid = grey.copy()
    vivid[..., 0] = np.clip(vivid[..., 0] * 1.5, 0, 255)
    html = sentence(host, compared(*THREE, pixels={BUILT_IN: grey, "a.safetensors": vivid, "b.safetensors": vivid}))
    assert "Most colour: a.safetensors" in html
    assert "b.safetensors (+" not in html, "a broken VAE is never the best of anything"


def test_names_are_escaped_and_sentences_are_translated(host: StandaloneHost) -> None:
    know(host, model=BROKEN, **{HOSTILE.removesuffix(".pt"): HEALTHY})
    host._last_listing = host.listing().__class__.of(  # a file of that name cannot be made everywhere
        host.checkpoint_files(), {HOSTILE: Path(HOSTILE)}, []
    )
    stored = compared(BUILT_IN, HOSTILE)
    assert "<img" not in sentence(host, stored)
    with use_language("zh_CN"):
        html = sentence(host, stored)
    assert "请使用" in html
    assert "loses" not in html
