"""The Checkup page: verdicts, charts and measurements."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from markupsafe import Markup

from vae_lab.checkup import DECODED, ROUND_TRIP, Checkup, Evidence, Verdict, chart_png
from vae_lab.checkup.findings import (
    BROKEN,
    HEALTHY,
    MISSING,
    NO_VAE,
    NOT_CHECKED,
    STATUS_TITLES,
    SUSPECT,
    UNCHECKED,
    UNREADABLE,
    Status,
)
from vae_lab.host.base import MemoryCheckup
from vae_lab.identity import short
from vae_lab.latents.family import Family
from vae_lab.library import FileRecord, Recommendation
from vae_lab.messages import CLAUSE, text, translated
from vae_lab.ui.views.comparison import message
from vae_lab.ui.views.html import render

__all__ = [
    "KINDS", "aside", "badge", "badge_of", "charts", "checked", "decoded_chart", "details", "in_memory", "kind_to_get",
    "mark", "overview", "recommended", "remedied", "status_words", "unchecked", "used_instead", "verdict",
]  # fmt: skip

KINDS = {"checkpoint": "checkpoint", "vae": "VAE"}
"""Names of the kinds of files."""

_SIGNS = {
    HEALTHY: "✓",
    NO_VAE: "–",
    UNCHECKED: "",
    NOT_CHECKED: "?",
    SUSPECT: "⚠",
    MISSING: "⚠",
    BROKEN: "✗",
    UNREADABLE: "✗",
}
_WORST_FIRST: tuple[Status, ...] = (UNREADABLE, BROKEN, MISSING, SUSPECT, NOT_CHECKED, HEALTHY, NO_VAE)
# Statuses to which a finding's title adds nothing.
_SAYS_ENOUGH = (HEALTHY, MISSING, NOT_CHECKED)
_EXAMPLES = {"sd1": "sd-vae-ft-mse", "sdxl": "sdxl-vae-fp16-fix"}

# How ``Checkup.measured`` names what was measured.
_DECODER, _BOTH = "decoder only", "encoder and decoder"
_WHITE, _BLACK = "white", "black"


# --- the verdict as text -----------------------------------------------------------------------------------------


def status_words(verdict: Verdict) -> str:
    """Such as ``Broken: washed out``, in the user's language."""
    return _status_words(verdict.status, verdict.notable[0].title if verdict.notable else "")


def _status_words(status: Status, title: str) -> str:
    if status in (UNREADABLE, NO_VAE) and title:
        return translated(title)
    if status in _SAYS_ENOUGH or not title:
        return translated(STATUS_TITLES[status])
    return text("{status}: {title}", status=STATUS_TITLES[status], title=_lower(title))


def mark(verdict: Verdict) -> str:
    """For menus, such as ``✗ washed out``."""
    title = translated(_lower(verdict.notable[0].title)) if verdict.notable else ""
    return f"{_SIGNS[verdict.status]} {title}".strip()


def badge(verdict: Verdict) -> Markup:
    """The status as sign, words and colour."""
    return badge_of(verdict.status, verdict.notable[0].title if verdict.notable else "")


def badge_of(status: Status, title: str) -> Markup:
    """As :func:`badge`, of a status and the title of the worst fault, or ""."""
    html = render("checkup", "badge", status, _SIGNS[status], _status_words(status, title))
    return Markup(html)  # noqa: S704  rendered by a template


def _lower(title: str) -> str:
    return title[:1].lower() + title[1:]


# --- one file ----------------------------------------------------------------------------------------------------


def unchecked(name: str) -> str:
    """A file that has not been checked yet; ``name`` is "" without a file."""
    return render("checkup", "unchecked", name)


def verdict(name: str, report: FileRecord, current: bool) -> str:
    """The status of a file, its name, and its faults.

    Args:
        name: as it is listed.
        report: on that file.
        current: it is the checkpoint in use.
    """
    kind = _kind(report, current)
    return render("checkup", "verdict", name, report.verdict, badge(report.verdict), kind, _praise(report))


def _kind(report: FileRecord | None, current: bool) -> str:
    kind = "checkpoint in use" if current else KINDS.get(report.kind, "") if report else ""
    return translated(kind)


