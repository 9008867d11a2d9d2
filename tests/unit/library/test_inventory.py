"""Counts, filters, sorts and pages the results of a scan."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from vae_lab.checkup import Finding
from vae_lab.errors import UnknownChoice
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.identity import Conversion, KnownVae, Sketched
from vae_lab.library import Depth, FileRecord
from vae_lab.library.inventory import Inventory, LibraryPage
from vae_lab.samples import SampleSet
from vae_lab.service.service import service_of

BROKEN = (Finding("grey", "broken", "Images are grey."),)


class Known:
    """Stands for ``Records``, over records that are in memory."""

    def __init__(self, records: Sequence[FileRecord], unknown: int = 0) -> None:
        self._records = records
        self._unknown = unknown

    def __len__(self) -> int:
        return len(self._records) + self._unknown

    def __iter__(self) -> Iterator[FileRecord]:
        return iter(self._records)

    @property
    def worst_first(self) -> Iterator[FileRecord]:
        return iter(self._records)

    def charts(self, record: FileRecord) -> Mapping[str, bytes]:
        return {}

    def conversions(self, files: Sequence[Sketched]) -> list[Conversion]:
        return []


def record(name: str, fingerprint: str = "", **more: object) -> FileRecord:
    return FileRecord(
        f"/models/{name}", name, fingerprint=fingerprint, **{"kind": "vae", "depth": Depth.CHECKED, **more}
    )


def inventory(*records: FileRecord, unknown: int = 0) -> Inventory:
    return Inventory(Known(records, unknown))  # type: ignore[arg-type]


def page(of: Inventory, words: str = "", status: str = "", sort: str = "worst", page: int = 0, size: int = 50):
    return of.page(words, status, sort, page, size)


def names(shown: LibraryPage) -> list[str]:
    return [row.name for row in shown.rows]


def test_pages_follow_one_another_without_gap() -> None:
    many = inventory(*(record(f"{i:03}.pt") for i in range(101)))
    pages = [page(many, page=i, size=25) for i in range(5)]
    assert [len(one.rows) for one in pages] == [25, 25, 25, 25, 1]
    assert [name for one in pages for name in names(one)] == [f"{i:03}.pt" for i in range(101)]
    assert {(one.total, one.pages) for one in pages} == {(101, 5)}
    assert page(many, page=99, size=25) == pages[-1]
    assert page(many, page=-1, size=25) == pages[0]


def test_no_files() -> None:
    empty = inventory()
    assert page(empty) == LibraryPage((), 0, 1, 0)
    assert (empty.overview.files, empty.overview.unknown, empty.overview.counts) == (0, 0, {})


def test_orders() -> None:
    found = inventory(
        record("b.pt", "x", size=2),
        record("A.pt", size=9),
        record("c.pt", "x", size=3),
        record("z.pt", file_findings=BROKEN),
    )
    assert names(page(found)) == ["z.pt", "A.pt", "b.pt", "c.pt"]
    assert names(page(found, sort="name")) == ["A.pt", "b.pt", "c.pt", "z.pt"]
    assert names(page(found, sort="size")) == ["A.pt", "c.pt", "b.pt", "z.pt"]
    assert names(page(found, sort="duplicates"))[:2] == ["c.pt", "b.pt"]


def test_filter_looks_at_all_words_in_name_identity_and_finding() -> None:
    known = KnownVae("sd-vae-ft-mse", (), "sd1", "A")
    found = inventory(
        record("one.pt", identity=known),
        record("two.pt", file_findings=BROKEN),
        record("three-MSE.pt", family_id="sdxl"),
    )
    assert names(page(found, "MSE")) == ["one.pt", "three-MSE.pt"]
    assert names(page(found, "mse sdxl")) == ["three-MSE.pt"]
    assert names(page(found, "are GREY")) == ["two.pt"]
    assert names(page(found, status="broken")) == ["two.pt"]
    assert names(page(found, "one", status="broken")) == []


def test_the_same_vae_elsewhere() -> None:
    found = inventory(
        record("large.pt", "x", size=8, file_id="1"),
        record("small.pt", "x", size=5, file_id="2"),
        record("a.ckpt", "x", size=90, kind="checkpoint"),
        record("b.ckpt", "x", size=90, kind="checkpoint"),
        unknown=3,
    )
    rows = {row.name: row for row in page(found).rows}
    assert rows["large.pt"].same_as == ("small.pt",)
    assert rows["large.pt"].inside == ("a.ckpt", "b.ckpt")
    assert rows["a.ckpt"].same_as == ("b.ckpt",)
    assert rows["a.ckpt"].contains == ("large.pt", "small.pt")
    overview = found.overview
    assert (overview.files, overview.unknown, overview.groups) == (7, 3, 1)
    assert (overview.copies, overview.freeable_bytes) == (1, 5)


def test_of_many_copies_the_first_are_named_and_the_rest_counted() -> None:
    found = inventory(*(record(f"{i:03}.pt", "x", size=1) for i in range(100)))
    row = page(found).rows[0]
    assert (row.same_as, row.more_same) == (("001.pt", "002.pt", "003.pt", "004.pt"), 95)


def vaes(of: Inventory, words: str = "", status: str = "", sort: str = "worst", page: int = 0, size: int = 50):
    shown = of.vaes(words, status, sort, page, size)
    return [(vae.row.name, [row.name for row in vae.others], vae.count) for vae in shown.rows]


def test_one_row_for_each_vae() -> None:
    """The worst file, of equal ones the one to keep; a search shows what it found."""
    found = inventory(
        record("b.pt", "x", size=5, dtype="fp16"),
        record("a.pt", "x", size=5, dtype="fp32"),
        record("z.ckpt", "x", size=90, kind="checkpoint"),
        record("alone.pt", "y", size=7),
        record("none.pt"),
        record("other.pt", "w"),
        record("grey.ckpt", "w", kind="checkpoint", file_findings=BROKEN),
    )
    grey, alone, none = ("grey.ckpt", ["other.pt"], 2), ("alone.pt", [], 1), ("none.pt", [], 1)
    assert vaes(found) == [grey, ("a.pt", ["b.pt", "z.ckpt"], 3), alone, none]
    assert vaes(found, sort="name") == [("a.pt", ["b.pt", "z.ckpt"], 3), alone, grey, none]
    assert vaes(found, sort="size")[0] == ("z.ckpt", ["a.pt", "b.pt"], 3)
    assert vaes(found, "b.pt") == [("b.pt", ["a.pt", "z.ckpt"], 3)]
    assert vaes(found, status="broken") == [grey]
    assert vaes(found, size=2, page=1) == vaes(found)[2:]
    shown = found.vaes("", "", "worst", 9, 2)
    assert (shown.files, shown.pages, shown.page) == (7, 2, 1)
    assert vaes(inventory()) == []


def test_all_files_of_a_vae_are_found() -> None:
    found = inventory(*(record(f"{i:02}.pt", "0123456789abcdef") for i in range(99)), record("other.pt", "f" * 16))
    first = found.vaes("", "", "name", 0, 50).rows[0]
    assert (first.count, len(first.others), first.key) == (99, 5, "0123456789ab")
    files = found.vaes(f"vae:{first.key}", "", "name", 1, 50)
    assert (files.files, files.pages, len(files.rows)) == (99, 2, 49)
    assert files.rows[0].row.name == "50.pt"
    assert files.rows[0].row.same_as[0] == "00.pt"
    assert vaes(found, "vae:0123") == []


def test_what_a_sample_tells_is_not_called_sure() -> None:
    found = inventory(record("a.pt", sketch="s", depth=Depth.LISTED), record("b.pt", sketch="s", depth=Depth.LISTED))
    row = page(found, status="unchecked").rows[0]
    assert (row.same_as, row.sure) == (("b.pt",), False)


def test_a_record_is_known_until_its_file_is_read_again() -> None:
    before = record("a.pt", "x", seconds=0.5)
    found = inventory(before)
    assert found.has(before)
    assert not found.has(replace(before, seconds=0.7))
    assert not found.has(record("b.pt", "x", seconds=0.5))


# --- on a host -------------------------------------------------------------------------------------------------------


@pytest.fixture
def host(tmp_path: Path) -> StandaloneHost:
    """Files that are no VAEs, two of one name in different folders."""
    for name in ("one/same.pt", "two/same.pt", "other.safetensors"):
        (tmp_path / "VAE" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "VAE" / name).write_bytes(b"not a VAE at all")
    return StandaloneHost(Folders.of_models(tmp_path, tmp_path / "data"))


def test_same_basenames_stay_distinct(host: StandaloneHost) -> None:
    service = service_of(host)
    assert service.scans.inventory().overview.unknown == 3
    summary = service.scans.scan()
    assert (summary.scanned, summary.read, summary.complete) == (3, 3, True)
    assert names(service.scans.page(sort="name")) == ["one/same.pt", "other.safetensors", "two/same.pt"]
    assert [row.listed for row in service.scans.page(sort="name").rows] == names(service.scans.page(sort="name"))


def test_what_is_new_and_what_is_gone(host: StandaloneHost, tmp_path: Path) -> None:
    service = service_of(host)
    service.scans.scan()
    (tmp_path / "VAE" / "new.pt").write_bytes(b"neither is this")
    (tmp_path / "VAE" / "one" / "same.pt").unlink()
    assert service.scans.inventory(fresh=True).overview.unknown == 1
    assert names(service.scans.page(sort="name")) == ["other.safetensors", "two/same.pt"]
    summary = service.scans.scan()
    assert (summary.scanned, summary.read) == (3, 1)


@pytest.mark.parametrize("wrong", [{"status": "ill"}, {"sort": "beauty"}])
def test_unknown_choices(host: StandaloneHost, wrong: dict[str, str]) -> None:
    with pytest.raises(UnknownChoice, match="valid are"):
        service_of(host).scans.page(**wrong)


_opened: list[str] = []
_listening: list[bool] = []


def _note_open(event: str, arguments: tuple[object, ...]) -> None:
    if _listening and event == "open":
        _opened.append(str(arguments[0]))


def test_what_is_known_is_reported_without_opening_a_file(sample_set: SampleSet, tmp_path: Path) -> None:
    """According to Python's own audit events."""
    folders = Folders(tmp_path / "data", vaes=(sample_set.sdxl.parent,))
    models = str(sample_set.folder)
    sys.addaudithook(_note_open)  # it stays for as long as the process does
    _listening.append(True)
    service_of(first := StandaloneHost(folders)).scans.scan()
    assert any(path.startswith(models) for path in _opened)
    first.file_cache.close()
    _opened.clear()
    again = StandaloneHost(folders)
    assert service_of(again).scans.inventory().overview.unknown == 0
    summary = service_of(again).scans.scan()
    _listening.clear()
    assert (summary.scanned, summary.read, summary.bytes_read, summary.complete) == (5, 0, 0, True)
    assert not [path for path in _opened if path.startswith(models)]
