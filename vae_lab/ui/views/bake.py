"""Bake on the Checkup page: what would be done, and what was done."""

from __future__ import annotations

from vae_lab.library import FileRecord
from vae_lab.messages import text
from vae_lab.service.bakes import Baked, BakePlan
from vae_lab.text import sized
from vae_lab.ui.views.checkup import decoded_chart, status_words
from vae_lab.ui.views.comparison import alert, message
from vae_lab.ui.views.html import render

__all__ = ["about", "baked"]


def about(plan: BakePlan, own: FileRecord | None, donor: FileRecord | None) -> str:
    """The chart as it is and as it would be, why this VAE, and whether there is room.

    Args:
        plan: what would be done.
        own: record of the checkpoint, if it was checked.
        donor: record of the VAE, if it was checked.
    """
    sizes = {"needed": sized(plan.needed), "free": sized(plan.free)}
    charts = [
        (text(title), decoded_chart(record), status_words(record.verdict) if record else text("Not checked yet"))
        for title, record in (("As it is", own), ("As it would be", donor))
    ]
    return render("bake", "about", plan.vae, plan.reason, sizes, charts, plan.free < plan.needed)


def baked(result: Baked) -> str:
    """The result, as a message: an alert if the new file is not healthy."""
    status = status_words(result.record.verdict)
    sentence = text("{file} was written and checked: {status}.", file=result.path.name, status=status)
    return alert(sentence) if result.record.verdict.faults else message(sentence)
