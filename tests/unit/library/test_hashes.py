"""The SHA-256 of files: computed once, stored by file, and shown wherever a file's record is."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from pathlib import Path

import pytest

from tests.unit.makers import F2, kl_state, write
from tests.unit.scan_tree import small_vae
from vae_lab.cli import main
from vae_lab.formats import LocalFile
from vae_lab.library import FileCache, Scan
from vae_lab.library.hashes import hash_files


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were opened, in order."""
    names: list[str] = []
    original = LocalFile.__init__

    def opening(self: LocalFile, path: str | os.PathLike[str]) -> None:
        names.append(Path(path).name)
        original(self, path)

    monkeypatch.setattr(LocalFile, "__init__", opening)
    return names


def listed(folder: Path) -> list[tuple[str, str]]:
    return [(path.name, str(path)) for path in sorted(folder.iterdir())]


def test_each_distinct_file_is_read_once(folder: Path, cache: FileCache, opened: list[str]) -> None:
    """Hard links and symbolic links are one file; the smallest file comes first."""
    large = write(folder / "a large.safetensors", kl_state(F2))
    small = small_vae(folder / "small.pt", 1)
    try:
        (folder / "hard link.pt").hardlink_to(small)
        (folder / "symbolic link.pt").symlink_to(large)
    except OSError:
        pytest.skip("this system does not let us make links")
    steps: list[tuple[int, int, str]] = []
    files = listed(folder)
    assert hash_files(files, cache, lambda *step: steps.append(step)) == 4
    assert [done for done, _, _ in steps] == [0, 1]
    assert len(opened) == 2
    assert opened[1] == "a large.safetensors"
    assert {name: cache.sha256(path) for name, path in files} == {name: sha256(Path(path)) for name, path in files}
    (folder / "later.pt").hardlink_to(small)  # a new link changes the file's ctime, as any change of the file does
    opened.clear()
    hash_files(listed(folder), cache)
    assert opened == ["hard link.pt"]
    opened.clear()
    assert hash_files(listed(folder), cache) == 0
    assert opened == []


def test_the_hash_of_a_file_that_was_replaced_is_forgotten(folder: Path, cache: FileCache) -> None:
    path = small_vae(folder / "v.pt", 1)
    list(Scan([folder], cache, probe=False).run())
    hash_files(listed(folder), cache)
    (record,) = Scan([folder], cache, probe=False).run()
    before = record.sha256
    assert before == sha256(path)
    stat = path.stat()
    small_vae(folder / "other", 2).replace(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert cache.sha256(str(path)) == ""
    (record,) = Scan([folder], cache, probe=False).run()
    assert record.sha256 == ""
    hash_files(listed(folder), cache)
    assert cache.sha256(str(path)) == sha256(path) != before


def test_files_that_cannot_be_read_do_not_stop_the_others(folder: Path, cache: FileCache, tmp_path: Path) -> None:
    (folder / "empty.pt").touch()
    path = small_vae(folder / "v.pt", 1)
    files = [("gone.pt", str(tmp_path / "gone.pt")), ("address", "https://localhost/v.pt"), *listed(folder)]
    assert hash_files(files, cache) == 1
    assert cache.sha256(str(path)) == sha256(path)


def test_a_cancel_keeps_what_is_complete(folder: Path, cache: FileCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a file, too: a checkpoint takes seconds or minutes."""
    small, large = small_vae(folder / "s.pt", 1), write(folder / "l.safetensors", kl_state(F2))
    monkeypatch.setattr("vae_lab.identity.catalogue._PIECE", 100_000)
    calls: list[int] = []

    def cancelled() -> bool:
        calls.append(1)
        return len(calls) > 3

    assert small.stat().st_size < 100_000 < large.stat().st_size / 3
    assert hash_files(listed(folder), cache, cancelled=cancelled) == 1
    assert (cache.sha256(str(small)), cache.sha256(str(large))) == (sha256(small), "")


def test_a_hash_that_someone_wrote_into_the_cache_is_none(folder: Path, cache: FileCache) -> None:
    path = small_vae(folder / "v.pt", 1)
    for wrong in ("<script>", "0" * 63, 5, None, "A" * 64):
        hash_files(listed(folder), cache)
        row = next(
            key for (key,) in cache._store._execute("SELECT key FROM entries") or () if key.startswith("sha256:")
        )
        cache._store.set_json(row, {**cache._store.get_json(row), "sha256": wrong})
        assert cache.sha256(str(path)) == ""


def test_an_upgrade_does_not_hash_again(folder: Path, cache: FileCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terabyte of checkpoints takes hours."""
    path = small_vae(folder / "v.pt", 1)
    hash_files(listed(folder), cache)
    monkeypatch.setattr("vae_lab.library.cache._VERSION", "of tomorrow")
    (record,) = Scan([folder], cache, probe=False).run()
    assert cache.sha256(str(path)) == sha256(path)
    (record,) = Scan([folder], cache, probe=False).run()
    assert record.sha256 == sha256(path)


# --- the command line ------------------------------------------------------------------------------------------------


def test_scan_writes_hashes(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also those that an earlier scan has computed."""
    path = small_vae(folder / "v.safetensors", 1)
    out = tmp_path / "out.csv"
    for options, digest in (((), None), (("--hashes",), sha256(path)), ((), sha256(path))):
        command = ["scan", str(folder), "--no-probe", "--cache", str(tmp_path / "cache"), "--jsonl", "-"]
        assert main([*command, "--csv", str(out), "--overwrite", *options]) == 0
        line = json.loads(capsys.readouterr().out)
        assert (line["sha256"], line["autov2"]) == (digest, digest and digest[:10])
        with out.open(encoding="utf8", newline="") as table:
            (row,) = csv.DictReader(table)
        assert (row["sha256"], row["autov2"]) == (digest or "", (digest or "")[:10])


def test_inspect_shows_the_hash(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = small_vae(folder / "v.pt", 1)
    main(["inspect", str(path), "--json"])
    line = json.loads(capsys.readouterr().out)
    assert (line["sha256"], line["autov2"]) == (sha256(path), sha256(path)[:10])
    main(["inspect", str(path)])
    assert f"  SHA-256 {sha256(path)} (VAE hash {sha256(path)[:10]})\n" in capsys.readouterr().out
    main(["inspect", str(path), "--json", "--no-probe"])
    assert json.loads(capsys.readouterr().out)["sha256"] is None, "a quick look reads no whole file"
    (folder / "empty.pt").touch()
    assert main(["inspect", str(folder / "empty.pt"), "--json"]) == 2
