"""What the routes of Fix all take and answer."""

from __future__ import annotations

from dataclasses import asdict

from pydantic import BaseModel, Field

from vae_lab.api.models import Answer, ReportAnswer
from vae_lab.library.remedies import Remedy
from vae_lab.service.bake_all import BakeAllPlan, BakeAllResult, UndoneBakes
from vae_lab.service.fixes import FixPlan, FixResult, UndoneFixes

__all__ = [
    "BakesAnswer", "BakesDoneAnswer", "BakesUndoneAnswer", "FixRequest", "FixesAnswer", "FixesDoneAnswer",
    "FixesUndoneAnswer",
]  # fmt: skip


class FixRequest(BaseModel):
    """Which checkpoints to fix."""

    checkpoints: list[str] | None = Field(
        default=None, description="Names of checkpoints whose `action` is `use` in `GET fixes`; null for all of them."
    )


class RemedyAnswer(Answer):
    """What to do about one checkpoint whose built-in VAE is broken or missing."""

    checkpoint: str = Field(..., description="Its name.")
    status: str = Field(..., description="`broken` or `missing`.")
    title: str = Field(..., description="The worst finding in a few words.")
    finding: str = Field(..., description="The worst finding, in a sentence.")
    now: str = Field(..., description="Name of the VAE that is chosen for it, `Built-in` or `Automatic`.")
    action: str = Field(
        ..., description="`use` the recommended VAE; `keep` the one that is chosen; `none`: it cannot be fixed."
    )
    vae: str = Field(..., description="Name of the recommended VAE; empty without one.")
    reason: str = Field(..., description="Why, for a human.")

    @classmethod
    def of(cls, remedy: Remedy) -> RemedyAnswer:
        return cls(**asdict(remedy))


class ChangedAnswer(Answer):
    """A choice that was made."""

    checkpoint: str
    vae: str = Field(..., description="Name of the VAE that was chosen for it.")


class FailedAnswer(Answer):
    """A choice that stays as it is."""

    checkpoint: str
    reason: str = Field(..., description="Why it was not written, for a human.")


def _changed(changes: list[tuple[str, str]]) -> list[ChangedAnswer]:
    return [ChangedAnswer(checkpoint=checkpoint, vae=vae) for checkpoint, vae in changes]


def _failed(failures: list[tuple[str, str]]) -> list[FailedAnswer]:
    return [FailedAnswer(checkpoint=checkpoint, reason=reason) for checkpoint, reason in failures]


class FixesAnswer(Answer):
    """What would be done, and what can be undone."""

    checkpoints: list[RemedyAnswer]
    unchecked: int = Field(..., description="Number of checkpoints that no scan has checked yet.")
    undo: list[ChangedAnswer] = Field(..., description="What `POST fixes/undo` puts back.")
    remark: str = Field(..., description="What takes precedence over choices for checkpoints; empty if nothing does.")

    @classmethod
    def of(cls, plan: FixPlan) -> FixesAnswer:
        remedies = [RemedyAnswer.of(remedy) for remedy in plan.remedies]
        return cls(
            checkpoints=remedies, unchecked=plan.unchecked, undo=_changed(list(plan.changed)), remark=plan.remark
        )


class FixesDoneAnswer(Answer):
    """What was changed."""

    changed: list[ChangedAnswer]
    failed: list[FailedAnswer]

    @classmethod
    def of(cls, result: FixResult) -> FixesDoneAnswer:
        return cls(changed=_changed(list(result.changed)), failed=_failed(list(result.failed)))


class FixesUndoneAnswer(Answer):
    """What was put back."""

    restored: list[str] = Field(..., description="Names of checkpoints whose choice is as it was before.")
    refused: list[FailedAnswer]

    @classmethod
    def of(cls, undone: UndoneFixes) -> FixesUndoneAnswer:
        return cls(restored=list(undone.restored), refused=_failed(list(undone.refused)))


class PlannedBakeAnswer(Answer):
    """A copy of a checkpoint that would be written."""

    checkpoint: str = Field(..., description="Its name.")
    vae: str = Field(..., description="Name of the VAE that would be built in.")
    file: str = Field(..., description="Name of the new file, in the checkpoint's folder.")
    size: int = Field(..., description="Of the new file in bytes, about.")


class RoomAnswer(Answer):
    """Space on one disk, in bytes."""

    folder: str = Field(..., description="A folder on it.")
    needed: int
    free: int


class BakedFileAnswer(Answer):
    """A file that was written and can be removed."""

    path: str
    vae: str = Field(..., description="Name of the VAE in it.")


class CopyAnswer(Answer):
    """A checkpoint that has a copy with a healthy VAE already."""

    checkpoint: str = Field(..., description="Its name.")
    path: str = Field(..., description="The copy.")


class BakesAnswer(Answer):
    """What would be written, and what can be removed."""

    bakes: list[PlannedBakeAnswer]
    rooms: list[RoomAnswer]
    before: list[CopyAnswer]
    undo: list[BakedFileAnswer] = Field(..., description="What `POST fixes/bake/undo` removes.")

    @classmethod
    def of(cls, plan: BakeAllPlan) -> BakesAnswer:
        return cls(
            bakes=[PlannedBakeAnswer(**asdict(one)) for one in plan.bakes],
            rooms=[RoomAnswer(**asdict(room)) for room in plan.rooms],
            before=[CopyAnswer(checkpoint=checkpoint, path=path) for checkpoint, path in plan.before],
            undo=[BakedFileAnswer(path=path, vae=vae) for path, vae in plan.written],
        )


class WrittenAnswer(Answer):
    """A copy that was written, and what its checkup found."""

    checkpoint: str = Field(..., description="Name of the checkpoint that it is a copy of.")
    path: str
    report: ReportAnswer


class BakesDoneAnswer(Answer):
    """What was written."""

    written: list[WrittenAnswer]
    failed: list[FailedAnswer]
    cancelled: bool = Field(..., description="Whether checkpoints are left because the user cancelled.")

    @classmethod
    def of(cls, result: BakeAllResult) -> BakesDoneAnswer:
        written = [
            WrittenAnswer(checkpoint=name, path=str(path), report=ReportAnswer.of(path.name, record))
            for name, path, record in result.written
        ]
        return cls(written=written, failed=_failed(list(result.failed)), cancelled=result.cancelled)


class KeptAnswer(Answer):
    """A file that stays."""

    path: str
    reason: str = Field(..., description="Why, for a human.")


class BakesUndoneAnswer(Answer):
    """What was removed."""

    removed: list[str] = Field(..., description="Paths of files.")
    refused: list[KeptAnswer]

    @classmethod
    def of(cls, undone: UndoneBakes) -> BakesUndoneAnswer:
        kept = [KeptAnswer(path=path, reason=reason) for path, reason in undone.refused]
        return cls(removed=list(undone.removed), refused=kept)
