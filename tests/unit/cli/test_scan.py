"""``scan`` on the command line: many files, interruption, and reports."""

from __future__ import annotations

import base64
import csv
import json
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.unit.conftest import ROOT, start_cli
from tests.unit.makers import F2, SD1_TEXT, UNET, kl_state, prefixed, write
from tests.unit.scan_tree import build, small_vae
from vae_lab.cli import main
from vae_lab.cli import scan as cli_scan
from vae_lab.library import FileCache, Scan, scan_file
from vae_lab.library.cache import user_cache_folder
from vae_lab.library.store import FILE_NAME


def lines(path: Path) -> list[dict]:
    """The whole lines: the last one may be torn where the process was killed."""
    whole = path.read_text(encoding="utf8").rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


@pytest.fixture(scope="module", params=[300, pytest.param(2000, marks=pytest.mark.slow)], ids="{} files".format)
def disk(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder of so many files, and the status of each."""
    folder = tmp_path_factory.mktemp("disk")
    return folder, build(folder / "models", request.param, 12)


@pytest.fixture(scope="module")
def killed(disk: tuple[Path, dict[str, str]]) -> list[dict]:
    """The records of a scan whose process was killed in the middle."""
    folder, files = disk
    options = ("--jsonl", "first.jsonl", "--cache", "cache", "--jobs", "2")
    process = start_cli("scan", folder / "models", *options, folder=folder)
    for _ in range(4000):
        # Until weights are being checked.
        first = next(folder.glob(".vae-lab-*.part"), None)
        if first is not None and first.read_text(encoding="utf8").count('"fingerprint": "') >= 10:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL if os.name != "nt" else signal.SIGTERM)
    process.communicate()
    assert process.returncode != 0
    assert first is not None
    assert not (folder / "first.jsonl").exists(), "half a report"
    found = lines(first)
    assert len(found) < len(files), "it was not killed in the middle"
    return found


# Run in a separate process, which is warm before it is measured.
MEASURED = """
import base64, gc, json, pickle, sys
from pathlib import Path
import torch
from vae_lab.formats import source
from vae_lab.library import FileCache, FileRecord, Scan

torch.set_num_threads(1)
folder, warm, task = sys.argv[1:]
away = base64.b64encode(pickle.dumps(pickle.loads(base64.b64decode(task))(warm))).decode()
opened = []
open_file = source.LocalFile.__init__

def opening(self, path):
    opened.append(str(path))
    open_file(self, path)

source.LocalFile.__init__ = opening

def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))

sizes = []
def step(done, total, what):
    if done >= (sizes[-1][0] if sizes else 0) + 100:
        sizes.append((done, resident()))

cache = FileCache(Path(folder) / "cache")
scan = Scan([f"{folder}/models"], cache, jobs=2, progress=step)
records = 0
with open(f"{folder}/second.jsonl", "w") as out:
    for record in scan.run():
        records += 1
        out.write(json.dumps(record.to_scan_json()) + "\\n")
