"""Which VAE each checkpoint with a broken or missing built-in VAE should use, by what is known of the files."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Literal

from vae_lab.checkup.findings import BROKEN, MISSING, SUSPECT, UNREADABLE, Status
from vae_lab.identity import published_vaes
from vae_lab.latents.family import Family
from vae_lab.library.recommend import recommend
from vae_lab.library.record import Depth, FileRecord

__all__ = ["Action", "Remedy", "find_remedies", "without_shared"]

Action = Literal["use", "keep", "none"]
"""Use the recommended VAE, keep the one that is chosen, or nothing can be done."""


@dataclass(frozen=True)
class Remedy:
    """What to do about one checkpoint whose built-in VAE is broken or missing.

    Attributes:
        checkpoint: its name.
        status: ``broken`` or ``missing``.
        title: the worst finding in a few words.
        finding: the worst finding, in a sentence.
        now: name of the VAE chosen for it, ``Built-in`` or ``Automatic``.
        action: what to do.
        vae: name of the VAE to use; "" without one.
        reason: why, as text that follows a name and a colon.
    """

    checkpoint: str
    status: Status
    title: str
    finding: str
    now: str
    action: Action
    vae: str = ""
    reason: str = ""


def find_remedies(
    checkpoints: Mapping[str, FileRecord],
    vaes: Mapping[str, FileRecord | None],
    chosen: Callable[[str], str],
    problem: Callable[[str, str], str],
    preferred: Mapping[str, str] | None = None,
) -> list[Remedy]:
    """One remedy for each checkpoint that was checked and is broken, or has no VAE; no other checkpoint has one.

    Args:
        checkpoints: name -> record. Suspect and unchecked ones are left alone.
        vaes: name -> record of the user's VAEs, in the host's order; None for one that was not checked.
        chosen: returns the VAE that is chosen for a checkpoint, ``Built-in`` or ``Automatic``.
        problem: returns why a checkpoint, named first, cannot use a healthy VAE of its family, or "".
        preferred: see :func:`recommend`.
    """
    healthy = {name: record for name, record in vaes.items() if record is not None and record.can_replace}
    return [
        _with_vae(_bare(name, record, chosen(name)), record, vaes, healthy, problem, preferred)
        for name, record in checkpoints.items()
        if record.kind == "checkpoint" and record.depth == Depth.CHECKED and record.status in (BROKEN, MISSING)
    ]


def without_shared(remedies: Sequence[Remedy], file: Mapping[str, str]) -> list[Remedy]:
    """The remedies without those whose file also holds the choice of a checkpoint that must stay as it is.

    ``model.ckpt`` and ``model.safetensors`` share ``model.json``.

    Args:
        remedies: see :func:`find_remedies`.
        file: name of every checkpoint -> where its choice is stored; "" for a list of its own for each.
    """
    sharing: defaultdict[str, list[str]] = defaultdict(list)
    for checkpoint, path in file.items():
        sharing[os.path.normcase(path)].append(checkpoint)
    wanted = {remedy.checkpoint: remedy.vae for remedy in remedies if remedy.action == "use"}
    kept: list[Remedy] = []
    for remedy in remedies:
        path = file.get(remedy.checkpoint, "")
        others = [name for name in sharing[os.path.normcase(path)] if wanted.get(name) != remedy.vae] if path else []
        if remedy.action == "use" and others:
            reason = f"{PurePath(path).name} also holds the choice for {others[0]}, which must stay as it is"
            remedy = replace(remedy, action="none", vae="", reason=reason)
        kept.append(remedy)
    return kept


def _bare(checkpoint: str, record: FileRecord, now: str) -> Remedy:
    worst = record.verdict.findings[0]
    return Remedy(checkpoint, record.status, worst.title, worst.text, now, "none")


def _with_vae(
    bare: Remedy,
    record: FileRecord,
    vaes: Mapping[str, FileRecord | None],
    healthy: Mapping[str, FileRecord],
    problem: Callable[[str, str], str],
    preferred: Mapping[str, str] | None,
) -> Remedy:
    family = _family_of(record)
    if family is None:
        return replace(bare, reason="it is not known which family of VAEs its model needs")
    stays = _stays(bare, vaes, family)
    if stays:
        return replace(bare, action="keep", reason=stays)
    candidates, refused = dict(healthy), ""
    while best := recommend(bare.checkpoint, family, candidates, preferred):
        why = problem(bare.checkpoint, best.name)
        if not why:
            return replace(bare, action="use", vae=best.name, reason=best.reason)
        refused = refused or why
        del candidates[best.name]
    published = next((one for one in published_vaes() if one.family == family.id), None)
    if refused:
        reason = f"no healthy VAE of the {family.title} family can be used for it ({refused})"
    elif published is not None:
        reason = (
            f"no VAE in your folders is known to be healthy and of the {family.title} family; {published.file} can be "
            "downloaded: on its Checkup page, or with vae-lab download"
        )
    else:
        reason = f"no VAE in your folders is known to be healthy and of the {family.title} family"
    return replace(bare, reason=reason)


def _family_of(record: FileRecord) -> Family | None:
    """That of the model; that of a broken VAE only if it is certain."""
    uncertain = not record.hint_id and record.verdict.has("family-uncertain")
    return None if uncertain else record.model_family


def _stays(bare: Remedy, vaes: Mapping[str, FileRecord | None], family: Family) -> str:
    """Why the VAE that is chosen stays; "" if it must be replaced: it is missing, broken or of another family."""
    if bare.now not in vaes:
        return ""
    record = vaes[bare.now]
    if record is not None and record.can_replace and record.family_id == family.id:
        return f"{bare.now} is chosen for it, healthy and of the {family.title} family"
    wrong = record is not None and record.family is not None and record.family.id != family.id
    if wrong or (record is not None and record.status in (BROKEN, MISSING, UNREADABLE)):
        return ""
    if record is not None and record.status == SUSPECT:
        return f"{bare.now} is chosen for it and suspect"
    return f"{bare.now} is chosen for it and not known to be broken"
