"""Who may use the stand-alone app: one middleware in front of gradio's routes and ours.

Starlette's TrustedHostMiddleware checks the host only, knows no IPv6 address, and cannot ask for a token.
"""

from __future__ import annotations

import re
import secrets
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vae_lab.api.addresses import PREFIX
from vae_lab.api.origin import FORWARDED, OTHER_SITE, is_same_origin
from vae_lab.api.uploads import is_upload, make_room

__all__ = ["Access"]

# What the page asks of gradio 3 and 4. Everything else of gradio's is closed: a proxy, logins, files, a dashboard.
_OPEN = frozenset(
    (
        *("/", "/app_id", "/config", "/favicon.ico", "/info", "/openapi.json", "/robots.txt", "/startup-events"),
        *("/api/predict", "/api/predict/", "/run/predict", "/run/predict/", "/queue/join", "/queue/data"),
        *("/queue/status", "/cancel", "/reset", "/reset/", "/theme.css", "/upload", "/upload_progress"),
    )
)
_OPEN_BELOW = ("/vae-lab/", "/assets/", "/static/", "/heartbeat/")
_FILE = "/file="

# Gradio needs inline scripts, and evaluates those of events.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'self'"
)
_HEADERS = {"Cross-Origin-Resource-Policy": "same-origin", "Referrer-Policy": "no-referrer"}
# In gradio's page: fonts, and a script for pages that embed it. The policy would stop them, with errors in the console.
_ELSEWHERE = re.compile(rb'<link\b[^>]*\bhref="https?://[^>]*>|<script\b[^>]*\bsrc="https?://[^>]*>\s*</script>')

_WRONG_NAME = "this page is served to this machine only: open it as localhost"
_NO_TOKEN = "open the address that VAE Lab printed when it started: it ends with ?token="  # noqa: S105
_CLOSED = "not found"
_MAX_BODY = 320 * 2**20  # bytes: the largest file of latents that is stored, with some room
_TOO_LARGE = f"requests are limited to {_MAX_BODY // 2**20} MB here"


class Access:
    """ASGI middleware: refuses other machines without the token, other sites, and what our page does not need.

    Args:
        app: the app behind it.
        token: what other machines must know; "" if only this machine may use the page.
        cookie: name of the cookie that remembers the token; browsers share cookies among ports.
    """

    def __init__(self, app: ASGIApp, *, token: str = "", cookie: str = "vae_lab") -> None:
        self._app = app
        self._token = token
        self._cookie = cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        asked = HTTPConnection(scope)
        refused = self._refused(asked)
        if refused is None:
            if scope["type"] == "websocket" or scope["method"] != "GET":
                make_room()
            receive = _limited(asked, receive)
            send = self._with_headers(asked, send)
            answer = _answer_page if scope["type"] == "http" and scope["method"] == "GET" and _is_page(asked) else None
            await (answer(self._app, scope, receive, send) if answer else self._app(scope, receive, send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # policy violation
        else:
            await refused(scope, receive, send)

    def _refused(self, asked: HTTPConnection) -> Response | None:
        """The answer to a request that is refused."""
        path = asked.scope["path"]
        if not (self._is_local(asked) or self._knows_token(asked)):
            return _error(path, 403, _NO_TOKEN if self._token else _WRONG_NAME)
        if _from_other_site(asked):
            return _error(path, 403, OTHER_SITE)
        uploaded = path.startswith(_FILE) and is_upload(path[len(_FILE) :])
        return None if path in _OPEN or path.startswith(_OPEN_BELOW) or uploaded else _error(path, 404, _CLOSED)

    def _is_local(self, asked: HTTPConnection) -> bool:
        if not _names_this_machine(asked.headers.get("host", "")):
            return False
        if not self._token:
            return True  # only this machine can connect
        forwarded = any(name in asked.headers for name in FORWARDED)
        return asked.client is not None and _is_loopback(asked.client.host) and not forwarded

    def _knows_token(self, asked: HTTPConnection) -> bool:
        bearer = asked.headers.get("authorization", "").removeprefix("Bearer ")
        return self._is_token(asked.cookies.get(self._cookie, "")) or self._is_token(bearer) or self._names_token(asked)

    def _names_token(self, asked: HTTPConnection) -> bool:
        return self._is_token(asked.query_params.get("token", ""))

    def _is_token(self, given: str) -> bool:
        return bool(self._token) and secrets.compare_digest(given.encode(), self._token.encode())

    def _with_headers(self, asked: HTTPConnection, send: Send) -> Send:
        """Adds to the headers of the answer."""

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                # An uploaded page must not run scripts here.
                headers["Content-Security-Policy"] = "sandbox" if asked.scope["path"].startswith(_FILE) else _POLICY
                if self._names_token(asked):
                    headers.append("Set-Cookie", f"{self._cookie}={self._token}; HttpOnly; SameSite=Strict; Path=/")
            await send(message)

        return answer


def _limited(asked: HTTPConnection, receive: Receive) -> Receive:
    """``receive`` of a request that ends with 413 after :data:`_MAX_BODY`: gradio reads bodies of any size."""
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > _MAX_BODY:
            raise HTTPException(413, _TOO_LARGE)
        return message

    return limited if asked.scope["type"] == "http" else receive


def _error(path: str, status: int, line: str) -> Response:
    if path.startswith(f"{PREFIX}/"):
        return JSONResponse({"detail": line}, status)
    return PlainTextResponse(f"VAE Lab: {line}", status)


def _is_page(asked: HTTPConnection) -> bool:
    return asked.scope["path"] == "/"


def _names_this_machine(host: str) -> bool:
    """Whether a ``Host`` header can only mean this machine, however its browser resolves names."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return name == "localhost" or _is_loopback(name)


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def _from_other_site(asked: HTTPConnection) -> bool:
    """Whether a browser sends this for another origin. Other programs send none of these headers."""
    if "origin" in asked.headers:
        return not is_same_origin(asked)
    get = asked.headers.get
    link = get("sec-fetch-mode") == "navigate" and get("sec-fetch-dest") == "document" and _is_page(asked)
    if link and asked.scope.get("method") == "GET":
        return False
    return get("sec-fetch-site", "none") not in ("same-origin", "none")


async def _answer_page(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with gradio's page, without what it loads from other servers."""
    start: Message = {}
    body = b""

    async def keep(message: Message) -> None:
        nonlocal body
        if message["type"] == "http.response.start":
            start.update(message)
        else:
            body += message.get("body", b"")

    await app(scope, receive, keep)
    body = _ELSEWHERE.sub(b"", body)
    MutableHeaders(scope=start)["Content-Length"] = str(len(body))
    await send(start)
    await send({"type": "http.response.body", "body": body})
