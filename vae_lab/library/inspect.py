"""Identifies the VAE in a file, and checks its health."""

from __future__ import annotations

import os
import time as clock
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from vae_lab.autoencoders import Autoencoder, VaeFile
from vae_lab.autoencoders.computing import Check, before_each_layer, flushing_denormals
from vae_lab.checkup import Checkup, Evidence, Finding, check_weights, identity_key
from vae_lab.checkup.findings import (
    BROKEN,
    INFORMATION,
    MISSING,
    NO_VAE,
    NOT_CHECKED,
    SUSPECT,
    UNREADABLE,
    Severity,
)
from vae_lab.errors import (
    BadShape,
    FileError,
    MissingKeys,
    MissingVae,
    MixedNames,
    NotAnAutoencoder,
    NotFinished,
    OtherKind,
)
from vae_lab.formats import WeightFile, is_url, open_weights, shown_name
from vae_lab.identity import (
    KnownCheckpoint,
    KnownVae,
    Sketch,
    fingerprint,
    hinted_vae,
    known_file,
    sketch_digest,
    sketch_of_state,
)
from vae_lab.latents.family import Family
from vae_lab.library.loading import loading_findings, name_findings
from vae_lab.library.record import Depth, FileRecord, Kind, explained, failed, file_facts
from vae_lab.state_dict import KINDS_BY_ID, LostData, family_hint, find_lost_data, is_checkpoint, not_finite
from vae_lab.state_dict.kinds import MIXED_REMEDY, SHARD_REMEDY
from vae_lab.text import quoted
from vae_lab.time_limit import FILE_SECONDS, TimeLimit

__all__ = [
    "UNFORESEEN", "CheckupStore", "checked", "digest_of", "identify_file", "inspect_file", "list_file", "not_finished",
    "scan_file",
]  # fmt: skip

# What torch, numpy and Python raise for unforeseen file contents. One file must not end a scan of ten thousand.
UNFORESEEN = (ArithmeticError, AttributeError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError)

_DTYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.float64: "fp64"}
_CHOOSE = "Choose an external VAE of the model's family."
_NOT_FINISHED = "Check it again when the machine is less busy, or raise the limit with --time-limit."
_DECODING, _COMPARING = "decoding the chart", "looking for missing parts"

_Examine = Callable[[VaeFile, dict[str, Tensor], FileRecord], FileRecord]


class CheckupStore(Protocol):
    """Stores checkups by identity."""

    def get(self, key: str) -> Checkup | None:
        """The checkup with this key, if stored."""

    def put(self, key: str, checkup: Checkup) -> None:
        """Store a checkup."""


def inspect_file(
    path_or_url: str | os.PathLike[str],
    *,
    probe: bool = True,
    relatives: Mapping[str, Sketch] | None = None,
    memory: CheckupStore | None = None,
    time: TimeLimit | None = None,
) -> FileRecord:
    """Identify the VAE in a file, and check its health.

    Never raises for the contents of the file: a bad file is a finding.

    Args:
        path_or_url: a VAE or a checkpoint, or its address; of a checkpoint only the VAE's bytes are read.
        probe: whether to decode and encode the colour chart; otherwise only facts and structure are examined.
        relatives: name -> sketch of VAEs that this one may be merged from.
        memory: stores checkups by identity of the weights.
        time: the limit for all of it; by default the usual one. A file that takes longer is ``not-checked``.
    """
    time = time or TimeLimit()

    def examine(file: VaeFile, state: dict[str, Tensor], record: FileRecord) -> FileRecord:
        if probe:
            checkup = checked(file, state, record.fingerprint, memory, partial(time.check, file.path, _DECODING))
            family = file.family_or_hint(checkup.family)
            record = replace(record, checkup=checkup, family_id=family.id if family else "", depth=Depth.CHECKED)
        record = _with_published_facts(record, os.fspath(path_or_url))
        return explained(record, sketch_of_state(state), relatives, {}) if relatives else record

    return _examined(os.fspath(path_or_url), examine, time)


