"""Whatever goes wrong in a generation, and wherever: the user gets an image, and the host is as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.conftest import ROOT
from tests.unit.webui.faults import FIRST, STEPS, THIRD, Bed, Fault, bed, make_models, outcomes
from tools.faults_table import page


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def webui(models: Path) -> Iterator[Bed]:
    with bed("webui", models) as webui:
        yield webui


@pytest.mark.parametrize("group", STEPS)
@pytest.mark.parametrize("fault", ["error", "switch"])
def test_a_fault_at_every_step(webui: Bed, group: str, fault: Fault) -> None:
    steps = [(group, step) for step in STEPS[group]]
    assert [outcome for outcome in outcomes(webui, steps, [fault]) if isinstance(outcome, str)] == []


def test_an_image_of_another_vae_is_noticed(webui: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the matrix would show nothing."""
    images = webui.images
    swapped = images | {FIRST: images[THIRD], THIRD: images[FIRST]}
    monkeypatch.setattr(webui, "images", swapped)
    with pytest.raises(AssertionError, match="the infotext says"):
        webui.run("Override", None, None)
    webui.renew()


@pytest.mark.slow  # every fault, on every host
def test_the_published_table(models: Path) -> None:
    """``python -m tools.faults_table > docs/faults.md`` brings it up to date."""
    text = page(models)
    assert "FAILED" not in text
    assert (ROOT / "docs" / "faults.md").read_text(encoding="utf8") == text
