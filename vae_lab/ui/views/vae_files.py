"""Extract and deduplicate on the Library page: what would be done, and what was done."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from vae_lab.library.extraction import Extraction
from vae_lab.messages import text
from vae_lab.service.dedupe import DedupePlan, DedupeResult, UndoneLinks
from vae_lab.service.extracts import ExtractPlan, ExtractResult
from vae_lab.text import as_text, sized
from vae_lab.ui.views.checkup import badge_of
from vae_lab.ui.views.comparison import alert, message
from vae_lab.ui.views.html import render

__all__ = ["copies", "deduped", "extracted", "extractions", "replaced", "undone"]

_STOPPED = "Stopped. What is complete stays."


def extractions(plan: ExtractPlan) -> str:
    """The table of distinct built-in VAEs; those that would be extracted have a checkbox."""
    rows = [(one, badge_of(one.status, one.title), _also(one)) for one in (*plan.wanted, *plan.skipped)]
    notes = [
        text("{checkpoints} not checked yet: press Scan.", checkpoints=_checkpoints(plan.unchecked))
        if plan.unchecked
        else "",
        text("{files} not scanned yet; these are read first.", files=_files(plan.unknown)) if plan.unknown else "",
    ]
    room = text("{needed} needed, {free} free.", needed=sized(plan.needed), free=sized(plan.free))
    return render("vae_files", "extractions", secrets.token_hex(8), plan, rows, list(filter(None, notes)), room)


def copies(plan: DedupePlan) -> str:
    """The table of identical files; those that can become links have a checkbox. Below, what can be undone."""
    found = plan.identical
    notes = [
        text("{files} not scanned yet: press Scan.", files=_files(plan.unscanned)) if plan.unscanned else "",
        text(
            "{files} may be copies, but have no hash yet: press Scan, and wait for the hashes.",
            files=_files(found.unhashed),
        )
        if found.unhashed
        else "",
    ]
    others = [as_text(", ".join(names)) for names in plan.others]
    table = render("vae_files", "copies", secrets.token_hex(8), found, others, list(filter(None, notes)))
    return table + replaced(plan.replaced)


def replaced(files: Sequence[tuple[str, str]]) -> str:
    """What was replaced by links, with one button that undoes all of it; "" if nothing was."""
    return render("vae_files", "replaced", secrets.token_hex(8), files, _files(len(files))) if files else ""


def extracted(result: ExtractResult) -> str:
    """The result, as messages."""
    sentence = text("Extracted: {files}.", files=_files(len(result.written)))
    return _result(sentence, result.failed, result.cancelled)


def deduped(result: DedupeResult) -> str:
    """The result, as messages."""
    files = _files(len(result.replaced))
    sentence = text("Replaced by links: {files}. {size} freed.", files=files, size=sized(result.freed))
    return _result(sentence, result.skipped, result.cancelled)


def undone(result: UndoneLinks) -> str:
    """The result of an undo, as messages."""
    sentence = text("Independent again: {files}.", files=_files(len(result.restored)))
    return _result(sentence, result.refused, result.cancelled)


def _result(sentence: str, failures: Sequence[tuple[str, str]], cancelled: bool) -> str:
    stopped = f" {text(_STOPPED)}" if cancelled else ""
    return message(sentence + stopped) + "".join(alert(f"{name}: {reason}") for name, reason in failures)


def _also(one: Extraction) -> str:
    if not one.also:
        return ""
    count = len(one.also)
    template = (
        "{count} other checkpoint has the same VAE" if count == 1 else "{count} other checkpoints have the same VAE"
    )
    return text(template, count=f"{count:,}")


def _files(count: int) -> str:
    return text("{count} file" if count == 1 else "{count} files", count=f"{count:,}")


def _checkpoints(count: int) -> str:
    return text("{count} checkpoint" if count == 1 else "{count} checkpoints", count=f"{count:,}")
