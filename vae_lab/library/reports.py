"""Reports on a scan: JSON lines, CSV, and a page of HTML that needs nothing else."""

from __future__ import annotations

import base64
import csv
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from html import escape
from typing import Any, TextIO

from vae_lab.checkup import DECODED, ROUND_TRIP, Finding, chart_png
from vae_lab.checkup.findings import HEALTHY, INFORMATION, STATUS_PHRASES, WORST_FIRST, Status
from vae_lab.identity import DuplicateGroup, short
from vae_lab.library.record import FileRecord
from vae_lab.text import as_text, sized
from vae_lab.version import __version__

__all__ = ["json_line", "write_csv", "write_html", "write_jsonl"]

_MOST_CHARTS = 200  # VAEs whose charts are shown: 25 MB of page
_MOST_FILES = 20  # files that are named beside a chart, and below a group of duplicates

_COLUMNS = (
    *("status", "name", "path", "kind", "family", "dtype", "layout", "size", "modified", "fingerprint", "identity"),
    *("merge", "findings", "remedy"),
)

Charts = Callable[[FileRecord], Mapping[str, bytes]]
"""What became of the chart in the VAE of a file: PNG by name."""


def json_line(record: FileRecord) -> str:
    """One line of JSON, without its end; in ASCII, so that no name of a file, and no terminal, can spoil it."""
    return json.dumps(_plain(record.to_scan_json()), allow_nan=False)


def write_jsonl(records: Iterable[FileRecord], out: TextIO) -> None:
    """One JSON object for each file, a line each."""
    for record in records:
        out.write(f"{json_line(record)}\n")


def write_csv(records: Iterable[FileRecord], out: TextIO) -> None:
    """One row for each file.

    Args:
        records: written as they come.
        out: opened with ``newline=""``. What a spreadsheet would take for a formula begins with an apostrophe.
    """
    writer = csv.writer(out)
    writer.writerow(_COLUMNS)
    for record in records:
        writer.writerow([_harmless(value) for value in _row(record)])


def _row(record: FileRecord) -> Sequence[object]:
    findings = record.verdict.findings
    return (
        record.status,
        record.name,
        record.path,
        record.kind,
        record.family_id or "",
        record.dtype,
        record.layout,
        record.size,
        _date(record.mtime),
        record.fingerprint,
        record.identity.words if record.identity else "",
        _merged(record),
        " ".join(finding.text for finding in findings),
        next((finding.remedy for finding in findings if finding.remedy), ""),
    )


def _harmless(value: object) -> object:
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        return f"'{value}"
    return value


def _plain(value: Any) -> Any:
    """JSON has neither NaN nor infinity."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _date(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M") if seconds else ""
    except (OverflowError, ValueError, OSError):  # file systems have times beyond the year 9999
        return ""


def _merged(record: FileRecord) -> str:
    if not record.merge:
        return ""
    return " + ".join(f"{parent.weight:.3f} {parent.name}" for parent in record.merge.parents)


# --- the page ----------------------------------------------------------------------------------------------------


def write_html(
    records: Iterable[FileRecord],
    out: TextIO,
    *,
    duplicates: Sequence[DuplicateGroup] = (),
    charts: Charts | None = None,
    title: str = "VAE Lab: scan",
) -> None:
    """A page with a table that can be sorted and filtered, and with the charts of what is not healthy.

    It loads nothing from elsewhere, and everything that comes from files is escaped.

    Args:
        records: iterated over twice, so not a generator; in the order of the table.
        out: opened as UTF-8.
        duplicates: groups of files with the same VAE.
        charts: asked for one record at a time, of each VAE that is not healthy and of one that is.
        title: of the page.
    """
    counts: Counter[Status] = Counter(record.status for record in records)
    out.write(_HEAD.format(title=escape(title), style=_STYLE, before=_address(chart_png())))
    out.write(f"<h1>{escape(title)}</h1>{_overview(counts)}{_filter(counts)}{_TABLE_HEAD}")
    shown = _Shown()
    for record in records:
        out.write(_table_row(record, shown.anchor(record) if charts else ""))
    out.write("</tbody></table></div>")
    if charts and shown.first:
        _write_charts(shown, charts, out)
    if duplicates:
        out.write(_duplicates(duplicates))
    out.write(f"<footer>VAE Lab {escape(__version__)}. No file was changed.</footer>")
    out.write(f"<script>{_SCRIPT}</script></body></html>\n")


class _Shown:
    """The VAEs whose charts are shown, each once, with the names of the files that they are in."""

    def __init__(self) -> None:
        self.first: dict[str, FileRecord] = {}
        self.names: dict[str, list[str]] = {}
        self.files: Counter[str] = Counter()
        self.left_out = False
        self._healthy = False

    def anchor(self, record: FileRecord) -> str:
        """Where on the page the charts of a file's VAE are; "" if they are not shown."""
        if not record.measured or not record.fingerprint:
            return ""
        key = f"c{short(record.fingerprint)}{record.hint_id}"
        if key not in self.first:
            if record.status == HEALTHY and self._healthy:
                return ""
            if len(self.first) >= _MOST_CHARTS and record.status != HEALTHY:
                self.left_out = True
                return ""
            self._healthy |= record.status == HEALTHY
            self.first[key] = record
        self.files[key] += 1
        if self.files[key] <= _MOST_FILES:
            self.names.setdefault(key, []).append(record.name)
        return key


