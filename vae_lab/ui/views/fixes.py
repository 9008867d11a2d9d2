"""Fix all on the Library page: what would be done, and what was done."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from vae_lab.messages import text, translated
from vae_lab.service.fixes import FixPlan, FixResult, UndoneFixes
from vae_lab.ui.views.checkup import badge_of
from vae_lab.ui.views.comparison import alert, message
from vae_lab.ui.views.html import render

__all__ = ["changed", "done", "plan", "undone"]


def plan(found: FixPlan) -> str:
    """The table of what would be done, each row with a checkbox, and below what can be undone."""
    remedies = [*found.usable, *found.left]
    rows = [(remedy, badge_of(remedy.status, remedy.title)) for remedy in remedies]
    kept = len(found.remedies) - len(remedies)
    notes = [
        translated(found.remark),
        text("{checkpoints} with a broken VAE or none: the VAE that is chosen stays.", checkpoints=_checkpoints(kept))
        if kept
        else "",
        text("{checkpoints} not checked yet: press Scan.", checkpoints=_checkpoints(found.unchecked))
        if found.unchecked
        else "",
    ]
    table = render("fixes", "plan", secrets.token_hex(8), rows, len(found.usable), [note for note in notes if note])
    return table + changed(found.changed)


def changed(changes: Sequence[tuple[str, str]]) -> str:
    """What was changed, with one button that undoes all of it; "" if nothing was."""
    return render("fixes", "changed", secrets.token_hex(8), changes, _checkpoints(len(changes))) if changes else ""


def done(result: FixResult) -> str:
    """The result, as messages."""
    sentence = text("Healthy VAEs chosen for {checkpoints}.", checkpoints=_checkpoints(len(result.changed)))
    return message(sentence) + _failures(result.failed)


def undone(result: UndoneFixes) -> str:
    """The result of an undo, as messages."""
    sentence = text("As before: {checkpoints}.", checkpoints=_checkpoints(len(result.restored)))
    return message(sentence) + _failures(result.refused)


def _failures(failures: Sequence[tuple[str, str]]) -> str:
    return "".join(alert(f"{checkpoint}: {reason}") for checkpoint, reason in failures)


def _checkpoints(count: int) -> str:
    return text("{count} checkpoint" if count == 1 else "{count} checkpoints", count=f"{count:,}")
