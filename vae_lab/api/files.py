"""The HTTP routes of Extract all and Deduplicate."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from vae_lab.api.file_models import (
    DedupeAnswer,
    DedupedAnswer,
    DedupeRequest,
    ExtractAllRequest,
    ExtractedAnswer,
    ExtractionsAnswer,
    LinksUndoneAnswer,
)
from vae_lab.api.requests import errors, require_json
from vae_lab.service.service import Service

__all__ = ["add_files"]


def add_files(router: APIRouter, service: Service) -> None:
    """Add the routes."""
    only_json = [Depends(require_json)]
    extracts, dedupe = service.extracts, service.dedupe

    @router.get("/extract", response_model=ExtractionsAnswer, responses=errors(409, 422))
    def extractions(broken: bool = False) -> ExtractionsAnswer:
        """List the distinct VAEs in all checkpoints, and which of them would be extracted; writes nothing."""
        return ExtractionsAnswer.of(extracts.plan(broken=broken))

    @router.post(
        "/extract", response_model=ExtractedAnswer, responses=errors(404, 409, 415, 422), dependencies=only_json
    )
    def extract_all(request: ExtractAllRequest) -> ExtractedAnswer:
        """Write these VAEs to files of their own, and check them; answers when that is done."""
        return ExtractedAnswer.of(extracts.apply(request.checkpoints, broken=request.broken))

    @router.get("/dedupe", response_model=DedupeAnswer, responses=errors(409))
    def identical() -> DedupeAnswer:
        """List VAE files that are the same byte for byte, and what can be undone; changes nothing."""
        return DedupeAnswer.of(dedupe.plan())

    @router.post("/dedupe", response_model=DedupedAnswer, responses=errors(404, 409, 415, 422), dependencies=only_json)
    def replace_by_links(request: DedupeRequest) -> DedupedAnswer:
        """Compare these files whole, and replace them by links to one; answers when that is done."""
        return DedupedAnswer.of(dedupe.apply(request.files))

    @router.post(
        "/dedupe/undo", response_model=LinksUndoneAnswer, responses=errors(404, 409, 415), dependencies=only_json
    )
    def undo_links() -> LinksUndoneAnswer:
        """Make every file that `POST dedupe` has replaced independent again, in all calls since the last undo."""
        return LinksUndoneAnswer.of(dedupe.undo())
