"""What the routes of Extract all and Deduplicate take and answer."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, Field

from vae_lab.api.models import Answer, ReportAnswer
from vae_lab.library.extraction import Extraction
from vae_lab.service.dedupe import DedupePlan, DedupeResult, UndoneLinks
from vae_lab.service.extracts import Extracted, ExtractPlan, ExtractResult

__all__ = [
    "DedupeAnswer", "DedupeRequest", "DedupedAnswer", "ExtractAllRequest", "ExtractedAnswer", "ExtractionsAnswer",
    "LinksUndoneAnswer",
]  # fmt: skip


class ExtractAllRequest(BaseModel):
    """From which checkpoints to extract."""

    checkpoints: list[str] | None = Field(
        default=None, description="Names of checkpoints without `skipped` in `GET extract`; null for all of them."
    )
    broken: bool = Field(default=False, description="Also extract broken VAEs.")


class DedupeRequest(BaseModel):
    """Which files to replace by links."""

    files: list[str] | None = Field(
        default=None, description="Names of files listed as `copies` by `GET dedupe`; null for all of them."
    )


class ReasonAnswer(Answer):
    """A file that stays as it is."""

    name: str
    reason: str = Field(..., description="Why, for a human.")


def _reasons(reasons: Iterable[tuple[str, str]]) -> list[ReasonAnswer]:
    return [ReasonAnswer(name=name, reason=reason) for name, reason in reasons]


class ExtractionAnswer(Answer):
    """A distinct built-in VAE."""

    checkpoint: str = Field(..., description="Name of the checkpoint to take it from.")
    also: list[str] = Field(..., description="Names of other checkpoints with the same VAE.")
    status: str = Field(..., description="Status of its checkup.")
    title: str = Field(..., description="The worst finding in a few words; empty without one.")
    dtype: str = Field(..., description="Stored precision.")
    file: str = Field(..., description="Name of the new file; empty if it is not extracted.")
    size: int = Field(..., description="Size of the new file in bytes, about; 0 if it is not extracted.")
    skipped: str = Field(..., description="Why it is not extracted, for a human; empty if it is.")

    @classmethod
    def of(cls, one: Extraction) -> ExtractionAnswer:
        return cls(
            checkpoint=one.checkpoint, also=list(one.also), status=one.status, title=one.title, dtype=one.dtype,
            file=one.file, size=one.size, skipped=one.skipped,
        )  # fmt: skip


class ExtractionsAnswer(Answer):
    """What would be done."""

    vaes: list[ExtractionAnswer]
    unchecked: int = Field(..., description="Number of checkpoints that no scan has checked yet.")
    unknown: int = Field(..., description="Number of VAE files that no scan has read yet; `POST extract` reads them.")
    needed: int = Field(..., description="Size of all new files in bytes, about.")
    free: int = Field(..., description="Free bytes on that disk.")

    @classmethod
    def of(cls, plan: ExtractPlan) -> ExtractionsAnswer:
        return cls(
            vaes=list(map(ExtractionAnswer.of, plan.extractions)), unchecked=plan.unchecked, unknown=plan.unknown,
            needed=plan.needed, free=plan.free,
        )  # fmt: skip


class NewFileAnswer(Answer):
    """A new file, and what its checkup found."""

    checkpoint: str = Field(..., description="Name of the checkpoint whose VAE it is.")
    file: str = Field(..., description="Its name.")
    report: ReportAnswer

    @classmethod
    def of(cls, one: Extracted) -> NewFileAnswer:
        return cls(checkpoint=one.checkpoint, file=one.path.name, report=ReportAnswer.of(one.path.name, one.record))


class ExtractedAnswer(Answer):
    """What was written."""

    written: list[NewFileAnswer]
    failed: list[ReasonAnswer] = Field(..., description="Checkpoints whose VAE was not written.")
    cancelled: bool

    @classmethod
    def of(cls, result: ExtractResult) -> ExtractedAnswer:
        written = list(map(NewFileAnswer.of, result.written))
        return cls(written=written, failed=_reasons(result.failed), cancelled=result.cancelled)


class CopyAnswer(Answer):
    """A file that can become a link, or is one."""

    name: str
    source: str = Field(..., description="Name of the file that it links to.")
    size: int = Field(..., description="Bytes of either.")


class LinkAnswer(Answer):
    """A file that was replaced by a link."""

    path: str
    source: str = Field(..., description="Path of the file that it links to.")


class DedupeAnswer(Answer):
    """What would be done, and what can be undone."""

    copies: list[CopyAnswer] = Field(..., description="Files that can become links.")
    freed: int = Field(..., description="Bytes that the links would free.")
    skipped: list[ReasonAnswer] = Field(..., description="Files with a copy that stay as they are.")
    others: list[list[str]] = Field(..., description="Names of files with the same weights and other bytes; they stay.")
    unhashed: int = Field(..., description="Number of files whose hash is not known yet.")
    unscanned: int = Field(..., description="Number of VAE files that no scan has read yet.")
    undo: list[LinkAnswer] = Field(..., description="What `POST dedupe/undo` makes independent files again.")

    @classmethod
    def of(cls, plan: DedupePlan) -> DedupeAnswer:
        found = plan.identical
        copies = [CopyAnswer(name=one.name, source=one.source, size=one.replacement.size) for one in found.copies]
        return cls(
            copies=copies, freed=found.freed, skipped=_reasons(found.skipped), others=list(map(list, plan.others)),
            unhashed=found.unhashed, unscanned=plan.unscanned,
            undo=[LinkAnswer(path=path, source=source) for path, source in plan.replaced],
        )  # fmt: skip


class ReplacedAnswer(Answer):
    """A file that became a link."""

    name: str
    source: str = Field(..., description="Name of the file that it links to.")


class DedupedAnswer(Answer):
    """What was done."""

    replaced: list[ReplacedAnswer]
    reflinks: int = Field(..., description="Number of these that are reflinks, and not hard links.")
    freed: int = Field(..., description="Bytes.")
    skipped: list[ReasonAnswer]
    cancelled: bool

    @classmethod
    def of(cls, result: DedupeResult) -> DedupedAnswer:
        replaced = [ReplacedAnswer(name=name, source=source) for name, source in result.replaced]
        return cls(
            replaced=replaced, reflinks=result.reflinks, freed=result.freed, skipped=_reasons(result.skipped),
            cancelled=result.cancelled,
        )  # fmt: skip


class LinksUndoneAnswer(Answer):
    """What was undone."""

    restored: list[str] = Field(..., description="Paths of files that are independent again.")
    refused: list[ReasonAnswer] = Field(..., description="Paths of files that stay as they are.")
    cancelled: bool

    @classmethod
    def of(cls, undone: UndoneLinks) -> LinksUndoneAnswer:
        return cls(restored=list(undone.restored), refused=_reasons(undone.refused), cancelled=undone.cancelled)
