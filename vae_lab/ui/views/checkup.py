"""HTML for the checkup. Everything from outside is escaped."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from html import escape

from vae_lab.checkup import DECODED, ROUND_TRIP, Checkup, Evidence, Finding, Verdict, chart_png
from vae_lab.checkup.findings import (
    BROKEN,
    HEALTHY,
    MISSING,
    STATUS_PHRASES,
    STATUS_TITLES,
    SUSPECT,
    UNREADABLE,
    Status,
)
from vae_lab.host.base import Held
from vae_lab.identity import short
from vae_lab.latents.family import Family
from vae_lab.library import FileRecord, Recommendation
from vae_lab.text import sized
from vae_lab.ui.views.comparison import breakable, note

__all__ = [
    *(
        "aside",
        "badge",
        "badge_of",
        "charts",
        "checked",
        "details",
        "held",
        "kind_to_get",
        "mark",
        "overview",
        "recommended",
    ),
    *("remedied", "status_words", "unchecked", "used_instead", "verdict"),
]

_SIGNS = {HEALTHY: "✓", SUSPECT: "⚠", MISSING: "⚠", BROKEN: "✗", UNREADABLE: "✗"}
_WORST_FIRST: tuple[Status, ...] = (UNREADABLE, BROKEN, MISSING, SUSPECT, HEALTHY)
# Where the title says no more than the status itself.
_SAYS_ENOUGH = (HEALTHY, MISSING)
_GET = {"sd1": "sd-vae-ft-mse", "sdxl": "sdxl-vae-fp16-fix"}

_DECODER, _BOTH = "decoder alone", "encoder and decoder"
_BRIGHT, _DARK = "white", "black"
_KINDS = {"checkpoint": "checkpoint", "vae": "VAE"}


# --- the verdict in words ----------------------------------------------------------------------------------------


def status_words(verdict: Verdict) -> str:
    """Such as ``Broken: washed out``."""
    return _words_of(verdict.status, verdict.faults[0].title if verdict.faults else "")


def _words_of(status: Status, title: str) -> str:
    if status == UNREADABLE and title:
        return title
    return STATUS_TITLES[status] if status in _SAYS_ENOUGH or not title else f"{STATUS_TITLES[status]}: {_small(title)}"


def mark(verdict: Verdict) -> str:
    """For menus, such as ``✗ washed out``."""
    words = _small(verdict.faults[0].title) if verdict.faults else ""
    return f"{_SIGNS[verdict.status]} {words}".strip()


def badge(verdict: Verdict) -> str:
    """The status, by sign, words and colour."""
    return badge_of(verdict.status, verdict.faults[0].title if verdict.faults else "")


def badge_of(status: Status, title: str) -> str:
    """As :func:`badge`, of a status and the title of the worst fault, or ""."""
    sign = f'<span aria-hidden="true">{_SIGNS[status]}</span>'
    return f'<span class="vae-lab-badge" data-status="{status}">{sign} {escape(_words_of(status, title))}</span>'


def _small(title: str) -> str:
    return title[:1].lower() + title[1:]


# --- one file ----------------------------------------------------------------------------------------------------


def unchecked(name: str) -> str:
    """A file that was not looked at yet."""
    if not name:
        return '<div class="vae-lab-empty"><h3>Nothing to check</h3><p>No checkpoint and no VAE was found.</p></div>'
    return (
        f'<div class="vae-lab-verdict" data-file="{escape(name)}">'
        '<div class="vae-lab-status"><span class="vae-lab-badge">Not checked yet</span></div>'
        f'<h3 class="vae-lab-name">{breakable(name)}</h3>'
        "<p>Press <em>Check</em>: a colour chart goes through its VAE, and you see what comes out.</p></div>"
    )


def verdict(name: str, report: FileRecord, current: bool) -> str:
    """The status of a file, its name, and what is the matter with it.

    Args:
        name: as it is listed.
        report: on that file.
        current: it is the checkpoint in use.
    """
    found = report.verdict
    what = "checkpoint in use" if current else _KINDS.get(report.kind, "")
    kind = f'<span class="vae-lab-quiet">{escape(what)}</span>' if what else ""
    faults = "".join(map(_finding, found.faults)) or f"<p>{escape(_praise(report))}</p>"
    return (
        f'<div class="vae-lab-verdict" data-status="{found.status}" data-file="{escape(name)}">'
        f'<div class="vae-lab-status">{badge(found)}{kind}</div>'
        f'<h3 class="vae-lab-name">{breakable(name)}</h3>{faults}</div>'
    )


def _praise(report: FileRecord) -> str:
    family = f" of the family {report.family.title}" if report.family else ""
    if report.checkup is None:
        return "Nothing speaks against this file."
    return f"A sound VAE{family}: the chart comes out with its contrast and its colours."


def _finding(finding: Finding) -> str:
    remedy = f'<p class="vae-lab-remedy"><b>What to do:</b> {escape(finding.remedy)}</p>' if finding.remedy else ""
    numbers = ""
    if finding.evidence:
        lines = "".join(f"<li>{escape(str(evidence))}</li>" for evidence in finding.evidence)
        numbers = f"<details><summary>The numbers behind it</summary><ul>{lines}</ul></details>"
    return (
        f'<section class="vae-lab-finding" data-status="{escape(finding.severity)}" data-code="{escape(finding.code)}">'
        f"<h4>{escape(finding.title)}</h4><p>{escape(finding.text)}</p>{remedy}{numbers}</section>"
    )


def charts(report: FileRecord) -> str:
    """What goes in, and what comes out; nothing where no VAE could be put to the test."""
    checkup = report.checkup
    if checkup is None or not checkup.charts:
        return ""
    figures = [
        _chart(_goes_in(), "The chart that goes in", "Bright white, deep black, full colours", _lightness(100, 0))
    ]
    decoded, round_trip = checkup.charts.get(DECODED), checkup.charts.get(ROUND_TRIP)
    if decoded:
        words = "How your images come out: latents of the chart, decoded by this VAE"
        figures.append(_chart(_address(decoded), "Reference latents, decoded", words, _levels(checkup, _DECODER)))
    if round_trip:
        words = "How img2img and hires fix see an image: in and out again"
        figures.append(_chart(_address(round_trip), "Encoded and decoded by this VAE", words, _levels(checkup, _BOTH)))
    return f'<div class="vae-lab-charts">{"".join(figures)}</div>'


def _chart(source: str, title: str, words: str, levels: str) -> str:
    result = f'<span class="vae-lab-levels">{escape(levels)}</span>' if levels else ""
    return (
        f'<figure><img src="{source}" width="192" height="256" alt="{escape(f"{title}: {levels or words}")}">'
        f'<figcaption><b>{escape(title)}</b><span class="vae-lab-quiet">{escape(words)}</span>{result}</figcaption>'
        "</figure>"
    )


def _address(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


@lru_cache(maxsize=1)
def _goes_in() -> str:
    return _address(chart_png())


def _levels(checkup: Checkup, way: str) -> str:
    """How bright white and how dark black came out, where that was measured."""
    found = {evidence.name: evidence.value for evidence in checkup.measured}
    high, low = found.get(f"{way}: {_BRIGHT}"), found.get(f"{way}: {_DARK}")
    if high is None or low is None:
        return ""
    return _lightness(high, low)


def _lightness(white: float, black: float) -> str:
    return f"Lightness: white {white:.0f}, black {black:.0f}"


def details(report: FileRecord) -> str:
    """What else was found, the facts of the file, and all numbers."""
    more = [finding for finding in report.verdict.findings if finding not in report.verdict.faults]
    return "".join(map(_finding, more)) + _facts(report) + _numbers(report)


def _facts(report: FileRecord) -> str:
    family = report.family or report.model_family
    megabytes = f"{sized(report.bytes_read)} read in {report.seconds:.1f} s" if report.bytes_read else ""
    facts = {
        "Family": family.title if family else "",
        "Known as": report.identity.words if report.identity else "",
        "Precision": report.dtype,
        "Layout": report.layout,
        "Fingerprint": short(report.fingerprint),
        "Merged from": report.merge.sentence if report.merge else "",
        "Checked": megabytes,
    }
    pairs = "".join(f"<div><dt>{name}</dt><dd>{breakable(value)}</dd></div>" for name, value in facts.items() if value)
    return f'<dl class="vae-lab-factline">{pairs}</dl>' if pairs else ""


def _numbers(report: FileRecord) -> str:
    if report.checkup is None or not report.checkup.measured:
        return ""
    rows: dict[str, dict[str, Evidence]] = {}
    for evidence in report.checkup.measured:
        way, colon, name = evidence.name.rpartition(": ")
        rows.setdefault(name if colon else evidence.name, {})[way] = evidence
    body = "".join(_number_row(name, by_way) for name, by_way in rows.items())
    head = "".join(f'<th scope="col">{text}</th>' for text in ("Measured", "Decoder alone", "Encoder and decoder"))
    return (
        "<details class='vae-lab-numbers'><summary>All measured numbers</summary>"
        f'<table><thead><tr>{head}<th scope="col">What a faithful VAE has</th></tr></thead>'
        f"<tbody>{body}</tbody></table></details>"
    )


def _number_row(name: str, by_way: Mapping[str, Evidence]) -> str:
    wanted = next(iter(by_way.values())).wanted
    if _DECODER in by_way or _BOTH in by_way:
        values = "".join(f"<td>{_number(by_way.get(way))}</td>" for way in (_DECODER, _BOTH))
    else:
        values = f'<td colspan="2">{_number(next(iter(by_way.values())))}</td>'
    return f'<tr><th scope="row">{escape(name)}</th>{values}<td>{escape(wanted)}</td></tr>'


def _number(evidence: Evidence | None) -> str:
    return escape(str(replace(evidence, name="", wanted=""))) if evidence else ""


# --- the checkpoint in use ---------------------------------------------------------------------------------------


def aside(text: str) -> str:
    """A remark below the verdict."""
    return f'<p class="vae-lab-aside">{escape(text)}</p>'


def recommended(found: Recommendation) -> str:
    """What to choose, and why."""
    return f'<p class="vae-lab-aside">Use <b>{breakable(found.name)}</b> instead: {escape(found.reason)}.</p>'


def remedied(vae: str) -> str:
    """A sound VAE was chosen already."""
    return (
        f'<p class="vae-lab-aside vae-lab-solved"><span aria-hidden="true">✓</span> <b>{breakable(vae)}</b> decodes '
        "now, so the VAE inside this checkpoint has no effect.</p>"
    )


def kind_to_get(family: Family | None) -> str:
    """Which VAE to look for when there is none to recommend."""
    if family is None:
        return "Get an external VAE made for the model of this checkpoint, put it beside your VAEs, and check again."
    example = f", such as {_GET[family.id]}" if family.id in _GET else ""
    return (
        f"None of your VAEs is known to be healthy and of the family {family.title}. "
        f"Get one of that family{example}, put it beside your VAEs, and check again."
    )


def used_instead(sentence: str) -> str:
    """What a checkpoint without a VAE is decoded with."""
    return f'<p class="vae-lab-aside"><b>What decodes instead:</b> {escape(sentence)}</p>'


def held(found: Held) -> str:
    """The VAE in the host's memory."""
    return (
        f'<p class="vae-lab-aside"><b>In memory now:</b> {breakable(found.name)}, {escape(found.precision)} '
        f"{badge(found.checkup.verdict)}</p>"
    )


