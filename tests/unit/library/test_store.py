"""The cache file: never executed, and any damage only costs time and one log line."""

from __future__ import annotations

import json
import logging
import os
import pickle
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.makers import F2, SD1_TEXT, UNET, kl_state, prefixed, write
from vae_lab.checkup import Checkup
from vae_lab.checkup.findings import Evidence, Finding
from vae_lab.host.choices import BUILT_IN
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.identity import KnownVae, Merge, Parent
from vae_lab.library import Depth, FileCache, FileRecord
from vae_lab.library import store as store_module
from vae_lab.library.store import FILE_NAME, MAX_VALUE_BYTES, Store


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits for a lock."""
    monkeypatch.setattr(store_module, "_BUSY_SECONDS", 0.01)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "vae_lab")
    return caplog


def stored(folder: Path) -> Path:
    """A cache with one value in it."""
    store = Store(folder)
    store.set_json("key", "of before")
    store.close()
    return folder / FILE_NAME


def test_values_outlive_the_program(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path)
    store.set_json("plain", {"a": [1, 2.5, None, "\udcff"]})
    store.set_bytes("bytes", b"\x00\xff")
    store.close()
    again = Store(tmp_path)
    assert again.get_json("plain") == {"a": [1, 2.5, None, "\udcff"]}
    assert again.get_bytes("bytes") == b"\x00\xff"
    assert (again.get_bytes("plain"), again.get_json("bytes"), again.get_json("none")) == (None, None, None)
    again.delete("plain")
    assert again.get_json("plain") is None
    again.close()
    assert log.records == []


def test_several_processes_or_threads(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    first, second = Store(tmp_path), Store(tmp_path)
    first.set_json("a", 1)
    second.set_json("a", 2)
    assert (first.get_json("a"), second.get_json("a")) == (2, 2)
    first.close()
    second.close()
    assert log.records == []


# --- what is wrong with it -------------------------------------------------------------------------------------------


def other_tables(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE VIEW more AS SELECT 1")
    database.close()


DAMAGED: dict[str, Callable[[Path], object]] = {
    "no database": lambda path: path.write_bytes(b"no database" * 1000),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:5000]),
    "overwritten": lambda path: path.write_bytes(path.read_bytes()[:100] + bytes(len(path.read_bytes()) - 100)),
    "other tables": other_tables,
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_damaged(tmp_path: Path, damage: Callable[[Path], object], log: pytest.LogCaptureFixture) -> None:
    damage(stored(tmp_path))
    store = Store(tmp_path)
    store.set_json("new", 1)
    assert (store.get_json("new"), store.get_json("key")) == (1, None)
    store.close()
    assert len(log.records) == 1
    assert "damaged and was rebuilt" in log.text
    again = Store(tmp_path)
    assert (again.get_json("new"), again.failure) == (1, "")
    again.close()


def test_newer_version_is_left_as_it_is(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    path = stored(tmp_path)
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 1000")
    database.close()
    before = path.read_bytes()
    store = Store(tmp_path)
    store.set_json("key", "of now")
    assert store.get_json("key") == "of now"
    store.close()
    assert len(log.records) == 1
    assert "newer version" in log.text
    assert path.read_bytes() == before


@pytest.fixture(params=["for writing", "for all"])
def locked(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A cache that another program has locked."""
    database = sqlite3.connect(stored(tmp_path), isolation_level=None)
    if request.param == "for all":
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
    database.execute("BEGIN EXCLUSIVE")
    database.execute("UPDATE entries SET value = value")
    yield tmp_path
    database.execute("ROLLBACK")
    database.close()


def test_locked(locked: Path, log: pytest.LogCaptureFixture) -> None:
    store = Store(locked)
    for value in range(5):
        store.set_json("new", value)
        assert store.get_json("new") == value
    store.close()
    assert len(log.records) == 1
    assert "locked" in log.text


def test_locked_later(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path)
    store.set_json("key", 1)
    database = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    store.set_json("new", 2)
    assert (store.get_json("key"), store.get_json("new")) == (1, 2), "what can be read still is"
    database.execute("ROLLBACK")
    database.close()
    store.close()
    assert len(log.records) == 1


