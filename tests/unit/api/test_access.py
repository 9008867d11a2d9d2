"""Who may use the stand-alone app, on a small ASGI app in place of gradio's."""

from __future__ import annotations

import asyncio
import base64
import functools
import io
import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route
from starlette.websockets import WebSocket

from vae_lab.api import access, uploads
from vae_lab.api.access import Access
from vae_lab.api.uploads import accept_only_uploads
from vae_lab.errors import FileError

TOKEN = "b2c3"
PAGE = """<link rel="preconnect" href="https://fonts.googleapis.com" />
<script
    src="https://cdnjs.cloudflare.com/x.js"
    async
></script>
<script type="module" src="./assets/index.js"></script><script>window.gradio_config = 1;</script>"""


async def page(request: Request) -> HTMLResponse:
    return HTMLResponse(PAGE)


async def anything(request: Request) -> PlainTextResponse:
    return PlainTextResponse("secret")


async def count(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


async def websocket(connection: WebSocket) -> None:
    await connection.accept()
    await connection.close()


def guarded(token: str = "") -> Access:
    app = Starlette(
        routes=[
            Route("/", page, methods=["GET"]),
            Route("/upload", count, methods=["POST"]),
            Route("/{path:path}", anything, methods=["GET", "POST"]),
        ]
    )
    app.add_websocket_route("/queue/join", websocket)
    return Access(app, token=token, cookie="vae_lab_7860")


def ask(
    path: str = "/vae-lab/v1/vaes",
    method: str = "GET",
    *,
    host: str = "127.0.0.1:7860",
    client: str = "127.0.0.1",
    token: str = "",
    **headers: str,
) -> httpx.Response:
    """One request to an app that listens to everyone if it has a ``token``."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app=guarded(token), client=(client, 1))
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as browser:
            return await browser.request(method, path, headers={"Host": host, **named})

    return asyncio.run(send())


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "LOCALHOST:9000", "localhost", "[::1]:7860"])
def test_this_machine_needs_no_token(host: str) -> None:
    assert ask(host=host).text == "secret"
    assert ask(host=host, Origin=f"http://{host}", Sec_Fetch_Site="same-origin").text == "secret"
    assert ask(host=host, token=TOKEN).text == "secret"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "localhost.evil", "", "["]
)
def test_a_name_that_now_points_to_this_machine(host: str) -> None:
    """DNS rebinding: the browser takes the page for one of the other site's own."""
    answer = ask(host=host, Origin=f"http://{host}", Sec_Fetch_Site="same-origin")
    assert (answer.status_code, list(answer.json())) == (403, ["detail"])
    assert "localhost" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/", "/vae-lab/v1/vaes", "/config", "/run/predict", "/upload", "/file=x"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:7861"},
        {"Origin": "http://localhost:7860"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"},
    ],
)
def test_other_sites_get_nothing(path: str, method: str, headers: dict[str, str]) -> None:
    answer = ask(path, method, **headers)
    assert answer.status_code == 403
    assert "another site" in answer.text
    assert "access-control-allow-origin" not in answer.headers


def test_a_link_on_another_site_opens_the_page_and_nothing_else() -> None:
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert ask("/", **link).status_code == 200
    assert ask("/vae-lab/v1/library.html", **link).status_code == 403
    assert ask("/", "POST", **link).status_code == 403


@pytest.mark.parametrize(("client", "host"), [("10.0.0.7", "10.0.0.1:7860"), ("10.0.0.7", "localhost:7860")])
def test_other_machines_need_the_token(client: str, host: str) -> None:
    there: dict[str, Any] = {"client": client, "host": host, "token": TOKEN}
    for refused in (ask(**there), ask("/vae-lab/v1/vaes?token=no", **there), ask(Cookie="vae_lab_7860=no", **there)):
        assert refused.status_code == 403
        assert "?token=" in refused.json()["detail"]
        assert "set-cookie" not in refused.headers
    assert ask(Cookie=f"vae_lab_7860={TOKEN}", **there).text == "secret"
    assert ask(Authorization=f"Bearer {TOKEN}", **there).text == "secret"
    opened = ask(f"/?token={TOKEN}", **there)
    assert opened.status_code == 200
    cookie = opened.headers["set-cookie"].lower()
    assert cookie.startswith(f"vae_lab_7860={TOKEN};")
    assert {"httponly", "samesite=strict", "path=/"} <= set(cookie.split("; "))


def test_the_token_does_not_let_other_sites_in() -> None:
    there: dict[str, Any] = {"client": "10.0.0.7", "host": "10.0.0.1:7860", "token": TOKEN}
    assert ask(Origin="http://10.0.0.1:80", Cookie=f"vae_lab_7860={TOKEN}", **there).status_code == 403


def test_what_a_proxy_forwards_needs_the_token() -> None:
    assert ask(host="localhost:7860", token=TOKEN, X_Forwarded_For="10.0.0.7").status_code == 403


