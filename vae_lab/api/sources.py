"""The HTTP routes for latents from outside and for round trips."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, HTTPException
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from vae_lab.api.addresses import round_trip_url
from vae_lab.api.models import GenerationAnswer, RoundTripAnswer, RoundTripRequest, errors, file_of
from vae_lab.comparison import RoundTripped, png_bytes, to_pixels
from vae_lab.errors import MalformedFile
from vae_lab.host.base import Host
from vae_lab.images import LoadedImage, read_image
from vae_lab.latents import Generation, latents_file
from vae_lab.service.round_trips import ORIGINAL, StoredRoundTrip
from vae_lab.service.service import ComparisonService

__all__ = ["add_sources", "kept_json"]

_OCTETS = "application/octet-stream"
_LONGEST = (64, 4096)
_MOST_LETTERS = 100_000_000  # of an image in base64; vae_lab.images takes fewer bytes


def add_sources(router: APIRouter, host: Host, service: ComparisonService) -> None:
    """Add the routes."""
    body = {"content": {_OCTETS: {"schema": {"type": "string", "format": "binary"}}}, "required": True}

    @router.post(
        "/latents",
        response_model=GenerationAnswer,
        responses=errors(413, 415, 422),
        openapi_extra={"requestBody": body},
    )
    async def upload(request: Request, name: str = "uploaded.safetensors") -> dict[str, Any]:
        """Keep the latents of a .safetensors file, as `GET latents/{id}.safetensors` gives it."""
        # No form of another site can send this type, so none can fill the store.
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _OCTETS:
            raise HTTPException(415, f"send the .safetensors file itself, as {_OCTETS}")
        data = await _body(request, service.most_upload)
        return kept_json(await run_in_threadpool(service.add_latents, data, name[:200]))

    @router.get(
        "/latents/{generation_id}.safetensors",
        response_class=Response,
        responses={**file_of(_OCTETS), **errors(404, 422)},
    )
    def download(generation_id: str) -> Response:
        """Give a kept generation's latents, with its generation parameters, as a .safetensors file."""
        generation = host.generations.get(generation_id)
        stem = re.sub(r"[\W_]+", "-", generation.title).strip("-")[:60] or generation.id
        headers = {"Cache-Control": "no-store", "Content-Disposition": _named("attachment", f"{stem}.safetensors")}
        return Response(latents_file(generation), media_type=_OCTETS, headers=headers)

    @router.get(
        "/latents/{generation_id}.png", response_class=Response, responses={**file_of("image/png"), **errors(404, 422)}
    )
    def thumbnail(generation_id: str) -> Response:
        """Give an estimate of a kept generation's first image, without any VAE, at 1/8 of its size."""
        generation = host.generations.get(generation_id)
        pixels = to_pixels(generation.family.preview(generation.latents[:1]))[0]
        return Response(png_bytes(pixels), media_type="image/png", headers=_KEEP)

    @router.post("/roundtrip", response_model=RoundTripAnswer, responses=errors(404, 409, 422))
    def roundtrip(request: RoundTripRequest) -> dict[str, Any]:
        """Encode and decode an image with the built-in VAE and others; answers when all are done."""
        longest = min(max(request.longest, _LONGEST[0]), _LONGEST[1])
        return _round_trip(service.round_trip(_image(request.image), request.vaes, longest))

    @router.get(
        "/roundtrips/{round_trip_id}/{number}/{kind}.png",
        response_class=Response,
        responses={**file_of("image/png"), **errors(404, 422)},
    )
    def image(round_trip_id: str, number: int, kind: str) -> Response:
        """Give one image of a round trip."""
        name, png = service.get_round_trip(round_trip_id).png(number, kind)
        file_name = f"{name.replace('/', '_')}-{kind}.png"
        return Response(
            png, media_type="image/png", headers={**_KEEP, "Content-Disposition": _named("inline", file_name)}
        )


_KEEP = {"Cache-Control": "private, max-age=86400, immutable"}


def _named(how: str, file_name: str) -> str:
    return f"{how}; filename*=UTF-8''{quote(file_name, safe='', errors='backslashreplace')}"


async def _body(request: Request, most: int) -> bytes:
    """What was sent, and no more of it than may be."""
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > most:
            raise HTTPException(413, f"a file of latents may have {most // 2**20} MB here")
        pieces.append(piece)
    return b"".join(pieces)


def _image(text: str) -> LoadedImage:
    if len(text) > _MOST_LETTERS:
        raise MalformedFile("image", "the image is too large")
    try:
        data = base64.b64decode(text.partition("base64,")[2] or text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedFile("image", "this is not base64") from error
    return read_image(data, "image")


def kept_json(generation: Generation) -> dict[str, Any]:
    """A kept generation, as ``GET latents`` lists it."""
    batch, _, height, width = generation.latents.shape
    return {
        "id": generation.id,
        "label": generation.label,
        "family": generation.family.id,
        "size": [width * 8, height * 8],
        "images": batch,
        "infotexts": list(generation.infotexts),
    }


def _round_trip(stored: StoredRoundTrip) -> dict[str, Any]:
    height, width = stored.trip.original.shape[:2]
    return {
        "id": stored.id,
        "size": [width, height],
        "remarks": list(stored.remarks),
        "original": "/" + round_trip_url(stored, 0, ORIGINAL),
        "results": [_result(stored, number, result) for number, result in enumerate(stored.trip)],
        "cancelled": stored.trip.cancelled,
    }


def _result(stored: StoredRoundTrip, number: int, result: RoundTripped) -> dict[str, Any]:
    return {
        "name": result.name,
        "family": result.family.id if result.family else None,
        **(result.loss.to_json() if result.loss else {"psnr": None, "ssim": None, "delta_e": None}),
        "encode_seconds": round(result.encode_seconds, 4),
        "decode_seconds": round(result.decode_seconds, 4),
        "finite": result.finite,
        "in_strips": result.in_strips,
        "error": result.error,
        "images": {kind: "/" + round_trip_url(stored, number, kind) for kind in stored.kinds(result)},
    }
