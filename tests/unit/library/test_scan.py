"""Scans: every file once, the worst suspects first, and nothing twice."""

from __future__ import annotations

import gc
import itertools
import json
import os
import pickle
import threading
from pathlib import Path

import pytest
import torch

from tests.unit.makers import F2, F8, SD1_TEXT, UNET, State, kl_state, prefixed, write, write_zip
from tests.unit.scan_tree import BROKEN, build, small_vae
from vae_lab.errors import HostError
from vae_lab.formats import source
from vae_lab.library import UNCHECKED, DaskEngine, FileCache, FileRecord, Scan, scan_file
from vae_lab.library import cache as cache_module
from vae_lab.library import inspect as inspect_module
from vae_lab.library import scan as scan_module
from vae_lab.samples import SampleSet, load_sample_vae
from vae_lab.time_limit import TimeLimit


class Counter:
    """Files that are opened, how many bytes of each are read, and how many VAEs are probed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened: list[str] = []
        self.bytes = 0
        self.probed = 0
        lock = threading.Lock()
        open_file, read, check = source.LocalFile.__init__, source.LocalFile.read_at, inspect_module.check_weights

        def opening(this: source.LocalFile, path: str) -> None:
            with lock:
                self.opened.append(Path(path).name)
            open_file(this, path)

        def reading(this: source.LocalFile, offset: int, length: int) -> bytes:
            with lock:
                self.bytes += length
            return read(this, offset, length)

        def checking(*arguments: object) -> object:
            with lock:
                self.probed += 1
            return check(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(source.LocalFile, "__init__", opening)
        monkeypatch.setattr(source.LocalFile, "read_at", reading)
        monkeypatch.setattr(inspect_module, "check_weights", checking)

    def reset(self) -> None:
        self.opened, self.bytes, self.probed = [], 0, 0


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Counter:
    return Counter(monkeypatch)


def names(records: list[FileRecord]) -> list[str]:
    return [record.name for record in records]


# --- one file --------------------------------------------------------------------------------------------------------


def test_record_of_a_healthy_vae(sample_set: SampleSet) -> None:
    record = scan_file(sample_set.smooth, charts=True)
    stat = sample_set.smooth.stat()
    assert (record.status, record.kind, record.family_id, record.problem) == ("healthy", "vae", "sd1", "")
    assert (record.path, record.name) == (str(sample_set.smooth), sample_set.smooth.name)
    assert (record.size, record.mtime) == (stat.st_size, stat.st_mtime)
    assert len(record.fingerprint) == 64
    assert len(record.sketch) == 32
    assert set(record.charts) == {"decoded", "round trip"}
    assert all(png.startswith(b"\x89PNG") for png in record.charts.values())


def test_charts_only_on_request(tmp_path: Path) -> None:
    assert not scan_file(small_vae(tmp_path / "v.safetensors", 0)).charts


@pytest.mark.parametrize("way", BROKEN)
def test_bad_file_is_a_record(tmp_path: Path, way: str) -> None:
    suffix, status, make = BROKEN[way]
    path = tmp_path / f"file{suffix}"
    make(path)
    record = scan_file(path)
    assert record.status == status
    assert record.problem
    assert record.verdict.findings[0].text
    assert (record.fingerprint, record.sketch) == ("", "")
    assert not (tmp_path / "it-ran").exists(), "the pickle was run"


@pytest.mark.parametrize("path", ["gone.safetensors", "", "nul\0byte.pt"])
def test_missing_file_is_a_record(path: str) -> None:
    assert scan_file(path).status == "unreadable"


def test_folder_is_a_record(tmp_path: Path) -> None:
    assert scan_file(tmp_path).status == "unreadable"


def test_file_that_vanishes_while_it_is_read_is_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small_vae(tmp_path / "v.safetensors", 0)

    def vanishing(*arguments: object, original=inspect_module.fingerprint) -> str:
        path.unlink(missing_ok=True)
        return original(*arguments)

    monkeypatch.setattr(inspect_module, "fingerprint", vanishing)
    record = scan_file(path)
    assert record.status == "unreadable"
    assert "no such file" in record.problem


def test_what_nobody_foresaw_is_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*arguments: object) -> None:
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr(inspect_module, "check_weights", failing)
    record = scan_file(small_vae(tmp_path / "v.safetensors", 0))
    assert record.status == "unreadable"
    assert record.problem == "it could not be checked: RuntimeError: out of memory"


def test_records_are_plain(sample_set: SampleSet) -> None:
    record = scan_file(sample_set.grey_merge)
    assert pickle.loads(pickle.dumps(record)) == record
    assert json.loads(json.dumps(record.to_scan_json()))["verdict"]["findings"][0]["code"] == "grey"


# --- many files ------------------------------------------------------------------------------------------------------


def test_every_file_exactly_once(folder: Path, cache: FileCache) -> None:
    wanted = build(folder, 80, 4)
    scan = Scan([folder], cache)
    records = list(scan.run())
    assert sorted(record.path for record in records) == sorted(wanted)
    assert len(set(names(records))) == len(wanted), "names are unique, though basenames are not"
    for record in records:
        assert wanted[record.path] in ("", record.status), record
    assert scan.complete
    assert not list(folder.rglob("it-ran"))


def test_second_scan_reads_nothing(folder: Path, cache: FileCache, counter: Counter) -> None:
    build(folder, 40, 3)
    first = {record.path: record for record in Scan([folder], cache).run()}
    counter.reset()
    assert {record.path: record for record in Scan([folder], cache).run()} == first
    assert (counter.opened, counter.bytes, counter.probed) == ([], 0, 0)


def test_what_is_known_outlives_the_program(folder: Path, tmp_path: Path, counter: Counter) -> None:
    small_vae(folder / "v.safetensors", 0)
    for _ in range(2):
        cache = FileCache(tmp_path / "cache")
        assert len(list(Scan([folder], cache).run())) == 1
        cache.close()
    assert counter.probed == 1


def test_only_what_has_changed_is_read_again(folder: Path, cache: FileCache, counter: Counter) -> None:
    paths = [small_vae(folder / f"{seed}.safetensors", seed) for seed in range(3)]
    before = {record.path: record for record in Scan([folder], cache).run()}
    counter.reset()
    stat = paths[1].stat()
    older = small_vae(folder / "other", 7)
    os.utime(older, ns=(stat.st_atime_ns, stat.st_mtime_ns - 10**12))
    older.replace(paths[1])
    after = {record.path: record for record in Scan([folder], cache).run()}
    assert set(counter.opened) == {"1.safetensors"}
    changed = {path for path in before if before[path].fingerprint != after[path].fingerprint}
    assert changed == {str(paths[1])}


def test_a_file_with_several_names_is_read_once(
    folder: Path, cache: FileCache, counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hard links, whatever their order; only a name with another extension is examined itself."""
    path = small_vae(folder / "m.safetensors", 0)
    for name in ("a.safetensors", "z.safetensors", "c.ckpt"):
        (folder / name).hardlink_to(path)
    scan = Scan([folder], cache, jobs=4)
    records = {record.name: record for record in scan.run()}
    assert set(counter.opened) == {"a.safetensors", "c.ckpt"}
    assert scan.complete
    assert len({record.fingerprint for record in records.values()}) == 1
    assert {Path(each).name for each in scan.adopted} == {"m.safetensors", "z.safetensors"}
    assert {name for name, record in records.items() if not record.bytes_read} == {"m.safetensors", "z.safetensors"}
    assert [name for name, record in records.items() if record.verdict.has("wrong-extension")] == ["c.ckpt"]
    assert all(cache.sketch(record.path) for record in records.values())
    counter.reset()
    assert {record.name: record for record in Scan([folder], cache).run()} == records
    assert counter.opened == []
    # A new link is a change of the file.
    (folder / "0.safetensors").hardlink_to(path)
    again = Scan([folder], cache)
    assert len(list(again.run())) == 5
    assert set(counter.opened) == {"0.safetensors", "c.ckpt"}