def test_read_only(tmp_path: Path, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """As SQLite opens a file that may not be written; a test that runs as root may write everything."""
    path = stored(tmp_path)
    before = path.read_bytes()

    def read_only(file: Path, *arguments: object, connect=sqlite3.connect, **options: object) -> sqlite3.Connection:
        return connect(f"{file.as_uri()}?mode=ro", *arguments, uri=True, **options)

    monkeypatch.setattr(sqlite3, "connect", read_only)
    store = Store(tmp_path)
    for value in range(3):
        store.set_json("new", value)
        assert store.get_json("new") == value
    store.close()
    assert len(log.records) == 1
    assert "readonly" in log.text
    assert path.read_bytes() == before


def test_file_in_place_of_the_folder(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    store = Store(tmp_path / "file")
    store.set_json("new", 1)
    assert store.get_json("new") == 1
    assert store.failure
    store.close()
    assert len(log.records) == 1


# --- what is in it is untrusted --------------------------------------------------------------------------------------


def test_prepared_cache_of_old_runs_nothing(tmp_path: Path) -> None:
    """Earlier versions stored pickles in ``vae-lab/facts`` among the models, which could be prepared by an attacker."""
    models = tmp_path / "models"
    (models / "Stable-diffusion").mkdir(parents=True)
    write(models / "Stable-diffusion" / "c.safetensors", UNET | SD1_TEXT | prefixed("first_stage_model.", kl_state(F2)))
    marker = tmp_path / "code was run"

    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (marker,)

    folder = models / "vae-lab" / "facts"
    folder.mkdir(parents=True)
    with sqlite3.connect(folder / "cache.db") as database:
        database.execute("CREATE TABLE Cache (key BLOB, value BLOB, mode INTEGER)")
        database.execute("INSERT INTO Cache VALUES ('key', ?, 4)", (pickle.dumps(Payload()),))
    database.close()
    before = {path: path.read_bytes() for path in folder.iterdir()}
    host = StandaloneHost(Folders.of_models(models))
    assert host.inspect(BUILT_IN).fingerprint
    assert not marker.exists()
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert not list(models.rglob(f"{FILE_NAME}*")), "caches are never among the models"


def test_values_that_are_too_large_or_no_json_are_as_if_not_there(tmp_path: Path) -> None:
    store = Store(tmp_path)
    values = {"large": "1" * (MAX_VALUE_BYTES + 1), "deep": "[" * 10**5, "torn": '{"a": ', "number": "9" * 10**5}
    with sqlite3.connect(tmp_path / FILE_NAME) as database:
        database.executemany("INSERT INTO entries VALUES (?, ?)", values.items())
    database.close()
    assert [store.get_json(key) for key in ("large", "deep", "torn")] == [None] * 3
    store.close()


WHOLE = FileRecord(
    *("/m/\udcff.pt", "\udcff.pt", 5, 1.5, "1:2", "checkpoint", "ldm", "sd1", "sd1", "fp16", "AutoencoderKL"),
    fingerprint="f" * 64,
    sketch="e" * 32,
    checkup=Checkup("sd1", (Finding("grey", "broken", "t", (Evidence("white", 70.0, "L*", "100"),), "r"),)),
    file_findings=(Finding("merged", "suspect", "t"),),
    identity=KnownVae("name", ("alias",), "sd1", "A"),
    merge=Merge((Parent("a", 0.5), Parent("b", 0.5)), 0.001, relatives=False, direction="open"),
    bytes_read=7,
    seconds=0.1,
    depth=Depth.CHECKED,
)


def test_records_are_the_same_after_json() -> None:
    assert FileRecord.from_cache(json.loads(json.dumps(WHOLE.to_cache()))) == WHOLE


def _shapes() -> Iterator[object]:
    yield from (None, [], "text", 5, {})
    plain = WHOLE.to_cache()
    wrong = (5, -1, 1.5, "x", "\x00", True, [], [[]], {}, {"a": 1}, [None], 10**400)
    for name, value in plain.items():
        yield {key: plain[key] for key in plain if key != name}
        for other in wrong:
            if type(other) is not type(value):
                yield plain | {name: other}
    for name in ("checkup", "identity", "merge"):
        for key, value in plain[name].items():
            for other in wrong:
                if type(other) is not type(value):
                    yield plain | {name: plain[name] | {key: other}}
    yield plain | {"fingerprint": "../../x"}
    yield plain | {"family_id": "unknown"}
    yield plain | {"kind": "<script>"}
    yield plain | {"size": 10**400}
    yield plain | {"file_findings": [{"code": "none", "severity": "broken", "text": "", "evidence": [], "remedy": ""}]}


def test_records_of_another_shape_are_none() -> None:
    """For any stored value: a record whose values can all be shown, or a ValueError."""
    kinds = {"name": str, "size": int, "mtime": float, "seconds": float, "problem": str, "fingerprint": str}
    for shape in _shapes():
        try:
            record = FileRecord.from_cache(shape)
        except ValueError:
            continue
        assert all(type(getattr(record, name)) is kind for name, kind in kinds.items()), shape
        json.dumps(record.to_scan_json())
        assert all(str(evidence) for finding in record.verdict.findings for evidence in finding.evidence)


def test_prepared_values_are_as_if_not_there(tmp_path: Path) -> None:
    path = write(tmp_path / "v.safetensors", kl_state(F2))
    cache = FileCache(tmp_path / "cache")
    record = cache.check(str(path))
    cache.sketch(str(path))
    cache.close()
    for value in (b"GIF89a", b"", "null", "[]", '{"a": 1}', '"text"', "1e999", os.urandom(64)):
        with sqlite3.connect(tmp_path / "cache" / FILE_NAME) as database:
            database.execute("UPDATE entries SET value = ?", (value,))
        database.close()
        again = FileCache(tmp_path / "cache")
        assert again.known(str(path)) is None
        assert again.sketch(str(path)) is not None
        assert again.check(str(path)).verdict == record.verdict
        again.close()
