"""Files that a download left incomplete: one verdict, wherever it is asked for, and only for that file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.unit.makers import write, write_zip
from vae_lab import inspect_file
from vae_lab.cli import main
from vae_lab.formats import open_weights
from vae_lab.library import FileCache, FileRecord, Scan, scan_file
from vae_lab.library.inspect import identify_file
from vae_lab.samples import load_sample_vae

CONV = "decoder.mid.block_1.conv1.weight"
LENGTH = 4096


def damage(path: Path) -> int:
    """Put zeros into the middle of a tensor that sketches do not sample there. Returns the offset of the first."""
    with open_weights(path) as file:
        start = file.position(next(name for name in file.tensors if name.endswith(CONV)))
        assert start is not None
    data = bytearray(path.read_bytes())
    start += 5_008
    data[start : start + LENGTH] = bytes(LENGTH)
    path.write_bytes(data)
    return start


def damaged(path: Path) -> tuple[Path, int]:
    write(path, load_sample_vae("photo-a"))
    return path, damage(path)


def codes(record: FileRecord) -> list[str]:
    return [finding.code for finding in record.verdict.findings]


@pytest.mark.parametrize("probe", [True, False])
def test_the_finding_names_the_bytes_and_what_to_do(folder: Path, probe: bool) -> None:
    path, start = damaged(folder / "v.safetensors")
    record = inspect_file(path, probe=probe)
    assert record.status == "broken"
    finding = record.verdict.findings[0]
    assert (finding.code, finding.severity, finding.title) == ("lost-data", "broken", "Part of the file is missing")
    assert f"Bytes {start:,} to {start + LENGTH:,} of the file (in '{CONV}') are all zero" in finding.text
    assert finding.remedy == "Download the file again."
    assert [(evidence.name, evidence.value) for evidence in finding.evidence] == [
        ("missing parts", 1),
        ("missing bytes", LENGTH),
    ]


def test_a_url_is_not_downloaded_again_from_the_same_place(folder: Path) -> None:
    path, start = damaged(folder / "v.safetensors")
    (finding,) = inspect_file(path.as_uri(), probe=False).verdict.findings
    assert f"Bytes {start:,} to " in finding.text
    assert "another source" in finding.remedy


def test_a_checkpoint_in_a_torch_archive(folder: Path) -> None:
    vae = {f"first_stage_model.{name}": value for name, value in load_sample_vae("photo-a").items()}
    path = write_zip(folder / "c.ckpt", vae)
    start = damage(path)
    assert f"Bytes {start:,} to " in inspect_file(path, probe=False).verdict.findings[0].text


def test_a_piece_twice(folder: Path) -> None:
    path = write(folder / "v.safetensors", load_sample_vae("photo-a"))
    data = bytearray(path.read_bytes())
    data[409_600:417_792] = data[204_800:212_992]
    path.write_bytes(data)
    (finding,) = inspect_file(path, probe=False).verdict.findings
    assert "Bytes 409,600 to 417,792 of the file" in finding.text
    assert "are the same as bytes 204,800 to 212,992" in finding.text


def test_scan_inspect_and_cache_agree(folder: Path, cache: FileCache) -> None:
    path, _ = damaged(folder / "v.safetensors")
    expected = inspect_file(path).verdict
    assert "lost-data" in {finding.code for finding in expected.findings}
    (record,) = Scan([folder], cache).run()
    (again,) = Scan([folder], cache).run()
    stored = cache.checked(str(path))
    assert stored is not None
    for found in (scan_file(path), record, again, stored, cache.check(str(path))):
        assert found.verdict == expected
    assert "lost-data" in codes(identify_file(path))


@pytest.mark.parametrize("names", [("a", "b", "c"), ("b", "c", "a"), ("c", "b", "a")])
def test_the_verdict_stays_with_the_file(folder: Path, cache: FileCache, names: tuple[str, str, str]) -> None:
    """The sketches are equal, so the scan takes the files for copies of one VAE. Each is read nevertheless."""
    good, bad, copy = (folder / f"{name}.safetensors" for name in names)
    write(good, load_sample_vae("photo-a"))
    damaged(bad)
    shutil.copyfile(bad, copy)
    records = {Path(record.path).stem: record for record in Scan([folder], cache).run()}
    assert len({record.sketch for record in records.values()}) == 1, "else this tests nothing"
    assert {name: "lost-data" in codes(record) for name, record in records.items()} == {
        good.stem: False,
        bad.stem: True,
        copy.stem: True,
    }
    assert records[good.stem].status == "healthy"


def test_a_repaired_file_is_healthy_again(folder: Path, cache: FileCache) -> None:
    path, _ = damaged(folder / "v.safetensors")
    assert "lost-data" in codes(cache.check(str(path)))
    write(path, load_sample_vae("photo-a"))
    assert cache.check(str(path)).status == "healthy"


def test_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, start = damaged(folder / "v.safetensors")
    assert main(["inspect", "--no-probe", "--json", str(path)]) == 1
    verdict = json.loads(capsys.readouterr().out)["verdict"]
    assert verdict["status"] == "broken"
    assert [finding["code"] for finding in verdict["findings"]] == ["lost-data"]
    assert f"Bytes {start:,} to" in verdict["findings"][0]["text"]
