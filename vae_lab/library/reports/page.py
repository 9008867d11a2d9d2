"""A report on a scan as a self-contained HTML page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TextIO

from vae_lab.checkup import chart_png
from vae_lab.checkup.findings import HEALTHY, STATUS_PHRASES, WORST_FIRST, Status
from vae_lab.identity import Conversion, DuplicateGroup, short
from vae_lab.library.record import FileRecord
from vae_lab.library.reports.templates import WAYS, template
from vae_lab.version import __version__

__all__ = ["Charts", "write_html"]

_MAX_CHARTS = 200  # VAEs whose charts are shown: 25 MB of HTML
_MAX_FILES = 20  # files listed next to a chart, and below a group of duplicates
Charts = Callable[[FileRecord], Mapping[str, bytes]]
"""Returns the charts of a file's VAE: PNG by name."""


def write_html(
    records: Iterable[FileRecord],
    out: TextIO,
    *,
    duplicates: Sequence[DuplicateGroup] = (),
    conversions: Sequence[Conversion] = (),
    charts: Charts | None = None,
    title: str = "VAE Lab: scan",
) -> None:
    """Write a page with a sortable and filterable table, and the charts of VAEs that are not healthy.

    It has no external resources, and everything from files is escaped. It is written in pieces, so that memory use
    does not grow with the number of files.

    Args:
        records: in the order of the table; iterated twice, so not a generator.
        out: opened as UTF-8.
        duplicates: groups of files with the same VAE.
        conversions: VAEs that are rounded copies of others.
        charts: called for each VAE that is not healthy, and for one healthy VAE.
        title: of the page.
    """
    counts: Counter[Status] = Counter(record.status for record in records)
    pieces = template("page.html").generate(
        title=title,
        files=sum(counts.values()),
        counts={status: counts[status] for status in WORST_FIRST if counts[status]},
        phrases=STATUS_PHRASES,
        ranks={status: rank for rank, status in enumerate(WORST_FIRST)},
        records=records,
        shown=_Shown(charts is not None),
        charts=charts,
        ways=WAYS,
        chart=chart_png(),
        duplicates=duplicates,
        conversions=conversions,
        freeable=sum(group.freeable_bytes for group in duplicates),
        max_charts=_MAX_CHARTS,
        max_files=_MAX_FILES,
        version=__version__,
    )
    out.writelines(pieces)


class _Shown:
    """The VAEs whose charts are shown, each once, with the names of the files that they are in."""

    def __init__(self, charted: bool) -> None:
        self.first: dict[str, FileRecord] = {}
        self.names: dict[str, list[str]] = {}
        self.files: Counter[str] = Counter()
        self.left_out = False
        self._charted = charted
        self._healthy = False

    def anchor(self, record: FileRecord) -> str:
        """Anchor of the charts of a file's VAE; "" if they are not shown."""
        if not self._charted or not record.measured or not record.fingerprint:
            return ""
        key = f"c{short(record.fingerprint)}{record.hint_id}"
        if key not in self.first:
            if record.status == HEALTHY and self._healthy:
                return ""
            if len(self.first) >= _MAX_CHARTS and record.status != HEALTHY:
                self.left_out = True
                return ""
            self._healthy |= record.status == HEALTHY
            self.first[key] = record
        self.files[key] += 1
        if self.files[key] <= _MAX_FILES:
            self.names.setdefault(key, []).append(record.name)
        return key
