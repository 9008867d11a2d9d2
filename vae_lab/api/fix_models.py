"""What the routes of Fix all take and answer."""

from __future__ import annotations

from dataclasses import asdict

from pydantic import BaseModel, Field

from vae_lab.api.models import Answer
from vae_lab.library.remedies import Remedy
from vae_lab.service.fixes import FixPlan, FixResult, UndoneFixes

__all__ = ["FixRequest", "FixesAnswer", "FixesDoneAnswer", "FixesUndoneAnswer"]


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
