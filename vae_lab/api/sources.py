"""The HTTP routes for latents from outside and for round trips."""

from __future__ import annotations

import re

from fastapi import APIRouter, HTTPException
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from vae_lab.api.http import CACHED, disposition, media_type
from vae_lab.api.models import GenerationAnswer, RoundTripAnswer
from vae_lab.api.requests import MAX_BODY, RoundTripRequest, check_names, errors, file_of, limited
from vae_lab.api.uploads import MAX_BASE64, image_bytes
from vae_lab.comparison import png_bytes, to_pixels
from vae_lab.host.base import Host
from vae_lab.images import read_image
from vae_lab.latents import latents_file
from vae_lab.service.round_trips import IMAGE
from vae_lab.service.service import Service

__all__ = ["MAX_IMAGE_BODY", "add_sources"]

_OCTETS = "application/octet-stream"
_SIDE_LIMITS = (64, 4096)  # pixels, of the longer side of an image for a round trip
MAX_IMAGE_BODY = MAX_BASE64 + MAX_BODY
"""Bytes of a request with an image."""


def add_sources(router: APIRouter, host: Host, service: Service) -> None:
    """Add the routes."""
    body = {"content": {_OCTETS: {"schema": {"type": "string", "format": "binary"}}}, "required": True}

    @router.post(
        "/latents",
        response_model=GenerationAnswer,
        responses=errors(413, 415, 422),
        openapi_extra={"requestBody": body},
    )
    async def upload(request: Request, name: str = "uploaded.safetensors") -> GenerationAnswer:
        """Store the latents of a .safetensors file, as returned by `GET latents/{id}.safetensors`."""
        # A page of another site cannot send this type, so it cannot fill the store.
        if media_type(request) != _OCTETS:
            raise HTTPException(415, f"send the .safetensors file itself, as {_OCTETS}")
        data = await limited(request, service.sources.max_upload, "latents files").body()
        return GenerationAnswer.of(await run_in_threadpool(service.sources.add_latents, data, name[:200]))

    @router.get(
        "/latents/{generation_id}.safetensors",
        response_class=Response,
        responses={**file_of(_OCTETS), **errors(404, 422)},
    )
    def download(generation_id: str) -> Response:
        """Get the latents of a stored generation, with its generation parameters, as a .safetensors file."""
        generation = host.generations.get(generation_id)
        stem = re.sub(r"[\W_]+", "-", generation.title).strip("-")[:60] or generation.id
        headers = {"Cache-Control": "no-store", "Content-Disposition": disposition("attachment", f"{stem}.safetensors")}
        return Response(latents_file(generation), media_type=_OCTETS, headers=headers)

    @router.get(
        "/latents/{generation_id}.png", response_class=Response, responses={**file_of("image/png"), **errors(404, 422)}
    )
    def thumbnail(generation_id: str) -> Response:
        """Get an estimate of a stored generation's first image, made without a VAE, at 1/8 of its size."""
        generation = host.generations.get(generation_id)
        pixels = to_pixels(generation.family.preview(generation.latents[:1]))[0]
        return Response(png_bytes(pixels), media_type="image/png", headers=CACHED)

    @router.post("/roundtrip", response_model=RoundTripAnswer, responses=errors(404, 409, 422))
    def roundtrip(request: RoundTripRequest) -> RoundTripAnswer:
        """Encode and decode an image with the built-in VAE and others; answers when all are done."""
        max_side = min(max(request.longest, _SIDE_LIMITS[0]), _SIDE_LIMITS[1])
        check_names(request.vaes)
        return RoundTripAnswer.of(
            service.round_trips.run(lambda: read_image(image_bytes(request.image), "image"), request.vaes, max_side)
        )

    @router.get(
        "/roundtrips/{round_trip_id}/{number}/{kind}.png",
        response_class=Response,
        responses={**file_of("image/png"), **errors(404, 422)},
    )
    def image(round_trip_id: str, number: int, kind: str) -> Response:
        """Get one image of a round trip."""
        kind = IMAGE if kind == "picture" else kind  # deprecated
        name, png = service.round_trips.get(round_trip_id).png(number, kind)
        file_name = f"{name.replace('/', '_')}-{kind}.png"
        return Response(
            png, media_type="image/png", headers={**CACHED, "Content-Disposition": disposition("inline", file_name)}
        )
