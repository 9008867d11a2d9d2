"""Which VAE is recommended, and the reason given."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vae_lab.checkup import Checkup, Evidence, Finding
from vae_lab.latents.family import FAMILIES
from vae_lab.library import FileRecord, recommend

SD1 = FAMILIES["sd1"]
HEALTHY = FileRecord(
    "",
    kind="vae",
    family_id="sd1",
    architecture="AutoencoderKL",
    checkup=Checkup("sd1", (), (Evidence("white", 100.0),)),
)
GREY = replace(HEALTHY, checkup=Checkup("sd1", (Finding("grey", "broken", "washed out"),)))


def test_only_healthy_ones_of_the_family() -> None:
    reports = {
        "grey.pt": GREY,
        "xl.safetensors": replace(HEALTHY, family_id="sdxl"),
        "taesd.safetensors": replace(HEALTHY, architecture="TAESD"),
        "unchecked.pt": replace(HEALTHY, checkup=None),
        "half.pt": replace(HEALTHY, file_findings=(Finding("half", "information", "decoder only"),)),
        "scaled.pt": replace(HEALTHY, file_findings=(Finding("other-latents", "information", "another scale"),)),
        "merged.pt": replace(HEALTHY, file_findings=(Finding("merged", "information", "relatives"),)),
    }
    found = recommend("model.safetensors", SD1, reports)
    assert found is not None
    assert found.name == "merged.pt", "a harmless merge is healthy"
    assert "healthy and of the SD1 / SD2 family" in found.reason
    del reports["merged.pt"]
    assert recommend("model.safetensors", SD1, reports) is None


def test_the_users_own_choice_comes_first_unless_it_is_broken() -> None:
    reports = {"a.pt": HEALTHY, "mine.pt": HEALTHY, "grey.pt": GREY}
    found = recommend("anime.safetensors", SD1, reports, {"grey.pt": "Settings", "mine.pt": "Settings > VAE Lab"})
    assert found is not None
    assert found.name == "mine.pt"
    assert "your preferred VAE (Settings > VAE Lab)" in found.reason


@pytest.mark.parametrize(
    ("checkpoint", "name"),
    [
        ("AnythingV3-pruned.ckpt", "kl-f8-anime2.ckpt"),
        ("epicrealism_v5.safetensors", "vae-ft-mse-840000.safetensors"),
        ("my-merge.safetensors", "neutral.safetensors"),
    ],
)
def test_what_suits_the_checkpoint(checkpoint: str, name: str) -> None:
    names = ("kl-f8-anime2.ckpt", "neutral.safetensors", "vae-ft-mse-840000.safetensors")
    found = recommend(checkpoint, SD1, dict.fromkeys(names, HEALTHY))
    assert found is not None
    assert found.name == name
