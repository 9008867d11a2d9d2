"""Deduplicate: identical VAE files become links to one, and independent files again."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.conftest import ROOT
from tests.unit.makers import UNET, kl_state, prefixed, write, write_zip
from vae_lab.errors import HostError, UnknownChoice
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.library import FileRecord
from vae_lab.library import links as links_module
from vae_lab.library.folders import file_key
from vae_lab.library.hashes import hash_files
from vae_lab.library.record import file_facts
from vae_lab.service.dedupe import DedupeService
from vae_lab.service.runs import Runs

pytestmark = pytest.mark.skipif(os.name == "nt", reason="modes and inodes are those of POSIX")

OLD, NEW = 10**18, 10**18 + 10**9 + 7  # ns


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """``a`` three times, one of them in a subfolder; ``a`` in another container; ``b`` once; a checkpoint twice."""
    vaes = tmp_path / "models" / "VAE"
    (vaes / "deep").mkdir(parents=True)
    a, b = kl_state(), kl_state(seed=1)
    write(vaes / "a.safetensors", a)
    for copy in ("a-copy.safetensors", "deep/again.safetensors"):
        shutil.copyfile(vaes / "a.safetensors", vaes / copy)
    write_zip(vaes / "a.pt", a)
    write(vaes / "b.safetensors", b)
    folder = tmp_path / "models" / "Stable-diffusion"
    folder.mkdir()
    write(folder / "one.safetensors", {**UNET, **prefixed("first_stage_model.", b)})
    shutil.copyfile(folder / "one.safetensors", folder / "two.safetensors")
    for path in tmp_path.rglob("*.*"):
        os.utime(path, ns=(OLD, OLD if path.name == "a.safetensors" else NEW))
    scan(tmp_path / "models")
    return tmp_path / "models"


def host_of(models: Path) -> StandaloneHost:
    """A new one each time, as after a restart."""
    return StandaloneHost(Folders.of_models(models, models.parent / "data"))


def dedupe_of(models: Path) -> DedupeService:
    host = host_of(models)
    service = DedupeService(host, Runs())
    service.host = host  # type: ignore[attr-defined]  the service has a weak reference in the product
    return service


def scan(models: Path) -> None:
    """What a scan finds out about identity, in short, and the hashes that follow it."""
    host = host_of(models)
    for name, path in host.listing().files:
        weights = models / A if path.endswith(".pt") else Path(path)
        record = FileRecord(
            path, name, family_id="", kind="checkpoint" if "Stable-diffusion" in path else "vae",
            fingerprint=hashlib.sha256(weights.read_bytes()).hexdigest(), **size_and_id(path),
        )  # fmt: skip
        host.file_cache.add(path, record, file_key(path))
    hash_files(host.listing().files, host.file_cache)
    host.file_cache.close()


def size_and_id(path: str) -> dict[str, Any]:
    return {name: fact for name, fact in file_facts(path).items() if name != "name"}


def state(models: Path) -> dict[str, tuple[bytes, int, int]]:
    """Bytes, time and mode of every file, and of nothing else."""
    return {
        path.relative_to(models).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode)
        for path in models.rglob("*")
        if path.is_file()
    }


def contents(models: Path) -> dict[str, bytes]:
    return {name: content for name, (content, *_) in state(models).items()}


def inodes(models: Path) -> dict[str, int]:
    return {path.relative_to(models).as_posix(): path.stat().st_ino for path in models.rglob("*") if path.is_file()}


A, COPY, DEEP = "VAE/a.safetensors", "VAE/a-copy.safetensors", "VAE/deep/again.safetensors"


def test_the_plan_changes_nothing(models: Path) -> None:
    before = state(models), inodes(models)
    plan = dedupe_of(models).plan()
    size = (models / A).stat().st_size
    assert {copy.name: copy.source for copy in plan.identical.copies} == {
        "a-copy.safetensors": "a.safetensors",
        "deep/again.safetensors": "a.safetensors",
    }
    assert (plan.identical.freed, plan.identical.skipped, plan.identical.unhashed) == (2 * size, [], 0)
    assert [set(names) for names in plan.others] == [
        {"a.safetensors", "a-copy.safetensors", "deep/again.safetensors", "a.pt"}
    ]
    assert (plan.unscanned, plan.replaced) == (0, [])
    assert (state(models), inodes(models)) == before


def test_links_and_independent_files_after_a_restart(models: Path) -> None:
    before = state(models)
    result = dedupe_of(models).apply()
    assert dict(result.replaced) == {"a-copy.safetensors": "a.safetensors", "deep/again.safetensors": "a.safetensors"}
    assert (result.skipped, result.freed) == ([], 2 * (models / A).stat().st_size)
    assert contents(models) == {name: content for name, (content, *_) in before.items()}
    assert state(models)[A] == before[A], "the file that is kept has its time"
    now = inodes(models)
    if not result.reflinks:
        assert now[A] == now[COPY] == now[DEEP]
    assert now["Stable-diffusion/one.safetensors"] != now["Stable-diffusion/two.safetensors"], "no VAE files"
    again = dedupe_of(models)
    plan = again.plan()
    assert (plan.identical.copies, plan.identical.unhashed, plan.unscanned) == ([], 0, 0), "all is known as before"
    assert {Path(path).name for path, _ in plan.replaced} == {"a-copy.safetensors", "again.safetensors"}
    undone = again.undo()
    assert (len(undone.restored), undone.refused) == (2, [])
    assert state(models) == before
    assert len(set(inodes(models).values())) == len(before)
    assert len(dedupe_of(models).plan().identical.copies) == 2
    with pytest.raises(UnknownChoice, match="nothing to undo"):
        dedupe_of(models).undo()


def test_what_is_known_of_a_file_stays_known(models: Path) -> None:
    cache = host_of(models).file_cache
    before = {name: cache.current(str(models / name)) for name in (A, COPY, DEEP)}
    dedupe_of(models).apply()
    for name, record in before.items():
        now = cache.current(str(models / name))
        assert record is not None
        assert now is not None
        assert (now.fingerprint, now.sha256) == (record.fingerprint, record.sha256)
        assert now.file_id.endswith(f":{(models / name).stat().st_ino}")


def test_some_of_them(models: Path) -> None:
    result = dedupe_of(models).apply(["deep/again.safetensors"])
    assert dict(result.replaced) == {"deep/again.safetensors": "a.safetensors"}
    assert inodes(models)[COPY] != inodes(models)[A]
    with pytest.raises(UnknownChoice, match=r"b\.safetensors has no copy"):
        dedupe_of(models).apply(["b.safetensors"])


def test_replaced_twice_gets_back_its_first_time(models: Path) -> None:
    before = state(models)
    dedupe_of(models).apply()
    fresh = models / "VAE" / "0-new.safetensors"
    shutil.copyfile(models / A, fresh)
    scan(models)
    result = dedupe_of(models).apply()
    assert [name for name, _ in result.replaced] == ["0-new.safetensors"]
    dedupe_of(models).undo()
    fresh.unlink()
    assert state(models) == before


def test_hard_links_that_exist_are_no_copies(models: Path) -> None:
    (models / COPY).unlink()
    (models / COPY).hardlink_to(models / A)
    scan(models)
    plan = dedupe_of(models).plan()
    assert [copy.name for copy in plan.identical.copies] == ["deep/again.safetensors"]
    assert plan.identical.copies[0].source in ("a.safetensors", "a-copy.safetensors")


def test_hard_links_elsewhere_stay_links(models: Path) -> None:
    other = models.parent / "elsewhere.safetensors"
    other.hardlink_to(models / DEEP)
    scan(models)
    plan = dedupe_of(models).plan()
    assert {copy.source for copy in plan.identical.copies} == {"deep/again.safetensors"}, "it is the one that stays"
    (models.parent / "second.safetensors").hardlink_to(models / COPY)
    scan(models)
    plan = dedupe_of(models).plan()
    stay = {name for name, why in plan.identical.skipped if why.startswith("it has hard links elsewhere")}
    assert len(stay & {"a-copy.safetensors", "deep/again.safetensors"}) == 1
    dedupe_of(models).apply()
    assert other.samefile(models / DEEP)


def test_symbolic_links_are_not_followed_out_of_the_folder(models: Path) -> None:
    outside = models.parent / "outside"
    outside.mkdir()
    shutil.copyfile(models / A, outside / "far.safetensors")
    (models / "VAE" / "door").symlink_to(outside)
    (models / "VAE" / "link.safetensors").symlink_to(outside / "far.safetensors")
    scan(models)
    plan = dedupe_of(models).plan()
    assert dict(plan.identical.skipped) == {
        "door/far.safetensors": "it lies outside of the folder, behind a symbolic link"
    }
    dedupe_of(models).apply()
    assert (outside / "far.safetensors").stat().st_nlink == 1
    assert (models / "VAE" / "link.safetensors").is_symlink()


def test_other_permissions_stay(models: Path) -> None:
    (models / COPY).chmod(0o600)
    scan(models)
    plan = dedupe_of(models).plan()
    assert dict(plan.identical.skipped) == {"a-copy.safetensors": "it has another owner or other permissions"}


@pytest.mark.parametrize("part", [0, -1])
@pytest.mark.parametrize(("name", "skipped"), [(COPY, [COPY]), (A, [COPY, DEEP])])
def test_a_file_that_has_changed_since_its_hash_was_known_is_skipped(
    models: Path, monkeypatch: pytest.MonkeyPatch, name: str, skipped: list[str], part: int
) -> None:
    """With the same size and time: only its bytes tell. If it is the one to link to, nothing is replaced by it."""
    service = dedupe_of(models)
    plan, time = service.plan(), (models / name).stat().st_mtime_ns
    changed = bytearray((models / name).read_bytes())
    changed[part] ^= 1
    (models / name).write_bytes(changed)
    os.utime(models / name, ns=(time, time))
    before = contents(models)
    monkeypatch.setattr(service, "plan", lambda: plan)
    result = service.apply()
    why = "its bytes are no longer the same, so it was not replaced"
    assert dict(result.skipped) == {one.removeprefix("VAE/"): why for one in skipped}
    assert len(result.replaced) == 2 - len(skipped)
    assert contents(models) == before
    assert len(dedupe_of(models).plan().replaced) == 2 - len(skipped)


def test_a_file_that_is_written_while_it_is_compared_is_skipped(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_link = links_module._make_link

    def writing(planned, *rest):  # type: ignore[no-untyped-def]
        made = make_link(planned, *rest)
        if planned.path.endswith("a-copy.safetensors"):
            Path(planned.path).write_bytes(b"new")
        return made

    monkeypatch.setattr(links_module, "_make_link", writing)
    result = dedupe_of(models).apply()
    assert dict(result.skipped) == {"a-copy.safetensors": "it was changed in the meantime, so it was not replaced"}
    assert (models / COPY).read_bytes() == b"new"
    assert not list(models.rglob("*.part"))


def test_where_the_list_cannot_be_written_nothing_is_changed(models: Path) -> None:
    before = inodes(models)
    (models.parent / "file").write_text("")
    with pytest.raises(HostError, match=r"links\.json could not be"):
        DedupeService(host_of(models), Runs(), models.parent / "file" / "links.json").apply()
    assert inodes(models) == before


@pytest.mark.parametrize("step", ["link", "replace"])
def test_a_program_that_is_killed_leaves_whole_files_and_a_list_that_undoes(models: Path, step: str) -> None:
    """Killed between the temporary link and the replacement of the second file, or right after it."""
    before = state(models)
    script = f"""
