"""The HTTP routes under ``/vae-lab/v1/``."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Coroutine, Mapping
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from vae_lab.api.addresses import PREFIX
from vae_lab.api.models import (
    CancelAnswer,
    CheckpointsAnswer,
    CompareAnswer,
    CompareRequest,
    InspectAnswer,
    InspectRequest,
    LatentsAnswer,
    LibraryAnswer,
    ProgressAnswer,
    ScanAnswer,
    VaesAnswer,
    errors,
    file_of,
)
from vae_lab.api.sources import add_sources, kept_json
from vae_lab.errors import HostError, UnknownChoice, VaeLabError
from vae_lab.host.base import Host, VaeEntry
from vae_lab.library.inventory import REPORTS
from vae_lab.service.service import ComparisonService, StoredComparison, service_of
from vae_lab.text import as_text

__all__ = ["PREFIX", "add_routes", "image_url", "report_url", "sheet_url"]


class _InWords(APIRoute):
    """Turns our errors, and requests of a wrong form, into ``{"detail": one line}``.

    It does so for our routes alone; an exception handler on the app would change the host's routes as well.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_in_words(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                raise HTTPException(422, _one_line(error)) from error
            except VaeLabError as error:
                raise HTTPException(_status(error), str(error)) from error

        return handle_in_words


def _one_line(error: RequestValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())


def _status(error: VaeLabError) -> int:
    if isinstance(error, UnknownChoice):
        return 404
    return 409 if isinstance(error, HostError) else 422


def add_routes(app: FastAPI, host: Host, users: Mapping[str, str] | None = None) -> None:
    """Add our routes to ``app``; routes of an earlier call on the same app are replaced.

    Where the app asks its users for a password (gradio's ``auth``), our routes ask for the same one: kept
    generations and their prompts are nobody else's business.

    Args:
        app: the host's.
        host: what is asked.
        users: name -> password, which are asked for where the app itself has no page to log in at.
    """
    app.router.routes[:] = [r for r in app.router.routes if not getattr(r, "path", "").startswith(f"{PREFIX}/")]
    login = _login_of(app) or ([Depends(_basic_login(users))] if users else [])
    app.include_router(
        _router(host, service_of(host)), dependencies=login, responses=errors(401) if login else errors()
    )
    app.openapi_schema = None  # what the app has published before us


def _login_of(app: FastAPI) -> list[Any]:
    """Gradio's own check, found by its route because both its versions have that and neither exports it."""
    endpoints = [route.endpoint for route in app.routes if isinstance(route, APIRoute) and route.path == "/login_check"]
    return [Depends(endpoint) for endpoint in endpoints[:1]]


def _basic_login(users: Mapping[str, str]) -> Callable[..., None]:
    def login(credentials: HTTPBasicCredentials = Depends(HTTPBasic())) -> None:  # noqa: B008  FastAPI's way
        expected = users.get(credentials.username)
        if expected is None or not secrets.compare_digest(credentials.password.encode(), expected.encode()):
            raise HTTPException(401, "wrong user or password", headers={"WWW-Authenticate": "Basic"})

    return login


def _router(host: Host, service: ComparisonService) -> APIRouter:
    router = APIRouter(prefix=PREFIX, route_class=_InWords, tags=["VAE Lab"])

    # Plain functions: FastAPI runs them in threads, so that a decode does not hold up the event loop.
    @router.get("/vaes", response_model=VaesAnswer)
    def vaes() -> dict[str, Any]:
        """List the external VAEs, with what is known of them."""
        host.listing(fresh=True)
        return {"vaes": [_vae(entry) for entry in host.vaes()]}

    @router.get("/latents", response_model=LatentsAnswer)
    def latents() -> dict[str, Any]:
        """List the latents that can be decoded again."""
        return {"latents": [kept_json(generation) for generation in host.generations.newest_first()]}

    _add_comparison(router, service)

    @router.get("/checkpoints", response_model=CheckpointsAnswer)
    def checkpoints() -> dict[str, Any]:
        """List the checkpoints, with what is known of the VAE in each. Nothing is looked at now."""
        return {"checkpoints": _checkpoints(host)}

    @router.post("/inspect", response_model=InspectAnswer, responses=errors(404, 409, 422))
    def inspect(request: InspectRequest) -> dict[str, Any]:
        """Look at VAEs and checkpoints, one after the other."""
        reports = service.inspect(request.names)
        return {"reports": [{"name": name, **report.to_json()} for name, report in reports.items()]}

    @router.get("/progress", response_model=ProgressAnswer)
    def progress() -> dict[str, Any]:
        """Tell how far the current run has come."""
        running = service.running
        return {"busy": running.busy, "done": running.done, "total": running.total, "what": running.what}

    @router.post("/cancel", response_model=CancelAnswer)
    def cancel() -> dict[str, Any]:
        """Ask the current run to stop after its current step."""
        return {"cancelled": service.cancel()}

    add_sources(router, host, service)
    _add_library(router, service)
    return router


