"""The HTTP route that says what a merge of checkpoints would have as its VAE."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from vae_lab.api.models import Answer
from vae_lab.api.requests import check_names, errors, require_json
from vae_lab.service.merge_previews import MergePreview, MergePreviewService, Method

__all__ = ["add_merge_previews"]


class MergePreviewRequest(BaseModel):
    """What would be merged, and how."""

    checkpoints: list[str] = Field(..., description="Names of A and B; of C too for `add-difference`.")
    method: Method = Field(..., description="`weighted-sum`: A (1 - M) + B M; `add-difference`: A + (B - C) M.")
    multiplier: float = Field(..., description="M, from 0 to 1.")


class MergePreviewAnswer(Answer):
    """The VAE that the merge would have."""

    status: str = Field(..., description="As in `POST inspect`, such as `healthy` or `broken`.")
    title: str = Field(..., description="The worst fault in a few words; empty if there is none.")
    vae: str = Field(..., description="Name of the VAE to bake in instead; empty if that is not needed, or not known.")
    reason: str = Field(..., description="Why that one, for a human.")

    @classmethod
    def of(cls, preview: MergePreview) -> MergePreviewAnswer:
        faults = preview.verdict.faults
        title = faults[0].title if faults else ""
        return cls(status=preview.verdict.status, title=title, vae=preview.vae, reason=preview.reason)


def add_merge_previews(router: APIRouter, service: MergePreviewService) -> None:
    """Add the route."""

    @router.post(
        "/merge-preview", response_model=MergePreviewAnswer, responses=errors(404, 409, 415, 422),
        dependencies=[Depends(require_json)],
    )  # fmt: skip
    def merge_preview(request: MergePreviewRequest) -> MergePreviewAnswer:
        """Merge the VAEs of checkpoints in memory, and check the result; writes nothing."""
        check_names(request.checkpoints)
        return MergePreviewAnswer.of(service.preview(request.checkpoints, request.method, request.multiplier))
