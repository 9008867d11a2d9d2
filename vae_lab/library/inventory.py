"""All files of a host, as scans left them: counted, filtered, sorted and paged. Nothing is read from the files."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from vae_lab.checkup.findings import WORST_FIRST, Status
from vae_lab.identity import DuplicateGroup, find_duplicates
from vae_lab.library.cache import FileCache, Records
from vae_lab.library.folders import Listing
from vae_lab.library.record import FileRecord, Kind
from vae_lab.library.reports import write_csv, write_html, write_jsonl

__all__ = ["REPORTS", "SORTS", "Inventory", "LibraryPage", "LibraryRow", "Overview", "ScanSummary"]

_MOST_NAMED = 4  # files in one cell

SORTS = ("worst", "name", "size", "duplicates")
"""Orders of the table; by size and by duplicates the most come first."""

REPORTS = {"jsonl": "application/x-ndjson", "csv": "text/csv", "html": "text/html"}
"""Kinds of report, by the ending of their files: media types."""


@dataclass(frozen=True, slots=True)
class LibraryRow:
    """One file, in the words of the table.

    Attributes:
        name: relative to its folder, unique among all.
        path: the file.
        status: one of :data:`vae_lab.library.WORST_FIRST`.
        kind: ``checkpoint``, ``vae`` or "".
        size: bytes.
        family: title of the latent family, or "".
        identity: the name under which the VAE was published, or "".
        same_as: names of other VAE files, or of other checkpoints, with the same VAE, the first few; without those of
            ``contains``.
        more_same: how many more there are.
        contains: of a checkpoint, names of the VAE files with the VAE that is built into it, the first few.
        more_contained: how many more there are.
        inside: of a VAE file, names of the checkpoints that it is built into, the first few.
        more_inside: how many more there are.
        sure: all weights were compared, not a sample alone.
        merge: what the VAE was merged from, or "".
        title, finding: the worst finding, or "".
        listed: name under which the host's menus and the checkup list it; "" if they do not.
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


@dataclass(frozen=True)
class LibraryPage:
    """Some rows of the table.

    Attributes:
        rows: at most as many as were asked for.
        total: rows on all pages.
        pages: at least 1.
        page: this one, from 0; the last one if a later one was asked for.
    """

    rows: tuple[LibraryRow, ...]
    total: int
    pages: int
    page: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "rows": [asdict(row) for row in self.rows]}


@dataclass(frozen=True)
class Overview:
    """All files in numbers.

    Attributes:
        files: in the host's folders.
        counts: status -> files, worst first; without those that nothing is known of yet.
        groups: how many VAEs are in more than one file.
        copies: VAE files that another one makes superfluous.
        freeable_bytes: what these take; hard links count once.
    """

    files: int = 0
    counts: Mapping[Status, int] = field(default_factory=dict)
    groups: int = 0
    copies: int = 0
    freeable_bytes: int = 0

    @property
    def unknown(self) -> int:
        """Files that no scan has looked at yet."""
        return self.files - sum(self.counts.values())