# --- many files --------------------------------------------------------------------------------------------------


def checked(reports: Mapping[str, FileRecord], wanted: int) -> str:
    """How a run went, in one line.

    Args:
        reports: on what was looked at.
        wanted: how many files were to be looked at.
    """
    if wanted == 1 and len(reports) == 1:
        name, report = next(iter(reports.items()))
        return note(f"{name} was checked: {_small(status_words(report.verdict)).replace(': ', ', ')}.")
    counts = Counter(report.verdict.status for report in reports.values())
    told = ", ".join(f"{counts[status]} {STATUS_PHRASES[status]}" for status in _WORST_FIRST if counts[status])
    start = (
        f"{len(reports)} files checked"
        if len(reports) == wanted
        else f"Cancelled, {len(reports)} of {wanted} files checked"
    )
    return note(f"{start}: {told}." if told else f"{start}.")


def overview(names: Sequence[str], reports: Mapping[str, FileRecord], current: str) -> str:
    """A table of all files, the worst first, those that were not looked at last.

    The script marks the row whose card is shown: with the mark in here, each choice would draw the table anew, and
    keyboard and scroll bar would lose their place.

    Args:
        names: of all files.
        reports: on those that were looked at.
        current: the checkpoint in use.
    """
    order = {status: i for i, status in enumerate(_WORST_FIRST)}
    ranked = sorted(names, key=lambda name: order[reports[name].verdict.status] if name in reports else len(order))
    rows = "".join(_overview_row(name, reports.get(name), name == current) for name in ranked)
    head = "".join(f'<th scope="col">{text}</th>' for text in ("Status", "File", "Family", "What was found"))
    return (
        f'<details open class="vae-lab-overview"><summary>All {len(names)} files, the worst first</summary>'
        f'<div class="vae-lab-scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        "</details>"
    )


def _overview_row(name: str, report: FileRecord | None, current: bool) -> str:
    if report is None:
        status, family, text, kind = '<span class="vae-lab-badge">Not checked</span>', "", "", ""
    else:
        status, kind = badge(report.verdict), _KINDS.get(report.kind, "")
        shown = report.family or report.model_family
        family = shown.title if shown else ""
        text = report.verdict.faults[0].text if report.verdict.faults else "Nothing to do."
    what = "checkpoint in use" if current else kind
    return (
        f'<tr data-file="{escape(name)}"><td>{status}</td>'
        f'<th scope="row"><button type="button" class="vae-lab-link">{breakable(name)}</button>'
        f'<span class="vae-lab-quiet">{escape(what)}</span></th><td>{escape(family)}</td><td>{escape(text)}</td></tr>'
    )
