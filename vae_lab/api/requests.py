"""What the routes take, and how their documentation describes errors and files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import HTTPException
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.types import Message

from vae_lab.api.http import media_type
from vae_lab.host.choices import Reach
from vae_lab.images import LONGEST_SIDE

__all__ = [
    "MAX_BODY", "ChooseRequest", "CompareRequest", "InspectRequest", "Problem", "RoundTripRequest", "UndoRequest",
    "check_names", "errors", "file_of", "limited", "require_json",
]  # fmt: skip

_JSON = "application/json"
_ERRORS = {
    401: "This server requires a login.",
    403: "A page of another site sent this.",
    404: "Not found, or no longer stored.",
    409: "The host cannot do this now; most often another task is running.",
    413: "The request is too large.",
    415: "The upload has the wrong media type.",
    422: "The request is malformed, or its content cannot be used.",
}


MAX_BODY = 2 * 2**20
"""Bytes of a request, except uploads: more than the names that it may have, and everything else."""

_MAX_NAMES = 200
_MAX_NAME_LENGTH = 1000


def check_names(names: Sequence[str]) -> None:
    """Refuse a request for more than a user could want: each unknown name, and each column of a sheet, has a cost.

    Raises:
        HTTPException: 422, with the limit.
    """
    if len(names) > _MAX_NAMES:
        raise HTTPException(422, f"{len(names):,} names; the limit is {_MAX_NAMES} per request")
    if any(len(name) > _MAX_NAME_LENGTH for name in names):
        raise HTTPException(422, f"a name of more than {_MAX_NAME_LENGTH:,} characters")


def limited(request: Request, max_bytes: int, what: str = "requests") -> Request:
    """The same request; reading more of its body than ``max_bytes`` raises HTTPException 413.

    FastAPI reads the whole body into memory before it checks anything, a login included.
    """
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > max_bytes:
            raise HTTPException(413, f"{what} are limited to {max_bytes // 2**20} MB here")
        return message

    return Request(request.scope, receive)


class Problem(BaseModel):
    """Every error."""

    detail: str = Field(..., description="One human-readable line.")


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Errors that a route may answer, for its documentation."""
    return {status: {"model": Problem, "description": _ERRORS[status]} for status in statuses}


def file_of(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """An answer that is a file of one of these media types, for its documentation."""
    schema = {"type": "string", "format": "binary"}
    return {200: {"description": "The file.", "content": {kind: {"schema": schema} for kind in kinds}}}


def require_json(request: Request) -> None:
    """FastAPI also reads a body of no declared type as JSON, and such requests reach us from any site."""
    if media_type(request) != _JSON:
        raise HTTPException(415, f"send the body as {_JSON}")


class CompareRequest(BaseModel):
    """Which latent to decode with which VAEs."""

    latents: str = Field(..., description="Id of a stored generation, as listed by `GET latents`.")
    vaes: list[str] = Field(
        default=[], description="Names, as listed by `GET vaes`. The built-in VAE is always included."
    )


class InspectRequest(BaseModel):
    """Which files to inspect."""

    names: list[str] = Field(
        ..., description="Names of VAEs and checkpoints, or `Built-in` for the VAE of the current checkpoint."
    )


class RoundTripRequest(BaseModel):
    """Which image to encode and decode with which VAEs."""

    image: str = Field(..., description="An image in base64, optionally as a `data:` URL.")
    vaes: list[str] = Field(
        default=[], description="Names, as listed by `GET vaes`. The built-in VAE is always included."
    )
    longest: int = Field(
        default=LONGEST_SIDE, description="The image is downscaled if its longer side exceeds this many pixels."
    )


class ChooseRequest(BaseModel):
    """Which VAE to use from now on."""

    reach: Reach = Field(..., description="`checkpoint`: for the current checkpoint; `always`: for every checkpoint.")
    vae: str = Field(..., description="A name as listed by `GET vaes`, `Built-in`, or `Automatic`: the host decides.")
    checkpoint: str = Field(
        default="",
        description="The choice is refused if `reach` is `checkpoint` and another checkpoint than this one is in use. "
        "Empty: whichever is in use.",
    )


class UndoRequest(BaseModel):
    """Which choice to undo."""

    undo_id: str = Field(..., description="As answered by `POST choose` or `POST undo`. Valid once.")
