"""The scanned files of a host: counts, filters, sorts and pages their records. Never reads the files."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from vae_lab.checkup.findings import BROKEN, MISSING, WORST_FIRST, Status
from vae_lab.identity import Conversion, DuplicateGroup, Sketched, find_duplicates, short
from vae_lab.library.cache import FileCache, Records
from vae_lab.library.folders import Listing
from vae_lab.library.record import FileRecord, Kind
from vae_lab.library.reports import write_csv, write_html, write_jsonl
from vae_lab.text import natural_key

__all__ = [
    "OF_VAE", "REPORTS", "SORTS", "Inventory", "LibraryPage", "LibraryRow", "Overview", "ScanSummary", "VaePage",
    "VaeRow",
]  # fmt: skip

_MAX_NAMES = 4  # in one cell
_MAX_FOLDED = 5  # files below a VAE
_KEY = 12  # digits
_MIN_HASH = 8  # digits of a hash to search for; fewer could be a part of a name

OF_VAE = "vae:"
"""Begins a word to search for: the rest is a :attr:`VaeRow.key`."""

SORTS = ("worst", "name", "size", "duplicates")
"""Orders of the table; size and duplicates are descending."""

REPORTS = {"jsonl": "application/x-ndjson", "csv": "text/csv", "html": "text/html"}
"""File extension of each kind of report -> media type."""


@dataclass(frozen=True, slots=True)
class LibraryRow:
    """One row of the table: a file, with all values as text.

    Attributes:
        name: relative to its folder, unique among all.
        path: the file.
        status: one of :data:`vae_lab.library.WORST_FIRST`.
        kind: ``checkpoint``, ``vae`` or "".
        size: bytes.
        family: title of the latent family, or "".
        identity: the published name of the VAE, or "".
        same_as: the first names of other VAE files, or other checkpoints, with the same VAE; without those in
            ``contains``.
        more_same: number of further names in ``same_as``.
        contains: for a checkpoint, the first names of VAE files with the same weights as its built-in VAE.
        more_contained: number of further names in ``contains``.
        inside: for a VAE file, the first names of checkpoints that have it built in.
        more_inside: number of further names in ``inside``.
        sure: all weights were compared, not only a sample.
        merge: what the VAE was merged from, or "".
        title, finding: the worst finding, or "".
        listed: its name in the host's menus and the checkup; "" if they do not list it.
        related: names of files to which the VAE is related, if it is not certain which was made from which; or "".
        precision: ``bf16`` or ``fp8`` if the VAE is a rounded copy of another one, or "".
        rounded_from: the first names of files with the VAE before it was rounded.
        rounded_to: the first names of files with rounded copies of this VAE, with their precision.
        sha256: 64 hex digits over the whole file, or "" if not computed yet.
    """

    name: str
    path: str
    status: Status
    kind: Kind = ""
    size: int = 0
    family: str = ""
    identity: str = ""
    same_as: tuple[str, ...] = ()
    more_same: int = 0
    contains: tuple[str, ...] = ()
    more_contained: int = 0
    inside: tuple[str, ...] = ()
    more_inside: int = 0
    sure: bool = True
    merge: str = ""
    title: str = ""
    finding: str = ""
    listed: str = ""
    related: str = ""
    precision: str = ""
    rounded_from: tuple[str, ...] = ()
    rounded_to: tuple[str, ...] = ()
    sha256: str = ""

    @property
    def autov2(self) -> str:
        """The first 10 digits of ``sha256``, or ""."""
        return short(self.sha256)


@dataclass(frozen=True)
class LibraryPage:
    """Some rows of the table.

    Attributes:
        rows: at most the requested number.
        total: rows on all pages.
        pages: at least 1.
        page: its index, from 0; the last page if a later one was requested.
    """

    rows: tuple[LibraryRow, ...]
    total: int
    pages: int
    page: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "rows": [asdict(row) for row in self.rows]}


@dataclass(frozen=True, slots=True)
class VaeRow:
    """One VAE with its files; or one file, if it has no VAE or no copies.

    Attributes:
        row: the first file that was found: of equal ones, the one to keep.
        others: the first other files, those that were found before the others.
        count: number of all files.
        key: finds the files, see :data:`OF_VAE`; "" for a single file.
    """

    row: LibraryRow
    others: tuple[LibraryRow, ...] = ()
    count: int = 1
    key: str = ""


@dataclass(frozen=True)
class VaePage:
    """Some rows of a table with one row for each VAE.

    Attributes:
        rows: at most the requested number.
        files: number of files that were found, on all pages.
        pages: at least 1.
        page: its index, from 0; the last page if a later one was requested.
    """

    rows: tuple[VaeRow, ...]
    files: int
    pages: int
    page: int


@dataclass(frozen=True)
class Overview:
    """Totals of all files.

    Attributes:
        files: in the host's folders.
        counts: status -> number of files, worst first; without files that were never scanned.
        groups: number of VAEs found in more than one file.
        copies: number of redundant VAE files.
        freeable_bytes: size of these copies; hard links count once.
    """

    files: int = 0
    counts: Mapping[Status, int] = field(default_factory=dict)
    groups: int = 0
    copies: int = 0
    freeable_bytes: int = 0

    @property
    def unknown(self) -> int:
        """Number of files that were never scanned."""
        return self.files - sum(self.counts.values())


@dataclass(frozen=True)
class ScanSummary:
    """The result of a scan.

    Attributes:
        overview: all files afterwards.
        complete: every file was scanned; otherwise the next scan resumes here.
        scanned: number of files, including those already known.
        read: number of these that were read now.
        bytes_read: from these files.
        seconds: total duration.
    """

    overview: Overview
    complete: bool
    scanned: int
    read: int
    bytes_read: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain values, on one level."""
        plain = asdict(self)
        return {**plain.pop("overview"), "unknown": self.overview.unknown, **plain}


