"""The HTTP routes under ``/vae-lab/v1/``."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from vae_lab.api.addresses import PREFIX, blink_url, image_url, report_url, share_url, sheet_url
from vae_lab.api.bakes import add_bakes
from vae_lab.api.downloads import add_downloads
from vae_lab.api.files import add_files
from vae_lab.api.fixes import add_fixes
from vae_lab.api.http import CACHED, disposition
from vae_lab.api.login import has_page_login, login_of
from vae_lab.api.merge_previews import add_merge_previews
from vae_lab.api.models import (
    ActiveAnswer,
    CancelAnswer,
    CheckpointsAnswer,
    ChoiceAnswer,
    CompareAnswer,
    HostAnswer,
    InspectAnswer,
    LatentsAnswer,
    LibraryAnswer,
    ProgressAnswer,
    ScanAnswer,
    VaesAnswer,
)
from vae_lab.api.origin import AllowedOrigins, refuse_other_sites
from vae_lab.api.requests import (
    MAX_BODY,
    ChooseRequest,
    CompareRequest,
    InspectRequest,
    UndoRequest,
    check_names,
    errors,
    file_of,
    limited,
    require_json,
)
from vae_lab.api.sources import MAX_IMAGE_BODY, add_sources
from vae_lab.errors import HostError, UnknownChoice, VaeLabError
from vae_lab.host.base import Host
from vae_lab.library.inventory import REPORTS
from vae_lab.messages import use_language
from vae_lab.service.blink import BLINKS, blink
from vae_lab.service.choices import ChoiceService
from vae_lab.service.comparisons import ComparisonService, StoredComparison
from vae_lab.service.service import Service, service_of
from vae_lab.service.share import share_html
from vae_lab.text import as_text

__all__ = ["PREFIX", "add_routes", "blink_url", "image_url", "report_url", "share_url", "sheet_url"]

_NAMED = Query([])  # a parameter that may be repeated; FastAPI before 0.95 has no Annotated

_MAX_BODIES = {f"{PREFIX}/roundtrip": MAX_IMAGE_BODY, f"{PREFIX}/latents": 0}  # 0: has its own limit


class _OurRoute(APIRoute):
    """Limits the body, and turns our errors, and malformed requests, into ``{"detail": one line}``.

    Only for our routes: an exception handler on the app would change the host's routes as well.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        if options.get("methods") not in (["GET"], {"GET"}):
            options["responses"] = {**errors(403, 413), **(options.get("responses") or {})}
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle, max_bytes = super().get_route_handler(), _MAX_BODIES.get(self.path, MAX_BODY)

        async def handle_errors(request: Request) -> Response:
            try:
                return await handle(limited(request, max_bytes) if max_bytes else request)
            except RequestValidationError as error:
                raise HTTPException(422, as_text(_one_line(error))) from error
            except StarletteHTTPException as error:
                if error.status_code != 400:
                    raise
                raise HTTPException(422, "body: not JSON in UTF-8") from error  # FastAPI's, of a body it cannot parse
            except VaeLabError as error:
                raise HTTPException(_status(error), as_text(str(error))) from error

        return handle_errors


def _one_line(error: RequestValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())


def _status(error: VaeLabError) -> int:
    if isinstance(error, UnknownChoice):
        return 404
    return 409 if isinstance(error, HostError) else 422


def add_routes(
    app: FastAPI,
    host: Host,
    users: Mapping[str, str] | None = None,
    origins: AllowedOrigins = AllowedOrigins(),  # noqa: B008  frozen
) -> None:
    """Add our routes to ``app``; routes of an earlier call on the same app are replaced.

    Where the host requires a login, our routes require the same one, because stored generations and their prompts are
    private: that of its page (gradio's ``auth``) or of its API; where it has both, either is enough. What is not a GET
    is refused to pages of other sites.

    Args:
        app: the host's.
        host: what the routes work on.
        users: name -> password, of the host's API.
        origins: other sites that the host lets in.
    """
    app.router.routes[:] = [r for r in app.router.routes if not getattr(r, "path", "").startswith(f"{PREFIX}/")]
    asks = bool(users) or has_page_login(app)
    first = [Depends(refuse_other_sites(origins)), Depends(login_of(app, users or {}))]
    router = APIRouter(
        prefix=PREFIX, route_class=_OurRoute, tags=["VAE Lab"], responses=errors(401) if asks else errors(),
        dependencies=[*app.router.dependencies, *first],
    )  # fmt: skip
    _add_all(router, host, service_of(host))
    app.router.routes.extend(router.routes)  # include_router would make each of them a second time
    app.openapi_schema = None  # built before our routes were added


