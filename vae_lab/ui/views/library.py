"""HTML for the library. Everything from outside is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from vae_lab.api.routes import report_url
from vae_lab.checkup.findings import STATUS_PHRASES, STATUS_TITLES, UNCHECKED, WORST_FIRST
from vae_lab.library.inventory import LibraryPage, LibraryRow, Overview, ScanSummary
from vae_lab.text import as_text, sized
from vae_lab.ui.views.checkup import badge_of
from vae_lab.ui.views.comparison import breakable, note

__all__ = ["ALL", "ORDERS", "STATUSES", "downloads", "overview", "position", "scanned", "table"]

_KINDS = {"checkpoint": "checkpoint", "vae": "VAE"}

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
_COLUMNS = ("Status", "File", "Size", "VAE", "The same VAE", "What was found")


def overview(found: Overview) -> str:
    """All files in a sentence or two."""
    if not found.files:
        return (
            '<div class="vae-lab-empty"><h3>No files yet</h3>'
            "<p>No checkpoint and no VAE was found in the folders.</p></div>"
        )
    if not found.counts:
        return (
            f'<p class="vae-lab-library-sum"><b>{_files(found.files)}</b>, none of them looked at yet. '
            "Press <em>Scan</em>: about a megabyte of each is read to tell its VAE, and then each VAE is checked once, "
            "the worst suspects first.</p>"
        )
    counts = [
        f'<span class="vae-lab-count" data-status="{status}"><b>{count:,}</b> {STATUS_PHRASES[status]}</span>'
        for status, count in found.counts.items()
    ]
    if found.unknown:
        counts.append(f'<span class="vae-lab-count"><b>{found.unknown:,}</b> new</span>')
    return (
        f'<p class="vae-lab-library-sum"><b>{_files(found.files)}</b>: {", ".join(counts)}.</p>'
        f'<p class="vae-lab-library-copies">{_copies(found)}</p>'
    )


def _copies(found: Overview) -> str:
    if not found.groups:
        return "No duplicates: every VAE is there once."
    if not found.copies:
        count = "One VAE is" if found.groups == 1 else f"{found.groups:,} VAEs are"
        return f"{count} in more than one file, but no VAE file is a copy of another."
    one = found.copies == 1
    what = "1 VAE file is a copy of another" if one else f"{found.copies:,} VAE files are copies of others"
    if not found.freeable_bytes:
        return f"{what}, but on the disk they are one file: there is nothing to free."
    which = "it" if one else "them"
    return (
        f"{what}: <b>{sized(found.freeable_bytes)}</b> could be freed by deleting {which} yourself. "
        "VAE Lab never deletes a file."
    )


def scanned(summary: ScanSummary) -> str:
    """How a scan went, in one line."""
    files = summary.overview.files
    if not files:
        return note("No checkpoint and no VAE was found in the folders.")
    start = f"{_files(files)} scanned" if summary.complete else f"Stopped after {summary.scanned:,} of {_files(files)}"
    rest = "" if summary.complete else " Press Scan to go on from here."
    if not summary.read:
        return note(f"{start} in {summary.seconds:.1f} s: nothing has changed, so nothing was read.{rest}")
    read = f"{summary.read:,} read" if summary.read < summary.scanned else "all read"
    return note(f"{start} in {summary.seconds:.1f} s: {read}, {sized(summary.bytes_read)}.{rest}")


def table(page: LibraryPage, found: Overview) -> str:
    """One page of the table; a file that the checkup lists has a link."""
    if not found.counts:
        return ""
    if not page.rows:
        return '<div class="vae-lab-empty"><h3>No such file</h3><p>No file fits what is asked for above.</p></div>'
    head = "".join(f'<th scope="col">{text}</th>' for text in _COLUMNS)
    rows = "".join(_row(row) for row in page.rows)
    return (
        '<div class="vae-lab-library-scroll" tabindex="0" role="region" aria-label="Files">'
        f'<table class="vae-lab-library-table"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _row(row: LibraryRow) -> str:
    name = breakable(as_text(row.name))
    if row.listed:
        name = f'<button type="button" class="vae-lab-link" title="Open in Checkup">{name}</button>'
    kind = f'<span class="vae-lab-quiet">{_KINDS[row.kind]}</span>' if row.kind in _KINDS else ""
    known = f'<p class="vae-lab-quiet">Known as {breakable(row.identity)}</p>' if row.identity else ""
    cells = (
        f"<td>{_badge(row)}</td>",
        f'<th scope="row" title="{escape(as_text(row.path))}">{name}{kind}</th>',
        f'<td class="vae-lab-number">{sized(row.size)}</td>',
        f"<td>{escape(row.family)}{known}</td>",
        f"<td>{_same(row)}</td>",
        f"<td>{_found(row)}</td>",
    )
    opens = f' data-file="{escape(as_text(row.listed))}"' if row.listed else ""
    return f'<tr data-name="{escape(as_text(row.name))}" data-status="{row.status}"{opens}>{"".join(cells)}</tr>'


def _badge(row: LibraryRow) -> str:
    if row.status == UNCHECKED:
        return f'<span class="vae-lab-badge" data-status="{row.status}">{STATUS_TITLES[row.status]}</span>'
    return badge_of(row.status, row.title)


def _same(row: LibraryRow) -> str:
    unsure = "" if row.sure else '<p class="vae-lab-quiet">As far as a sample of the weights tells.</p>'
    parts = []
    if row.contains:
        several = len(row.contains) + row.more_contained > 1
        which = "any of them" if several else "it"
        parts.append(f"<p>Contains {_names(row.contains, row.more_contained)}: choosing {which} changes nothing.</p>")
    if row.same_as:
        parts.append(f"<p>Same as {_names(row.same_as, row.more_same)}</p>")
    if row.inside:
        parts.append(f"<p>Built into {_names(row.inside, row.more_inside)}</p>")
    return "".join(parts) + (unsure if parts else "")


def _names(names: Sequence[str], more: int) -> str:
    listed = ", ".join(f"<b>{breakable(as_text(name))}</b>" for name in names)
    return f"{listed} and {more:,} more" if more else listed


def _found(row: LibraryRow) -> str:
    merge = f'<p class="vae-lab-quiet">Merge: {escape(as_text(row.merge))}</p>' if row.merge else ""
    return (f"<p>{escape(as_text(row.finding))}</p>" if row.finding else "") + merge


def position(page: LibraryPage) -> str:
    """Which of all rows are shown."""
    if page.pages == 1:
        return f'<p class="vae-lab-position vae-lab-quiet">{_files(page.total)}</p>' if page.total else ""
    return (
        f'<p class="vae-lab-position vae-lab-quiet">Page {page.page + 1:,} of {page.pages:,}, {_files(page.total)}</p>'
    )


def downloads(found: Overview) -> str:
    """Links to the reports on all files."""
    if not found.counts:
        return ""
    links = ", ".join(f'<a href="{report_url(kind)}" download>{words}</a>' for kind, words in _REPORTS.items())
    return f'<p class="vae-lab-downloads">Report on all files: {links}</p>'


def _files(count: int) -> str:
    return f"{count:,} file{'' if count == 1 else 's'}"