def _add_comparison(router: APIRouter, service: ComparisonService) -> None:
    @router.post("/compare", response_model=CompareAnswer, responses=errors(404, 409, 422))
    def compare(request: CompareRequest) -> dict[str, Any]:
        """Decode a kept latent with the built-in VAE and others; answers when all have decoded."""
        return _comparison(service.compare(request.latents, request.vaes))

    @router.get(
        "/images/{comparison_id}/{number}.png",
        response_class=Response,
        responses={**file_of("image/png"), **errors(404, 422)},
    )
    def image(comparison_id: str, number: int) -> Response:
        """Give one image of a comparison, with the generation parameters that name its VAE."""
        stored = service.get(comparison_id)
        name, png = stored.png(number)
        stem = re.sub(r"(\.vae)?\.(safetensors|ckpt|pt)$", "", name)
        return Response(png, media_type="image/png", headers=_png_headers(f"{_title(stored)}-{stem}-{number}"))

    @router.get(
        "/sheets/{comparison_id}.png",
        response_class=Response,
        responses={**file_of("image/png"), **errors(404, 422)},
    )
    def sheet(comparison_id: str) -> Response:
        """Give all images of a comparison side by side, with names."""
        stored = service.get(comparison_id)
        return Response(stored.sheet(), media_type="image/png", headers=_png_headers(f"{_title(stored)}-VAEs"))


def _title(stored: StoredComparison) -> str:
    return stored.generation.title or stored.generation.id


def _add_library(router: APIRouter, service: ComparisonService) -> None:
    @router.post("/scan", response_model=ScanAnswer, responses=errors(409))
    def scan() -> dict[str, Any]:
        """Look at all files in the host's folders that are new or have changed."""
        return service.scan().to_json()

    @router.get("/library", response_model=LibraryAnswer, responses=errors(404, 422))
    def library(filter: str = "", status: str = "", sort: str = "worst", page: int = 0) -> dict[str, Any]:  # noqa: A002
        """List files, as scans have found them: `filter` is a part of a name; `page` counts from 0."""
        return service.library(filter, status, sort, page).to_json()

    @router.get(
        "/library.{kind}", response_class=Response, responses={**file_of(*REPORTS.values()), **errors(404, 422)}
    )
    def report(kind: str) -> Response:
        """Give a report on all files: `jsonl`, `csv` or `html`."""
        if kind not in REPORTS:
            raise UnknownChoice(f"no report of the kind {kind}; there are {', '.join(REPORTS)}")
        headers = {"Cache-Control": "no-store", "Content-Disposition": f"attachment; filename=vae-lab-library.{kind}"}
        return StreamingResponse(service.inventory().report(kind), media_type=REPORTS[kind], headers=headers)


def image_url(stored: StoredComparison, number: int) -> str:
    """Address of an image, relative to the page, so that it also holds behind a proxy or under ``--subpath``."""
    return f"{PREFIX.lstrip('/')}/images/{stored.id}/{number}.png"


def sheet_url(stored: StoredComparison) -> str:
    """Address of the contact sheet, relative to the page."""
    return f"{PREFIX.lstrip('/')}/sheets/{stored.id}.png"


def report_url(kind: str) -> str:
    """Address of a report on all files, one of :data:`vae_lab.library.inventory.REPORTS`; relative to the page."""
    return f"{PREFIX.lstrip('/')}/library.{kind}"


def _png_headers(stem: str) -> dict[str, str]:
    file_name = quote(f"{stem.replace('/', '_')}.png", safe="", errors="backslashreplace")
    return {
        "Cache-Control": "private, max-age=86400, immutable",
        "Content-Disposition": f"inline; filename*=UTF-8''{file_name}",
    }


def _checkpoints(host: Host) -> list[dict[str, Any]]:
    """All checkpoints, with what is known of the VAE in each: for badges, so nothing is looked at now."""
    current = host.current_checkpoint()
    files = host.checkpoint_files()
    known = host.known_verdicts(files)
    rows = []
    for name, path in files.items():
        verdict = known.get(name)
        worst = verdict.faults[0] if verdict and verdict.faults else None
        rows.append(
            {
                "name": name,
                "stem": as_text(path.stem),
                "current": name == current,
                "status": verdict.status if verdict else None,
                "code": worst.code if worst else None,
                "title": worst.title if worst else None,
                "text": worst.text if worst else None,
            }
        )
    return rows


def _vae(entry: VaeEntry) -> dict[str, Any]:
    family = entry.family.id if entry.family else None
    return {"name": entry.name, "label": entry.label, "family": family, "problem": entry.problem}


def _comparison(stored: StoredComparison) -> dict[str, Any]:
    numbers_of = stored.measured.of
    results = [
        {
            "name": result.name,
            "family": result.family.id if result.family else None,
            "seconds": round(result.seconds, 4),
            "error": result.error,
            "finite": result.finite,
            "in_strips": result.in_strips,
            "images": ["/" + image_url(stored, number) for number in numbers],
            "measures": numbers_of[result.name].to_json() if result.name in numbers_of else None,
        }
        for result, numbers in zip(stored.comparison, stored.numbers(), strict=True)
    ]
    return {
        "id": stored.id,
        "family": stored.comparison.family.id,
        "cancelled": stored.comparison.cancelled,
        "reference": stored.measured.reference,
        "sheet": "/" + sheet_url(stored),
        "results": results,
    }
