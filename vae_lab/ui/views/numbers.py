"""The table of measurements below a comparison."""

from __future__ import annotations

import math
from collections.abc import Mapping

from vae_lab.api.routes import blink_url, share_url, sheet_url
from vae_lab.comparison import Decoded, Measured
from vae_lab.comparison.measures import EXPLANATIONS, MAX_IMAGES
from vae_lab.host.choices import BUILT_IN
from vae_lab.messages import current_language, text
from vae_lab.service.blink import BLINKS, can_blink
from vae_lab.service.comparisons import StoredComparison
from vae_lab.ui.views.tables import Mark, Number, Row, measure_column, table

__all__ = ["numbers"]


def numbers(stored: StoredComparison, reference: str = "") -> str:
    """What was measured, one row for each VAE.

    Args:
        stored: the comparison.
        reference: name of the VAE that the others are compared with; "" for the first one with images.
    """
    results = stored.comparison.results
    if not results:
        return ""
    measured = stored.measured_against(reference)
    marks = {key: _marks(measured, key) for key in EXPLANATIONS}
    return table(
        stored.id,
        text("Hover over a heading for an explanation; click to sort. ▲ is the largest value, ▼ the smallest."),
        [measure_column(key, _reference(measured)) for key in EXPLANATIONS],
        [_row(measured, result, marks) for result in results],
        sheet=sheet_url(stored),
        share=share_url(stored, current_language()),
        blinks={kind: blink_url(stored, kind) for kind in BLINKS} if can_blink(stored) else None,
        remarks=_remarks(stored, measured),
    )


def _reference(measured: Measured) -> str:
    if measured.reference == BUILT_IN:
        return text("the built-in VAE")
    return measured.reference or text("the reference")


def _row(measured: Measured, result: Decoded, marks: Mapping[str, Mapping[str, Mark]]) -> Row:
    found = measured.of.get(result.name)
    if found is None:
        problem = text("not used: {reason}", reason=result.error) if result.error else text("not measured")
        return Row(result.name, (), problem)
    values = [
        Number(getattr(found, key), known.digits, marks[key].get(result.name, ""))
        for key, known in EXPLANATIONS.items()
    ]
    return Row(result.name, values)


def _marks(measured: Measured, key: str) -> dict[str, Mark]:
    """The VAEs with the largest and the smallest number, as shown; with two VAEs that is obvious without a mark.

    Numbers that compare with the reference say nothing about the reference itself.
    """
    known = EXPLANATIONS[key]
    values = {name: getattr(found, key) for name, found in measured.of.items()}
    shown = {
        name: float(f"{value:.{known.digits}f}")
        for name, value in values.items()
        if value is not None and math.isfinite(value) and not (known.compares and name == measured.reference)
    }
    if len(set(shown.values())) < 3:
        return {}
    ends: dict[float, Mark] = {max(shown.values()): "largest", min(shown.values()): "smallest"}
    return {name: ends[value] for name, value in shown.items() if value in ends}


def _remarks(stored: StoredComparison, measured: Measured) -> list[str]:
    remarks = []
    if len(measured.of) > 1:
        template = "ΔE, SSIM and PSNR measure similarity to the image of {reference}, not quality."
        remarks.append(text(template, reference=_reference(measured)))
    if measured.problem:
        remarks.append(text("Some values could not be measured: {reason}", reason=measured.problem))
    if measured.reference not in ("", BUILT_IN) and BUILT_IN not in measured.of:
        template = "The built-in VAE has no images, so the others are compared with {vae}."
        remarks.append(text(template, vae=measured.reference))
    batch = len(stored.generation.latents)
    if measured.of and batch > MAX_IMAGES:
        template = "Mean of the first {count} of {total} images; the time is for the whole batch."
        remarks.append(text(template, count=MAX_IMAGES, total=batch))
    elif measured.of and batch > 1:
        remarks.append(text("Mean of all {count} images; the time is for the whole batch.", count=batch))
    return remarks
