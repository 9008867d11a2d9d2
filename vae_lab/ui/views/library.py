"""The Library page: all files on the disk."""

from __future__ import annotations

from markupsafe import Markup

from vae_lab.api.routes import report_url
from vae_lab.checkup.findings import STATUS_PHRASES, STATUS_TITLES
from vae_lab.library import UNCHECKED, WORST_FIRST
from vae_lab.library.inventory import OF_VAE, LibraryRow, Overview, ScanSummary, VaePage, VaeRow
from vae_lab.messages import text, translated
from vae_lab.text import sized
from vae_lab.ui.views.checkup import KINDS, badge_of
from vae_lab.ui.views.comparison import message
from vae_lab.ui.views.html import render

__all__ = ["ALL", "ORDERS", "STATUSES", "downloads", "overview", "position", "scanned", "table"]

ALL = "All"
STATUSES = {ALL: ""} | {STATUS_TITLES[status]: status for status in WORST_FIRST}
"""Choices of the menu: statuses."""

ORDERS = {
    "Worst first": "worst",
    "Name": "name",
    "Size, largest first": "size",
    "Duplicates first": "duplicates",
}
"""Choices of the menu: orders."""

_REPORTS = {"jsonl": "JSON lines", "csv": "CSV", "html": "HTML page"}


def overview(totals: Overview) -> str:
    """All files in a sentence or two."""
    counts = [(status, count, STATUS_PHRASES[status]) for status, count in totals.counts.items()]
    if totals.unknown:
        counts.append(("", totals.unknown, "new"))
    return render("library", "overview", totals, _files(totals.files), counts, _copies(totals) if totals.counts else "")


def _copies(totals: Overview) -> str:
    if not totals.groups:
        return text("No duplicates: every VAE exists only once.")
    if not totals.copies:
        if totals.groups == 1:
            return text("One VAE is in more than one file, but no VAE file is a copy of another.")
        template = "{count} VAEs are in more than one file, but no VAE file is a copy of another."
        return text(template, count=f"{totals.groups:,}")
    template = "1 VAE file is a copy of another." if totals.copies == 1 else "{count} VAE files are copies of others."
    copies = text(template, count=f"{totals.copies:,}")
    if not totals.freeable_bytes:
        return f"{copies} {text('Links take no space, so there is nothing to free.')}"
    html = render("library", "freeable", copies, totals.copies, sized(totals.freeable_bytes))
    return Markup(html)  # noqa: S704  rendered by a template


def scanned(summary: ScanSummary) -> str:
    """The result of a scan, in one line."""
    files = summary.overview.files
    if not files:
        return message(text("No checkpoint or VAE was found in your folders."))
    seconds = f"{summary.seconds:.1f}"
    if summary.complete:
        sentences = [text("{files} scanned in {seconds} s.", files=_files(files), seconds=seconds)]
    else:
        template = "Stopped after {count} of {files} in {seconds} s."
        sentences = [text(template, count=f"{summary.scanned:,}", files=_files(files), seconds=seconds)]
    if not summary.read:
        sentences.append(text("Nothing has changed, so nothing was read."))
    else:
        template = "{count} read ({size})." if summary.read < summary.scanned else "All were read ({size})."
        sentences.append(text(template, count=f"{summary.read:,}", size=sized(summary.bytes_read)))
    if not summary.complete:
        sentences.append(text("Press Scan to resume."))
    return message(" ".join(sentences))


def table(page: VaePage, totals: Overview) -> str:
    """One page of the table; a file that the checkup lists has a link. ``javascript/tab/library.mjs`` unfolds rows."""
    if not totals.counts:
        return ""
    rows = [(vae, _badge(vae.row), [(other, _other_badge(other, vae)) for other in vae.others]) for vae in page.rows]
    return render("library", "table", rows, KINDS, OF_VAE)


def _other_badge(other: LibraryRow, vae: VaeRow) -> str:
    """Only what is not said of the first file already."""
    return _badge(other) if (other.status, other.title) != (vae.row.status, vae.row.title) else ""


def _badge(row: LibraryRow) -> Markup:
    if row.status != UNCHECKED:
        return badge_of(row.status, row.title)
    html = '<span class="vae-lab-badge" data-status="{}">{}</span>'
    return Markup(html).format(row.status, translated(STATUS_TITLES[row.status]))  # noqa: S704  values are escaped


def position(page: VaePage) -> str:
    """Which of all rows are shown."""
    return render("library", "position", _files(page.files), page) if page.files else ""


def downloads(totals: Overview) -> str:
    """Links to the reports on all files."""
    if not totals.counts:
        return ""
    return render("library", "downloads", [(report_url(kind), translated(title)) for kind, title in _REPORTS.items()])


def _files(count: int) -> str:
    return text("{count} file" if count == 1 else "{count} files", count=f"{count:,}")