def _praise(report: FileRecord) -> str:
    if report.checkup is None:
        return text("No problems found.")
    if report.family is None:
        return text("A healthy VAE: the chart keeps its contrast and colours.")
    template = "A healthy VAE of the {family} family: the chart keeps its contrast and colours."
    return text(template, family=report.family.title)


@dataclass(frozen=True)
class _Chart:
    """One image of the chart; texts are in the user's language.

    Attributes:
        source: address of the image.
        title: a few words.
        explanation: what it shows.
        levels: lightness of white and black, or "".
    """

    source: str
    title: str
    explanation: str
    levels: str


def charts(report: FileRecord) -> str:
    """The chart, and how the VAE decodes it; "" if no VAE could be tested."""
    checkup = report.checkup
    if checkup is None or not checkup.charts:
        return ""
    figures = [
        _Chart(
            _input_chart(), text("Input chart"), text("Bright white, deep black, saturated colours"), _lightness(100, 0)
        )
    ]
    decoded, round_trip = checkup.charts.get(DECODED), checkup.charts.get(ROUND_TRIP)
    if decoded:
        explanation = text("What your images look like: latents of the chart, decoded by this VAE")
        title = text("Reference latents, decoded")
        figures.append(_Chart(_data_url(decoded), title, explanation, _levels(checkup, _DECODER)))
    if round_trip:
        explanation = text("What img2img and hires fix do: encode, then decode")
        title = text("Encoded and decoded by this VAE")
        figures.append(_Chart(_data_url(round_trip), title, explanation, _levels(checkup, _BOTH)))
    return render("checkup", "charts", figures)


def decoded_chart(report: FileRecord | None) -> str:
    """Address of the chart's image as this VAE decodes it; "" if that is not known."""
    decoded = report.checkup.charts.get(DECODED) if report and report.checkup else None
    return _data_url(decoded) if decoded else ""


def _data_url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


@lru_cache(maxsize=1)
def _input_chart() -> str:
    return _data_url(chart_png())


def _levels(checkup: Checkup, way: str) -> str:
    """Lightness of white and black in the result, where measured."""
    values = {evidence.name: evidence.value for evidence in checkup.measured}
    white, black = values.get(f"{way}: {_WHITE}"), values.get(f"{way}: {_BLACK}")
    return "" if white is None or black is None else _lightness(white, black)


def _lightness(white: float, black: float) -> str:
    return text("Lightness: white {white}, black {black}", white=f"{white:.0f}", black=f"{black:.0f}")


def details(report: FileRecord) -> str:
    """Findings that are not faults, facts about the file, and all measurements."""
    findings = [finding for finding in report.verdict.findings if finding not in report.verdict.notable]
    return render("checkup", "details", findings, _facts(report), _measurements(report))


def _facts(report: FileRecord) -> list[tuple[str, str]]:
    family = report.family or report.model_family
    checked = ""
    if report.bytes_read:
        size, seconds = f"{report.bytes_read / 1e6:.1f} MB", f"{report.seconds:.1f}"
        checked = text("{size} read in {seconds} s", size=size, seconds=seconds)
    facts = (
        (text("Family"), family.title if family else ""),
        (text("Known as"), translated(report.identity.words) if report.identity else ""),
        (text("Precision"), report.dtype),
        (text("Layout"), report.layout),
        (text("Fingerprint"), short(report.fingerprint)),
        (text("Merged from"), report.merge.sentence if report.merge and report.merge.certain else ""),
        (text("Related to"), report.merge.names if report.merge and not report.merge.certain else ""),
        (text("Checked"), checked),
    )
    return [(name, value) for name, value in facts if value]


def _measurements(report: FileRecord) -> list[tuple[str, list[str], str]]:
    """(name, values, expected): two values where decoder and round trip were measured apart, else one."""
    if report.checkup is None:
        return []
    rows: dict[str, dict[str, Evidence]] = {}
    for evidence in report.checkup.measured:
        way, colon, name = evidence.name.rpartition(": ")
        rows.setdefault(name if colon else evidence.name, {})[way] = evidence
    return [(name, _values(by_way), next(iter(by_way.values())).wanted) for name, by_way in rows.items()]


