"""Pieces of tables of numbers, which ``javascript/vae_lab_tables.js`` sorts and copies. Everything is escaped."""

from __future__ import annotations

from html import escape
from math import isinf

from vae_lab.ui.views.comparison import breakable

__all__ = ["column", "name_column", "number_cell", "tabular", "vae_row"]


def tabular(hint: str, tools: str, head: str, rows: str, below: str = "") -> str:
    """A whole table.

    Args:
        hint: what to do with it.
        tools: HTML of what stands beside *Copy table*.
        head: HTML of the headings, see :func:`column`.
        rows: HTML, see :func:`vae_row`.
        below: HTML of remarks.
    """
    return (
        '<div class="vae-lab-measures vae-lab-tabular"><div class="vae-lab-measures-head">'
        f'<p class="vae-lab-quiet">{escape(hint)}</p>'
        '<p class="vae-lab-measures-tools"><span class="vae-lab-copied vae-lab-quiet" role="status"></span>'
        f'<button type="button" class="vae-lab-copy">Copy table</button>{tools}</p></div>'
        '<div class="vae-lab-measures-scroll" tabindex="0" role="region" aria-label="Numbers">'
        f'<table class="vae-lab-sortable"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        f"{below}</div>"
    )


def column(table: str, key: str, title: str, unit: str, text: str) -> str:
    """The heading of a column: sorts by it, and explains it to whoever points at it or comes to it by the Tab key.

    Args:
        table: what makes its ids unlike those of another table on the page.
        key: of the column.
        title: a word or two.
        unit: "" for none.
        text: the explanation.
    """
    of = f' <span class="vae-lab-quiet">{escape(unit)}</span>' if unit else ""
    tip = f"vae-lab-tip-{table}-{key}"
    words = f"<b>{escape(title)}.</b> {escape(text)}"
    return (
        f'<th scope="col" aria-sort="none" data-column="{key}"><button type="button" class="vae-lab-sort"'
        f' title="{escape(text)}" aria-describedby="{escape(tip)}">{escape(title)}{of}</button>'
        f'<span class="vae-lab-tip" id="{escape(tip)}" role="tooltip"><span>{words}</span></span></th>'
    )


def name_column(table: str) -> str:
    """The heading of the first column."""
    text = "Names of the VAEs. As at first, they stand in the order in which they were compared."
    return column(table, "name", "VAE", "", text)


def vae_row(order: int, vae: str, cells: str) -> str:
    """The numbers of a VAE; ``order`` is its place as at first."""
    name = escape(vae)
    head = f'<th scope="row" data-value="{name}">{breakable(vae)}</th>'
    return f'<tr data-order="{order}" data-vae="{name}">{head}{cells}</tr>'


def number_cell(value: float | None, digits: int, sign: str = "", tint: str = "") -> str:
    """One number; ``sign`` is HTML before it, and ``tint`` an attribute of its cell."""
    if value is None:
        return '<td class="vae-lab-number vae-lab-quiet">–</td>'
    if isinf(value):
        return '<td class="vae-lab-number" data-value="Infinity" data-copy="equal">equal</td>'
    shown = f"{value:.{digits}f}"
    return f'<td class="vae-lab-number" data-value="{round(value, 6)}" data-copy="{shown}"{tint}>{sign}{shown}</td>'
