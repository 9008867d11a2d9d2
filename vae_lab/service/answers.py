"""What a comparison says about which VAE to use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vae_lab.host.base import Host
from vae_lab.host.choices import BUILT_IN, Reach
from vae_lab.library import FileRecord, recommend
from vae_lab.service.comparisons import StoredComparison

__all__ = ["Advice", "Answer", "answer", "default_reference", "to_check"]

Advice = Literal["use", "keep", "none", "unknown"]
"""Use another VAE, keep the one in use, no healthy one is among those compared, or nothing is known yet."""


@dataclass(frozen=True)
class Answer:
    """The answer to "Which VAE should I use?".

    Attributes:
        advice: in a word.
        now: name of the VAE that decodes now.
        vae: name of the VAE to use; ``now`` if nothing has to change.
        reach: of the choice that decides now, which a new one has to replace.
        records: name -> what is known about the VAE, of those that were compared and ``now``.
        checkpoint: the one that a choice is for, or "".
        family: title of the latent's family.
    """

    advice: Advice
    now: str
    vae: str
    reach: Reach
    records: Mapping[str, FileRecord]
    checkpoint: str
    family: str


def answer(host: Host, stored: StoredComparison) -> Answer:
    """Say which VAE to use, by the verdicts that are known. Reads none of the compared files."""
    decision = host.decision()
    is_for_it = decision.source == "always" or stored.checkpoint in ("", host.current_checkpoint())
    now = decision.vae if is_for_it else BUILT_IN
    files = _files(host, stored)
    names = dict.fromkeys((*(result.name for result in stored.comparison), now))
    known = {name: host.file_cache.checked(str(files[name])) for name in names if name in files}
    records = {name: record for name, record in known.items() if record is not None}
    advice, vae = _advise(host, stored, records, now)
    reach: Reach = "always" if is_for_it and decision.source == "always" else "checkpoint"
    return Answer(advice, now, vae, reach, records, stored.checkpoint, stored.generation.family.title)


def to_check(host: Host, stored: StoredComparison, found: Answer) -> list[str]:
    """Names of the VAEs with images that were not checked yet; of the built-in one, its checkpoint."""
    files = _files(host, stored)
    decoded = [result.name for result in stored.comparison.decoded]
    names = [name for name in decoded if name in files and name not in found.records]
    return [_checkpoint(host, stored) if name == BUILT_IN else name for name in names]


def _files(host: Host, stored: StoredComparison) -> dict[str, Path]:
    """Name -> file of every VAE that can have been compared."""
    built_in = host.checkpoint_files().get(_checkpoint(host, stored))
    return {**host.vae_files(), **({BUILT_IN: built_in} if built_in else {})}


def _checkpoint(host: Host, stored: StoredComparison) -> str:
    return stored.checkpoint or host.current_checkpoint()


def default_reference(found: Answer, stored: StoredComparison) -> str:
    """The VAE to compare the others with: the built-in one unless it is known to have faults, else the answer's."""
    decoded = [result.name for result in stored.comparison.decoded if result.finite]
    sound = [name for name in decoded if name not in found.records or not found.records[name].verdict.faults]
    preferred = [name for name in (BUILT_IN, found.vae) if name in sound]
    return next(iter((*preferred, *sound, *decoded)), "")


def _advise(host: Host, stored: StoredComparison, records: Mapping[str, FileRecord], now: str) -> tuple[Advice, str]:
    known = records.get(now)
    if known is None:
        return "unknown", now
    if not known.verdict.faults:
        return "keep", now
    shown = [result.name for result in stored.comparison.decoded if result.finite]
    better = [name for name in shown if name in records and records[name].can_replace]
    if now != BUILT_IN and BUILT_IN in better:
        return "use", BUILT_IN
    candidates = {name: records[name] for name in better if name != BUILT_IN}
    best = recommend(stored.checkpoint, stored.generation.family, candidates, host.preferred_vaes())
    return ("use", best.name) if best else ("none", now)
