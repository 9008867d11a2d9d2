"""Which VAE is recommended, and the reason given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from vae_lab.checkup import Checkup, Evidence, Finding
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.latents.family import FAMILIES
from vae_lab.library import Depth, FileRecord, recommend
from vae_lab.library.folders import file_key

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


@pytest.mark.parametrize(
    ("checkpoint", "own"),
    [
        ("Model V2.safetensors", "model v2.VAE.pt"),
        ("sub/m.1.ckpt", "sub/m.1.vae.sft"),
        ("sub\\m.safetensors", "other/m.vae.safetensors"),
        ("photo.safetensors", "Stable-diffusion/photo.vae.ckpt"),
    ],
)
def test_the_checkpoints_own_vae(checkpoint: str, own: str) -> None:
    others = (
        "m.vae.other.pt",
        "kl-f8-anime2.ckpt",
        "vae-ft-mse-840000.safetensors",
        "Model V2-b.vae.pt",
        "model v2.pt",
    )
    reports = dict.fromkeys((*others, own, "z.pt"), HEALTHY)
    found = recommend(checkpoint, SD1, reports)
    assert found is not None
    assert (found.name, found.fits) == (own, True)
    assert found.reason == "it is this checkpoint's own VAE, healthy and of the SD1 / SD2 family"
    preferred = recommend(checkpoint, SD1, reports, {"z.pt": "Settings"})
    assert preferred is not None
    assert preferred.name == "z.pt", "the user's own choice comes first"
    broken = recommend(checkpoint, SD1, reports | {own: GREY})
    assert broken is not None
    assert broken.name != own


def test_of_two_own_vaes_the_one_in_the_same_folder() -> None:
    reports = dict.fromkeys(("a/m.vae.pt", "b/m.vae.pt"), HEALTHY)
    found = recommend("b/m.safetensors", SD1, reports)
    assert found is not None
    assert found.name == "b/m.vae.pt"


def test_the_checkpoints_own_vae_is_checked_before_another_is_recommended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search does not end with a VAE that was checked earlier, although that fits too."""
    (tmp_path / "VAE").mkdir()
    (tmp_path / "models").mkdir()
    for name in (*(f"VAE/{i:02}.pt" for i in range(20)), "models/m.safetensors", "models/m.vae.pt"):
        (tmp_path / name).write_bytes(name.encode())
    host = StandaloneHost(Folders(tmp_path / "data", (tmp_path / "models",), (tmp_path / "VAE",)))
    checked: list[str] = []

    def check(path: Path) -> None:
        checked.append(path.name)
        host.file_cache.add(str(path), replace(HEALTHY, path=str(path), depth=Depth.CHECKED), file_key(str(path)))

    monkeypatch.setattr(host, "_check", check)
    check(tmp_path / "models" / "m.safetensors")
    check(tmp_path / "VAE" / "07.pt")
    known = host.recommendation()
    assert known is not None
    assert known.name == "07.pt"
    found = host.recommendation(search=True)
    assert found is not None
    assert found.name == "m.vae.pt"
    assert checked == ["m.safetensors", "07.pt", "m.vae.pt"]
    assert host.recommendation(search=True) == found
    assert len(checked) == 3, "now it is known"
