"""Choices for checkpoints in the doubles of the hosts: what is written, loaded, and put back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.webui.double import Kind, MakeDouble, load
from vae_lab.errors import HostError

BEFORE = b'{"notes":  "mine"}\r\n'


@pytest.fixture
def metadata(models: Path) -> Iterator[Path]:
    """The JSON file of the loaded checkpoint; other tests use the same folder."""
    file = models / "models" / "Stable-diffusion" / "one.json"
    file.write_bytes(BEFORE)
    yield file
    file.unlink()


def started(make: MakeDouble, kind: Kind, models: Path, loads: Any = lambda _: None) -> Any:
    double = make(kind)
    first = str(models / "models" / "VAE" / "first.safetensors")
    sd_vae = double.modules["sd_vae"]
    sd_vae.vae_dict["first.safetensors"] = first  # type: ignore[union-attr]
    if kind == "webui":
        sd_vae.reload_vae_weights = loads  # type: ignore[union-attr]
    (tab,) = double.start(load)
    return tab[0]


@pytest.mark.parametrize(("kind", "key"), [("webui", "vae"), ("forge", "vae_lab_vae")])
def test_under_the_hosts_own_key_and_back(make: MakeDouble, models: Path, metadata: Path, kind: Kind, key: str) -> None:
    loaded: list[str] = []
    host = started(make, kind, models, lambda _: loaded.append(metadata.read_text()))
    choices = host.checkpoint_choices()
    assert choices.problem("first.safetensors") == ""
    change = choices.prepare("one.safetensors", "first.safetensors")
    assert metadata.read_bytes() == BEFORE
    choices.write(change, change.after)
    assert json.loads(metadata.read_bytes()) == {"notes": "mine", key: "first.safetensors"}
    assert choices.chosen("one.safetensors") == "first.safetensors"
    choices.write(change, change.before)
    assert metadata.read_bytes() == BEFORE
    assert len(loaded) == (2 if kind == "webui" else 0), "the WebUI loads what the loaded checkpoint prefers"


def test_what_the_webui_cannot_load_is_not_chosen(make: MakeDouble, models: Path, metadata: Path) -> None:
    def failing(_: object) -> None:
        raise RuntimeError("no such layer")

    choices = started(make, "webui", models, failing).checkpoint_choices()
    change = choices.prepare("one.safetensors", "first.safetensors")
    with pytest.raises(HostError, match="could not load first.safetensors, so it was not chosen: no such layer"):
        choices.write(change, change.after)
    assert metadata.read_bytes() == BEFORE, "byte for byte"
