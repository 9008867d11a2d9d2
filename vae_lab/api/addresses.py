"""Addresses of what the routes serve, relative to the page, so that they also hold behind a proxy or a subpath."""

from __future__ import annotations

from urllib.parse import quote

from vae_lab.latents import Generation
from vae_lab.service.round_trips import StoredRoundTrip

__all__ = ["PREFIX", "latents_url", "round_trip_url", "thumbnail_url"]

PREFIX = "/vae-lab/v1"
_HERE = PREFIX.lstrip("/")


def latents_url(generation: Generation) -> str:
    """A generation's latents as a file."""
    return f"{_HERE}/latents/{quote(generation.id, safe='')}.safetensors"


def thumbnail_url(generation: Generation) -> str:
    """A generation's small image, by the linear map.

    With the time in it: after a restart, another generation has the same id.
    """
    return f"{_HERE}/latents/{quote(generation.id, safe='')}.png?{generation.created:.6f}"


def round_trip_url(stored: StoredRoundTrip, number: int, kind: str) -> str:
    """An image of a round trip; see :meth:`StoredRoundTrip.png`."""
    return f"{_HERE}/roundtrips/{stored.id}/{number}/{kind}.png"