def _overview(counts: Mapping[Status, int]) -> str:
    parts = "".join(
        f'<li><span class="badge" data-status="{status}">{counts[status]} {STATUS_PHRASES[status]}</span></li>'
        for status in WORST_FIRST
        if counts.get(status)
    )
    return f'<p>{_files(sum(counts.values()))} looked at.</p><ul class="overview">{parts}</ul>'


def _filter(counts: Mapping[Status, int]) -> str:
    options = "".join(
        f'<option value="{status}">{STATUS_PHRASES[status]}</option>' for status in WORST_FIRST if counts.get(status)
    )
    return (
        '<p class="filter"><label>Find <input id="text" type="search" placeholder="name, family, finding"></label>'
        f'<label>Status <select id="status"><option value="">all</option>{options}</select></label>'
        '<span id="count" role="status"></span></p>'
    )


def _table_row(record: FileRecord, anchor: str) -> str:
    family = record.family or record.model_family
    rank = WORST_FIRST.index(record.status)
    link = f' <a href="#{anchor}">chart</a>' if anchor else ""
    known = record.identity.words if record.identity else ""
    words = STATUS_PHRASES[record.status]
    cells = (
        f'<td data-sort="{rank}"><span class="badge" data-status="{record.status}">{words}</span></td>',
        f'<th scope="row" title="{_safe(record.path)}">{_safe(record.name)}</th>',
        f"<td>{_safe(record.kind)}</td>",
        f"<td>{_safe(family.title if family else '')}</td>",
        f"<td>{_safe(record.dtype)}</td>",
        f'<td class="number" data-sort="{record.size}">{sized(record.size)}</td>',
        f"<td><code>{_safe(short(record.fingerprint))}</code>{f'<br>{_safe(known)}' if known else ''}</td>",
        f"<td>{_words(record)}{link}</td>",
    )
    return f'<tr data-status="{record.status}">{"".join(cells)}</tr>\n'


def _words(record: FileRecord) -> str:
    return "".join(map(_finding, record.verdict.findings))


def _finding(finding: Finding) -> str:
    remedy = f" <b>{_safe(finding.remedy)}</b>" if finding.remedy and finding.severity != INFORMATION else ""
    return f'<p title="{_safe("; ".join(map(str, finding.evidence)))}">{_safe(finding.text)}{remedy}</p>'


def _write_charts(shown: _Shown, charts: Charts, out: TextIO) -> None:
    out.write(
        "<h2>Charts</h2><p>A chart with bright white, deep black and full colours goes through each VAE. "
        "Shown is each VAE that is not healthy, and a healthy one to compare with.</p>"
    )
    for key, record in shown.first.items():
        images = charts(record)
        figures = [
            _figure(_address(images[name]), words)
            for name, words in ((DECODED, "Decoded from reference latents"), (ROUND_TRIP, "Encoded and decoded"))
            if name in images
        ]
        before = (
            '<figure><div class="before" role="img" aria-label="The chart before"></div><figcaption>Before</figcaption>'
        )
        files = ", ".join(map(_safe, shown.names[key]))
        more = shown.files[key] - len(shown.names[key])
        files += f" and {more} more" if more else ""
        out.write(
            f'<section id="{key}" class="card"><h3><span class="badge" data-status="{record.status}">'
            f'{STATUS_PHRASES[record.status]}</span> {files}</h3>{_words(record)}<div class="charts">{before}</figure>'
            f"{''.join(figures)}</div></section>\n"
        )
    if shown.left_out:
        out.write(f"<p>Only the first {_MOST_CHARTS} VAEs are shown here.</p>")


def _figure(source: str, words: str) -> str:
    return (
        f'<figure><img src="{source}" width="192" height="256" alt="{words}"><figcaption>{words}</figcaption></figure>'
    )


def _duplicates(groups: Sequence[DuplicateGroup]) -> str:
    freeable = sum(group.freeable_bytes for group in groups)
    total = f" {sized(freeable)} could be freed; VAE Lab deletes nothing." if freeable else ""
    rows = "".join(_group(group) for group in groups)
    count = "1 group" if len(groups) == 1 else f"{len(groups):,} groups"
    return f"<h2>The same VAE more than once</h2><p>{count}.{total}</p>{rows}"