@dataclass(slots=True)
class _Entry:
    """What an inventory stores per file: less than a kilobyte, because files share equal texts."""

    row: LibraryRow
    group: int = -1


class Inventory:
    """The stored results for a host's files. An immutable snapshot, safe to use from several threads.

    Args:
        records: iterated once now, and once per report.
        listing: how the host lists its files.
    """

    def __init__(self, records: Records, listing: Listing | None = None) -> None:
        self.records = records
        self._listing = listing
        self._entries: list[_Entry] = []
        self._marks: dict[str, int] = {}
        self._shared: dict[str, str] = {}
        self._sketched: list[Sketched] = []
        self.groups: list[DuplicateGroup] = find_duplicates(self._noted(records))
        self.conversions: list[Conversion] = records.conversions(self._sketched)
        self._sketched.clear()
        self._shared.clear()
        self._listing = None
        places = self._places = {entry.row.path: i for i, entry in enumerate(self._entries)}
        self._names = {path: self._entries[places[path]].row.name for group in self.groups for path in group.paths}
        for i, group in enumerate(self.groups):
            for path in group.paths:
                entry = self._entries[places[path]]
                # Full comparisons take precedence over samples.
                if entry.group < 0 or (group.confirmed and not self.groups[entry.group].confirmed):
                    entry.group = i
        for conversion in self.conversions:
            self._note_conversion(conversion, places)
        self.overview = self._count()

    @classmethod
    def known(cls, listing: Listing, cache: FileCache) -> Inventory:
        """The stored results of earlier scans. Does not read the files."""
        return cls(Records(listing.files, cache), listing)

    @property
    def to_fix(self) -> int:
        """Number of checkpoints whose built-in VAE is broken or missing."""
        rows = (entry.row for entry in self._entries)
        return sum(row.kind == "checkpoint" and row.status in (BROKEN, MISSING) for row in rows)

    def has(self, record: FileRecord) -> bool:
        """Whether this exact record was already known, so its file was not read again."""
        return self._marks.get(record.path) == _mark(record)

    def page(self, words: str, status: str, sort: str, page: int, size: int) -> LibraryPage:
        """Some rows of the table.

        Args:
            words: all must occur in a row; case does not matter.
            status: only rows with this status; "" for all.
            sort: one of :data:`SORTS`.
            page: from 0.
            size: rows per page.
        """
        found = self._found(words, status, sort)
        pages, page = _pages(len(found), page, size)
        rows = tuple(self._row(entry) for entry in found[page * size : (page + 1) * size])
        return LibraryPage(rows, len(found), pages, page)

    def vaes(self, words: str, status: str, sort: str, page: int, size: int) -> VaePage:
        """As :meth:`page`, with one row for each VAE that has a file among those found.

        A search for the files of one VAE, see :data:`OF_VAE`, has one row for each file.
        """
        if any(word.startswith(OF_VAE) for word in words.casefold().split()):
            files = self.page(words, status, sort, page, size)
            return VaePage(tuple(map(VaeRow, files.rows)), files.total, files.pages, files.page)
        found = self._found(words, status, sort)
        vaes: dict[object, list[_Entry]] = {}
        for entry in found:
            vaes.setdefault(entry.row.path if entry.group < 0 else entry.group, []).append(entry)
        pages, page = _pages(len(vaes), page, size)
        shown = list(vaes.values())[page * size : (page + 1) * size]
        return VaePage(tuple(self._vae_row(entries, sort) for entries in shown), len(found), pages, page)

    def report(self, kind: str) -> Iterator[bytes]:
        """Yield a report on all files, worst first, in chunks; ``kind`` is one of :data:`REPORTS`.

        Written to a temporary file first, because an HTML report on ten thousand files needs too much memory.
        """
        with tempfile.TemporaryFile("w+", encoding="utf8", errors="backslashreplace", newline="") as file:
            records = self.records.worst_first
            if kind == "jsonl":
                write_jsonl(records, file)
            elif kind == "csv":
                write_csv(records, file)
            else:
                charts = self.records.charts
                write_html(
                    records, file, duplicates=self.groups, conversions=self.conversions, charts=charts,
                    title="VAE Lab: library",
                )  # fmt: skip
            file.seek(0)
            while piece := file.read(2**16):
                yield piece.encode("utf8")

    # --- built once -----------------------------------------------------------------------------------------------

    def _noted(self, records: Iterable[FileRecord]) -> Iterator[FileRecord]:
        for record in records:
            self._marks[record.path] = _mark(record)
            self._entries.append(_Entry(self._plain(record)))
            if record.sketch and not record.problem:
                self._sketched.append(Sketched(record.path, record.name, self._once(record.sketch)))
            yield record

    def _plain(self, record: FileRecord) -> LibraryRow:
        once = self._once
        family = record.family or record.model_family
        worst = next(iter(record.verdict.findings), None)
        return LibraryRow(
            name=record.name,
            path=record.path,
            status=record.status,
            kind=record.kind,
            size=record.size,
            family=family.title if family else "",
            identity=once(record.identity.words) if record.identity else "",
            merge=once(record.merge.sentence) if record.merge and record.merge.certain else "",
            related=once(record.merge.names) if record.merge and not record.merge.certain else "",
            title=once(worst.title) if worst else "",
            finding=once(worst.text) if worst else "",
            listed=self._listing.name_of(record.path) if self._listing else "",
            sha256=record.sha256,
        )

    def _once(self, text: str) -> str:
        return self._shared.setdefault(text, text)

    def _note_conversion(self, conversion: Conversion, places: Mapping[str, int]) -> None:
        precision = conversion.precision
        names = tuple(file.name for file in conversion.originals[:_MAX_NAMES])
        for file in conversion.copies:
            entry = self._entries[places[file.path]]
            entry.row = replace(entry.row, precision=precision, rounded_from=names)
        names = tuple(f"{file.name} ({precision})" for file in conversion.copies)
        for file in conversion.originals:
            entry = self._entries[places[file.path]]
            entry.row = replace(entry.row, rounded_to=(*entry.row.rounded_to, *names)[:_MAX_NAMES])

    def _count(self) -> Overview:
        counts = Counter(entry.row.status for entry in self._entries)
        return Overview(
            files=len(self.records),
            counts={status: counts[status] for status in WORST_FIRST if counts[status]},
            groups=len(self.groups),
            copies=sum(max(0, len(group.vaes) - 1) for group in self.groups),
            freeable_bytes=sum(group.freeable_bytes for group in self.groups),
        )

    # --- per page --------------------------------------------------------------------------------------------

    def _found(self, words: str, status: str, sort: str) -> list[_Entry]:
        wanted = words.casefold().split()
        found = [entry for entry in self._entries if status in ("", entry.row.status) and self._has_all(entry, wanted)]
        return sorted(found, key=self._order(sort))

    def _has_all(self, entry: _Entry, words: Iterable[str]) -> bool:
        row = entry.row
        text = "\n".join(
            (row.name, row.identity, row.family, row.merge, row.related, row.title, row.finding)
        ).casefold()
        return all(
            word in text
            or (len(word) >= _MIN_HASH and row.sha256.startswith(word))
            or (entry.group >= 0 and word == OF_VAE + self._key(entry.group))
            for word in words
        )

    def _key(self, group: int) -> str:
        found = self.groups[group]
        return (found.fingerprint or found.sketch)[:_KEY]

    def _vae_row(self, found: list[_Entry], sort: str) -> VaeRow:
        """The row of files with one VAE."""
        first = found[0]
        if first.group < 0:
            return VaeRow(self._row(first))
        paths = self.groups[first.group].paths
        if sort not in ("name", "size"):  # else the first one is where its name or size belongs
            equal = {entry.row.path: entry for entry in found if entry.row.status == first.row.status}
            first = next(equal[path] for path in paths if path in equal)
        others = dict.fromkeys((*(entry.row.path for entry in found), *paths))
        del others[first.row.path]
        folded = tuple(self._entries[self._places[path]].row for path in list(others)[:_MAX_FOLDED])
        return VaeRow(self._row(first), folded, len(paths), self._key(first.group))

    def _order(self, sort: str) -> Callable[[_Entry], tuple[Any, ...]]:
        if sort == "name":
            return lambda entry: natural_key(entry.row.name)
        if sort == "size":
            return lambda entry: (-entry.row.size, natural_key(entry.row.name))
        if sort == "duplicates":  # groups stay together, sorted by freeable bytes
            none = len(self.groups)
            return lambda entry: (
                entry.group if entry.group >= 0 else none,
                -entry.row.size,
                natural_key(entry.row.name),
            )
        ranks = {status: rank for rank, status in enumerate(WORST_FIRST)}
        return lambda entry: (ranks[entry.row.status], natural_key(entry.row.name))

    def _row(self, entry: _Entry) -> LibraryRow:
        if entry.group < 0:
            return entry.row
        row, group = entry.row, self.groups[entry.group]
        external = row.path in group.vaes
        same, more = self._named(group.vaes if external else group.checkpoints, row.path)
        row = replace(row, same_as=same, more_same=more, sure=group.confirmed)
        others, more = self._named(group.checkpoints if external else group.vaes, row.path)
        if external:
            return replace(row, inside=others, more_inside=more)
        return replace(row, contains=others, more_contained=more)

    def _named(self, paths: Iterable[str], but: str) -> tuple[tuple[str, ...], int]:
        others = [path for path in paths if path != but]
        most = _MAX_NAMES if len(others) > _MAX_NAMES + 1 else len(others)  # "and 1 more" is as long as its name
        return tuple(self._names[path] for path in others[:most]), len(others) - most


def _pages(count: int, page: int, size: int) -> tuple[int, int]:
    """The number of pages, and which one to show."""
    pages = max(1, -(-count // size))
    return pages, min(max(page, 0), pages - 1)


def _mark(record: FileRecord) -> int:
    """A hash that changes whenever a file is read again, because ``seconds`` is never the same twice."""
    return hash((record.size, record.mtime, record.file_id, record.depth, record.seconds, record.fingerprint))
