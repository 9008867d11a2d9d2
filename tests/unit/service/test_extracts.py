"""Extract all: every built-in VAE that no VAE file has yet, each once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.unit import extract_tree
from tests.unit.extract_tree import CHECKPOINTS, WRITTEN, state_of
from tests.unit.makers import UNET, prefixed, write
from vae_lab.autoencoders import open_vae
from vae_lab.errors import HostError, UnknownChoice
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.identity import fingerprint
from vae_lab.library.extraction import free_name
from vae_lab.service.extracts import ExtractPlan, ExtractService
from vae_lab.service.runs import Runs


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return extract_tree.scanned(tmp_path)


def extracts_of(models: Path) -> ExtractService:
    host = StandaloneHost(Folders.of_models(models, models.parent / "data"))
    service = ExtractService(host, Runs())
    service.host = host  # type: ignore[attr-defined]  the service has a weak reference in the product
    return service


def files(models: Path) -> dict[str, bytes]:
    return {path.relative_to(models).as_posix(): path.read_bytes() for path in models.rglob("*") if path.is_file()}


def planned(plan: ExtractPlan) -> dict[str, str]:
    return {one.checkpoint: one.file for one in plan.wanted}


def test_the_plan_writes_nothing(models: Path) -> None:
    before = files(models)
    plan = extracts_of(models).plan()
    assert planned(plan) == WRITTEN
    assert {one.checkpoint: one.skipped for one in plan.skipped} == {
        "grey.safetensors": "it is broken",
        "copy-of-external.safetensors": "it is already in mine.pt",
    }
    found = {one.checkpoint: one for one in plan.extractions}
    second = found["deep/second.ckpt"]
    assert (second.also, second.dtype, second.status) == (("first.safetensors",), "fp32", "healthy")
    assert second.size == sum(tensor.nbytes for tensor in state_of("a").values())
    assert (found["grey.safetensors"].status, found["grey.safetensors"].title) == ("broken", "Washed out")
    assert (plan.folder, plan.unchecked, plan.unknown) == (models / "VAE", 0, 0)
    assert (plan.needed, plan.free > 0) == (sum(one.size for one in plan.wanted), True)
    assert files(models) == before


def test_each_is_written_once(models: Path) -> None:
    before = files(models)
    service = extracts_of(models)
    result = service.apply()
    assert {one.checkpoint: one.path.name for one in result.written} == WRITTEN
    assert (result.failed, result.cancelled) == ([], False)
    assert {one.record.status for one in result.written} == {"healthy"}
    after = files(models)
    assert after.keys() - before.keys() == {f"VAE/{name}" for name in WRITTEN.values()}
    assert {name: after[name] for name in before} == before
    for one in result.written:
        with open_vae(one.path) as written:
            assert fingerprint(written.state_dict()) == fingerprint(state_of(CHECKPOINTS[one.checkpoint][1]))
    plan = service.plan()
    assert plan.wanted == []
    assert "it is already in vae-anything.safetensors" in {one.skipped for one in plan.skipped}
    assert extracts_of(models).apply().written == []
    assert files(models) == after


def test_broken_ones_if_asked(models: Path) -> None:
    assert planned(extracts_of(models).plan(broken=True)) == {**WRITTEN, "grey.safetensors": "vae-grey.safetensors"}
    result = extracts_of(models).apply(["grey.safetensors"], broken=True)
    assert [one.record.status for one in result.written] == ["broken"]


@pytest.mark.parametrize("name", ["grey.safetensors", "copy-of-external.safetensors", "nowhere.ckpt"])
def test_what_is_not_planned_is_refused(models: Path, name: str) -> None:
    before = files(models)
    with pytest.raises(UnknownChoice, match=f"nothing to extract from {name}"):
        extracts_of(models).apply(["anything.safetensors", name])
    assert files(models) == before


def test_a_name_that_is_taken_stays(models: Path) -> None:
    taken = models / "VAE" / "vae-anything.safetensors"
    taken.write_bytes(b"not a VAE")
    result = extracts_of(models).apply(["anything.safetensors"])
    assert [one.path.name for one in result.written] == ["vae-anything-2.safetensors"]
    assert taken.read_bytes() == b"not a VAE"


def test_a_name_that_is_taken_in_the_meantime_stays(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = extracts_of(models)
    plan = service.plan()
    taken = models / "VAE" / "vae-anything.safetensors"
    taken.write_bytes(b"not a VAE")
    monkeypatch.setattr(service, "plan", lambda **_: plan)
    result = service.apply(["anything.safetensors"])
    assert result.failed == [("anything.safetensors", "already exists; nothing was written")]
    assert taken.read_bytes() == b"not a VAE"


def test_a_file_that_no_scan_has_read_counts_too(models: Path) -> None:
    """Another container of a VAE that would be extracted, which came after the scan."""
    write(models / "VAE" / "downloaded.safetensors", prefixed("first_stage_model.", state_of("b", "fp16")))
    service = extracts_of(models)
    assert service.plan().unknown == 1
    result = service.apply()
    assert "anything.safetensors" not in {one.checkpoint for one in result.written}


def test_what_no_scan_has_checked_is_counted(models: Path) -> None:
    write(models / "Stable-diffusion" / "new.safetensors", {**UNET, **prefixed("first_stage_model.", state_of("b"))})
    plan = extracts_of(models).plan()
    assert (planned(plan), plan.unchecked) == (WRITTEN, 1)


def test_too_little_room(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(models)
    usage = shutil.disk_usage(models)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(HostError, match="not enough disk space"):
        extracts_of(models).apply()
    assert files(models) == before


def test_cancel_keeps_what_is_finished(models: Path) -> None:
    service = extracts_of(models)
    runs, report, size = service._runs, service._runs.report, service.plan().wanted[0].size

    def cancelling(done: int, total: int, what: str, unit: str = "steps") -> None:
        report(done, total, what, unit=unit)  # type: ignore[arg-type]
        if unit == "bytes" and done > 1.5 * size:
            runs.cancel()

    runs.report = cancelling  # type: ignore[method-assign, assignment]
    result = service.apply()
    assert (result.cancelled, len(result.written)) == (True, 1)
    assert len(list((models / "VAE").iterdir())) == 2, "nothing half-written is left"


def test_no_folder_for_vaes(models: Path) -> None:
    host = StandaloneHost(Folders(models.parent / "data", (models / "Stable-diffusion",)))
    with pytest.raises(HostError, match="no folder for VAEs"):
        ExtractService(host, Runs()).plan()


def test_automatic_takes_the_new_file_for_no_other_checkpoint(tmp_path: Path) -> None:
    """The WebUI compares the beginning of a VAE file's name with the names of checkpoints."""
    checkpoint = tmp_path / "anything-v3.ckpt"
    assert free_name(checkpoint, tmp_path, {"anything", "anything-v3"}) == "vae-anything-v3.safetensors"
    assert free_name(checkpoint, tmp_path, {"anything-v3", "VAE"}) == "extracted-vae-anything-v3.safetensors"
    assert free_name(checkpoint, tmp_path, {"x"}, {"VAE-Anything-v3.safetensors"}) == "vae-anything-v3-2.safetensors"