alive = sum(type(thing) is FileRecord for thing in gc.get_objects())
facts = {"sizes": sizes, "opened": opened, "alive": alive, "records": records, "complete": scan.complete}
print(json.dumps(facts | {"away": away}))
"""


@pytest.fixture(scope="module")
def resumed(disk: tuple[Path, dict[str, str]], killed: list[dict]) -> dict:
    """Measurements of the scan that resumes from there."""
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is read from /proc")
    folder, _ = disk
    warm = small_vae(folder / "warm.safetensors", 99)
    task = base64.b64encode(pickle.dumps(partial(scan_file, charts=True))).decode()
    command = [sys.executable, "-c", MEASURED, str(folder), str(warm), task]
    settings = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_killed_in_the_middle(killed: list[dict]) -> None:
    assert len(killed) >= 10
    assert len({row["path"] for row in killed}) == len(killed)


def test_resumed_scan_reports_every_file_once(disk: tuple[Path, dict[str, str]], resumed: dict) -> None:
    folder, wanted = disk
    rows = lines(folder / "second.jsonl")
    assert resumed["complete"]
    assert Counter(row["path"] for row in rows) == Counter(wanted.keys())
    wrong = [row for row in rows if wanted[row["path"]] not in ("", row["status"])]
    assert wrong == []
    assert len({row["name"] for row in rows}) == len(wanted)
    assert not list(folder.rglob("it-ran")), "a pickle was run"


def test_resumed_scan_does_no_work_again(disk: tuple[Path, dict[str, str]], killed: list[dict], resumed: dict) -> None:
    """What was reported before the kill was stored before."""
    assert {row["path"] for row in killed}.isdisjoint(resumed["opened"])
    assert len(resumed["opened"]) < 5 * (len(disk[1]) - len(killed))


def test_memory_does_not_grow_with_the_files(disk: tuple[Path, dict[str, str]], resumed: dict) -> None:
    early = resumed["sizes"][0][1]
    assert resumed["sizes"][0][0] <= 2 * 200, "steps, two for each file"
    assert resumed["records"] == len(disk[1])
    assert resumed["alive"] <= 2
    assert resumed["sizes"][-1][1] - early < 48, "MB, of which the first probe takes most"


def test_scan_file_can_be_mapped_over_processes(disk: tuple[Path, dict[str, str]], resumed: dict) -> None:
    """As a pool of processes does it: the call is pickled there, and the record back."""
    here = scan_file(disk[0] / "warm.safetensors", charts=True)
    assert replace(pickle.loads(base64.b64decode(resumed["away"])), seconds=0) == replace(here, seconds=0)


def test_third_scan_reads_nothing(
    disk: tuple[Path, dict[str, str]], resumed: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, wanted = disk

    def opening(*arguments: object) -> None:
        pytest.fail("a file was opened")

    monkeypatch.setattr("vae_lab.formats.source.LocalFile.__init__", opening)
    cache = FileCache(folder / "cache")
    assert sum(1 for _ in Scan([folder / "models"], cache).run()) == len(wanted)
    cache.close()


# --- what it writes --------------------------------------------------------------------------------------------------


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A VAE twice, a checkpoint that contains it, and a file that is none."""
    folder = tmp_path / "models"
    (folder / "VAE").mkdir(parents=True)
    state = kl_state()
    write(folder / "VAE" / "a.safetensors", state)
    write(folder / "VAE" / "b.safetensors", state)
    write(folder / "model.safetensors", UNET | SD1_TEXT | prefixed("first_stage_model.", state))
    (folder / "VAE" / "=text\x1b[2J.pt").write_text("no weights")
    return folder


@pytest.fixture
def scan(models: Path, tmp_path: Path):
    """Run the command without the probe, in this process."""

    def run(*options: str | Path) -> int:
        return main(["scan", str(models), "--no-probe", "--cache", str(tmp_path / "cache"), *map(str, options)])

    return run