@dataclass(frozen=True)
class ScanSummary:
    """How a scan went.

    Attributes:
        overview: all files afterwards.
        complete: every file has been looked at; otherwise the next scan goes on from here.
        scanned: files that were looked at or known.
        read: of these, files that were read now.
        bytes_read: of these.
        seconds: for everything.
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
    """What is held of a file: less than a kilobyte, since texts that many files share are held once."""

    row: LibraryRow
    group: int = -1


class Inventory:
    """What is stored of the files of a scan. A snapshot that never changes: safe to use from several threads.

    Args:
        records: read once now, and again for each report.
        listing: how the host lists its files.
    """

    def __init__(self, records: Records, listing: Listing | None = None) -> None:
        self.records = records
        self._listing = listing
        self._entries: list[_Entry] = []
        self._marks: dict[str, int] = {}
        self._shared: dict[str, str] = {}
        self.groups: list[DuplicateGroup] = find_duplicates(self._noted(records))
        self._shared.clear()
        self._listing = None
        places = {entry.row.path: i for i, entry in enumerate(self._entries)}
        self._names = {path: self._entries[places[path]].row.name for group in self.groups for path in group.paths}
        for i, group in enumerate(self.groups):
            for path in group.paths:
                entry = self._entries[places[path]]
                # What was compared in full goes before what a sample tells.
                if entry.group < 0 or (group.confirmed and not self.groups[entry.group].confirmed):
                    entry.group = i
        self.overview = self._count()

    @classmethod
    def known(cls, listing: Listing, cache: FileCache) -> Inventory:
        """What earlier scans have stored of a host's files. Reads nothing of them."""
        return cls(Records(listing.files, cache), listing)

    def has(self, record: FileRecord) -> bool:
        """Whether this very record was known already: if so, its file was not read for it again."""
        return self._marks.get(record.path) == _mark(record)

    def page(self, words: str, status: str, sort: str, page: int, size: int) -> LibraryPage:
        """Some rows of the table.

        Args:
            words: all must be in a row, in any case.
            status: rows of this status alone; "" for all.
            sort: one of :data:`SORTS`.
            page: from 0.
            size: rows on each page.
        """
        wanted = words.casefold().split()
        found = [entry for entry in self._entries if status in ("", entry.row.status) and _has_all(entry.row, wanted)]
        found.sort(key=self._order(sort))
        pages = max(1, -(-len(found) // size))
        page = min(max(page, 0), pages - 1)
        rows = tuple(self._row(entry) for entry in found[page * size : (page + 1) * size])
        return LibraryPage(rows, len(found), pages, page)

    def report(self, kind: str) -> Iterator[bytes]:
        """A report on all files, worst first, in pieces; one of :data:`REPORTS`.

        Written to a file first: a page of HTML over ten thousand files would not be small in memory.
        """
        with tempfile.TemporaryFile("w+", encoding="utf8", errors="backslashreplace", newline="") as file:
            records = self.records.worst_first
            if kind == "jsonl":
                write_jsonl(records, file)
            elif kind == "csv":
                write_csv(records, file)
            else:
                charts = self.records.charts
                write_html(records, file, duplicates=self.groups, charts=charts, title="VAE Lab: library")
            file.seek(0)
            while piece := file.read(2**16):
                yield piece.encode("utf8")

    # --- made once -----------------------------------------------------------------------------------------------

    def _noted(self, records: Iterable[FileRecord]) -> Iterator[FileRecord]:
        for record in records:
            self._marks[record.path] = _mark(record)
            self._entries.append(_Entry(self._plain(record)))
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
            merge=once(record.merge.sentence) if record.merge else "",
            title=once(worst.title) if worst else "",
            finding=once(worst.text) if worst else "",
            listed=self._listing.name_of(record.path) if self._listing else "",
        )

    def _once(self, text: str) -> str:
        return self._shared.setdefault(text, text)

    def _count(self) -> Overview:
        counts = Counter(entry.row.status for entry in self._entries)
        return Overview(
            files=len(self.records),
            counts={status: counts[status] for status in WORST_FIRST if counts[status]},
            groups=len(self.groups),
            copies=sum(max(0, len(group.vaes) - 1) for group in self.groups),
            freeable_bytes=sum(group.freeable_bytes for group in self.groups),
        )

    # --- for each page -------------------------------------------------------------------------------------------

    def _order(self, sort: str) -> Callable[[_Entry], tuple[Any, ...]]:
        if sort == "name":
            return lambda entry: (entry.row.name.casefold(),)
        if sort == "size":
            return lambda entry: (-entry.row.size, entry.row.name.casefold())
        if sort == "duplicates":  # groups are in the order of what can be freed, and stay together
            none = len(self.groups)
            return lambda entry: (entry.group if entry.group >= 0 else none, -entry.row.size, entry.row.name)
        ranks = {status: rank for rank, status in enumerate(WORST_FIRST)}
        return lambda entry: (ranks[entry.row.status], entry.row.name.casefold())

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
        most = _MOST_NAMED if len(others) > _MOST_NAMED + 1 else len(others)  # "and 1 more" is as long as its name
        return tuple(self._names[path] for path in others[:most]), len(others) - most


def _has_all(row: LibraryRow, words: Iterable[str]) -> bool:
    text = "\n".join((row.name, row.identity, row.family, row.merge, row.title, row.finding)).casefold()
    return all(word in text for word in words)


def _mark(record: FileRecord) -> int:
    """Of what looking at the same file a second time would change: the time that it took is never the same."""
    return hash((record.size, record.mtime, record.file_id, record.depth, record.seconds, record.fingerprint))
