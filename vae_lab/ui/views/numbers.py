"""The table of numbers below a comparison. Everything from outside is escaped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape

from vae_lab.api.routes import sheet_url
from vae_lab.comparison import Decoded, Measured, Measures
from vae_lab.comparison.measures import EXPLANATIONS, MAX_IMAGES, Explanation
from vae_lab.host.base import BUILT_IN
from vae_lab.service.comparisons import StoredComparison
from vae_lab.ui.views.tables import column, name_column, number_cell, tabular, vae_row

__all__ = ["MEASURING", "numbers"]

_SIGNS = {"largest": "▲", "smallest": "▼"}


MEASURING = '<p class="vae-lab-quiet" role="status">Measuring…</p>'
"""Until the numbers are there."""


def numbers(stored: StoredComparison) -> str:
    """What was measured, one row for each VAE."""
    results = stored.comparison.results
    if not results:
        return ""
    measured = stored.measured
    marks = {key: _marks(measured, key) for key in EXPLANATIONS}
    head = name_column(stored.id) + "".join(_heading(stored, key) for key in EXPLANATIONS)
    rows = "".join(_row(stored, result, i, marks) for i, result in enumerate(results))
    hint = "Point at a heading to read what it means, press it to sort. ▲ is the largest, ▼ the smallest."
    save = f'<a class="vae-lab-save" href="{escape(sheet_url(stored))}" download>Save sheet</a>'
    return tabular(hint, save, head, rows, _remarks(stored))


def _heading(stored: StoredComparison, key: str) -> str:
    known = EXPLANATIONS[key]
    text = known.text.format(reference=_reference(stored.measured))
    return column(stored.id, key, known.title, known.unit, text)


def _reference(measured: Measured) -> str:
    return "the built-in VAE" if measured.reference == BUILT_IN else measured.reference or "the reference"


def _row(stored: StoredComparison, result: Decoded, order: int, marks: Mapping[str, Mapping[str, str]]) -> str:
    found = stored.measured.of.get(result.name)
    if found is not None:
        cells = "".join(_cell(key, found, marks[key].get(result.name, "")) for key in EXPLANATIONS)
    else:
        why = f"not used: {result.error}" if result.error else "not measured"
        cells = f'<td class="vae-lab-quiet" colspan="{len(EXPLANATIONS)}" data-copy="{escape(why)}">{escape(why)}</td>'
    return vae_row(order, result.name, cells)


def _cell(key: str, found: Measures, mark: str) -> str:
    sign = tint = ""
    if mark:
        sign = f'<span class="vae-lab-mark" title="{mark}" role="img" aria-label="{mark}">{_SIGNS[mark]}</span>'
        tint = f' data-mark="{mark}"'
    return number_cell(getattr(found, key), EXPLANATIONS[key].digits, sign, tint)


def _shown(known: Explanation, value: float) -> str:
    return f"{value:.{known.digits}f}"


def _marks(measured: Measured, key: str) -> dict[str, str]:
    """Which VAEs have the largest and the smallest number, as it is shown; of two, everyone sees that without a mark.

    What compares with the reference says nothing of the reference itself.
    """
    known = EXPLANATIONS[key]
    values = {name: getattr(found, key) for name, found in measured.of.items()}
    shown = {
        name: float(_shown(known, value))
        for name, value in values.items()
        if value is not None and math.isfinite(value) and not (known.compares and name == measured.reference)
    }
    if len(set(shown.values())) < 3:
        return {}
    ends = {max(shown.values()): "largest", min(shown.values()): "smallest"}
    return {name: ends[value] for name, value in shown.items() if value in ends}


def _remarks(stored: StoredComparison) -> str:
    measured = stored.measured
    lines = []
    if measured.reference == BUILT_IN and len(measured.of) > 1:
        lines.append("How close to the built-in VAE's image it is, not how good: ΔE, SSIM and PSNR.")
    if measured.problem:
        lines.append(f"Not everything could be measured: {measured.problem}")
    if measured.reference not in ("", BUILT_IN):
        lines.append(f"The built-in VAE has no images, so the others are compared with {measured.reference}.")
    batch = len(stored.generation.latents)
    if measured.of and batch > 1:
        of = f"the first {MAX_IMAGES} of {batch}" if batch > MAX_IMAGES else f"all {batch}"
        lines.append(f"Mean of {of} images; the time is that of all.")
    return "".join(f'<p class="vae-lab-quiet">{escape(line)}</p>' for line in lines)