def identify_file(path: str | os.PathLike[str], time: TimeLimit | None = None) -> FileRecord:
    """As :func:`inspect_file`, but only reads the weights and detects the latent family: the chart is not judged."""
    time = time or TimeLimit()

    def examine(file: VaeFile, state: dict[str, Tensor], record: FileRecord) -> FileRecord:
        loaded = file.assemble(state)
        check = partial(time.check, file.path, _DECODING)
        with before_each_layer(loaded.module, check), flushing_denormals(loaded) as careful:
            family = file.detect_family(careful)
        return replace(record, family_id=family.id if family else "")

    return _examined(os.fspath(path), examine, time)


def list_file(file: VaeFile, sketch: Sketch | None) -> FileRecord:
    """A record from the header of an open file and the VAE's sketch; reads about a megabyte."""
    record = _with_name_findings(_of_header(file), file.weights)
    return replace(record, sketch=digest_of(sketch), **file_facts(file.path))


def scan_file(
    path: str | os.PathLike[str],
    *,
    probe: bool = True,
    charts: bool = False,
    time: TimeLimit | None = None,
    seconds: float = FILE_SECONDS,
) -> FileRecord:
    """As :func:`inspect_file`; a pure function of the file, which never raises for its contents.

    It has no shared state, so it can be mapped over processes and machines.

    Args:
        path: a file, or an address of one.
        probe: whether to decode and encode the colour chart.
        charts: whether the record includes the charts.
        time: as of :func:`inspect_file`.
        seconds: the same, where it begins elsewhere; 0 for no limit.
    """
    name = os.fspath(path)
    try:
        record = inspect_file(name, probe=probe, time=time or TimeLimit(seconds))
    except FileError as error:  # deleted in the meantime
        record = failed(name, error.reason)
    except UNFORESEEN as error:
        record = failed(name, f"it could not be checked: {type(error).__name__}: {error}")
    return record if charts else record.with_charts({})


def digest_of(sketch: Sketch | None) -> str:
    """For records: broken weights, and VAEs without a convolution, are not compared with others."""
    return sketch_digest(sketch) if sketch is not None and len(sketch.values) and sketch.finite else ""


def not_finished(path: str, reason: str) -> FileRecord:
    """The record of a file that took more than its time. It is not known to be bad, and it is never stored."""
    finding = Finding("not-finished", NOT_CHECKED, _sentence(reason), (), _NOT_FINISHED)
    return FileRecord(shown_name(path), family_id="", file_findings=(finding,), depth=Depth.CHECKED, **file_facts(path))


def _examined(path: str, examine: _Examine, time: TimeLimit) -> FileRecord:
    start = clock.perf_counter()
    try:
        with open_weights(path, time=time) as weights:
            try:
                record = _of_weights(VaeFile(weights), examine, partial(time.check, weights.path, _COMPARING))
            except NotFinished:
                raise
            except FileError as error:
                record = _unusable(weights, error)
            record = replace(_with_name_findings(record, weights), bytes_read=weights.bytes_read)
    except NotFinished as error:
        record = not_finished(path, error.reason)
    except FileError as error:
        record = _unreadable(shown_name(path), error)
    return replace(record, seconds=clock.perf_counter() - start, **file_facts(record.path))


def _with_name_findings(record: FileRecord, weights: WeightFile) -> FileRecord:
    """Only of VAEs and checkpoints: other models are read by other programs."""
    findings = name_findings(weights, record.kind) if record.kind else ()
    return replace(record, file_findings=(*record.file_findings, *findings))


def _of_weights(file: VaeFile, examine: _Examine, check: Check) -> FileRecord:
    record = _of_header(file)
    state = file.state_dict(check_finite=False)
    bad = not_finite(state)
    if bad:
        return _with_published_facts(_of_bad_numbers(file, state, bad, record, check), file.path)
    lost = find_lost_data(file.weights, file.layout, state, check)
    if lost:
        record = replace(record, file_findings=(*record.file_findings, _lost_data(lost, file.path)))
    digest = digest_of(sketch_of_state(state))
    record = replace(record, fingerprint=fingerprint(state), sketch=digest, identity=hinted_vae(state))
    record = examine(file, state, replace(record, depth=Depth.IDENTIFIED))
    return replace(record, file_findings=(*record.file_findings, *loading_findings(file)))