def _values(by_way: Mapping[str, Evidence]) -> list[str]:
    if _DECODER in by_way or _BOTH in by_way:
        return [_value(by_way.get(way)) for way in (_DECODER, _BOTH)]
    return [_value(next(iter(by_way.values())))]


def _value(evidence: Evidence | None) -> str:
    return str(replace(evidence, name="", wanted="")) if evidence else ""


# --- the checkpoint in use ---------------------------------------------------------------------------------------


def aside(sentence: str) -> str:
    """A remark below the verdict, in the user's language."""
    return render("checkup", "aside", sentence)


def recommended(recommendation: Recommendation) -> str:
    """Which VAE to choose, and why."""
    return render("checkup", "recommended", recommendation.name, recommendation.reason)


def remedied(vae: str) -> str:
    """A healthy VAE has been chosen already."""
    return render("checkup", "remedied", vae)


def kind_to_get(family: Family | None) -> str:
    """Which VAE to search for if none can be recommended, in the user's language."""
    if family is None:
        return text("Get an external VAE made for this checkpoint's model, put it in your VAE folder and check again.")
    if family.id in _EXAMPLES:
        template = (
            "None of your VAEs is known to be healthy and of the {family} family. "
            "Get one, such as {example}, put it in your VAE folder and check again."
        )
        return text(template, family=family.title, example=_EXAMPLES[family.id])
    template = (
        "None of your VAEs is known to be healthy and of the {family} family. "
        "Get one, put it in your VAE folder and check again."
    )
    return text(template, family=family.title)


def used_instead(sentence: str) -> str:
    """What decodes the images of a checkpoint without a VAE."""
    return render("checkup", "used_instead", sentence)


def in_memory(loaded: MemoryCheckup) -> str:
    """The VAE in the host's memory."""
    return render("checkup", "in_memory", loaded, badge(loaded.checkup.verdict))


# --- many files --------------------------------------------------------------------------------------------------


def checked(reports: Mapping[str, FileRecord], wanted: int) -> str:
    """The result of a checkup run, in one line.

    Args:
        reports: on the files that were checked.
        wanted: how many files were to be checked.
    """
    if wanted == 1 and len(reports) == 1:
        name, report = next(iter(reports.items()))
        return message(text("{name}: {status}.", name=name, status=status_words(report.verdict)))
    if len(reports) == wanted:
        done = text("{count} files checked.", count=wanted)
    else:
        done = text("Cancelled: {count} of {total} files checked.", count=len(reports), total=wanted)
    counts = Counter(report.verdict.status for report in reports.values())
    listed = [
        text("{status}: {count}", status=STATUS_TITLES[status], count=counts[status])
        for status in _WORST_FIRST
        if counts[status]
    ]
    return message(f"{done} {text(CLAUSE, sentence=', '.join(listed))}" if listed else done)


@dataclass(frozen=True)
class _Row:
    """One file in the table of all files; texts are in the user's language, ``badge`` is "" before its checkup."""

    name: str
    badge: str = ""
    kind: str = ""
    family: str = ""
    finding: str = ""


def overview(names: Sequence[str], reports: Mapping[str, FileRecord], current: str) -> str:
    """A table of all files, the worst first, those that were not checked yet last.

    The script marks the row whose card is shown. With the mark in this HTML, each selection would replace the table and
    lose focus and scroll position.

    Args:
        names: of all files.
        reports: on those that were checked.
        current: the checkpoint in use.
    """
    order = {status: i for i, status in enumerate(_WORST_FIRST)}
    ranked = sorted(names, key=lambda name: order[reports[name].verdict.status] if name in reports else len(order))
    return render("checkup", "overview", [_row(name, reports.get(name), name == current) for name in ranked])


def _row(name: str, report: FileRecord | None, current: bool) -> _Row:
    if report is None:
        return _Row(name, kind=_kind(None, current))
    family, notable = report.family or report.model_family, report.verdict.notable
    finding = translated(notable[0].text) if notable else text("Nothing to do.")
    return _Row(name, badge(report.verdict), _kind(report, current), family.title if family else "", finding)
