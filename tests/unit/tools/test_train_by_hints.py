"""The trainer of the sample set learns, and resumes where it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tools import taesd_net, train_by_hints
from tools.train_by_hints import Lessons, Phase, train, train_all_sizes
from tools.train_vaes import RECIPES, fresh
from vae_lab.autoencoders.taesd.module import build_decoder

PHASES = (Phase(2, 1, 2), Phase(2, 2, 2), Phase(2, 3, 2), Phase(4, 4, 2))
RECIPE = replace(RECIPES[0], channels=(64, 64, 64, 64))


@pytest.fixture
def lessons(monkeypatch: pytest.MonkeyPatch) -> Lessons:
    def teacher(*_: object) -> torch.nn.Sequential:
        torch.manual_seed(0)
        return build_decoder(4).eval().requires_grad_(False)

    monkeypatch.setattr(taesd_net, "load_decoder", teacher)
    monkeypatch.setattr(train_by_hints, "PHASES", PHASES)
    monkeypatch.setattr(train_by_hints, "SAVE_EVERY", 7)
    torch.manual_seed(5)
    return Lessons(fresh(RECIPE), RECIPE, Path("nowhere"))


def batches() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return images, torch.randn(4, 4, 4, 4, generator=generator).half()


def test_a_resumed_training_ends_as_an_uninterrupted_one(lessons: Lessons, tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    images, latents = batches()
    before = {name: value.clone() for name, value in lessons.model.state_dict().items()}
    train(lessons, images, latents, 1, 1e-3, 4, path)
    once = {name: value.clone() for name, value in lessons.model.state_dict().items()}
    changed = {name.partition(".")[0] for name in once if not torch.equal(once[name], before[name])}
    assert changed == {"decoder", "post_quant_conv"}
    train(lessons, images, latents, 1, 1e-3, 4, path)  # from the state after 7 of 10 steps
    again = lessons.model.state_dict()
    for name, value in once.items():
        torch.testing.assert_close(again[name], value)


def test_all_sizes_resumed(lessons: Lessons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_by_hints, "LARGE", 32)
    monkeypatch.setattr(train_by_hints, "SIZES", ((32, 1), (16, 2)))
    monkeypatch.setattr(train_by_hints, "SAVE_SLOWER", 3)
    path = tmp_path / "sizes.pt"
    images, latents = batches()
    train_all_sizes(lessons, images, latents, 1, 1e-3, 5, path)
    once = {name: value.clone() for name, value in lessons.model.state_dict().items()}
    train_all_sizes(lessons, images, latents, 1, 1e-3, 5, path)  # from the state after 3 of 5 steps
    again = lessons.model.state_dict()
    for name, value in once.items():
        torch.testing.assert_close(again[name], value)


def test_a_fine_tune_changes_its_own_layers_alone(
    lessons: Lessons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_by_hints, "LARGE", 32)
    monkeypatch.setattr(train_by_hints, "SIZES", ((16, 1),))
    lessons = Lessons(lessons.model, replace(RECIPE, base="photo-a", trained=("decoder.conv_out.",)), Path("nowhere"))
    before = {name: value.clone() for name, value in lessons.model.state_dict().items()}
    train_all_sizes(lessons, *batches(), 1, 1e-3, 2, tmp_path / "sizes.pt")
    after = lessons.model.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        "decoder.conv_out.weight", "decoder.conv_out.bias"
    }  # fmt: skip