def _of_bad_numbers(
    file: VaeFile, state: Mapping[str, Tensor], bad: Sequence[str], record: FileRecord, check: Check
) -> FileRecord:
    """NaN in the encoder does not affect the decoder, which is then judged."""
    decoder = {name: tensor for name, tensor in state.items() if "decoder" in name or name.startswith("post_quant")}
    problem = f"the VAE's weights are not finite: {bad[0]} has NaN or infinite values"
    findings = (*record.file_findings, _not_finite(problem, only_encoder=decoder.keys().isdisjoint(bad)))
    record = replace(record, family_id="", file_findings=findings, problem=problem, depth=Depth.CHECKED)
    if not decoder or not decoder.keys().isdisjoint(bad):
        return record
    checkup = _checkup(file.assemble(decoder), file.family_hint, check)
    family = file.family_or_hint(checkup.family)
    return replace(record, checkup=checkup, family_id=family.id if family else "")


def _of_header(file: VaeFile) -> FileRecord:
    return FileRecord(
        path=file.path,
        kind=file.layout.kind,
        layout=file.layout.label,
        hint_id=file.layout.family_hint or "",
        dtype=_DTYPES.get(file.dtype, str(file.dtype).removeprefix("torch.")),
        architecture=file.architecture.name,
        file_findings=((_half(file),) if file.half else ()) + ((_mixed_names(file),) if file.layout.mixed else ()),
    )


def _half(file: VaeFile) -> Finding:
    """Half a VAE is a fault in a checkpoint; a separate file is published so on purpose."""
    severity: Severity = SUSPECT if file.layout.kind == "checkpoint" else INFORMATION
    text = (
        "Decoder only: it decodes images, but cannot encode them, so img2img, inpainting and hires fix cannot use it."
        if file.half == "decoder"
        else "Encoder only: it encodes images, but cannot decode latents, so no image comes out of it."
    )
    return Finding("half", severity, text, (), _CHOOSE if severity == SUSPECT else "")


def _mixed_names(file: VaeFile) -> Finding:
    """Together they are whole, so the weights can be judged; hosts load one set of names only."""
    text = "Some of its tensors have names of ldm, others names of diffusers: the WebUI cannot load it."
    remedy = "vae-lab extract writes it to a new file with names of ldm."
    return Finding("half-converted", SUSPECT, text, (), remedy if file.layout.kind == "vae" else _CHOOSE)


def checked(
    file: VaeFile, state: dict[str, Tensor], digest: str, memory: CheckupStore | None, check: Check = lambda: None
) -> Checkup:
    """The checkup of weights with the architecture and the model family of a file.

    Args:
        file: the file.
        state: weights by canonical name, its own or others of the same shapes.
        digest: their fingerprint.
        memory: stores checkups by identity of the weights.
        check: called between the steps; what it raises ends the checkup.
    """
    hint = file.family_hint
    key = identity_key(digest, hint)
    checkup = memory.get(key) if memory else None
    if checkup is None:
        checkup = _checkup(file.assemble(state), hint, check)
        if memory:
            memory.put(key, checkup)
    return checkup


def _checkup(loaded: Autoencoder, hint: Family | None, check: Check) -> Checkup:
    with before_each_layer(loaded.module, check):
        return check_weights(loaded, hint)


def _unreadable(path: str, error: FileError) -> FileRecord:
    return FileRecord(
        path, family_id="", file_findings=(_finding_of(error),), problem=error.reason, depth=Depth.CHECKED
    )


def _unusable(file: WeightFile, error: FileError) -> FileRecord:
    """The record of a file from which no VAE can be loaded; a checkpoint's model family may still be known."""
    if isinstance(error, OtherKind):
        return _of_other_kind(file, error)
    if not file.tensors:
        return replace(_unreadable(file.path, error), file_findings=(_damaged(error),))
    hint = family_hint(file.tensors)
    kind: Kind = "checkpoint" if isinstance(error, MissingVae) or hint else ""
    return replace(_unreadable(file.path, error), kind=kind, hint_id=hint or "")


def _of_other_kind(file: WeightFile, error: OtherKind) -> FileRecord:
    known = KINDS_BY_ID.get(error.kind)
    kind: Kind = ""
    if known is None or known.answer != "model":
        kind = "checkpoint" if is_checkpoint(file.tensors) else "vae" if known and known.answer == "vae" else ""
    return replace(_unreadable(file.path, error), kind=kind, architecture=error.kind)


