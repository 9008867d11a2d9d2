"""``fix --bake`` on the command line: a dry run, the new files, and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit import bake_tree
from tests.unit.bake_tree import COPIES, USES, files
from vae_lab.cli import main
from vae_lab.library import FileCache, FileRecord


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its new files are not checked, which takes a second each."""
    models = bake_tree.scanned(tmp_path)
    monkeypatch.setattr(FileCache, "check", lambda _, path: FileRecord(path, path))
    return models


def fix(models: Path, *options: object) -> int:
    return main(["fix", str(models), "--cache", str(models.parent / "data"), "--bake", *map(str, options)])


def test_dry_run_apply_and_undo(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, manifest = files(models), models.parent / "data" / "bakes.json"
    assert fix(models) == 1
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line for line in lines}
    for checkpoint, vae in USES.items():
        assert f"  {vae}  " in rows[checkpoint]
        assert rows[checkpoint].endswith(Path(COPIES[checkpoint]).name)
    assert " needed, " in lines[-2]
    assert lines[-1] == "Nothing was written. To bake 2 checkpoints, run the same command with --apply."
    assert files(models) == before
    assert not manifest.exists()
    assert fix(models, "--apply") == 0
    out = capsys.readouterr().out
    for copy in COPIES.values():
        assert f"{models / 'Stable-diffusion' / copy}: healthy\n" in out
    assert out.endswith(f"To remove these files: vae-lab fix --undo {manifest}\n")
    assert files(models).keys() == before.keys() | set(COPIES.values())
    assert main(["fix", "--undo", str(manifest)]) == 0
    assert capsys.readouterr().out == "Removed: 2\n"
    assert files(models) == before
    assert main(["fix", "--undo", str(manifest)]) == 2


def test_json(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fix(models, "--json", "--apply", "--manifest", models.parent / "mine.json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert {one["checkpoint"]: one["vae"] for one in answer["bakes"]} == USES
    assert {one["checkpoint"]: one["status"] for one in answer["applied"]["written"]} == dict.fromkeys(USES, "healthy")
    changed = models / "Stable-diffusion" / COPIES["xl.safetensors"]
    changed.write_bytes(b"mine")
    assert main(["fix", "--json", "--undo", answer["applied"]["undo"]]) == 1
    undone = json.loads(capsys.readouterr().out)
    assert [one["path"] for one in undone["refused"]] == [str(changed)]
    assert len(undone["removed"]) == 1
    assert changed.read_bytes() == b"mine"