def test_same_weights_are_probed_once(folder: Path, cache: FileCache, counter: Counter) -> None:
    """Whatever the container and the precision; and in two threads."""
    state = kl_state(F8)
    write(folder / "a.safetensors", state)
    write(folder / "b.safetensors", {name: tensor.half() for name, tensor in state.items()})
    write_zip(folder / "c.ckpt", state)
    records = list(Scan([folder], cache, jobs=4).run())
    assert len({record.fingerprint for record in records}) == 1
    assert counter.probed == 1


def test_weights_that_the_host_has_judged_are_not_probed_again(
    folder: Path, cache: FileCache, counter: Counter
) -> None:
    path = small_vae(folder / "v.safetensors", 0)
    report = cache.check(str(path))
    counter.reset()
    (record,) = Scan([folder], cache).run()
    assert record.verdict == report.verdict
    assert counter.probed == 0


def test_host_knows_what_a_scan_has_found(folder: Path, cache: FileCache, counter: Counter) -> None:
    path = small_vae(folder / "v.safetensors", 0)
    list(Scan([folder], cache).run())
    counter.reset()
    report = cache.check(str(path))
    assert report.checkup is not None
    assert report.checkup.charts
    assert counter.opened == []


def volume(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "cache").iterdir())


def test_charts_of_a_thousand_copies_are_stored_once(folder: Path, tmp_path: Path, cache: FileCache) -> None:
    path = small_vae(folder / "v.safetensors", 0)
    list(Scan([folder], cache).run())
    before = volume(tmp_path)
    for i in range(20):
        (folder / f"copy {i}.safetensors").hardlink_to(path)
    list(Scan([folder], cache).run())
    charts = sum(map(len, Scan([folder], cache).records.charts(scan_file(path)).values()))
    assert charts > 20_000
    cache.close()  # SQLite writes its log into the file
    assert volume(tmp_path) - before < 10 * charts