def _add_all(router: APIRouter, host: Host, service: Service) -> None:
    @router.get("/host", response_model=HostAnswer)
    def about_host() -> HostAnswer:
        """Say what VAE Lab runs in, and what it found there."""
        return HostAnswer.of(host)

    # Plain functions: FastAPI runs them in threads, so that a decode does not block the event loop.
    @router.get("/vaes", response_model=VaesAnswer)
    def vaes() -> VaesAnswer:
        """List the external VAEs, with what is known about them."""
        host.listing(fresh=True)
        return VaesAnswer.of(host.vaes())

    @router.get("/latents", response_model=LatentsAnswer)
    def latents() -> LatentsAnswer:
        """List the latents that can be decoded again."""
        return LatentsAnswer.of(host.generations.newest_first())

    _add_comparisons(router, service.comparisons)

    @router.get("/checkpoints", response_model=CheckpointsAnswer, responses=errors(422))
    def checkpoints(fresh: bool = True) -> CheckpointsAnswer:
        """List the checkpoints, with what is known about the VAE in each. `fresh=false`: as listed last."""
        if fresh:
            host.listing(fresh=True)
        files = host.checkpoint_files()
        return CheckpointsAnswer.of(files, host.known_verdicts(files), host.current_checkpoint())

    @router.post("/inspect", response_model=InspectAnswer, responses=errors(404, 409, 422))
    def inspect(request: InspectRequest) -> InspectAnswer:
        """Inspect VAEs and checkpoints, one by one."""
        check_names(request.names)
        return InspectAnswer.of(service.checkups.inspect(request.names))

    @router.get("/progress", response_model=ProgressAnswer)
    def progress() -> ProgressAnswer:
        """Report how far the current run is."""
        return ProgressAnswer.of(service.runs.status)

    @router.post("/cancel", response_model=CancelAnswer)
    def cancel() -> CancelAnswer:
        """Ask the current run to stop after its current step; if there is none, the hashing of files."""
        return CancelAnswer(cancelled=service.cancel())

    _add_choices(router, service.choices)
    add_sources(router, host, service)
    _add_library(router, service)
    add_fixes(router, service.fixes, service.bake_all)
    add_bakes(router, service.bakes)
    add_downloads(router, service.downloads)
    add_files(router, service)
    add_merge_previews(router, service.merge_previews)


def _add_choices(router: APIRouter, service: ChoiceService) -> None:
    # A page of another site can send neither this media type nor anything that passes for it.
    only_json = [Depends(require_json)]

    @router.get("/active", response_model=ActiveAnswer, responses=errors(404, 409, 422))
    def active() -> ActiveAnswer:
        """Say which VAE decodes the next image, and why."""
        return ActiveAnswer.of(service.active())

    @router.post("/choose", response_model=ChoiceAnswer, responses=errors(404, 409, 415, 422), dependencies=only_json)
    def choose(request: ChooseRequest) -> ChoiceAnswer:
        """Use a VAE from now on, for the current checkpoint or for every checkpoint."""
        return ChoiceAnswer.of(service.choose(request.reach, request.vae, request.checkpoint))

    @router.post("/undo", response_model=ChoiceAnswer, responses=errors(404, 409, 415, 422), dependencies=only_json)
    def undo(request: UndoRequest) -> ChoiceAnswer:
        """Undo a choice. This can be undone in turn."""
        return ChoiceAnswer.of(service.undo(request.undo_id))


