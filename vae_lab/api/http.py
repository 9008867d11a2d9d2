"""Headers of requests and answers."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from starlette.requests import Request

__all__ = ["CACHED", "disposition", "media_type"]

CACHED: Mapping[str, str] = {"Cache-Control": "private, max-age=86400, immutable"}
"""For files that never change: their addresses are unique."""


def media_type(request: Request) -> str:
    """Declared type of a request's body, without parameters; "" if none is declared."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def disposition(how: str, file_name: str) -> str:
    """Value of a Content-Disposition header.

    Args:
        how: ``inline`` or ``attachment``.
        file_name: any text.
    """
    return f"{how}; filename*=UTF-8''{quote(file_name, safe='', errors='backslashreplace')}"
