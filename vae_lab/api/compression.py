"""Compression of the stand-alone app's page, whose menus repeat the names of all files. A WebUI does that itself."""

from __future__ import annotations

from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from vae_lab.api.addresses import PREFIX

__all__ = ["Compression"]

# Never what is streamed: it would be held back until there is enough of it. Images are compressed already.
_PATHS = frozenset(
    ("/", "/config", "/run/predict", "/run/predict/", f"{PREFIX}/checkpoints", f"{PREFIX}/library", f"{PREFIX}/vaes")
)
_MIN_BYTES = 1000


class Compression:
    """ASGI middleware: compresses the page, and long lists."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._compressing = GZipMiddleware(app, minimum_size=_MIN_BYTES, compresslevel=5)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._compressing if scope["type"] == "http" and scope["path"] in _PATHS else self._app
        await app(scope, receive, send)
