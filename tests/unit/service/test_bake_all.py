"""Bake all: a copy with a healthy VAE of every checkpoint whose own is broken or missing, and back."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.unit import bake_tree
from tests.unit.bake_tree import COPIES, USES, files
from vae_lab.errors import HostError, UnknownChoice
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.library import FileRecord
from vae_lab.samples import load_sample_vae
from vae_lab.service.bake_all import BakeAllService, BakedFiles
from vae_lab.service.service import service_of


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return bake_tree.scanned(tmp_path)


def host_of(models: Path) -> StandaloneHost:
    """A new one each time, as after a restart."""
    return StandaloneHost(Folders.of_models(models, models.parent / "data", webui=True))


@pytest.fixture
def host(models: Path, monkeypatch: pytest.MonkeyPatch) -> StandaloneHost:
    """It checks no new file, which takes a second each."""
    host = host_of(models)
    monkeypatch.setattr(host.file_cache, "check", lambda path: FileRecord(path, path))
    return host


@pytest.fixture
def service(host: StandaloneHost) -> BakeAllService:
    return service_of(host).bake_all


def test_the_plan(models: Path, service: BakeAllService) -> None:
    before = files(models)
    plan = service.plan()
    assert {one.checkpoint: one.vae for one in plan.bakes} == USES
    assert {one.checkpoint: Path(one.checkpoint).with_name(one.file).as_posix() for one in plan.bakes} == COPIES
    added = (models / "VAE" / "xl-vae.safetensors").stat().st_size
    sizes = {"deep/grey.safetensors": len(before["deep/grey.safetensors"])}
    sizes["xl.safetensors"] = len(before["xl.safetensors"]) + added
    assert {one.checkpoint: one.size for one in plan.bakes} == sizes
    (room,) = plan.rooms
    assert room.needed == sum(sizes.values())
    assert room.free > 0
    assert (plan.before, plan.written) == ([], [])
    assert files(models) == before


def test_two_families_and_back_after_a_restart(models: Path) -> None:
    """The new files are really checked."""
    before, host = files(models), host_of(models)
    result = service_of(host).bake_all.apply()
    assert {name: record.verdict.status for name, _, record in result.written} == dict.fromkeys(USES, "healthy")
    assert (result.failed, result.cancelled) == ([], False)
    after = files(models)
    assert after.keys() == before.keys() | set(COPIES.values())
    assert {name: after[name] for name in before} == before
    for checkpoint, donor in (("deep/grey.safetensors", "photo-a"), ("xl.safetensors", "sdxl-c")):
        found = load_file(models / "Stable-diffusion" / COPIES[checkpoint])
        for name, value in load_sample_vae(donor).items():
            assert found.pop(f"first_stage_model.{name}").equal(value)
        assert found.keys() == {name for name in load_file(models / "Stable-diffusion" / checkpoint) if name in found}
    host = host_of(models)
    service = service_of(host).bake_all
    plan = service.plan()
    assert plan.bakes == []
    assert {name for name, _ in plan.before} == USES.keys()
    assert len(plan.written) == len(USES)
    assert service.apply().written == [], "none is written twice"
    undone = service.undo()
    assert (len(undone.removed), undone.refused) == (2, [])
    assert files(models) == before
    with pytest.raises(UnknownChoice, match="nothing to undo"):
        service.undo()


@pytest.mark.parametrize("change", ["edited", "replaced", "link", "gone"])
def test_undo_only_removes_what_it_has_written(models: Path, service: BakeAllService, change: str) -> None:
    before = files(models)
    service.apply()
    path = models / "Stable-diffusion" / COPIES["xl.safetensors"]
    facts, mine = path.stat(), models.parent / "mine.safetensors"
    if change == "edited":
        with path.open("r+b") as file:
            file.seek(100)
            file.write(b"x")
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    elif change == "gone":
        path.unlink()
    else:
        shutil.copyfile(path, mine)
        os.utime(mine, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        if change == "replaced":
            mine.replace(path)
        else:
            path.unlink()
            path.symlink_to(mine)
    kept = path.read_bytes() if change != "gone" else None
    undone = service.undo()
    reason = "it is gone" if change == "gone" else "it was changed since, so it stays"
    assert undone.refused == [(str(path), reason)]
    assert files(models) == before | ({} if kept is None else {COPIES["xl.safetensors"]: kept})
    assert service.written() == []


def test_too_little_room_is_said_before_anything_is_written(
    models: Path, service: BakeAllService, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, usage = files(models), shutil.disk_usage(models)
    room = len(before["deep/grey.safetensors"]) + 2**20
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=room))
    service.apply(["deep/grey.safetensors"])
    service.undo()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=room - 2**20))
    with pytest.raises(HostError, match="not enough disk space: .* needed, .* free; choose fewer"):
        service.apply()
    assert files(models) == before


def test_cancel_keeps_what_is_finished(models: Path, host: StandaloneHost, service: BakeAllService) -> None:
    before, runs = files(models), service_of(host).runs
    sizes = [one.size for one in service.plan().bakes]
    report, seen = runs.report, []

    def cancelling(done: int, total: int, what: str, unit: str = "steps") -> None:
        report(done, total, what, unit=unit)  # type: ignore[arg-type]
        seen.append((total, unit))
        if unit == "bytes" and done > sizes[0]:
            runs.cancel()

    runs.report = cancelling  # type: ignore[method-assign, assignment]
    result = service.apply()
    assert (result.cancelled, len(result.written), result.failed) == (True, 1, [])
    assert seen[-1] == (sum(sizes), "bytes")
    (name,) = (name for name, _, _ in result.written)
    assert files(models).keys() == before.keys() | {COPIES[name]}
    assert service.undo().refused == []
    assert files(models) == before


def test_one_that_cannot_be_baked_does_not_stop_the_others(models: Path, service: BakeAllService) -> None:
    path = models / "Stable-diffusion" / "xl.safetensors"
    plan = service.plan

    def then_damaged(*args: object, **options: object) -> object:
        found = plan(*args, **options)  # type: ignore[arg-type]
        path.write_bytes(path.read_bytes()[:-1])
        return found

    service.plan = then_damaged  # type: ignore[method-assign, assignment]
    result = service.apply()
    assert [name for name, _, _ in result.written] == ["deep/grey.safetensors"]
    ((name, reason),) = result.failed
    assert name == "xl.safetensors"
    assert "truncated" in reason


def test_unknown_names_write_nothing(models: Path, service: BakeAllService) -> None:
    before = files(models)
    for name in ("nowhere.safetensors", "healthy.safetensors"):
        with pytest.raises(UnknownChoice, match=f"nothing to bake into {name}"):
            service.apply(["xl.safetensors", name])
    assert files(models) == before


@pytest.mark.parametrize(
    "change",
    [
        {"path": "relative.safetensors"},
        {"path": "/etc/passwd"},
        {"checkpoint": "/elsewhere/xl.safetensors"},
        {"size": -1},
        {"inode": True},
        {"vae": 1},
        {"more": 1},
    ],
)
def test_a_list_that_others_have_written_removes_nothing(
    models: Path, service: BakeAllService, change: dict[str, object]
) -> None:
    service.apply(["xl.safetensors"])
    before, manifest = files(models), service.manifest.path
    stored = json.loads(manifest.read_text())
    stored["changes"][0].update(change)
    manifest.write_text(json.dumps(stored))
    with pytest.raises(HostError, match="is not a list of changes"):
        service.undo()
    assert files(models) == before


def test_a_copy_that_cannot_be_listed_is_not_left(
    models: Path, service: BakeAllService, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(models)

    def fail(*_: object) -> None:
        raise HostError("bakes.json could not be written")

    monkeypatch.setattr(BakedFiles, "write", fail)
    assert service.apply(["xl.safetensors"]).failed == [("xl.safetensors", "bakes.json could not be written")]
    assert files(models) == before