def test_worst_suspects_first(cache: FileCache, folder: Path, sample_set: SampleSet) -> None:
    for name in ("photo-a", "photo-b"):
        write(folder / f"{name}.safetensors", load_sample_vae(name))
    list(Scan([folder], cache).run())
    write_zip(folder / "0 known healthy.ckpt", load_sample_vae("photo-a"))
    small_vae(folder / "1 unknown.safetensors", 0)
    (folder / "2 merged.safetensors").write_bytes(sample_set.grey_merge.read_bytes())
    state = kl_state(F2)
    state["decoder.conv_in.weight"].fill_(float("nan"))
    write(folder / "3 nan.safetensors", state)
    BROKEN["missing keys"][2](folder / "4 keys.ckpt")
    found = names(list(Scan([folder], cache, jobs=1).run()))
    order = [name for name in found if name[0].isdigit()]
    assert order == [
        *("4 keys.ckpt", "3 nan.safetensors", "2 merged.safetensors"),
        *("1 unknown.safetensors", "0 known healthy.ckpt"),
    ]
    merged = next(record for record in Scan([folder], cache).run() if record.name.startswith("2"))
    assert merged.merge is not None
    assert [round(parent.weight, 2) for parent in merged.merge.parents] == [0.8, 0.2]


def merges(folder: Path, **vaes: State) -> dict[str, str]:
    """What a scan says of each file: what it was merged from."""
    for name, state in vaes.items():
        write(folder / f"{name}.safetensors", state)
    cache = FileCache(folder / "cache")
    records = list(Scan([folder], cache, probe=False, jobs=1).run())
    cache.close()
    assert {record.status for record in records} <= {"healthy", "broken", "unchecked"}
    return {record.name.split(".")[0]: record.merge.sentence for record in records if record.merge}


def summed(**shares: float) -> State:
    """A weighted sum of small VAEs, stored in fp16."""
    states = {int(name[1:]): kl_state(F2, int(name[1:])) for name in shares}
    keys = states[next(iter(states))]
    return {
        key: sum(
            (share * states[int(name[1:])][key].half().float() for name, share in shares.items()), torch.tensor(0.0)
        ).half()
        for key in keys
    }