def _add_comparisons(router: APIRouter, service: ComparisonService) -> None:
    @router.post("/compare", response_model=CompareAnswer, responses=errors(404, 409, 422))
    def compare(request: CompareRequest) -> CompareAnswer:
        """Decode a stored latent with the built-in VAE and others; answers when all are done."""
        check_names(request.vaes)
        return CompareAnswer.of(service.compare(request.latents, request.vaes))

    image_answers = {**file_of("image/png"), **errors(404, 422)}

    @router.get("/images/{comparison_id}/{number}.png", response_class=Response, responses=image_answers)
    def image(comparison_id: str, number: int) -> Response:
        """Get one image of a comparison, with generation parameters that name its VAE."""
        stored = service.get(comparison_id)
        name, png = stored.png(number)
        stem = re.sub(r"(\.vae)?\.(safetensors|sft|ckpt|pt|pth|bin)$", "", name)
        return Response(png, media_type="image/png", headers=_png_headers(f"{_title(stored)}-{stem}-{number}"))

    @router.get(
        "/pictures/{comparison_id}/{number}.png", response_class=Response, responses=image_answers, deprecated=True
    )
    def picture(comparison_id: str, number: int) -> Response:
        """Get one image of a comparison. Deprecated; use `images/`."""
        return image(comparison_id, number)

    @router.get("/sheets/{comparison_id}.png", response_class=Response, responses=image_answers)
    def sheet(comparison_id: str) -> Response:
        """Get all images of a comparison side by side, with names."""
        stored = service.get(comparison_id)
        return Response(stored.sheet(), media_type="image/png", headers=_png_headers(f"{_title(stored)}-VAEs"))

    @router.get(
        "/shares/{comparison_id}.html", response_class=Response, responses={**file_of("text/html"), **errors(404, 422)}
    )
    def share(
        comparison_id: str,
        language: str = Query("", max_length=20, description="Such as `zh_CN`; English if there is no translation."),
    ) -> Response:
        """Get a comparison as one HTML file, with its images, the light table and the numbers."""
        stored = service.get(comparison_id)
        # An attachment: a page that runs scripts does not belong into the host's origin.
        name = disposition("attachment", f"{_title(stored)}-VAEs.html".replace("/", "_"))
        with use_language(language):
            html = share_html(stored)
        return Response(html, media_type="text/html", headers={**CACHED, "Content-Disposition": name})

    @router.get(
        "/blinks/{comparison_id}.{kind}",
        response_class=Response,
        responses={**file_of(*BLINKS.values()), **errors(404, 422)},
    )
    def animation(
        comparison_id: str, kind: str, vae: list[str] = _NAMED, image: int = 0, rate: float = 1.0
    ) -> Response:
        """Get an animated image, `webp` or `gif`, that shows one VAE after the other, with their names.

        `vae`, repeated, names those to show; by default all of the comparison. `image` counts the images of a batch
        from 0; `rate` is in changes per second, 0.5 to 4.
        """
        if kind not in BLINKS:
            raise UnknownChoice(f"no animation of the kind {kind}; valid are {', '.join(BLINKS)}")
        check_names(vae)
        stored = service.get(comparison_id)
        animated = blink(stored, kind, vaes=vae, image=image, rate=rate)
        name = disposition("inline", f"{_title(stored)}-VAEs.{kind}".replace("/", "_"))
        return Response(animated, media_type=BLINKS[kind], headers={**CACHED, "Content-Disposition": name})


def _title(stored: StoredComparison) -> str:
    return stored.generation.title or stored.generation.id


def _png_headers(stem: str) -> dict[str, str]:
    return {**CACHED, "Content-Disposition": disposition("inline", f"{stem.replace('/', '_')}.png")}


def _add_library(router: APIRouter, service: Service) -> None:
    scans = service.scans

    @router.post("/scan", response_model=ScanAnswer, responses=errors(409))
    def scan() -> ScanAnswer:
        """Scan all files in the host's folders that are new or have changed, then hash them in the background."""
        return ScanAnswer.of(service.scan())

    @router.get("/hashes", response_model=ProgressAnswer)
    def hashes() -> ProgressAnswer:
        """Report how far the hashes of files are, which are computed in the background after a scan.

        If nothing is busy, `done` counts all files that were hashed.
        """
        return ProgressAnswer.of(service.hashes.status)

    @router.get("/library", response_model=LibraryAnswer, responses=errors(404, 422))
    def library(filter: str = "", status: str = "", sort: str = "worst", page: int = 0) -> LibraryAnswer:  # noqa: A002
        """List files, as found by scans: `filter` is a part of a name; `page` counts from 0."""
        return LibraryAnswer.of(scans.page(filter, status, sort, page))

    @router.get(
        "/library.{kind}", response_class=Response, responses={**file_of(*REPORTS.values()), **errors(404, 422)}
    )
    def report(kind: str) -> Response:
        """Get a report on all files: `jsonl`, `csv` or `html`."""
        if kind not in REPORTS:
            raise UnknownChoice(f"no report of the kind {kind}; valid are {', '.join(REPORTS)}")
        headers = {"Cache-Control": "no-store", "Content-Disposition": f"attachment; filename=vae-lab-library.{kind}"}
        return StreamingResponse(scans.inventory().report(kind), media_type=REPORTS[kind], headers=headers)
