"""The answer above a comparison: which VAE to use, and the verdict on each."""

from __future__ import annotations

from collections.abc import Mapping

from vae_lab.checkup.findings import HEALTHY, MISSING
from vae_lab.comparison import Measured
from vae_lab.host.choices import BUILT_IN
from vae_lab.library import FileRecord
from vae_lab.messages import text
from vae_lab.service.answers import Answer
from vae_lab.service.comparisons import StoredComparison
from vae_lab.ui.views.checkup import badge_of
from vae_lab.ui.views.html import render

__all__ = ["answer"]

_LOST = 0.95  # of the contrast; a VAE that keeps more is not said to lose any
_NOTABLE = 5  # percent; a smaller difference between two VAEs is not worth a word


def answer(found: Answer, stored: StoredComparison, reference: str = "", *, waiting: bool) -> str:
    """A sentence, a button, and a badge for each VAE.

    Args:
        found: what to say.
        stored: the comparison.
        reference: of its numbers; see :func:`vae_lab.ui.views.numbers.numbers`.
        waiting: whether verdicts are still to come; the scripts then ask again.
    """
    badges = [
        (name, found.checkpoint if name == BUILT_IN else name, badge_of(record.status, _title(record)), _why(record))
        for name in dict.fromkeys((*(result.name for result in stored.comparison), found.now))
        if (record := found.records.get(name)) is not None
    ]
    template = "Use {vae} always" if found.reach == "always" else "Use {vae} for this checkpoint"
    button = text(template, vae=found.vae) if found.advice == "use" else ""
    taste = _taste(found, stored.measured_against(reference)) if found.advice == "keep" else ""
    return render("answers", "answer", stored.id, found, _sentence(found, waiting), taste, button, badges, waiting)


def _title(record: FileRecord) -> str:
    return record.verdict.notable[0].title if record.verdict.notable else ""


def _why(record: FileRecord) -> str:
    """Of the worst finding, what it means; in English."""
    return record.verdict.notable[0].text if record.verdict.notable else ""


def _sentence(found: Answer, waiting: bool) -> str:
    now = found.records.get(found.now)
    if now is None:
        if waiting:
            return text("Checking which of these VAEs are healthy…")
        return text("Whether {now} is healthy is not known yet: check it on the Checkup page.", now=found.now)
    if found.advice == "use":
        return _use(found, now)
    if found.advice == "none":
        template = (
            "{now} is {status} ({title}), and none of the other VAEs compared is known to be healthy. "
            "Add a VAE for {family} models to the comparison."
        )
        return text(template, now=found.now, status=now.status, title=_title(now), family=found.family)
    if now.status != HEALTHY:
        return text("{now} cannot be judged: compare the images by eye.", now=found.now)
    if found.now == BUILT_IN:
        return text("The built-in VAE is healthy: keep it, or choose another one for its look.")
    return text("{now}, in use now, is healthy: keep it, or choose another one for its look.", now=found.now)


def _use(found: Answer, now: FileRecord) -> str:
    better = found.records[found.vae].contrast_kept
    if now.status == MISSING:
        return text("Use {vae}: this checkpoint has no VAE inside, and {vae} is healthy.", vae=found.vae)
    if now.contrast_kept is None or better is None or now.contrast_kept > _LOST:
        template = "Use {vae}: {now} is {status} ({title}), and {vae} is healthy."
        return text(template, vae=found.vae, now=found.now, status=now.status, title=_title(now))
    lost, kept = 100 * (1 - max(now.contrast_kept, 0)), 100 * min(better, 1)
    if found.now == BUILT_IN:
        template = "Use {vae}: your built-in VAE loses {lost} % of the contrast, and {vae} keeps {kept} % of it."
    else:
        template = "Use {vae}: {now}, in use now, loses {lost} % of the contrast, and {vae} keeps {kept} % of it."
    return text(template, vae=found.vae, now=found.now, lost=round(lost), kept=round(kept))


def _taste(found: Answer, measured: Measured) -> str:
    """How the healthy VAEs differ from the one in use, in the images compared."""
    templates: Mapping[str, str] = {
        "sharpness": "Sharpest: {vae} (+{percent} %).",
        "contrast": "Most contrast: {vae} (+{percent} %).",
        "saturation": "Most colour: {vae} (+{percent} %).",
    }
    healthy = {name: each for name, each in measured.of.items() if _is_healthy(found, name)}
    if found.now not in healthy or len(healthy) < 2:
        return ""
    sentences = []
    for key, template in templates.items():
        base = getattr(healthy[found.now], key)
        name = max(healthy, key=lambda each, key=key: getattr(healthy[each], key))
        percent = round(100 * (getattr(healthy[name], key) / base - 1)) if base > 0 else 0
        if percent >= _NOTABLE:
            sentences.append(text(template, vae=name, percent=percent))
    return " ".join(sentences)


def _is_healthy(found: Answer, name: str) -> bool:
    record = found.records.get(name)
    return record is not None and record.status == HEALTHY
