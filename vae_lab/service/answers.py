"""What a comparison says about which VAE to use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vae_lab.host.base import Host
from vae_lab.host.choices import BUILT_IN, Decision
from vae_lab.library import FileRecord, recommend
from vae_lab.service.comparisons import StoredComparison

__all__ = ["Advice", "Answer", "answer", "default_reference", "to_check", "verdicts"]

Advice = Literal["use", "keep", "none", "unknown"]
"""Use another VAE, keep the one in use, no healthy one is among those compared, or nothing is known yet."""


@dataclass(frozen=True)
class Answer:
    """The answer to "Which VAE should I use?".

    Attributes:
        advice: in a word.
        now: name of the VAE that decodes now.
        vae: name of the VAE to use; ``now`` if nothing has to change.
        records: name -> what is known about the VAE, of those that were compared and ``now``.
        checkpoint: the one that a choice is for, or "".
        family: title of the latent's family.
    """

    advice: Advice
    now: str
    vae: str
    records: Mapping[str, FileRecord]
    checkpoint: str
    family: str


def verdicts(host: Host, stored: StoredComparison) -> dict[str, FileRecord]:
    """What is known about the VAEs compared, and about the one in use: name -> record. Reads none of the files."""
    files = _files(host, stored)
    known = {name: host.file_cache.checked(str(path)) for name, path in files.items()}
    return {name: record for name, record in known.items() if record is not None}


def _files(host: Host, stored: StoredComparison) -> dict[str, Path]:
    """Name -> file of the VAEs compared, and of the one in use."""
    built_in = host.checkpoint_files().get(stored.checkpoint or host.current_checkpoint())
    files = {**host.vae_files(), **({BUILT_IN: built_in} if built_in else {})}
    names = (*(result.name for result in stored.comparison), host.decision().vae)
    return {name: files[name] for name in names if name in files}


def to_check(host: Host, stored: StoredComparison) -> list[str]:
    """Names of the VAEs with images that were not checked yet; of the built-in one, its checkpoint."""
    files, known = _files(host, stored), verdicts(host, stored)
    names = [result.name for result in stored.comparison.decoded if result.name in files and result.name not in known]
    return [(stored.checkpoint or host.current_checkpoint()) if name == BUILT_IN else name for name in names]


def answer(host: Host, stored: StoredComparison) -> Answer:
    """Say which VAE to use, by the verdicts that are known."""
    records = verdicts(host, stored)
    decision = host.decision()
    now = decision.vae if _is_for(decision, stored, host) else BUILT_IN
    advice, vae = _advise(host, stored, records, now)
    return Answer(advice, now, vae, records, stored.checkpoint, stored.generation.family.title)


def default_reference(found: Answer, stored: StoredComparison) -> str:
    """The VAE to compare the others with: the built-in one unless it is known to have faults, else the answer's."""
    decoded = [result.name for result in stored.comparison.decoded if result.finite]
    sound = [name for name in decoded if name not in found.records or not found.records[name].verdict.faults]
    preferred = [name for name in (BUILT_IN, found.vae) if name in sound]
    return next(iter((*preferred, *sound, *decoded)), "")


def _is_for(decision: Decision, stored: StoredComparison, host: Host) -> bool:
    """Whether a decision is about the checkpoint whose VAE was the built-in one."""
    return decision.source == "always" or stored.checkpoint in ("", host.current_checkpoint())


def _advise(host: Host, stored: StoredComparison, records: Mapping[str, FileRecord], now: str) -> tuple[Advice, str]:
    known = records.get(now)
    if known is None:
        return "unknown", now
    if not known.verdict.faults:
        return "keep", now
    better = _healthy(stored, records)
    if now != BUILT_IN and BUILT_IN in better:
        return "use", BUILT_IN
    candidates = {name: records[name] for name in better if name != BUILT_IN}
    best = recommend(stored.checkpoint, stored.generation.family, candidates, host.preferred_vaes())
    return ("use", best.name) if best else ("none", now)


def _healthy(stored: StoredComparison, records: Mapping[str, FileRecord]) -> Sequence[str]:
    shown = [result.name for result in stored.comparison.decoded if result.finite]
    return [name for name in shown if name in records and records[name].can_replace]
