"""The file cache: files are inspected once, and again when they change."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
from pathlib import Path

import pytest
import torch

from tests.unit.makers import F2, F8, SDXL_TEXT, UNET, kl_state, prefixed, write
from vae_lab.checkup import identity_key
from vae_lab.formats import source
from vae_lab.identity import fingerprint
from vae_lab.library import Depth, FileCache, Listing
from vae_lab.library import cache as cache_module
from vae_lab.library import inspect as inspect_module
from vae_lab.library.folders import Walk, find_weight_files
from vae_lab.library.store import FILE_NAME
from vae_lab.samples import SampleSet


@pytest.fixture
def cache(tmp_path: Path):
    """An empty cache."""
    cache = FileCache(tmp_path / "cache")
    yield cache
    cache.close()


@pytest.fixture
def vae(tmp_path: Path) -> Path:
    """A VAE that belongs to no family."""
    return write(tmp_path / "vae.safetensors", kl_state(F2))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of the files that are opened, in order."""
    opened: list[str] = []

    def counting(this: source.LocalFile, path: str, original=source.LocalFile.__init__) -> None:
        opened.append(Path(path).name)
        original(this, path)

    monkeypatch.setattr(source.LocalFile, "__init__", counting)
    return opened


# --- facts -----------------------------------------------------------------------------------------------------------


def test_facts_of_a_vae(cache: FileCache, sample_set: SampleSet) -> None:
    facts = cache.identify(str(sample_set.sdxl))
    assert (facts.family_id, facts.problem, facts.architecture) == ("sdxl", "", "AutoencoderKL")
    assert facts.family is not None
    assert facts.family.title == "SDXL"
    assert len(facts.fingerprint) == 64


def test_facts_of_weights_that_do_not_tell(cache: FileCache, vae: Path) -> None:
    facts = cache.identify(str(vae))
    assert facts.family is None
    assert facts.fingerprint == fingerprint(kl_state(F2))


def test_facts_of_a_checkpoint_by_its_text_encoder(cache: FileCache, tmp_path: Path) -> None:
    path = write(tmp_path / "c.safetensors", UNET | SDXL_TEXT | prefixed("first_stage_model.", kl_state(F8)))
    assert cache.identify(str(path)).family_id == "sdxl"


def test_a_file_is_inspected_once(cache: FileCache, vae: Path, reads: list[str]) -> None:
    assert cache.known(str(vae)) is None
    assert reads == []
    first = cache.identify(str(vae))
    assert cache.identify(str(vae)) == first
    assert cache.known(str(vae)) == first
    assert reads == ["vae.safetensors"]


