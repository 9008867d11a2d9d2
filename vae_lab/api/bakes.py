"""The HTTP routes of Bake."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from vae_lab.api.models import Answer, ReportAnswer
from vae_lab.api.requests import errors, require_json
from vae_lab.service.bakes import Baked, BakePlan, BakeService

__all__ = ["add_bakes"]


class BakeRequest(BaseModel):
    """Which VAE to build into a copy of which checkpoint."""

    checkpoint: str = Field(..., description="Name of the checkpoint; its file is not changed.")
    vae: str = Field(..., description="Name of the VAE, as listed by `GET vaes`.")
    file: str = Field(
        default="", description="Name of the new file, in the checkpoint's folder; empty for the one in `GET bake`."
    )


class BakePlanAnswer(Answer):
    """What would be done."""

    checkpoint: str
    vaes: list[str] = Field(..., description="Names of the VAEs that may fit, the recommended one first.")
    vae: str = Field(..., description="The one to build in; empty without any.")
    reason: str = Field(..., description="Why it is recommended, for a human; empty if it is not.")
    file: str = Field(..., description="Proposed name of the new file.")
    needed: int = Field(..., description="Size of the new file in bytes, about.")
    free: int = Field(..., description="Free bytes on that disk.")

    @classmethod
    def of(cls, plan: BakePlan) -> BakePlanAnswer:
        return cls(
            checkpoint=plan.checkpoint, vaes=list(plan.vaes), vae=plan.vae, reason=plan.reason, file=plan.file,
            needed=plan.needed, free=plan.free,
        )  # fmt: skip


class BakedAnswer(Answer):
    """The new file, and what its checkup found."""

    file: str = Field(..., description="Its name.")
    checkpoint: str = Field(..., description="Its name in the host's list of checkpoints; empty if it is not listed.")
    report: ReportAnswer

    @classmethod
    def of(cls, baked: Baked) -> BakedAnswer:
        report = ReportAnswer.of(baked.name or baked.path.name, baked.record)
        return cls(file=baked.path.name, checkpoint=baked.name, report=report)


def add_bakes(router: APIRouter, service: BakeService) -> None:
    """Add the routes."""
    only_json = [Depends(require_json)]

    @router.get("/bake", response_model=BakePlanAnswer, responses=errors(404, 409, 422))
    def plan(checkpoint: str, vae: str = "") -> BakePlanAnswer:
        """Say which VAEs fit a checkpoint, and what a copy with one of them would be; writes nothing."""
        return BakePlanAnswer.of(service.plan(checkpoint, vae))

    @router.post("/bake", response_model=BakedAnswer, responses=errors(404, 409, 415, 422), dependencies=only_json)
    def bake(request: BakeRequest) -> BakedAnswer:
        """Write a copy of a checkpoint with another VAE built in, and check it; answers when that is done."""
        return BakedAnswer.of(service.bake(request.checkpoint, request.vae, request.file))
