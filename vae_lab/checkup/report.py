"""What VAE is in a file, and whether it is sound."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from vae_lab.autoencoders import VaeFile
from vae_lab.checkup.findings import BROKEN, INFORMATION, MISSING, SUSPECT, UNREADABLE, Evidence, Finding, Verdict
from vae_lab.checkup.weights import Checkup, check_weights
from vae_lab.errors import BadShape, FileError, MissingKeys, MissingVae, NotAnAutoencoder, NotFinite
from vae_lab.formats import WeightFile, is_url, open_weights, shown_name
from vae_lab.identity import (
    KnownCheckpoint,
    KnownVae,
    Merge,
    Sketch,
    explain_merge,
    fingerprint,
    hinted_vae,
    known_file,
    sketch_of_state,
)
from vae_lab.latents.family import FAMILIES, Family
from vae_lab.state_dict import family_hint

__all__ = ["Memory", "Report", "identity_key", "inspect_file"]

_VERSION = 1  # raise when the chart, what is measured, or how it is judged changes
_DTYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.float64: "fp64"}

_CHOOSE = "Choose an external VAE of the model's family."


class Memory(Protocol):
    """Remembers checkups by identity."""

    def get(self, key: str) -> Checkup | None:
        """The checkup of that key, if it was put."""

    def put(self, key: str, checkup: Checkup) -> None:
        """Remember a checkup."""


@dataclass(frozen=True)
class Report:
    """What was found out about one file.

    Attributes:
        path: the file, or its address without user, password and query.
        kind: ``checkpoint`` or ``vae``; "" where that cannot be told.
        layout: naming and prefix of its VAE, such as ``ldm (first_stage_model.)``.
        family_id: latent family, or "".
        hint_id: the family that the rest of a checkpoint says, or "".
        dtype: stored precision, such as ``fp16``.
        fingerprint: of the VAE's weights, or "".
        architecture: such as ``AutoencoderKL``, or "".
        problem: why no VAE can be taken from the file, or "".
        checkup: what the weights are like; None where there are none, or where the probe was left out.
        file_findings: what else was found: about the file, not about what its weights do.
        identity: the published file that this is, or what its weights hint at, or None.
        merge: what it was merged from, if that is known.
        bytes_read: of the file; from an address, bytes that were received.
        seconds: for everything.
    """

    path: str
    kind: str = ""
    layout: str = ""
    family_id: str = ""
    hint_id: str = ""
    dtype: str = ""
    fingerprint: str = ""
    architecture: str = ""
    problem: str = ""
    checkup: Checkup | None = None
    file_findings: tuple[Finding, ...] = ()
    identity: KnownVae | None = None
    merge: Merge | None = None
    bytes_read: int = 0
    seconds: float = 0.0

    @property
    def family(self) -> Family | None:
        """The latent family, where known."""
        return FAMILIES.get(self.family_id)

    @property
    def model_family(self) -> Family | None:
        """The family of latents that this VAE is given: the checkpoint's, else its own."""
        return FAMILIES.get(self.hint_id or self.family_id)

    @property
    def verdict(self) -> Verdict:
        """All findings, worst first."""
        return Verdict.of((*self.file_findings, *(self.checkup.findings if self.checkup else ())))

    def with_merge(self, merge: Merge | None) -> Report:
        """The same, with what it was merged from."""
        kept = tuple(finding for finding in self.file_findings if finding.code != "merged")
        added = () if merge is None else (_merged(merge),)
        return replace(self, merge=merge, file_findings=(*kept, *added))

    def to_json(self) -> dict[str, Any]:
        """One object, as ``inspect --json`` prints it."""
        identity = self.identity
        merge = self.merge
        parents = [{"name": p.name, "weight": round(p.weight, 4)} for p in merge.parents] if merge else []
        return {
            "path": self.path,
            "kind": self.kind or None,
            "layout": self.layout or None,
            "family": self.family_id or None,
            "dtype": self.dtype or None,
            "fingerprint": self.fingerprint or None,
            "identity": identity
            and {
                "name": identity.name,
                "match": identity.match,
                "aliases": list(identity.aliases),
                "grade": identity.grade or None,
            },
            "verdict": _rounded(self.verdict.to_json()),
            "merge": merge and {"parents": parents, "residual": round(merge.residual, 6)},
            "measured": [_rounded(asdict(e)) for e in self.checkup.measured] if self.checkup else [],
            "bytes_read": self.bytes_read,
            "seconds": round(self.seconds, 3),
        }