def test_a_check_is_kept_that_ends_while_another_thread_identifies_the_file(
    cache: FileCache, vae: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def checking_meanwhile(path: str, original=cache_module.identify_file):
        cache.check(path)
        return original(path)

    monkeypatch.setattr(cache_module, "identify_file", checking_meanwhile)
    assert cache.identify(str(vae)).depth == Depth.IDENTIFIED
    assert cache.checked(str(vae)) is not None


def test_facts_outlive_the_program(tmp_path: Path, vae: Path, reads: list[str]) -> None:
    for _ in range(2):
        cache = FileCache(tmp_path / "cache")
        cache.identify(str(vae))
        cache.close()
    assert reads == ["vae.safetensors"]


def test_cache_that_cannot_be_written_costs_only_time(
    tmp_path: Path, vae: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLite says itself that the disk is full: the file may have no more pages than it has now."""
    cache = FileCache(tmp_path / "cache")
    cache._store._database.execute("PRAGMA max_page_count = 1")  # type: ignore[union-attr]
    with caplog.at_level(logging.WARNING, "vae_lab"):
        cache._store.set_bytes("more than there is room for", bytes(10**5))
        record = cache.identify(str(vae))
        report = cache.check(str(vae))
    assert record.fingerprint == report.fingerprint == fingerprint(kl_state(F2))
    assert len(caplog.records) == 1, "logged once"
    assert "full" in caplog.text
    assert cache.known(str(vae)) == report, "a search for a healthy VAE asks for what was just checked"
    cache.close()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user who may not write everywhere")
def test_folder_that_may_not_be_written(tmp_path: Path, vae: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    cache = FileCache(tmp_path / "locked" / "cache")
    assert cache.identify(str(vae)) == cache.known(str(vae))
    cache.close()


def test_other_ways_to_write_the_path_do_not_matter(cache: FileCache, vae: Path, reads: list[str]) -> None:
    cache.identify(str(vae))
    cache.identify(str(vae.parent / ".." / vae.parent.name / vae.name))
    assert reads == ["vae.safetensors"]


def replacement(folder: Path, *, longer: bool) -> Path:
    state = kl_state(F2, seed=1)
    if longer:
        state["loss.logvar"] = torch.zeros(100)
    return write(folder / "replacement.safetensors", state)


@pytest.mark.parametrize("seconds", [-3600, 3600], ids=["older", "newer"])
def test_replaced_file_is_inspected_again(cache: FileCache, vae: Path, tmp_path: Path, seconds: int) -> None:
    """Older too: people unpack archives and restore backups."""
    before, stat = cache.identify(str(vae)), vae.stat()
    other = replacement(tmp_path, longer=False)
    assert other.stat().st_size == stat.st_size
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns + seconds * 10**9))
    other.replace(vae)
    assert cache.known(str(vae)) is None
    after = cache.identify(str(vae))
    assert after.fingerprint == fingerprint(kl_state(F2, seed=1)) != before.fingerprint


def test_file_of_another_size_with_the_same_time_is_inspected_again(
    cache: FileCache, vae: Path, tmp_path: Path
) -> None:
    before, stat = cache.identify(str(vae)), vae.stat()
    other = replacement(tmp_path, longer=True)
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(vae)
    assert cache.identify(str(vae)).fingerprint != before.fingerprint


@pytest.mark.skipif(os.name == "nt", reason="Windows has no ctime of file entries")
def test_file_of_the_same_size_and_time_is_inspected_again(cache: FileCache, vae: Path, tmp_path: Path) -> None:
    """VAEs are all of one size, and archives and ``cp -p`` give files the times that they had elsewhere."""
    before, stat = cache.identify(str(vae)), vae.stat()
    other = replacement(tmp_path, longer=False)
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(vae)
    assert vae.stat().st_mtime_ns == stat.st_mtime_ns
    assert cache.identify(str(vae)).fingerprint != before.fingerprint


def test_file_replaced_while_it_is_inspected_is_not_mistaken(
    cache: FileCache, vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replacement(tmp_path, longer=True)

    def slow(path: str, original=inspect_module.open_weights, **limit: object):
        opened = original(path, **limit)
        other.replace(vae)
        return opened

    with monkeypatch.context() as patched:
        patched.setattr(inspect_module, "open_weights", slow)
        cache.identify(str(vae))
    assert cache.identify(str(vae)).fingerprint == fingerprint(kl_state(F2, seed=1))


def test_two_files_of_one_name_stay_distinct(cache: FileCache, tmp_path: Path) -> None:
    for seed, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "vae.safetensors", kl_state(F2, seed))
    one, two = (cache.identify(str(tmp_path / folder / "vae.safetensors")) for folder in "ab")
    assert one.fingerprint != two.fingerprint


BAD = {
    "no VAE": (lambda path: write(path, {"a": torch.zeros(1)}), "no VAE found"),
    "checkpoint without VAE": (lambda path: write(path, UNET), "a checkpoint without a VAE"),
    "truncated": (lambda path: path.write_bytes(b"\x80\x00\x00\x00\x00\x00\x00\x00{"), ""),
    "empty": (lambda path: path.touch(), ""),
    "text": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1"), ""),
    "not finite": (
        lambda path: write(path, kl_state(F2) | {"decoder.conv_out.bias": torch.full((3,), float("nan"))}),
        "not finite",
    ),
}


@pytest.mark.parametrize(("make", "fragment"), BAD.values(), ids=BAD)
def test_bad_file_is_a_fact_too(cache: FileCache, tmp_path: Path, make, fragment: str) -> None:
    path = tmp_path / "bad.safetensors"
    make(path)
    facts = cache.identify(str(path))
    assert facts.problem
    assert fragment in facts.problem
    assert str(path) not in facts.problem, "the name is already shown next to it"
    assert "\n" not in facts.problem
    assert (facts.family, facts.fingerprint) == (None, "")
    assert cache.known(str(path)) == facts


def test_missing_file_is_a_fact_that_is_not_stored(cache: FileCache, tmp_path: Path, vae: Path) -> None:
    path = tmp_path / "later.safetensors"
    assert cache.identify(str(path)).problem
    assert cache.known(str(path)) is None
    shutil.copy(vae, path)
    assert cache.identify(str(path)).problem == ""


# --- finding files ---------------------------------------------------------------------------------------------------


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def names(*folders: Path) -> list[str]:
    return [name for name, _ in find_weight_files(folders)]


def test_weight_files_of_every_kind_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in (
        "b.ckpt",
        "A.safetensors",
        "c.pt",
        "d.PTH",
        "e.bin",
        "flux.sft",
        "notes.txt",
        "f.safetensors.part",
        "vae.yaml",
    ):
        touch(tmp_path / name)
    assert names(tmp_path) == ["A.safetensors", "b.ckpt", "c.pt", "d.PTH", "e.bin", "flux.sft"]


def test_subfolders_are_searched_and_same_basenames_stay_distinct(tmp_path: Path) -> None:
    for name in ("x/vae.pt", "y/vae.pt", "y/z/vae.pt", "vae.pt"):
        touch(tmp_path / name)
    found = dict(find_weight_files([tmp_path]))
    assert set(found) == {"vae.pt", "x/vae.pt", "y/vae.pt", "y/z/vae.pt"}
    assert all(path == tmp_path / name for name, path in found.items())


def test_same_relative_names_in_several_folders_stay_distinct(tmp_path: Path) -> None:
    folders = [tmp_path / "1" / "VAE", tmp_path / "2" / "VAE", tmp_path / "3" / "VAE"]
    paths = [touch(folder / "vae.pt") for folder in folders]
    found = list(find_weight_files(folders))
    assert [path for _, path in found] == paths
    assert [name for name, _ in found] == ["vae.pt", "VAE/vae.pt", (folders[2] / "vae.pt").as_posix()]


def test_folder_given_twice_or_inside_another_gives_each_file_once(tmp_path: Path) -> None:
    touch(tmp_path / "sub" / "vae.pt")
    assert names(tmp_path, tmp_path, tmp_path / "sub") == ["sub/vae.pt"]


def test_missing_folder_is_fine(tmp_path: Path) -> None:
    touch(tmp_path / "there" / "vae.pt")
    assert names(tmp_path / "gone", tmp_path / "there") == ["vae.pt"]


def test_file_in_place_of_a_folder_is_fine(tmp_path: Path) -> None:
    assert names(touch(tmp_path / "VAE.pt")) == []


def test_folder_called_like_a_weight_file_is_none(tmp_path: Path) -> None:
    touch(tmp_path / "folder.ckpt" / "vae.pt")
    assert names(tmp_path) == ["folder.ckpt/vae.pt"]


def test_unreadable_folder_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/vae.pt", "secret/vae.pt", "z/vae.pt"):
        touch(tmp_path / name)

    def guarded(path: object = ".", original=os.scandir):
        if Path(os.fspath(path)).name == "secret":  # type: ignore[call-overload]
            raise PermissionError(13, "Permission denied")
        return original(path)

    monkeypatch.setattr(os, "scandir", guarded)
    assert names(tmp_path) == ["a/vae.pt", "z/vae.pt"]


def link(path: Path, target: Path) -> None:
    try:
        path.symlink_to(target)
    except OSError:
        pytest.skip("this system does not let us make links")


def test_links_that_go_in_circles_do_not_hang(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "vae.pt")
    link(tmp_path / "a" / "up", tmp_path)
    link(tmp_path / "b", tmp_path / "a")
    link(tmp_path / "self.pt", tmp_path / "self.pt")
    assert len(names(tmp_path)) == 1


def test_linked_folder_is_searched(tmp_path: Path) -> None:
    """As the WebUI does: many keep their models on another disk."""
    touch(tmp_path / "disk" / "sub" / "vae.pt")
    (tmp_path / "VAE").mkdir()
    link(tmp_path / "VAE" / "mine", tmp_path / "disk")
    assert names(tmp_path / "VAE") == ["mine/sub/vae.pt"]


def test_linked_file_is_found_and_a_broken_link_is_not(tmp_path: Path) -> None:
    target = touch(tmp_path / "disk" / "real.pt")
    (tmp_path / "VAE").mkdir()
    link(tmp_path / "VAE" / "linked.pt", target)
    link(tmp_path / "VAE" / "broken.pt", tmp_path / "gone.pt")
    assert names(tmp_path / "VAE") == ["linked.pt"]


@pytest.mark.parametrize("alias", ["0-default.safetensors", "zz/default.safetensors"])
def test_a_link_hides_no_file_of_another_name(tmp_path: Path, alias: str) -> None:
    """The hosts list both, and either name can be in their settings."""
    real = touch(tmp_path / "VAE" / "kl-f8.safetensors")
    (tmp_path / "VAE" / alias).parent.mkdir(exist_ok=True)
    link(tmp_path / "VAE" / alias, real)
    assert sorted(names(tmp_path / "VAE")) == sorted([alias, "kl-f8.safetensors"])
    given = [tmp_path / "VAE" / alias, real, real]
    assert [name for name, _ in Walk().find_all(given)] == [Path(alias).name, "kl-f8.safetensors"]
    assert len(list(Walk().find_all([real, tmp_path / "VAE"]))) == 2, "each once"


def test_a_link_of_the_same_name_is_the_same_file(tmp_path: Path) -> None:
    """As where one folder of models is linked into several programs'."""
    real = touch(tmp_path / "disk" / "kl-f8.safetensors")
    (tmp_path / "VAE").mkdir()
    link(tmp_path / "VAE" / "kl-f8.safetensors", real)
    assert names(tmp_path / "VAE", tmp_path / "disk") == ["kl-f8.safetensors"]


# --- checkups --------------------------------------------------------------------------------------------------------


def test_stored_record_is_whole(cache: FileCache, sample_set: SampleSet) -> None:
    record = cache.check(str(sample_set.smooth))
    assert record.depth == Depth.CHECKED
    assert record.checkup is not None
    assert record.checkup.charts
    stored = cache.checked(str(sample_set.smooth))
    assert stored == record.with_charts({}), "without charts, cheap enough for every file of a large library"
    assert cache.with_charts(stored) == record


def test_file_whose_checkup_is_gone_is_checked_again(
    cache: FileCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stored by what is in the file, and of no use when charts are judged otherwise."""
    path = str(write(tmp_path / "v.safetensors", kl_state(F8)))
    record = cache.check(path)
    cache._store.delete(f"checkup:{identity_key(record.fingerprint, None)}")
    assert cache.with_charts(record) is None
    assert cache.check(path).verdict == record.verdict
    assert cache.checked(path) is not None
    monkeypatch.setattr("vae_lab.library.cache._VERSION", "of tomorrow")
    assert cache.checked(path) is None


def test_sketches_are_read_once_and_shared_by_copies(cache: FileCache, tmp_path: Path, reads: list[str]) -> None:
    paths = [str(write(tmp_path / f"{i}.safetensors", kl_state(F2))) for i in range(3)]
    sketches = [cache.sketch(path) for path in paths * 2]
    assert len(reads) == 3
    assert all(sketch is not None and sketch.to_bytes() == sketches[0].to_bytes() for sketch in sketches)  # type: ignore[union-attr]
    with sqlite3.connect(tmp_path / "cache" / FILE_NAME) as database:
        blobs = database.execute("SELECT count(*) FROM entries WHERE typeof(value) = 'blob'").fetchone()
    database.close()
    assert blobs == (1,)


def test_file_without_a_vae_has_no_sketch(cache: FileCache, tmp_path: Path, reads: list[str]) -> None:
    path = str(write(tmp_path / "v.safetensors", UNET))
    assert cache.sketch(path) is None
    assert cache.sketch(path) is None
    assert len(reads) == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_name_that_is_no_text_is_listed_as_one(tmp_path: Path) -> None:
    """Gradio, JSON and the browser only accept text; one such file would break the page."""
    (tmp_path / os.fsdecode(b"caf\xe9.safetensors")).write_bytes(b"")
    ((name, path),) = find_weight_files([tmp_path])
    assert name == "caf\\udce9.safetensors"
    assert path.exists()


def test_a_vae_with_the_name_of_a_checkpoint(tmp_path: Path) -> None:
    vaes = {"a.pt": tmp_path / "VAE" / "a.pt", "b.pt": tmp_path / "VAE" / "b.pt"}
    listing = Listing.of({"b.pt": tmp_path / "b.pt"}, vaes)
    assert list(listing.vaes) == ["a.pt", "VAE/b.pt"]
    assert listing.checkpoints["b.pt"] == tmp_path / "b.pt"
    assert listing.name_of(tmp_path / "VAE" / ".." / "VAE" / "b.pt") == "VAE/b.pt"
    assert listing.name_of(tmp_path / "gone.pt") == ""


def test_the_last_files_in_use_are_remembered(tmp_path: Path) -> None:
    cache = FileCache(tmp_path)
    assert cache.recent() == []
    cache.note_used(["a", "b"])
    cache.note_used(["b\udcff", "a"])
    assert cache.recent() == ["b\udcff", "a", "b"]
    cache.note_used(map(str, range(20)))
    assert cache.recent() == list("01234567")
    cache.close()
    assert FileCache(tmp_path).recent() == list("01234567")
