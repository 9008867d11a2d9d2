"""Tables of numbers, which ``javascript/tab/number_tables.mjs`` sorts and copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isinf
from typing import Literal

from vae_lab.comparison.measures import EXPLANATIONS, Explanation
from vae_lab.messages import text
from vae_lab.ui.views.html import render

__all__ = ["Column", "Mark", "Number", "Row", "measure_column", "table", "time_column"]

Mark = Literal["", "largest", "smallest"]


@dataclass(frozen=True)
class Column:
    """The heading of a column: sorts by it, and explains it on hover and focus.

    Attributes:
        key: of the column.
        title: a word or two, in English.
        unit: "" for none.
        text: the explanation, in the user's language.
        better: which end is better, if either is.
    """

    key: str
    title: str
    unit: str
    text: str
    better: Literal["", "higher", "lower"] = ""


@dataclass(frozen=True)
class Number:
    """One cell.

    Attributes:
        value: None if not measured.
        digits: after the decimal point.
        mark: whether it is the largest or smallest of its column.
    """

    value: float | None
    digits: int
    mark: Mark = ""

    @property
    def infinite(self) -> bool:
        return self.value is not None and isinf(self.value)

    @property
    def shown(self) -> str:
        return "" if self.value is None else f"{self.value:.{self.digits}f}"


@dataclass(frozen=True)
class Row:
    """The numbers of one VAE, or the problem why there are none, in the user's language."""

    vae: str
    numbers: Sequence[Number]
    problem: str = ""


def measure_column(key: str, reference: str) -> Column:
    """The column of one of ``EXPLANATIONS``; ``reference``: what is compared with, in the user's language."""
    known = EXPLANATIONS[key]
    explained = f"{text(known.text, reference=reference)} {_direction(known, reference)}"
    return Column(key, known.title, known.unit, explained, known.better)


def _direction(known: Explanation, reference: str) -> str:
    if not known.better:
        return text("Neither more nor less is better in itself.")
    if not known.compares:
        return text("Lower is better.") if known.better == "lower" else text("Higher is better.")
    template = "Lower is closer to {reference}." if known.better == "lower" else "Higher is closer to {reference}."
    return text(template, reference=reference)


def time_column(key: str, title: str, explanation: str) -> Column:
    """A column of seconds."""
    return Column(key, title, "s", text(explanation))


def table(
    id: str,  # noqa: A002
    hint: str,
    columns: Sequence[Column],
    rows: Sequence[Row],
    *,
    sheet: str = "",
    share: str = "",
    blinks: Mapping[str, str] | None = None,
    remarks: Sequence[str] = (),
) -> str:
    """A whole table, its first column the names of the VAEs.

    Args:
        id: unique on the page.
        hint: how to use it.
        columns: of the numbers.
        rows: in the order in which they were computed.
        sheet: address of the contact sheet, or "".
        share: address of the HTML file to share, or "".
        blinks: kind -> address of animated images; none by default.
        remarks: shown below.
    """
    name = Column("name", "VAE", "", text("The VAEs, by default in the order they were compared."))
    return render(
        "tables", "table", id, hint, [name, *columns], rows, sheet=sheet, share=share, blinks=blinks, remarks=remarks
    )