@pytest.mark.parametrize(
    ("headers", "answer"),
    [
        ({}, "websocket.accept"),
        ({"origin": "http://127.0.0.1:7860"}, "websocket.accept"),
        ({"origin": "http://127.0.0.1:7861"}, "websocket.close"),
        ({"origin": "https://evil.example"}, "websocket.close"),
        ({"host": "evil.example", "origin": "http://evil.example"}, "websocket.close"),
    ],
)
def test_websockets(headers: dict[str, str], answer: str) -> None:
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    raw = [(name.encode(), value.encode()) for name, value in {"host": "127.0.0.1:7860", **headers}.items()]
    scope = {
        "type": "websocket",
        "path": "/queue/join",
        "query_string": b"",
        "headers": raw,
        "client": ("127.0.0.1", 1),
    }
    asyncio.run(guarded()(scope, receive, send))
    assert sent[0] == answer


@pytest.mark.parametrize(
    "path",
    [
        "/proxy=http://127.0.0.1/", "/stream/x/0/0", "/file/etc/passwd", "/login", "/logout", "/token", "/monitoring",
        "/dev/reload", "/component_server", "/custom_component/a/b/c", "/call/x", "/run/other", "/vae-labs", "/assetsx",
    ],
)  # fmt: skip
def test_routes_that_the_page_does_not_need_are_closed(path: str) -> None:
    for method in ("GET", "POST"):
        assert ask(path, method).status_code == 404


def test_files_are_uploads_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, outside = tmp_path / "uploads", tmp_path / "outside.txt"
    folder.mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    monkeypatch.chdir(tmp_path)
    outside.write_text("x")
    (folder / "own.png").write_text("x")
    (folder / "link.png").symlink_to(outside)
    for refused in (
        outside,
        "outside.txt",
        folder / "link.png",
        folder / ".." / "outside.txt",
        folder,
        "https://a.b/c",
    ):
        assert ask(f"/file={refused}").status_code == 404
    answer = ask(f"/file={folder / 'own.png'}")
    assert answer.text == "secret"
    assert answer.headers["content-security-policy"] == "sandbox"  # an uploaded page must not run scripts


def test_the_page_loads_nothing_from_other_servers() -> None:
    answer = ask("/")
    assert "https://" not in answer.text
    assert "./assets/index.js" in answer.text
    assert "window.gradio_config" in answer.text
    assert int(answer.headers["content-length"]) == len(answer.content)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'self'" in policy
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("declared", [True, False])
def test_no_request_is_larger_than_the_limit(monkeypatch: pytest.MonkeyPatch, declared: bool) -> None:
    monkeypatch.setattr(access, "_MAX_BODY", 1000)

    async def send(size: int) -> httpx.Response:
        async def body() -> AsyncIterator[bytes]:
            for _ in range(size // 100):
                yield b"x" * 100

        transport = httpx.ASGITransport(app=guarded(), client=("127.0.0.1", 1))
        length = {"Content-Length": str(size)} if declared else {}
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:7860") as browser:
            return await browser.post("/upload", content=body(), headers=length)

    assert asyncio.run(send(1000)).text == "1000"
    refused = asyncio.run(send(1100))
    assert refused.status_code == 413
    assert "requests are limited to" in refused.text


def test_the_oldest_uploads_make_room_for_new_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradio stores every upload until the program ends, and everybody on the page can upload more."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    outside = tmp_path / "mine"
    outside.mkdir()
    (outside / "mine.bin").write_bytes(bytes(10**6))
    uploads.make_room(100)
    assert (outside / "mine.bin").exists(), "the folder is not ours"
    with monkeypatch.context() as ours:
        ours.setattr(uploads, "use_private_folder", functools.lru_cache(maxsize=1)(lambda: None))
        uploads.use_private_folder()
        folder = tmp_path / "private"
        (folder / "deep").mkdir(parents=True)
        ours.setenv("GRADIO_TEMP_DIR", str(folder))
        (folder / "link").symlink_to(outside)
        for number in range(5):
            (folder / "deep" / str(number)).write_bytes(bytes(1000))
            os.utime(folder / "deep" / str(number), (number, number))
        uploads.make_room(3500)
    assert sorted(path.name for path in (folder / "deep").iterdir()) == ["2", "3", "4"]
    assert (outside / "mine.bin").exists()


class FakeImage:
    """Of gradio: it would decode whatever it gets."""

    image_mode = "RGB"

    def __init__(self) -> None:
        self.decoded: list[Any] = []

    def preprocess(self, value: Any) -> None:
        self.decoded.append(value)


def test_gradio_decodes_no_huge_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PNG of 10 kB can have 80 million pixels."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    field, blocks = FakeImage(), SimpleNamespace(children=[])
    blocks.children.append(field)
    accept_only_uploads(blocks)
    small, huge = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (8, 8)).save(small, "PNG")
    Image.new("1", (9000, 9000)).save(huge, "PNG")
    for data, words in ((huge.getvalue(), "the limit is 64 million"), (b"%!PS-Adobe-3.0 EPSF-3.0", "not a readable")):
        (tmp_path / "upload").write_bytes(data)
        text = f"data:image/png;base64,{base64.b64encode(data).decode()}"
        for value in (text, {"image": text, "mask": None}, SimpleNamespace(path=str(tmp_path / "upload"))):
            with pytest.raises(FileError, match=words):
                field.preprocess(value)
    assert not field.decoded
    field.preprocess(f"data:image/png;base64,{base64.b64encode(small.getvalue()).decode()}")
    field.preprocess(None)
    assert len(field.decoded) == 2
