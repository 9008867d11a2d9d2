"""What the routes answer, as published in ``/openapi.json``, and how each answer is built.

Works with pydantic 1.10 and 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from vae_lab.api.addresses import blink_url, image_url, round_trip_url, share_url, sheet_url
from vae_lab.checkup import Verdict
from vae_lab.comparison import RoundTripped, comparison_json
from vae_lab.comparison.measures import EXPLANATIONS, MAX_IMAGES
from vae_lab.host.base import Host, VaeEntry
from vae_lab.latents import Generation
from vae_lab.library import FileRecord
from vae_lab.library.inventory import LibraryPage, ScanSummary
from vae_lab.service.choices import ActiveVae, ChoiceResult
from vae_lab.service.comparisons import StoredComparison
from vae_lab.service.round_trips import IMAGE, ORIGINAL, StoredRoundTrip
from vae_lab.service.runs import RunStatus
from vae_lab.text import as_text

__all__ = [
    "ActiveAnswer", "Answer", "CancelAnswer", "CheckpointsAnswer", "ChoiceAnswer", "CompareAnswer", "GenerationAnswer",
    "HostAnswer", "InspectAnswer", "LatentsAnswer", "LibraryAnswer", "ProgressAnswer", "ReportAnswer",
    "RoundTripAnswer", "ScanAnswer", "VaesAnswer",
]  # fmt: skip

_OLD_NAME = "Deprecated; use `images`."
_OLD_IMAGE = "picture"  # what the kind `image` was called


def _v1_schema(schema: dict[str, Any], model: Any) -> None:
    """Pydantic 1 publishes neither that a value may be null, nor that an answer always has all of its values."""
    for field in model.__fields__.values():
        published = schema["properties"][field.alias]
        if field.allow_none:
            reference = published.pop("$ref", None)
            published.update({"nullable": True}, **({"allOf": [{"$ref": reference}]} if reference else {}))
    schema["required"] = list(schema["properties"])


class Answer(BaseModel):
    """Has the declared fields and no others."""

    if hasattr(BaseModel, "model_json_schema"):
        model_config = {"extra": "forbid"}
    else:

        class Config:
            """For pydantic 1."""

            extra = "forbid"
            schema_extra = staticmethod(_v1_schema)

    def __init__(self, **values: Any) -> None:
        super().__init__(**_valid(values))


def _valid(value: Any) -> Any:
    """With valid Unicode: file names may have bytes that are not UTF-8, which pydantic refuses."""
    if isinstance(value, str):
        return as_text(value)
    if isinstance(value, dict):
        return {_valid(key): _valid(item) for key, item in value.items()}
    return [_valid(item) for item in value] if isinstance(value, (list, tuple)) else value


class HostAnswer(Answer):
    """What VAE Lab runs in and what it found there, for bug reports."""

    name: str = Field(..., description="Human-readable, such as `Forge`.")
    works: bool = Field(..., description="False if only files can be worked with here.")
    not_found: list[str] = Field(..., description="Parts of the host that are needed and were not found.")
    facts: dict[str, str] = Field(..., description="Name -> value, in English.")

    @classmethod
    def of(cls, host: Host) -> HostAnswer:
        missing = list(host.not_found or ())
        return cls(name=host.name, works=host.not_found is None, not_found=missing, facts=host.about())


# --- lists -----------------------------------------------------------------------------------------------------------


class VaeAnswer(Answer):
    """One external VAE."""

    name: str = Field(..., description="For use in requests.")
    label: str = Field(..., description="Human-readable: the name and what is known about the VAE.")
    family: str | None = Field(..., description="Latent family, such as `sd1`; null if not determined yet.")
    problem: str = Field(..., description="Why it cannot be used, if known; else empty.")

    @classmethod
    def of(cls, entry: VaeEntry) -> VaeAnswer:
        family = entry.family.id if entry.family else None
        return cls(name=entry.name, label=entry.label, family=family, problem=entry.problem)


class VaesAnswer(Answer):
    """All external VAEs, in the host's order."""

    vaes: list[VaeAnswer]

    @classmethod
    def of(cls, entries: Iterable[VaeEntry]) -> VaesAnswer:
        return cls(vaes=[VaeAnswer.of(entry) for entry in entries])


class GenerationAnswer(Answer):
    """One stored generation."""

    id: str = Field(..., description="For use in requests.")
    label: str = Field(..., description="Human-readable: time, prompt, size, part.")
    part: str = Field(..., description="What part of an image it is; empty for an image of its own.")
    family: str
    size: list[int] = Field(..., description="Width and height of its images, in pixels.")
    images: int = Field(..., description="Number of latents.")
    pictures: int = Field(..., description=_OLD_NAME)
    infotexts: list[str] = Field(..., description="Generation parameters, one for each image; may be empty.")

    @classmethod
    def of(cls, generation: Generation) -> GenerationAnswer:
        batch, _, height, width = generation.latents.shape
        return cls(
            id=generation.id,
            label=generation.label,
            part=generation.part,
            family=generation.family.id,
            size=[width * 8, height * 8],
            images=batch,
            pictures=batch,
            infotexts=list(generation.infotexts),
        )