def _group(group: DuplicateGroup) -> str:
    paths = "".join(f"<li>{_safe(path)}</li>" for path in group.paths[:_MOST_FILES])
    more = len(group.paths) - _MOST_FILES
    paths += f"<li>and {more} more</li>" if more > 0 else ""
    return f"<details><summary>{_safe(group.sentence)}</summary><ul>{paths}</ul></details>"


def _files(count: int) -> str:
    return f"{count:,} file{'' if count == 1 else 's'}"


def _safe(text: str) -> str:
    return escape(as_text(text))


def _address(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


_STYLE = """
:root{color-scheme:light dark;--text:#101828;--quiet:#475467;--ground:#fff;--raised:#f5f6f8;--line:#d0d5dd;
--link:#175cd3}
@media(prefers-color-scheme:dark){:root{--text:#f2f4f7;--quiet:#b0b7c3;--ground:#14171c;--raised:#1e232b;--line:#3a4250;
--link:#84caff}}
*{box-sizing:border-box}
body{margin:0 auto;padding:24px;max-width:1400px;font:16px/1.45 system-ui,sans-serif;color:var(--text);
background:var(--ground);overflow-wrap:anywhere}
a{color:var(--link)}h1{font-size:1.6rem}h2{margin-top:40px;font-size:1.3rem}h3{margin:0 0 8px;font-size:1rem}
p{margin:4px 0}footer{margin-top:40px;color:var(--quiet)}
.overview{display:flex;flex-wrap:wrap;gap:8px;padding:0;list-style:none}
.badge{display:inline-block;padding:2px 10px;border-radius:999px;font-size:.875rem;font-weight:600;color:#fff;
background:#475467;white-space:nowrap}
.badge[data-status=healthy]{background:#067647}.badge[data-status=suspect],.badge[data-status=missing]{background:#93370d}
.badge[data-status=broken],.badge[data-status=unreadable]{background:#b42318}
.filter{display:flex;flex-wrap:wrap;gap:16px;align-items:center;margin:16px 0}
input,select{font:inherit;padding:6px 10px;border:1px solid var(--line);border-radius:6px;color:inherit;
background:var(--raised)}
.scroll{overflow:auto;max-height:80vh;border:1px solid var(--line);border-radius:8px}
table{width:100%;border-collapse:collapse;font-size:.9rem}
thead th{position:sticky;top:0;background:var(--raised);text-align:left;padding:0}
thead button{all:unset;display:block;padding:8px 12px;font-weight:600;cursor:pointer;white-space:nowrap}
thead button:focus-visible{outline:2px solid var(--link);outline-offset:-2px}
thead [aria-sort=ascending] button::after{content:" \\2191"}
thead [aria-sort=descending] button::after{content:" \\2193"}
td,tbody th{padding:8px 12px;border-top:1px solid var(--line);text-align:left;vertical-align:top;font-weight:400;
min-width:4.5em}
tbody th{font-weight:600;min-width:14em}.number{text-align:right;white-space:nowrap}
tr[hidden]{display:none}
.card{margin:12px 0;padding:16px;border:1px solid var(--line);border-radius:8px;background:var(--raised)}
.card:target{outline:2px solid var(--link)}
.charts{display:flex;flex-wrap:wrap;gap:16px;margin-top:12px}
figure{margin:0}figcaption{color:var(--quiet);font-size:.875rem}img,.before{display:block;width:192px;height:256px}
details{margin:8px 0}summary{cursor:pointer}
"""

_HEAD = (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
    "<title>{title}</title><style>{style}.before{{background:url({before})}}</style></head><body>"
)

_TABLE_HEAD = (
    '<div class="scroll"><table><thead><tr>'
    + "".join(
        f'<th scope="col"><button type="button">{name}</button></th>'
        for name in ("Status", "File", "Kind", "Family", "Precision", "Size", "Fingerprint", "What was found")
    )
    + "</tr></thead><tbody>\n"
)

_SCRIPT = """
const body = document.querySelector("tbody"), rows = [...body.rows];
const text = document.getElementById("text"), status = document.getElementById("status");
const key = (row, i) => row.cells[i].dataset.sort ?? row.cells[i].textContent.toLowerCase();
const compare = new Intl.Collator(undefined, {numeric: true}).compare;
const show = () => {
  const wanted = text.value.toLowerCase();
  let shown = 0;
  for (const row of rows) {
    const fits = [row.dataset.status, ""].includes(status.value) && row.textContent.toLowerCase().includes(wanted);
    row.hidden = !fits;
    shown += fits;
  }
  document.getElementById("count").textContent = `${shown} of ${rows.length} files`;
};
const heads = [...document.querySelectorAll("thead th")];
heads.forEach((head, i) => head.firstChild.addEventListener("click", () => {
  const down = head.getAttribute("aria-sort") === "ascending";
  for (const other of heads) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  rows.sort((a, b) => compare(key(a, i), key(b, i)) * (down ? -1 : 1));
  body.append(...rows);
}));
text.addEventListener("input", show);
status.addEventListener("change", show);
show();
"""
