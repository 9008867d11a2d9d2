"""Fix all on the Library page: what would be done, and what was done."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from vae_lab.messages import text, translated
from vae_lab.service.bake_all import BakeAllPlan, BakeAllResult, UndoneBakes
from vae_lab.service.fixes import FixPlan, FixResult, UndoneFixes
from vae_lab.text import sized
from vae_lab.ui.views.checkup import badge_of, status_words
from vae_lab.ui.views.comparison import alert, message
from vae_lab.ui.views.html import render

__all__ = ["baked", "changed", "done", "plan", "removed", "undone", "written"]


def plan(found: FixPlan, bakes: BakeAllPlan) -> str:
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
        text("{checkpoints} with a baked copy already, which are not baked again.", checkpoints=_checkpoints(before))
        if (before := len(bakes.before))
        else "",
    ]
    rooms = [
        (text("{needed} needed, {free} free.", needed=sized(one.needed), free=sized(one.free)), one.free < one.needed)
        for one in bakes.rooms
    ]
    table = render(
        "fixes", "plan", secrets.token_hex(8), rows, len(found.usable), [note for note in notes if note],
        {one.checkpoint for one in bakes.bakes}, rooms,
    )  # fmt: skip
    return table + changed(found.changed) + written(bakes.written)


def changed(changes: Sequence[tuple[str, str]]) -> str:
    """What was changed, with one button that undoes all of it; "" if nothing was."""
    return render("fixes", "changed", secrets.token_hex(8), changes, _checkpoints(len(changes))) if changes else ""


def written(files: Sequence[tuple[str, str]]) -> str:
    """What was written, with one button that removes all of it; "" if nothing was."""
    return render("fixes", "written", secrets.token_hex(8), files, _files(len(files))) if files else ""


def baked(result: BakeAllResult) -> str:
    """The result, as messages: each new file with its verdict."""
    stopped = f" {text('Stopped. What is complete stays.')}" if result.cancelled else ""
    sentences = [
        (
            text("{file} was written and checked: {status}.", file=path.name, status=status_words(record.verdict)),
            bool(record.verdict.faults),
        )
        for _, path, record in result.written
    ]
    summary = message(text("Written: {files}.", files=_files(len(sentences))) + stopped)
    each = "".join(alert(sentence) if faulty else message(sentence) for sentence, faulty in sentences)
    return summary + each + _failures(result.failed)


def removed(result: UndoneBakes) -> str:
    """The result of an undo, as messages."""
    return message(text("Removed: {files}.", files=_files(len(result.removed)))) + _failures(result.refused)


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


def _files(count: int) -> str:
    return text("{count} file" if count == 1 else "{count} files", count=f"{count:,}")
