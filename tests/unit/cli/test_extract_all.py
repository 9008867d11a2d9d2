"""``extract --all`` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit import extract_tree
from tests.unit.extract_tree import WRITTEN
from vae_lab.cli import main


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return extract_tree.scanned(tmp_path)


def extract_all(models: Path, *options: str) -> int:
    return main(["extract", "--all", str(models), "--cache", str(models.parent / "data"), *options])


def names(models: Path) -> set[str]:
    return {path.name for path in (models / "VAE").iterdir()}


def test_a_dry_run_is_the_default(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert extract_all(models) == 1
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line for line in lines}
    for checkpoint, file in WRITTEN.items():
        assert rows[checkpoint].endswith(file)
    assert "(+1)" in rows["deep/second.ckpt"]
    assert "(not extracted: it is broken)" in rows["grey.safetensors"]
    assert "(not extracted: it is already in mine.pt)" in rows["copy-of-external.safetensors"]
    assert lines[-2].startswith("Nothing was written. To write 3 VAEs (")
    assert names(models) == {"mine.pt"}


def test_apply(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert extract_all(models, "--apply", "--broken", "--json") == 0
    applied = json.loads(capsys.readouterr().out)["applied"]
    assert {row["checkpoint"]: Path(row["path"]).name for row in applied["written"]} == {
        **WRITTEN,
        "grey.safetensors": "vae-grey.safetensors",
    }
    assert names(models) == {"mine.pt", "vae-grey.safetensors", *WRITTEN.values()}
    assert extract_all(models) == 0
    assert "Nothing was written" not in capsys.readouterr().out


def test_the_folder_for_vaes_is_made(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (models / "VAE" / "mine.pt").unlink()
    (models / "VAE").rmdir()
    assert extract_all(models, "--apply") == 0
    assert names(models) == {"vae-copy-of-external.safetensors", *WRITTEN.values()}
    assert f"Written to {models / 'VAE'}: 4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "give a checkpoint and --out FILE, or --all DIR"),
        (("x.ckpt",), "give a checkpoint and --out FILE, or --all DIR"),
        (("x.ckpt", "-o", "y.safetensors", "--apply"), "need --all DIR"),
        (("x.ckpt", "--all", "."), "names the new files itself"),
        (("--all", "nowhere"), "is not a folder"),
    ],
)
def test_wrong_usage(options: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["extract", *options]) == 2
    assert words in capsys.readouterr().err