class LatentsAnswer(Answer):
    """All stored generations, newest first."""

    latents: list[GenerationAnswer]

    @classmethod
    def of(cls, generations: Iterable[Generation]) -> LatentsAnswer:
        return cls(latents=[GenerationAnswer.of(generation) for generation in generations])


class CheckpointAnswer(Answer):
    """One checkpoint, and what is known about its VAE; null if it has not been inspected, or is healthy."""

    name: str
    stem: str = Field(..., description="Of its file.")
    current: bool
    status: str | None = Field(
        ...,
        description="`healthy`, `unchecked`, `not-checked`, `suspect`, `missing`, `broken`, `unreadable` or `no-vae`.",
    )
    code: str | None = Field(..., description="Of the worst finding.")
    title: str | None = Field(..., description="Of the worst finding, a few words.")
    text: str | None = Field(..., description="Of the worst finding, a sentence.")

    @classmethod
    def of(cls, name: str, path: Path, verdict: Verdict | None, current: bool) -> CheckpointAnswer:
        worst = verdict.faults[0] if verdict and verdict.faults else None
        return cls(
            name=name,
            stem=as_text(path.stem),
            current=current,
            status=verdict.status if verdict else None,
            code=worst.code if worst else None,
            title=worst.title if worst else None,
            text=worst.text if worst else None,
        )


class CheckpointsAnswer(Answer):
    """All checkpoints, in the host's order."""

    checkpoints: list[CheckpointAnswer]

    @classmethod
    def of(cls, files: Mapping[str, Path], verdicts: Mapping[str, Verdict], current: str) -> CheckpointsAnswer:
        rows = [CheckpointAnswer.of(name, path, verdicts.get(name), name == current) for name, path in files.items()]
        return cls(checkpoints=rows)


# --- comparisons and round trips -------------------------------------------------------------------------------------


def _number(name: str) -> Any:
    explanation = EXPLANATIONS[name]
    unit = f" In {explanation.unit}." if explanation.unit else ""
    return Field(..., description=explanation.text.format(reference="the reference") + unit)


class MeasuresAnswer(Answer):
    """Measurements on the first four images of one VAE. Differences are null without a reference."""

    seconds: float = _number("seconds")
    contrast: float = _number("contrast")
    saturation: float = _number("saturation")
    sharpness: float = _number("sharpness")
    clipped_blacks: float = _number("clipped_blacks")
    clipped_whites: float = _number("clipped_whites")
    delta_e: float | None = _number("delta_e")
    delta_e_95: float | None = _number("delta_e_95")
    ssim: float | None = _number("ssim")
    psnr: float | None = _number("psnr")
    equal: bool = Field(..., description="All measured pixels are equal; `psnr` would be infinite and is null.")


class ResultAnswer(Answer):
    """What one VAE decoded."""

    name: str
    family: str | None
    seconds: float = Field(..., description="Time for decoding only.")
    error: str = Field(..., description="Why there are no images; else empty.")
    finite: bool = Field(..., description="False if the decoder produced NaN or infinite values, shown as black.")
    in_strips: bool = Field(..., description="The latents were decoded in strips, because memory was low.")
    images: list[str] = Field(..., description="Paths of PNGs on this server, one for each latent.")
    pictures: list[str] = Field(..., description=_OLD_NAME)
    measures: MeasuresAnswer | None = Field(
        ..., description=f"Null without images. Only the first {MAX_IMAGES} images of a batch are measured."
    )


class CompareAnswer(Answer):
    """A comparison, in the requested order, the built-in VAE first. It is stored until newer ones need the memory."""

    id: str
    family: str
    cancelled: bool = Field(..., description="Somebody cancelled it; `results` has what was decoded until then.")
    reference: str = Field(..., description="Name of the VAE that `measures` compare with; empty if none decoded.")
    sheet: str = Field(..., description="Path of a PNG with all images side by side, with names.")
    share: str = Field(..., description="Path of an HTML file with all images, the light table and the numbers.")
    blink: str = Field(
        ..., description="Path of an animated WebP that shows one VAE after the other, with their names."
    )
    results: list[ResultAnswer]

    @classmethod
    def of(cls, stored: StoredComparison) -> CompareAnswer:
        images = [[f"/{image_url(stored, number)}" for number in numbers] for numbers in stored.numbers()]
        values = comparison_json(stored.comparison, stored.measured, images)
        results = [ResultAnswer(**row, pictures=row["images"]) for row in values.pop("results")]
        addresses = {"sheet": f"/{sheet_url(stored)}", "share": f"/{share_url(stored)}"}
        addresses["blink"] = f"/{blink_url(stored, 'webp')}"
        return cls(id=stored.id, results=results, **addresses, **values)


