"""``dedupe`` on the command line: a dry run, the links, and back."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.unit.makers import UNET, kl_state, prefixed, write, write_zip
from vae_lab.cli import main

pytestmark = pytest.mark.skipif(os.name == "nt", reason="times and inodes are those of POSIX")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A VAE twice, in another container, and in a checkpoint."""
    folder, state = tmp_path / "VAE", kl_state()
    folder.mkdir()
    write(folder / "a.safetensors", state)
    shutil.copyfile(folder / "a.safetensors", folder / "b.safetensors")
    os.utime(folder / "a.safetensors", ns=(10**18, 10**18))
    write_zip(folder / "a.pt", state)
    write(folder / "model.safetensors", {**UNET, **prefixed("first_stage_model.", state)})
    return folder


def dedupe(folder: Path, *options: object) -> int:
    return main(["dedupe", str(folder), "--cache", str(folder.parent / "cache"), *map(str, options)])


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_a_dry_run_links_and_back(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, manifest = files(folder), folder.parent / "links.json"
    assert dedupe(folder, "--manifest", manifest) == 1
    out = capsys.readouterr().out
    assert out.splitlines()[1].split()[::3] == ["b.safetensors", "a.safetensors"]
    assert "are the same VAE in other bytes" in out
    assert "Nothing was changed. To replace 1 file by links (" in out
    assert (files(folder), manifest.exists()) == (before, False)
    assert dedupe(folder, "--manifest", manifest, "--apply") == 0
    out = capsys.readouterr().out
    assert "Replaced by links: 1, " in out
    assert f"To undo all of it: vae-lab dedupe --undo {manifest}\n" in out
    assert (folder / "b.safetensors").read_bytes() == before["b.safetensors"][0]
    assert dedupe(folder, "--manifest", manifest) == 0
    assert capsys.readouterr().out.startswith("Nothing to replace")
    assert main(["dedupe", "--undo", str(manifest)]) == 0
    assert capsys.readouterr().out == "Independent again: 1\n"
    assert files(folder) == before
    assert not (folder / "a.safetensors").samefile(folder / "b.safetensors")
    assert main(["dedupe", "--undo", str(manifest)]) == 2


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dedupe(folder, "--apply", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    size = (folder / "a.safetensors").stat().st_size
    assert answer["copies"] == [{"name": "b.safetensors", "source": "a.safetensors", "size": size}]
    assert [sorted(names) for names in answer["others"]] == [["a.pt", "a.safetensors", "b.safetensors"]]
    applied = answer["applied"]
    assert applied["undo"] == str(folder.parent / "cache" / "links.json")
    assert main(["dedupe", "--json", "--undo", applied["undo"]]) == 0
    assert json.loads(capsys.readouterr().out) == {"restored": [str(folder / "b.safetensors")], "refused": []}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "give a folder"),
        (("nowhere",), "is not a folder"),
        ((".", "--undo", "x.json"), "--undo takes everything from its file"),
        (("--undo", "x.json"), "does not exist"),
    ],
)
def test_wrong_usage(options: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dedupe", *options]) == 2
    assert words in capsys.readouterr().err