def test_parents_are_found_among_built_in_vaes(folder: Path) -> None:
    built_in = (
        UNET | SD1_TEXT | prefixed("first_stage_model.", {key: value.half() for key, value in kl_state(F2, 1).items()})
    )
    merged = UNET | SD1_TEXT | prefixed("first_stage_model.", summed(s1=0.8, s2=0.2))
    found = merges(folder, model=built_in, vae=summed(s2=1.0), grey=merged)
    assert found == {"grey": "0.80 model.safetensors + 0.20 vae.safetensors"}


def test_a_vae_with_nan_anywhere_is_no_parent(folder: Path) -> None:
    """The samples do not show the NaN."""
    broken = summed(s1=1.0)
    broken["decoder.conv_in.bias"] = torch.full_like(broken["decoder.conv_in.bias"], float("nan"))
    assert merges(folder, broken=broken, vae=summed(s2=1.0), grey=summed(s1=0.8, s2=0.2)) == {}


def test_without_the_probe(folder: Path, cache: FileCache, counter: Counter) -> None:
    small_vae(folder / "v.safetensors", 0)
    (record,) = Scan([folder], cache, probe=False).run()
    assert (record.status, record.measured, counter.probed) == ("unchecked", (), 0)
    assert len(record.fingerprint) == 64
    (record,) = Scan([folder], cache).run()
    assert (record.status, counter.probed) == ("broken", 1), "the probe is made up for"
    counter.reset()
    (record,) = Scan([folder], cache, probe=False).run()
    assert (record.status, counter.opened) == ("broken", []), "known facts are reported"


def test_files_and_folders_together(folder: Path, tmp_path: Path, cache: FileCache) -> None:
    inside = small_vae(folder / "v.safetensors", 0)
    outside = small_vae(tmp_path / "v.safetensors", 1)
    oddly = small_vae(tmp_path / "named.otherwise", 2)
    paths = [folder, inside, outside, oddly, tmp_path / "gone.pt", folder]
    records = list(Scan(paths, cache, probe=False).run())
    assert sorted(record.path for record in records) == sorted(map(str, (inside, outside, oddly, tmp_path / "gone.pt")))
    assert len(set(names(records))) == 4
    assert next(record for record in records if record.name == "gone.pt").status == "unreadable"


def test_nothing_to_scan(folder: Path, cache: FileCache) -> None:
    scan = Scan([folder], cache)
    assert list(scan.run()) == []
    assert len(scan.records) == 0


def test_progress(folder: Path, cache: FileCache) -> None:
    build(folder, 20, 2)
    steps: list[tuple[int, int, str]] = []
    list(Scan([folder], cache, progress=lambda *step: steps.append(step)).run())
    done = [step[0] for step in steps]
    assert done == sorted(set(done)), "never back, nothing twice"
    assert {total for _, total, _ in steps} == {40}
    assert all(what.split(" ", 1)[0] in ("reading", "checking") for _, _, what in steps)
    assert done[-1] >= 39


def test_cancel_and_go_on(folder: Path, cache: FileCache, counter: Counter) -> None:
    for seed in range(6):
        small_vae(folder / f"{seed}.safetensors", seed)
    seen: list[FileRecord] = []
    scan = Scan([folder], cache, jobs=1, cancelled=lambda: len(seen) >= 2)
    for record in scan.run():
        seen += [record]
    assert 2 <= len(set(names(seen))) < 6
    assert not scan.complete
    assert {record.status for record in scan.records} == {"broken", UNCHECKED}, "identified, and not called healthy"
    probed = counter.probed
    scan = Scan([folder], cache)
    assert len(list(scan.run())) == 6
    assert counter.probed == 6 > probed
    assert scan.complete


def test_whoever_has_had_enough_may_stop_iterating(folder: Path, cache: FileCache) -> None:
    build(folder, 40, 4)
    run = Scan([folder], cache).run()
    next(run)
    run.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vae-lab-scan")]