class RoundTripResultAnswer(Answer):
    """What one VAE encoded and decoded."""

    name: str
    family: str | None
    psnr: float | None = _number("psnr")
    ssim: float | None = _number("ssim")
    delta_e: float | None = _number("delta_e")
    encode_seconds: float
    decode_seconds: float
    finite: bool = Field(..., description="False if the latent or the image has NaN or infinite values.")
    in_strips: bool = Field(..., description="The latent was decoded in strips, because memory was low.")
    error: str = Field(..., description="Why there is no image; else empty.")
    images: dict[str, str] = Field(..., description="Kind of image -> path of a PNG on this server.")
    pictures: dict[str, str] = Field(..., description=f"{_OLD_NAME} The kind `image` is called `{_OLD_IMAGE}` here.")

    @classmethod
    def of(cls, stored: StoredRoundTrip, number: int, result: RoundTripped) -> RoundTripResultAnswer:
        loss = result.loss.to_json() if result.loss else {"psnr": None, "ssim": None, "delta_e": None}
        images = {kind: f"/{round_trip_url(stored, number, kind)}" for kind in stored.kinds(result)}
        return cls(
            name=result.name,
            family=result.family.id if result.family else None,
            **loss,
            encode_seconds=round(result.encode_seconds, 4),
            decode_seconds=round(result.decode_seconds, 4),
            finite=result.finite,
            in_strips=result.in_strips,
            error=result.error,
            images=images,
            pictures={_OLD_IMAGE if kind == IMAGE else kind: path for kind, path in images.items()},
        )


class RoundTripAnswer(Answer):
    """A round trip, in the requested order, the built-in VAE first. It is stored until newer ones need the memory."""

    id: str
    size: list[int] = Field(..., description="Width and height of the encoded image, in pixels.")
    remarks: list[str] = Field(..., description="What was done to the image before encoding, such as cropping.")
    original: str = Field(..., description="Path of the encoded image as PNG.")
    results: list[RoundTripResultAnswer]
    cancelled: bool

    @classmethod
    def of(cls, stored: StoredRoundTrip) -> RoundTripAnswer:
        height, width = stored.trip.original.shape[:2]
        return cls(
            id=stored.id,
            size=[width, height],
            remarks=list(stored.remarks),
            original=f"/{round_trip_url(stored, 0, ORIGINAL)}",
            results=[RoundTripResultAnswer.of(stored, n, result) for n, result in enumerate(stored.trip)],
            cancelled=stored.trip.cancelled,
        )


# --- checkups --------------------------------------------------------------------------------------------------------


class EvidenceAnswer(Answer):
    """One measured number."""

    name: str
    value: float
    unit: str
    wanted: str = Field(..., description="What is expected of a healthy VAE, as text; may be empty.")


class FindingAnswer(Answer):
    """One fact about a VAE's health."""

    code: str
    severity: str
    text: str
    evidence: list[EvidenceAnswer]
    remedy: str = Field(..., description="What to do about it; may be empty.")


class VerdictAnswer(Answer):
    """All findings, worst first."""

    status: str
    findings: list[FindingAnswer]


class IdentityAnswer(Answer):
    """What is published about a file."""

    name: str
    match: str
    aliases: list[str]
    grade: str | None = Field(..., description="`A`: two sources, or the publisher's own; `B`: one source.")


class ParentAnswer(Answer):
    """One VAE that another was merged from."""

    name: str
    weight: float | None = Field(..., description="Its share, from 0 to 1. Null if `direction` is `open`.")


class MergeAnswer(Answer):
    """What a VAE was merged from."""

    parents: list[ParentAnswer]
    residual: float = Field(..., description="Share of the weights that the parents leave unexplained.")
    direction: str = Field(
        ..., description="`certain`: made from the parents. `open`: related to them; which was made first is not known."
    )


class ReportAnswer(Answer):
    """The report on a file, as printed by `python -m vae_lab inspect --json`. Null is what could not be determined."""

    name: str
    path: str
    kind: str | None
    layout: str | None
    family: str | None
    dtype: str | None
    fingerprint: str | None
    sha256: str | None = Field(..., description="Of the whole file, if computed.")
    autov2: str | None = Field(..., description="The first 10 digits of `sha256`, as in the WebUI's `VAE hash`.")
    identity: IdentityAnswer | None
    verdict: VerdictAnswer
    merge: MergeAnswer | None
    measured: list[EvidenceAnswer]
    bytes_read: int
    seconds: float

    @classmethod
    def of(cls, name: str, record: FileRecord) -> ReportAnswer:
        return cls(name=name, **record.to_json())