import os
from pathlib import Path
from tests.unit.service.test_dedupe import dedupe_of
real, count = os.replace, []
def dying(source, target):
    ours = str(target).endswith(".safetensors")
    count.extend([target] if ours else [])
    if len(count) < 2 or {step!r} == "replace":
        real(source, target)
    if len(count) == 2:
        os._exit(9)
os.replace = dying
dedupe_of(Path({str(models)!r})).apply()
"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert ended.returncode == 9
    left = list(models.rglob("*.part"))
    assert len(left) == (step == "link")
    whole = {name: content for name, content in contents(models).items() if not name.endswith(".part")}
    assert whole == {name: content for name, (content, *_) in before.items()}
    undone = dedupe_of(models).undo()
    assert undone.refused == []
    assert {Path(path).name for path in undone.restored} == {"a-copy.safetensors", "again.safetensors"}
    assert state(models) == before, "nothing else is left either"
    assert all(path.stat().st_nlink == 1 for path in models.rglob("*.*"))


def test_undo_leaves_what_was_changed_since(models: Path) -> None:
    dedupe_of(models).apply()
    (models / COPY).unlink()
    (models / DEEP).unlink()
    for name in (DEEP, "VAE/other.safetensors"):  # one of them may get the number on the disk that has become free
        (models / name).write_bytes(b"mine")
    undone = dedupe_of(models).undo()
    assert {Path(path).name: why.split("/")[-1] for path, why in undone.refused} == {
        "a-copy.safetensors": "a-copy.safetensors no longer exists",
        "again.safetensors": "again.safetensors was changed since, so it stays as it is",
    }
    assert (models / DEEP).read_bytes() == b"mine"