def test_file_replaced_while_it_is_checked_is_checked_again(
    folder: Path, cache: FileCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = small_vae(folder / "v.safetensors", 0)
    other = small_vae(folder / "other", 1)

    def replacing(*arguments: object, original=inspect_module.check_weights) -> object:
        if other.exists():
            other.replace(path)
        return original(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(inspect_module, "check_weights", replacing)
        (before,) = Scan([folder], cache).run()
    (after,) = Scan([folder], cache).run()
    assert after.fingerprint == scan_file(path).fingerprint != before.fingerprint


def test_one_file_that_cannot_be_checked_does_not_end_the_scan(
    folder: Path, cache: FileCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(3):
        small_vae(folder / f"{seed}.safetensors", seed)

    def failing(loaded, hint, original=inspect_module.check_weights):
        if loaded.name == "1.safetensors":
            raise RuntimeError("out of memory")
        return original(loaded, hint)

    with monkeypatch.context() as patched:
        patched.setattr(inspect_module, "check_weights", failing)
        records = {record.name: record for record in Scan([folder], cache).run()}
    assert [records[name].status for name in sorted(records)] == ["broken", "unreadable", "broken"]
    assert "out of memory" in records["1.safetensors"].problem
    again = {record.name: record for record in Scan([folder], cache).run()}
    assert again["1.safetensors"].status == "broken", "that was no fact about the file"


def test_a_file_that_is_never_done_does_not_hold_up_the_scan(
    folder: Path, cache: FileCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(3):
        small_vae(folder / f"{seed}.safetensors", seed)

    def endless(loaded, hint, original=inspect_module.check_weights):
        while loaded.name == "1.safetensors":
            loaded.architecture.decode(loaded.module, torch.zeros(1, 4, 1, 1))
        return original(loaded, hint)

    def limit() -> TimeLimit:
        looks = itertools.count()
        return TimeLimit(5_000, lambda: float(next(looks)))

    with monkeypatch.context() as patched:
        patched.setattr(inspect_module, "check_weights", endless)
        records = {record.name: record for record in Scan([folder], cache, time=limit).run()}
    assert [records[name].status for name in sorted(records)] == ["broken", "not-checked", "broken"]
    (finding,) = records["1.safetensors"].verdict.findings
    assert finding.code == "not-finished"
    assert finding.text == "Not finished in 5000 s; it was stopped while decoding the chart."
    assert "--time-limit" in finding.remedy
    assert not records["1.safetensors"].problem, "nothing is wrong with it"
    again = {record.name: record for record in Scan([folder], cache).run()}
    assert again["1.safetensors"].status == "broken", "that was no fact about the file"


def test_a_file_whose_time_is_over_while_it_is_listed(folder: Path, cache: FileCache) -> None:
    small_vae(folder / "v.safetensors", 0)
    looks = itertools.count()
    (record,) = Scan([folder], cache, time=lambda: TimeLimit(1, lambda: float(next(looks)))).run()
    assert record.verdict.findings[0].text == "Not finished in 1 s; it was stopped while reading the file."
    assert next(looks) < 10, "it is not tried again"


def test_a_file_whose_time_is_over_at_any_read_is_whole_the_next_time(folder: Path, cache: FileCache) -> None:
    """What was read of it until then is not stored as all that there is."""
    path = small_vae(folder / "v.safetensors", 0)
    for reads in range(2, 6):
        looks = itertools.count()
        (record,) = Scan(
            [folder], cache, time=lambda looks=looks, n=reads: TimeLimit(n, lambda: float(next(looks)))
        ).run()
        assert record.verdict.findings[0].code == "not-finished"
        assert cache.sketch(str(path)) is not None
        cache._store.delete(cache_module._file_row("sketch", str(path)))


def test_records_do_not_stay_in_memory(folder: Path, cache: FileCache) -> None:
    build(folder, 60, 3)
    scan = Scan([folder], cache, probe=False)
    for record in scan.run():
        last = record
    del record
    gc.collect()
    alive = [thing for thing in gc.get_objects() if isinstance(thing, FileRecord) and str(folder) in thing.path]
    assert len(alive) <= 2, "last, and what pytest may hold"
    assert last.path
    assert len(list(scan.records)) == 60


def test_checkpoints_are_distinguished_by_their_model(folder: Path, cache: FileCache) -> None:
    """The same weights are healthy in one model and wrong in another, so each is judged separately."""
    state = prefixed("first_stage_model.", kl_state(F8))
    write(folder / "plain.safetensors", kl_state(F8))
    write(folder / "sd1.safetensors", state | UNET | SD1_TEXT)
    records = {record.name: record for record in Scan([folder], cache).run()}
    assert records["plain.safetensors"].fingerprint == records["sd1.safetensors"].fingerprint
    assert (records["plain.safetensors"].kind, records["sd1.safetensors"].kind) == ("vae", "checkpoint")
    assert (records["plain.safetensors"].hint_id, records["sd1.safetensors"].hint_id) == ("", "sd1")


# --- elsewhere -------------------------------------------------------------------------------------------------------


def test_engine_gets_what_is_not_known(folder: Path, cache: FileCache) -> None:
    for seed in range(3):
        small_vae(folder / f"{seed}.safetensors", seed)
    list(Scan([folder / "0.safetensors"], cache).run())
    asked: list[str] = []

    def engine(paths):
        for path in paths:
            asked.append(Path(path).name)
            yield path, scan_file(path, charts=True)

    scan = Scan([folder], cache, engine=engine)
    assert sorted(names(list(scan.run()))) == [f"{seed}.safetensors" for seed in range(3)]
    assert asked == ["1.safetensors", "2.safetensors"]
    assert all(scan.records.charts(record) for record in scan.records)
    assert all(not record.charts for record in scan.records)
    asked.clear()
    assert len(list(Scan([folder], cache, engine=engine).run())) == 3
    assert asked == []


def test_dask_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("vae_lab.library.cluster.importlib.import_module", failing)
    with pytest.raises(HostError, match=r'pip install "dask\[distributed\]"'):
        DaskEngine("tcp://127.0.0.1:1")


def test_dask(folder: Path, cache: FileCache) -> None:
    distributed = pytest.importorskip("distributed")
    build(folder, 30, 3)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
    ) as cluster:
        engine = DaskEngine(cluster.scheduler_address, probe=False)
        records = list(Scan([folder], cache, probe=False, engine=engine).run())
        engine.close()
    assert len({record.path for record in records}) == len(records) == 30
    assert {record.status for record in records} >= {"unchecked", "broken", "unreadable"}


def test_threads_are_few(cache: FileCache) -> None:
    assert scan_module._MAX_PROBES == 2, "each takes the memory of a VAE and of its activations"
    assert Scan([], cache, jobs=3)._jobs == 3


# --- entries that cannot be followed --------------------------------------------------------------------------------


@pytest.fixture
def odd_entries(tmp_path: Path) -> Path:
    """A healthy VAE among links in a circle, to over-long names, to nothing and to the folder above."""
    if os.name == "nt":
        pytest.skip("links need a permission there")
    folder = tmp_path / "odd"
    folder.mkdir()
    small_vae(folder / "good.safetensors", 0)
    targets = {"loop.safetensors": "loop.safetensors", "long.ckpt": "x" * 300, "deep.pt": "a/" * 2000, "gone.pt": "no"}
    for name, target in (targets | {"circle": "circle", "up": "..", "far": "y" * 300}).items():
        (folder / name).symlink_to(target)
    os.mkfifo(folder / "pipe.pt")
    return folder


def test_entries_that_cannot_be_followed_are_skipped(odd_entries: Path, tmp_path: Path) -> None:
    records = list(Scan([odd_entries], FileCache(tmp_path / "cache"), probe=False).run())
    assert [(record.name, record.status) for record in records] == [("good.safetensors", UNCHECKED)]


def test_entries_that_cannot_be_followed_are_unreadable_if_they_are_named(odd_entries: Path, tmp_path: Path) -> None:
    named = ["loop.safetensors", "circle", "long.ckpt", "deep.pt", "gone.pt", "pipe.pt", "z" * 300, "nul\0.pt"]
    paths = [*(str(odd_entries / name) for name in named), odd_entries]
    records = {record.path: record for record in Scan(paths, FileCache(tmp_path / "cache"), probe=False).run()}
    assert {record.status for path, record in records.items() if "good" not in path} == {"unreadable"}
    assert len(records) == len(named) + 1
    assert records[str(odd_entries / "loop.safetensors")].verdict.findings[0].text.startswith("Cannot be read: ")
    assert records[str(odd_entries / "good.safetensors")].status == UNCHECKED