def _rounded(value: Any) -> Any:
    """Numbers in plain JSON values, to four decimals."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


def identity_key(digest: str, hint: Family | None, precision: str = "fp32") -> str:
    """Under what a checkup is remembered: the weights, what they are held against, and the precision."""
    return f"{_VERSION}:{digest}:{hint.id if hint else ''}:{precision}"


def inspect_file(
    path_or_url: str | os.PathLike[str],
    *,
    probe: bool = True,
    relatives: Mapping[str, Sketch] | None = None,
    memory: Memory | None = None,
) -> Report:
    """Find out what VAE is in a file, and whether it is sound.

    Never raises for what is in the file: a bad file is a finding.

    Args:
        path_or_url: a VAE or a checkpoint, or its address; of a checkpoint only the VAE's bytes are read.
        probe: whether to put the colour chart through the VAE; without, only facts and structure are looked at.
        relatives: name -> sketch of VAEs that this one may be merged from.
        memory: where checkups of the same weights may be remembered.
    """
    path, start = os.fspath(path_or_url), time.perf_counter()
    try:
        with open_weights(path) as weights:
            try:
                report = _of_vae(VaeFile(weights), probe, relatives, memory)
                report = _with_published_facts(report, path)
            except FileError as error:
                report = _unusable(weights, error)
            report = replace(report, bytes_read=weights.bytes_read)
    except FileError as error:
        report = _unreadable(shown_name(path), error)
    return replace(report, seconds=time.perf_counter() - start)


def _of_vae(file: VaeFile, probe: bool, relatives: Mapping[str, Sketch] | None, memory: Memory | None) -> Report:
    report = Report(
        path=file.path,
        kind=file.layout.kind,
        layout=file.layout.label,
        hint_id=file.layout.family_hint or "",
        dtype=_DTYPES.get(file.dtype, str(file.dtype).removeprefix("torch.")),
        architecture=file.architecture.name,
    )
    try:
        state = file.state_dict()
    except NotFinite as error:
        return replace(report, file_findings=(_not_finite(error),), problem=error.reason)
    report = replace(report, fingerprint=fingerprint(state), identity=hinted_vae(state))
    if probe:
        checkup = _checked(file, state, report.fingerprint, memory)
        report = replace(report, checkup=checkup, family_id=checkup.family_id)
    if relatives:
        report = report.with_merge(explain_merge(sketch_of_state(state), relatives))
    return report


def _checked(file: VaeFile, state: dict[str, Tensor], digest: str, memory: Memory | None) -> Checkup:
    hint = file.family_hint
    key = identity_key(digest, hint)
    checkup = memory.get(key) if memory else None
    if checkup is None:
        checkup = check_weights(file.assemble(state), hint)
        if memory:
            memory.put(key, checkup)
    return checkup


def _unreadable(path: str, error: FileError) -> Report:
    return Report(path, file_findings=(_finding_of(error),), problem=error.reason)


def _unusable(file: WeightFile, error: FileError) -> Report:
    """The report on a file that no VAE can be taken from; what model a checkpoint is can be told all the same."""
    hint = family_hint(file.tensors)
    kind = "checkpoint" if isinstance(error, MissingVae) or hint else ""
    return replace(_unreadable(file.path, error), kind=kind, hint_id=hint or "")


def _finding_of(error: FileError) -> Finding:
    reason = _sentence(error)
    if isinstance(error, MissingVae):
        text = "This checkpoint contains no VAE."
        remedy = (
            "It needs an external VAE: without one the WebUI keeps using the previous checkpoint's VAE, "
            "or has none at all."
        )
        return Finding("missing", MISSING, text, (), remedy)
    if isinstance(error, MissingKeys):
        return Finding("missing-keys", BROKEN, reason, (), _CHOOSE)
    if isinstance(error, BadShape):
        return Finding("bad-shape", BROKEN, reason, (), _CHOOSE)
    if isinstance(error, NotAnAutoencoder):
        return Finding(
            "not-a-vae", UNREADABLE, reason, (), "If it is a LoRA or a similar file, move it to another folder."
        )
    remedy = "Download or convert the file again."
    if is_url(error.path):
        remedy = "Check the address, or download the file and check it locally."
    return Finding("unreadable", UNREADABLE, reason, (), remedy)


def _not_finite(error: NotFinite) -> Finding:
    return Finding("nan", BROKEN, f"{_sentence(error)} Images come out black.", (), _CHOOSE)


def _sentence(error: FileError) -> str:
    return f"{error.reason[:1].upper()}{error.reason[1:]}."


def _with_published_facts(report: Report, path: str) -> Report:
    """Add what is published about this very file, if anything."""
    known = known_file(path)
    if isinstance(known, KnownVae):
        return replace(report, identity=known)
    if isinstance(known, KnownCheckpoint):
        return replace(report, file_findings=(*report.file_findings, _published(known)))
    return report


def _published(known: KnownCheckpoint) -> Finding:
    severity = {"broken": BROKEN, "reported grey": SUSPECT}.get(known.verdict, INFORMATION)
    certainty = "two independent sources" if known.grade == "A" else "one source"
    text = f"This file is {known.name}. Published information about its VAE: {known.built_in_vae} ({certainty})."
    return Finding("known-bad", severity, text, (), _CHOOSE if severity != INFORMATION else "")


def _merged(merge: Merge) -> Finding:
    # Of unrelated parents a few per cent do harm, even before the chart shows it.
    evidence = tuple(Evidence(f"share of {parent.name}", parent.weight) for parent in merge.parents)
    evidence += (Evidence("unexplained remainder", 100 * merge.residual, "%", "at most 0.1 %"),)
    why = (
        "They are fine-tunes of one VAE, which merge well."
        if merge.relatives
        else "They were trained independently: their averaged weights are meaningless, so images turn grey."
    )
    severity = INFORMATION if merge.relatives else SUSPECT
    remedy = "" if merge.relatives else _CHOOSE
    return Finding("merged", severity, f"The VAE is a merge: {merge.sentence}. {why}", evidence, remedy)