class InspectAnswer(Answer):
    """One report for each name; after a cancel, for those inspected so far."""

    reports: list[ReportAnswer]

    @classmethod
    def of(cls, reports: Mapping[str, FileRecord]) -> InspectAnswer:
        return cls(reports=[ReportAnswer.of(name, report) for name, report in reports.items()])


# --- runs and choices ------------------------------------------------------------------------------------------------


class ProgressAnswer(Answer):
    """What is running now."""

    busy: bool
    done: int = Field(..., description="Steps completed.")
    total: int = Field(..., description="Steps in all; 0 while unknown.")
    what: str = Field(..., description="The next step.")
    seconds: float = Field(..., description="Since it began.")
    results: int = Field(..., description="VAEs of a comparison that are done.")
    unit: str = Field(..., description="What `done` and `total` count: `steps` or `bytes`.")

    @classmethod
    def of(cls, status: RunStatus) -> ProgressAnswer:
        return cls(**asdict(status))


class CancelAnswer(Answer):
    """Whether there was anything to cancel."""

    cancelled: bool = Field(..., description="True if a run was asked to stop after its current step.")


class ActiveAnswer(Answer):
    """What decodes the next image."""

    checkpoint: str = Field(..., description="Name of the checkpoint in use; empty without one.")
    vae: str = Field(..., description="Name of the VAE, or `Built-in`.")
    source: str = Field(..., description="Who decided: `always`, `checkpoint`, or `host`.")
    reason: str = Field(..., description="One human-readable line: which VAE, why, and what was refused.")
    mark: str = Field(..., description="Differs if anything above differs.")
    undo_id: str | None = Field(..., description="What `undo` takes to undo the last choice; null if there is none.")

    @classmethod
    def of(cls, active: ActiveVae) -> ActiveAnswer:
        decision = active.decision
        return cls(
            checkpoint=active.checkpoint, vae=decision.vae, source=decision.source, reason=decision.reason,
            mark=active.mark, undo_id=active.undo_id,
        )  # fmt: skip


class ChoiceAnswer(Answer):
    """How a choice went."""

    message: str = Field(..., description="One human-readable line: which VAE is used now, and why.")
    undo_id: str | None = Field(..., description="For `POST undo`; null if there is nothing to undo.")

    @classmethod
    def of(cls, result: ChoiceResult) -> ChoiceAnswer:
        return cls(message=result.message, undo_id=result.undo_id)


# --- the library -----------------------------------------------------------------------------------------------------


class ScanAnswer(Answer):
    """How a scan went, and the totals of all files."""

    files: int
    counts: dict[str, int] = Field(..., description="Status -> files, worst first.")
    groups: int = Field(..., description="VAEs found in more than one file.")
    copies: int = Field(..., description="VAE files made superfluous by another file.")
    freeable_bytes: int
    unknown: int = Field(..., description="Files not scanned yet.")
    complete: bool = Field(..., description="False if it was cancelled; the next scan resumes from here.")
    scanned: int
    read: int
    bytes_read: int
    seconds: float

    @classmethod
    def of(cls, summary: ScanSummary) -> ScanAnswer:
        return cls(**summary.to_json())


class RowAnswer(Answer):
    """One file of the library."""

    name: str
    path: str
    status: str
    kind: str = Field(..., description="`checkpoint`, `vae` or empty.")
    size: int = Field(..., description="In bytes.")
    family: str
    identity: str = Field(..., description="Published name of the VAE; may be empty.")
    same_as: list[str] = Field(..., description="Other files with the same VAE, the first few.")
    more_same: int
    contains: list[str] = Field(..., description="For a checkpoint: VAE files that equal its built-in VAE.")
    more_contained: int
    inside: list[str] = Field(..., description="For a VAE file: checkpoints that it is built into.")
    more_inside: int
    sure: bool = Field(..., description="All weights were compared, not only a sample.")
    merge: str
    title: str
    finding: str
    listed: str = Field(..., description="Name in the host's menus; empty if not listed there.")
    related: str = Field(..., description="Files that it is related to, if it is not certain which was made first.")
    precision: str = Field(..., description="`bf16` or `fp8` for a rounded copy of another VAE; else empty.")
    rounded_from: list[str] = Field(..., description="Files with that VAE before it was rounded, the first few.")
    rounded_to: list[str] = Field(..., description="Files with rounded copies of this VAE, the first few.")
    sha256: str = Field(..., description="Of the whole file; empty until it was computed in the background.")


class LibraryAnswer(Answer):
    """One page of the library."""

    rows: list[RowAnswer]
    total: int = Field(..., description="Rows on all pages.")
    pages: int
    page: int = Field(..., description="This page, from 0; the last one if a later one was requested.")

    @classmethod
    def of(cls, page: LibraryPage) -> LibraryAnswer:
        return cls(**page.to_json())
