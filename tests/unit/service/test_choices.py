"""Saved choices of the decoding VAE, and undoing them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.makers import F8, kl_state, write
from vae_lab.errors import HostError, UnknownChoice
from vae_lab.host.choices import AUTOMATIC, BUILT_IN
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.service.choices import ChoiceService


@pytest.fixture
def host(tmp_path: Path) -> StandaloneHost:
    """Two checkpoints, of which the first is in use, and two VAEs."""
    for folder, names in (("checkpoints", ("one.ckpt", "two.ckpt")), ("vaes", ("a.safetensors", "b.safetensors"))):
        for name in names:
            (tmp_path / folder).mkdir(exist_ok=True)
            write(tmp_path / folder / name, kl_state(F8)) if folder == "vaes" else (tmp_path / folder / name).touch()
    return StandaloneHost(Folders(tmp_path / "data", (tmp_path / "checkpoints",), (tmp_path / "vaes",)))


@pytest.fixture
def choices(host: StandaloneHost) -> ChoiceService:
    return ChoiceService(host)


def test_a_choice_and_back_and_forth(host: StandaloneHost, choices: ChoiceService) -> None:
    chosen = choices.choose("checkpoint", "a.safetensors", "one.ckpt")
    assert chosen.message == "a.safetensors: chosen for one.ckpt."
    assert chosen.undo_id
    undone = choices.undo(chosen.undo_id)
    assert host.chosen("checkpoint") == AUTOMATIC
    assert undone.undo_id not in (None, chosen.undo_id)
    choices.undo(undone.undo_id)
    assert host.chosen("checkpoint") == "a.safetensors"


def test_each_choice_is_undone_to_the_one_before(host: StandaloneHost, choices: ChoiceService) -> None:
    first = choices.choose("always", "a.safetensors")
    second = choices.choose("always", BUILT_IN)
    choices.undo(second.undo_id or "")
    assert host.chosen("always") == "a.safetensors"
    choices.undo(first.undo_id or "")
    assert host.chosen("always") == AUTOMATIC


def test_nothing_means_automatic(host: StandaloneHost, choices: ChoiceService) -> None:
    choices.choose("always", "a.safetensors")
    choices.choose("always", "")
    assert host.chosen("always") == AUTOMATIC


def test_a_second_click_can_be_undone_like_the_first(host: StandaloneHost, choices: ChoiceService) -> None:
    first = choices.choose("always", "a.safetensors")
    assert choices.choose("always", "a.safetensors").undo_id == first.undo_id
    choices.undo(first.undo_id or "")
    assert host.chosen("always") == AUTOMATIC


def test_what_changes_nothing_cannot_be_undone(choices: ChoiceService) -> None:
    assert choices.choose("always", AUTOMATIC).undo_id is None


def test_an_undo_is_valid_once(host: StandaloneHost, choices: ChoiceService) -> None:
    undo_id = choices.choose("always", "a.safetensors").undo_id or ""
    choices.undo(undo_id)
    for unknown in (undo_id, "", "x"):
        with pytest.raises(UnknownChoice, match="There is nothing to undo"):
            choices.undo(unknown)
    assert host.chosen("always") == AUTOMATIC


def test_a_choice_for_a_checkpoint_is_not_made_for_another(host: StandaloneHost, choices: ChoiceService) -> None:
    host.select_checkpoint("two.ckpt")
    with pytest.raises(HostError, match=r"for one\.ckpt, but two\.ckpt is in use now"):
        choices.choose("checkpoint", "a.safetensors", "one.ckpt")
    assert host.chosen("checkpoint") == AUTOMATIC
    choices.choose("always", "a.safetensors", "one.ckpt")
    assert host.chosen("always") == "a.safetensors"


def test_a_choice_for_a_checkpoint_is_not_undone_for_another(host: StandaloneHost, choices: ChoiceService) -> None:
    undo_id = choices.choose("checkpoint", "a.safetensors").undo_id or ""
    host.select_checkpoint("two.ckpt")
    with pytest.raises(HostError, match=r"was for one\.ckpt, but the checkpoint has changed since"):
        choices.undo(undo_id)
    assert host.chosen("checkpoint") == AUTOMATIC
    host.select_checkpoint("one.ckpt")
    choices.undo(undo_id)  # a refused one stays valid
    assert host.chosen("checkpoint") == AUTOMATIC


def test_a_choice_for_every_checkpoint_is_undone_anywhere(host: StandaloneHost, choices: ChoiceService) -> None:
    undo_id = choices.choose("always", "a.safetensors").undo_id or ""
    host.select_checkpoint("two.ckpt")
    choices.undo(undo_id)
    assert host.chosen("always") == AUTOMATIC


def test_what_does_not_exist_is_refused_and_changes_nothing(host: StandaloneHost, choices: ChoiceService) -> None:
    with pytest.raises(UnknownChoice, match=r"no VAE named gone\.pt"):
        choices.choose("always", "gone.pt")
    assert host.decision().source == "host"


def test_only_the_last_hundred_can_be_undone(choices: ChoiceService) -> None:
    first = choices.choose("always", "a.safetensors").undo_id or ""
    for i in range(100):
        choices.choose("always", ("b.safetensors", "a.safetensors")[i % 2])
    with pytest.raises(UnknownChoice):
        choices.undo(first)


def test_what_is_active_has_another_mark_after_every_change(host: StandaloneHost, choices: ChoiceService) -> None:
    marks = [choices.active().mark]
    choices.choose("always", "a.safetensors")
    marks.append(choices.active().mark)
    host.use_always("b.safetensors")  # in a second tab
    marks.append(choices.active().mark)
    host.select_checkpoint("two.ckpt")
    marks.append(choices.active().mark)
    assert len(set(marks)) == len(marks)
    host.select_checkpoint("one.ckpt")
    host.use_always(AUTOMATIC)
    assert choices.active().mark == marks[0]
