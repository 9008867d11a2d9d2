"""``fix`` on the command line: a dry run, the changes, and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit import fix_tree
from tests.unit.fix_tree import USES, contents
from vae_lab.cli import main
from vae_lab.library import FileCache


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """All files but those that a scan would have to check now."""
    cache = FileCache(tmp_path / "cache")
    fix_tree.build(tmp_path / "models", cache)
    cache.close()
    (tmp_path / "models" / "Stable-diffusion" / "new.safetensors").unlink()
    (tmp_path / "models" / "VAE" / "unknown.safetensors").unlink()
    return tmp_path / "models"


def fix(models: Path, *options: object, folder: str = "") -> int:
    return main(["fix", str(models / folder), "--cache", str(models.parent / "cache"), *map(str, options)])


def test_a_dry_run_is_the_default(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(models)
    assert fix(models) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["CHECKPOINT", "VERDICT", "VAE", "NOW", "USE", "WHY"]
    rows = {line.split()[0]: line for line in lines}
    for checkpoint, vae in USES.items():
        assert f"  {vae}  " in rows[checkpoint]
    assert "broken: washed out" in rows["broken.safetensors"]
    assert "(not fixed)" in rows["flux.safetensors"]
    assert lines[-1] == "Nothing was changed. To fix 7 checkpoints, run the same command with --apply."
    assert contents(models) == before
    assert not (models.parent / "cache" / "fixes.json").exists()
    assert not (models / "vae-lab").exists()


def test_apply_and_undo(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, manifest = contents(models), models.parent / "cache" / "fixes.json"
    assert fix(models, "--apply") == 1, "two are left"
    assert f"Changed: 7\nTo undo all of it: vae-lab fix --undo {manifest}\n" in capsys.readouterr().out
    assert json.loads(contents(models)["empty.json"]) == {"vae": "plain.safetensors"}
    assert main(["fix", "--undo", str(manifest)]) == 0
    assert capsys.readouterr().out == "Restored: 7\n"
    assert contents(models) == before
    assert main(["fix", "--undo", str(manifest)]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_everything_fixed_is_0_and_so_is_nothing_to_fix(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("flux.safetensors", "both.ckpt"):
        (models / "Stable-diffusion" / name).unlink()
    assert fix(models) == 1
    assert fix(models, "--apply", "--manifest", models.parent / "changes.json") == 0
    assert (models.parent / "changes.json").is_file()
    assert fix(models) == 0
    for path in (models / "Stable-diffusion").glob("*.safetensors"):
        if "healthy" not in path.name:
            path.unlink()
    (models / "Stable-diffusion" / "deep" / "anime-mix.safetensors").unlink()
    capsys.readouterr()
    assert fix(models) == 0
    assert capsys.readouterr().out == "Nothing to fix: no checkpoint has a broken VAE or lacks one.\n"


def test_json(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fix(models, "--json", folder="Stable-diffusion") == 1, "VAE/ next to the folder is found"
    answer = json.loads(capsys.readouterr().out)
    assert {row["checkpoint"]: row["vae"] for row in answer["checkpoints"] if row["action"] == "use"} == USES
    assert answer["applied"] is None
    assert fix(models, "--vae-dir", models / "VAE", "--apply", "--json", folder="Stable-diffusion") == 1
    applied = json.loads(capsys.readouterr().out)["applied"]
    assert {row["checkpoint"]: row["vae"] for row in applied["changed"]} == USES
    (models / "Stable-diffusion" / "xl.json").write_text("{}")
    assert main(["fix", "--json", "--undo", applied["undo"]]) == 1
    undone = json.loads(capsys.readouterr().out)
    assert sorted(undone["restored"]) == sorted(USES.keys() - {"xl.safetensors"})
    assert [row["checkpoint"] for row in undone["refused"]] == ["xl.safetensors"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "give a folder"),
        (("nowhere",), "is not a folder"),
        ((".", "--undo", "x.json"), "--undo takes everything from its file"),
    ],
)
def test_wrong_usage(options: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fix", *options]) == 2
    assert words in capsys.readouterr().err