def test_undo_needs_room_and_can_be_repeated(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = state(models)
    dedupe_of(models).apply()
    usage = shutil.disk_usage(models)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    undone = dedupe_of(models).undo()
    assert [why for _, why in undone.refused] == [f"it could not be copied: {os.strerror(errno.ENOSPC)}"] * 2
    monkeypatch.undo()
    assert dedupe_of(models).undo().refused == []
    assert state(models) == before


def test_cancel_stops_between_and_within_files(models: Path) -> None:
    service = dedupe_of(models)
    runs, report = service._runs, service._runs.report

    def cancelling(done: int, total: int, what: str, **how: str) -> None:
        report(done, total, what, **how)  # type: ignore[arg-type]
        if done:
            runs.cancel()

    runs.report = cancelling  # type: ignore[method-assign]
    result = service.apply()
    assert (result.cancelled, list(result.replaced)) == (True, [])
    assert dedupe_of(models).plan().replaced == []
    dedupe_of(models).apply()
    undone = service.undo()
    assert (undone.cancelled, list(undone.restored)) == (True, [])
    assert len(dedupe_of(models).plan().replaced) == 2, "what is left can still be undone"


def test_reflinks_stay_files_of_their_own(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system that has them; here a copy stands for one."""
    before = state(models)

    def clone(source, target):  # type: ignore[no-untyped-def]
        target.write(Path(source.name if isinstance(source.name, str) else f"/proc/self/fd/{source.name}").read_bytes())
        target.flush()

    monkeypatch.setattr(links_module, "clone_file", clone)
    result = dedupe_of(models).apply()
    assert (len(result.replaced), result.reflinks) == (2, 2)
    assert state(models) == before, "also times and permissions"
    assert len(set(inodes(models).values())) == len(before)
    assert dedupe_of(models).plan().identical.copies == [], "they share their bytes already"
    assert dedupe_of(models).undo().refused == []
    assert state(models) == before


def test_extended_attributes_are_not_lost(models: Path) -> None:
    try:
        os.setxattr(models / COPY, "user.origin", b"https://example.org")
    except (AttributeError, OSError):
        pytest.skip("this file system has none")
    scan(models)
    result = dedupe_of(models).apply()
    if not result.reflinks:
        assert list(dict(result.skipped)) == ["a-copy.safetensors"]
    assert os.getxattr(models / COPY, "user.origin") == b"https://example.org"


def test_files_that_no_scan_has_read(models: Path) -> None:
    shutil.copyfile(models / A, models / "VAE" / "fresh.safetensors")
    plan = dedupe_of(models).plan()
    assert plan.unscanned == 1
    host, path = host_of(models), str(models / "VAE" / "fresh.safetensors")
    host.file_cache.add(path, FileRecord(path, family_id="", kind="vae"), file_key(path))
    assert dedupe_of(models).plan().identical.unhashed == 1
    assert "fresh.safetensors" not in dict(dedupe_of(models).apply().replaced)


@pytest.mark.parametrize(
    "change",
    [
        {"path": "relative.safetensors"},
        {"path": "/etc/passwd"},
        {"temporary": "../other.safetensors"},
        {"mode": 0o4755},
        {"sha256": "?"},
        {"size": -1},
        {"inode": "1"},
        {"more": 1},
    ],
)
def test_a_list_by_someone_else_is_refused(models: Path, change: dict[str, object]) -> None:
    dedupe_of(models).apply()
    path = models.parent / "data" / "links.json"
    stored = json.loads(path.read_text())
    stored["changes"][0] |= change
    path.write_text(json.dumps(stored))
    before = inodes(models)
    with pytest.raises(HostError, match="is not a list of changes"):
        dedupe_of(models).undo()
    assert inodes(models) == before