def _finding_of(error: FileError) -> Finding:
    reason = _sentence(error.reason)
    if isinstance(error, OtherKind):
        return _finding_of_other_kind(error)
    if isinstance(error, MissingVae):
        text = "This checkpoint contains no VAE."
        remedy = (
            "It needs an external VAE: without one the WebUI keeps using the previous checkpoint's VAE, "
            "or has none at all."
        )
        return Finding("missing", MISSING, text, (), remedy)
    if isinstance(error, MixedNames):
        return Finding("half-converted", BROKEN, reason, (), MIXED_REMEDY)
    if isinstance(error, MissingKeys):
        return Finding("missing-keys", BROKEN, reason, (), _CHOOSE)
    if isinstance(error, BadShape):
        return Finding("bad-shape", BROKEN, reason, (), _CHOOSE)
    if isinstance(error, NotAnAutoencoder):
        return Finding("not-a-vae", NO_VAE, reason, (), "If it is another kind of model, move it to its own folder.")
    return _damaged(error)


def _finding_of_other_kind(error: OtherKind) -> Finding:
    reason, known = _sentence(error.reason), KINDS_BY_ID.get(error.kind)
    if known is None:
        if error.kind == "shard":
            return Finding("shard", NO_VAE, reason, (), SHARD_REMEDY)
        return Finding("other-kind", NOT_CHECKED, reason, (), "Use it with the program that it was made for.")
    if known.answer == "vae":
        return Finding("other-kind", NOT_CHECKED, reason, (), known.remedy)
    return Finding("needs-no-vae" if known.answer == "pixels" else "other-model", NO_VAE, reason, (), known.remedy)


def _damaged(error: FileError) -> Finding:
    remedy = "Download or convert the file again."
    if is_url(error.path):
        remedy = "Check the address, or download the file and check it locally."
    return Finding("unreadable", UNREADABLE, _sentence(error.reason), (), remedy)


def _not_finite(problem: str, *, only_encoder: bool) -> Finding:
    sentence = _sentence(problem)
    text = (
        f"{sentence} This affects img2img, inpainting and hires fix, which come out black, but not plain txt2img."
        if only_encoder
        else f"{sentence} Images come out black."
    )
    return Finding("nan", BROKEN, text, (), _CHOOSE)


def _lost_data(lost: Sequence[LostData], path: str) -> Finding:
    first = lost[0]
    where, begin, end = quoted(first.tensor), f"{first.start:,}", f"{first.end:,}"
    if first.copy_of:
        copy_begin, copy_end = (f"{position:,}" for position in first.copy_of)
        text = (
            f"Bytes {begin} to {end} of the file (in {where}) are the same as bytes {copy_begin} to {copy_end}: "
            "one of the two parts is missing."
        )
    elif first.zeros:
        text = f"Bytes {begin} to {end} of the file (in {where}) are all zero: this part of the file is missing."
    else:
        text = (
            f"Bytes {begin} to {end} of the file (in {where}) repeat a single value: this part of the file is missing."
        )
    size = sum(part.end - part.start for part in lost)
    evidence = (Evidence("missing parts", len(lost)), Evidence("missing bytes", size, "bytes"))
    remedy = "Download the file again."
    if is_url(path):
        remedy = "The file on the server is damaged; download it from another source."
    return Finding("lost-data", BROKEN, text, evidence, remedy)


def _sentence(reason: str) -> str:
    return f"{reason[:1].upper()}{reason[1:]}."


def _with_published_facts(record: FileRecord, path: str) -> FileRecord:
    """Add published facts about this exact file, if any."""
    known = known_file(path)
    if isinstance(known, KnownVae):
        return replace(record, identity=known)
    if isinstance(known, KnownCheckpoint):
        return replace(record, file_findings=(*record.file_findings, _published(known)))
    return record


def _published(known: KnownCheckpoint) -> Finding:
    severities: dict[str, Severity] = {"broken": BROKEN, "reported grey": SUSPECT}
    severity = severities.get(known.verdict, INFORMATION)
    certainty = "two independent sources" if known.grade == "A" else "one source"
    text = f"This file is {known.name}. Published information about its VAE: {known.built_in_vae} ({certainty})."
    return Finding("known-bad", severity, text, (), _CHOOSE if severity != INFORMATION else "")
