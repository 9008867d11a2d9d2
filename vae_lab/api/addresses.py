"""Addresses of what the routes serve, relative to the page, so that they also work behind a proxy or a subpath."""

from __future__ import annotations

from urllib.parse import quote

from vae_lab.latents import Generation
from vae_lab.service.comparisons import StoredComparison
from vae_lab.service.round_trips import StoredRoundTrip

__all__ = [
    "PREFIX", "blink_url", "image_url", "latents_url", "report_url", "round_trip_url", "share_url", "sheet_url",
    "thumbnail_url",
]  # fmt: skip

PREFIX = "/vae-lab/v1"
_BASE = PREFIX.lstrip("/")


def image_url(stored: StoredComparison, number: int) -> str:
    """An image of a comparison; see :meth:`StoredComparison.png`."""
    return f"{_BASE}/images/{stored.id}/{number}.png"


def sheet_url(stored: StoredComparison) -> str:
    """The contact sheet of a comparison."""
    return f"{_BASE}/sheets/{stored.id}.png"


def share_url(stored: StoredComparison, language: str = "") -> str:
    """A comparison as one HTML file in ``language``; see :func:`vae_lab.service.share.share_html`."""
    return f"{_BASE}/shares/{stored.id}.html" + (f"?language={quote(language, safe='')}" if language else "")


def blink_url(stored: StoredComparison, kind: str) -> str:
    """A comparison as an animated image; see :func:`vae_lab.service.blink.blink`."""
    return f"{_BASE}/blinks/{stored.id}.{kind}"


def report_url(kind: str) -> str:
    """A report on all files, of one of the kinds in :data:`vae_lab.library.inventory.REPORTS`."""
    return f"{_BASE}/library.{kind}"


def latents_url(generation: Generation) -> str:
    """The latents of a generation, as a file."""
    return f"{_BASE}/latents/{quote(generation.id, safe='')}.safetensors"


def thumbnail_url(generation: Generation) -> str:
    """The thumbnail of a generation.

    It includes the time, because ids start over when the program is restarted.
    """
    return f"{_BASE}/latents/{quote(generation.id, safe='')}.png?{generation.created:.6f}"


def round_trip_url(stored: StoredRoundTrip, number: int, kind: str) -> str:
    """An image of a round trip; see :meth:`StoredRoundTrip.png`."""
    return f"{_BASE}/roundtrips/{stored.id}/{number}/{kind}.png"
