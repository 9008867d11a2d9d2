"""The HTTP routes of Fix all."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from vae_lab.api.fix_models import (
    BakesAnswer,
    BakesDoneAnswer,
    BakesUndoneAnswer,
    FixesAnswer,
    FixesDoneAnswer,
    FixesUndoneAnswer,
    FixRequest,
)
from vae_lab.api.requests import errors, require_json
from vae_lab.service.bake_all import BakeAllService
from vae_lab.service.fixes import FixService

__all__ = ["add_fixes"]


def add_fixes(router: APIRouter, service: FixService, bakes: BakeAllService) -> None:
    """Add the routes."""
    only_json = [Depends(require_json)]

    @router.get("/fixes", response_model=FixesAnswer, responses=errors(409))
    def fixes() -> FixesAnswer:
        """List checkpoints whose VAE is broken or missing, and which VAE to use instead; changes nothing."""
        return FixesAnswer.of(service.plan())

    @router.post("/fixes", response_model=FixesDoneAnswer, responses=errors(404, 409, 415, 422), dependencies=only_json)
    def fix(request: FixRequest) -> FixesDoneAnswer:
        """Use the recommended VAEs for these checkpoints from now on."""
        return FixesDoneAnswer.of(service.apply(request.checkpoints))

    @router.post(
        "/fixes/undo", response_model=FixesUndoneAnswer, responses=errors(404, 409, 415), dependencies=only_json
    )
    def undo_fixes() -> FixesUndoneAnswer:
        """Put back everything that `POST fixes` has changed, in all calls since the last undo."""
        return FixesUndoneAnswer.of(service.undo())

    @router.get("/fixes/bake", response_model=BakesAnswer, responses=errors(409))
    def planned_bakes() -> BakesAnswer:
        """List the copies with a healthy VAE that could be written of the checkpoints to fix; writes nothing."""
        return BakesAnswer.of(bakes.plan())

    @router.post(
        "/fixes/bake", response_model=BakesDoneAnswer, responses=errors(404, 409, 415, 422), dependencies=only_json
    )
    def bake_all(request: FixRequest) -> BakesDoneAnswer:
        """Write a copy with the recommended VAE of each of these checkpoints, and check it; answers when all are done.

        A checkpoint that has such a copy is left out.
        """
        return BakesDoneAnswer.of(bakes.apply(request.checkpoints))

    @router.post(
        "/fixes/bake/undo", response_model=BakesUndoneAnswer, responses=errors(404, 409, 415), dependencies=only_json
    )
    def undo_bakes() -> BakesUndoneAnswer:
        """Remove every file that `POST fixes/bake` has written and that is unchanged."""
        return BakesUndoneAnswer.of(bakes.undo())