def test_summary(scan, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scan() == 2
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "4 files: 1 unreadable, 3 not checked yet"
    assert out[1].startswith(f"  unreadable: {models / 'VAE'}/=text\\x1b[2J.pt: Text, not weights")
    assert out[2].startswith("VAEs found in more than one file: 1, 886.5 kB could be freed (nothing is ever deleted")
    assert "model.safetensors already contains VAE/a.safetensors: choosing it there changes nothing." in out[3]


def test_reports(scan, tmp_path: Path) -> None:
    outs = [tmp_path / f"out.{suffix}" for suffix in ("jsonl", "csv", "html")]
    for options in ((), ("--overwrite",)):  # the second time from what is known
        assert scan("--jsonl", outs[0], "--csv", outs[1], "--html", outs[2], *options) == 2
        assert len(lines(outs[0])) == 4
        with outs[1].open(encoding="utf8", newline="") as table:
            rows = list(csv.DictReader(table))
        assert [row["status"] for row in rows] == ["unreadable", "unchecked", "unchecked", "unchecked"]
        assert rows[0]["name"].startswith("VAE/=text")
        assert "already contains" in outs[2].read_text(encoding="utf8")


@pytest.mark.parametrize("option", ["--jsonl", "--csv", "--html"])
def test_no_report_takes_the_place_of_a_file(
    scan, models: Path, option: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    vae = models / "VAE" / "a.safetensors"
    content = vae.read_bytes()
    assert scan(option, vae) == 2
    assert capsys.readouterr().err == f"{vae} already exists. Choose another name, or add --overwrite.\n"
    late = models / "late"

    def appears(*arguments: object, **options: object) -> Scan:
        late.write_bytes(content)
        return Scan(*arguments, **options)

    monkeypatch.setattr(cli_scan, "Scan", appears)
    assert scan(option, late) == 2
    assert capsys.readouterr().err == f"{late}: already exists\n"
    assert late.read_bytes() == vae.read_bytes() == content
    assert not list(models.rglob("*.part"))


def test_each_report_has_a_file(scan, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scan("--csv", tmp_path / "r", "--html", tmp_path / "r", "--overwrite") == 2
    assert capsys.readouterr().err == "--jsonl, --csv and --html need a file each.\n"
    assert not (tmp_path / "r").exists()


def test_jsonl_on_stdout_has_no_other_lines(scan, capsys: pytest.CaptureFixture[str]) -> None:
    assert scan("--jsonl", "-") == 2
    captured = capsys.readouterr()
    assert len([json.loads(line) for line in captured.out.splitlines()]) == 4
    assert captured.err.startswith("4 files: ")


@pytest.mark.parametrize(("name", "code"), [("VAE/a.safetensors", 0), ("gone.pt", 2), ("VAE/=text\x1b[2J.pt", 2)])
def test_exit_codes(models: Path, tmp_path: Path, name: str, code: int) -> None:
    assert main(["scan", str(models / name), "--no-probe", "--cache", str(tmp_path / "cache")]) == code


def test_exit_code_of_what_is_broken(tmp_path: Path) -> None:
    path = small_vae(tmp_path / "v.safetensors", 0)
    assert main(["scan", str(path), "--cache", str(tmp_path / "cache"), "--jobs", "1"]) == 1


def test_html_shows_charts(tmp_path: Path) -> None:
    path = small_vae(tmp_path / "v.safetensors", 0)
    main(["scan", str(path), "--cache", str(tmp_path / "c"), "--html", str(tmp_path / "o.html"), "--jobs", "1"])
    page = (tmp_path / "o.html").read_text(encoding="utf8")
    assert page.count("data:image/png") == 2, "before and after"


BAD_CALLS = {
    "no folder for the report": (("--html", "gone/o.html"), "the folder gone does not exist"),
    "dask without its scheduler": (("--engine", "dask"), "Give both or neither"),
    "scheduler without dask": (("--dask-scheduler", "tcp://x:1"), "Give both or neither"),
}


@pytest.mark.parametrize(("options", "message"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_calls(scan, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str) -> None:
    assert scan(*options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_dask_that_is_not_installed(scan, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("vae_lab.library.cluster.importlib.import_module", failing)
    assert scan("--engine", "dask", "--dask-scheduler", "tcp://127.0.0.1:1") == 2
    assert capsys.readouterr().err == 'the engine "dask" needs Dask: pip install "dask[distributed]"\n'


@pytest.mark.parametrize("jobs", ["0", "-1", "many"])
def test_bad_number_of_jobs(scan, jobs: str) -> None:
    with pytest.raises(SystemExit) as caught:
        scan("--jobs", jobs)
    assert caught.value.code == 2


def test_cache_that_cannot_be_used(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["scan", str(models), "--cache", str(tmp_path / "file")]) == 2
    assert "choose another folder with --cache" in capsys.readouterr().err


def test_cache_that_is_damaged(scan, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / FILE_NAME).write_bytes(b"no database" * 1000)
    assert scan() == 2
    assert len(caplog.records) == 1
    caplog.clear()
    assert scan() == 2
    assert caplog.records == []


def test_cache_that_is_locked(
    scan, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The scan needs none to be right."""
    monkeypatch.setattr("vae_lab.library.store._BUSY_SECONDS", 0.01)
    assert scan() == 2
    before = capsys.readouterr().out
    with closing(sqlite3.connect(tmp_path / "cache" / FILE_NAME, isolation_level=None)) as database:
        database.execute("DELETE FROM entries")
        database.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(cli_scan, "user_cache_folder", lambda: tmp_path / "cache")
        assert main(["scan", str(tmp_path / "models"), "--no-probe"]) == 2
        database.execute("ROLLBACK")
    assert capsys.readouterr().out == before
    assert len(caplog.records) == 1
    assert "locked" in caplog.text


def test_interrupted_by_the_user(scan, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Finished work is reported and stored, and the same command resumes."""

    class Stopped(Scan):
        def run(self):
            for i, record in enumerate(super().run()):
                yield record
                if i == 1:
                    raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(cli_scan, "Scan", Stopped)
        assert scan("--jobs", "1") == 130
    out = capsys.readouterr().out
    assert out.startswith("4 files: 1 unreadable, 3 not checked yet")
    assert "Interrupted. Run the same command to resume." in out
    assert "according to a sample of their weights" in out
    assert scan() == 2
    assert capsys.readouterr().out.startswith("4 files: 1 unreadable, 3 not checked yet")


def test_cache_is_where_the_system_wants_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert user_cache_folder().is_relative_to(tmp_path)
    assert "vae-lab" in user_cache_folder().parts


def test_every_option_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["scan", "--help"])
    shown = capsys.readouterr().out
    for option in (
        "--jsonl",
        "--csv",
        "--html",
        "--overwrite",
        "--jobs",
        "--no-probe",
        "--engine",
        "--dask-scheduler",
        "--cache",
    ):
        assert option in shown


def test_a_vae_that_cannot_be_judged_has_an_exit_code_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "v.safetensors", kl_state(F2))
    assert main(["scan", str(path), "--cache", str(tmp_path / "cache")]) == 3
    assert capsys.readouterr().out.startswith("1 file: 1 cannot be judged")
    assert main(["inspect", str(path)]) == 3
    broken = write(tmp_path / "w.safetensors", {name: torch.zeros_like(t) for name, t in kl_state(F2).items()})
    assert main(["inspect", str(path), str(broken)]) == 1


def test_files_of_other_kinds_are_no_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As in a whole models folder: the damaged file first, and all LoRAs in one line."""
    folder = tmp_path / "models"
    folder.mkdir()
    for i in range(3):
        write(folder / f"lora{i}.safetensors", {"lora_unet_down_blocks_0.lora_up.weight": torch.zeros(4, 2) + i})
    write(folder / "upscaler.safetensors", {"params_ema.conv_first.weight": torch.zeros(4, 3, 3, 3)})
    command = ["scan", str(folder), "--no-probe", "--jobs", "1", "--cache", str(tmp_path / "cache")]
    assert main(command) == 0
    out = capsys.readouterr().out.splitlines()
    assert out == ["4 files: 4 not a VAE", "4 files hold no VAE: 3 LoRAs, 1 upscaler"]
    cut = write(folder / "zz-cut.safetensors", UNET)
    cut.write_bytes(cut.read_bytes()[:-9])
    assert main(command) == 2
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "5 files: 1 unreadable, 4 not a VAE"
    assert out[1].startswith(f"  unreadable: {cut}: ")
    assert out[2] == "4 files hold no VAE: 3 LoRAs, 1 upscaler"
