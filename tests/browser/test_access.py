"""Who may use the stand-alone app, with gradio's own routes: paths from a browser, and pages of other sites."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gradio as gr
import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import MakeHost, close, collect_sockets, serve
from tests.unit.api.test_routes import get, post
from tests.unit.api.test_sources import image
from vae_lab.api.routes import add_routes
from vae_lab.host.standalone import StandaloneHost
from vae_lab.service.service import service_of
from vae_lab.ui.app import Running, launch
from vae_lab.ui.tab import build_tab

FILES = ("vae_lab_load", "vae_lab_image", "vae_lab_roundtrip_image")
"""The components that take a file."""


@pytest.fixture(scope="module")
def host(make_host: MakeHost) -> StandaloneHost:
    return make_host()


@pytest.fixture(scope="module")
def running(host: StandaloneHost) -> Iterator[Running]:
    running = launch(host)
    yield running
    running.close()
    collect_sockets()


@contextmanager
def site(answer: bytes, kind: str) -> Iterator[tuple[str, list[str]]]:
    """Another server on this machine; gives its address and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/", asked
        server.shutdown()


# --- files -----------------------------------------------------------------------------------------------------------


def call(url: str, config: dict[str, Any], component: str, value: object) -> tuple[int, Any]:
    """Call the first handler that takes ``component``, which is named by its element, with ``value`` for it."""
    ids = {each["props"].get("elem_id"): each["id"] for each in config["components"]}
    events = enumerate(config["dependencies"])
    index, event = next((i, event) for i, event in events if ids[component] in event["inputs"])
    data = [value if each == ids[component] else None for each in event["inputs"]]
    return post(f"{url}run/predict", {"fn_index": event.get("id", index), "data": data, "session_hash": "x"})


def as_values(path: str) -> list[object]:
    """``path`` as both versions of gradio take it."""
    meta = {"_type": "gradio.FileData"}
    return [
        {"name": path, "orig_name": "a.png", "data": None, "is_file": True},
        [{"name": path, "orig_name": "a.png", "data": None, "is_file": True}],
        {"path": path},
        {"path": path, "meta": meta},
        [{"path": path, "meta": meta}],
    ]


def check_takes_no_paths(url: str, host: StandaloneHost, path: str, component: str) -> None:
    config = json.loads(get(f"{url}config")[2])
    before = [stored.id for stored in host.generations.newest_first()]
    for value in as_values(path):
        status, answer = call(url, config, component, value)
        assert status == 500, (value, answer)
    assert [stored.id for stored in host.generations.newest_first()] == before


def copies_of(data: bytes) -> list[Path]:
    uploads = Path(os.environ["GRADIO_TEMP_DIR"])
    return [path for path in uploads.rglob("*") if path.is_file() and path.read_bytes() == data]


@pytest.mark.parametrize("component", FILES)
def test_a_path_that_is_no_upload_is_not_read(
    running: Running, host: StandaloneHost, component: str, tmp_path: Path
) -> None:
    outside = tmp_path / "private.png"
    outside.write_bytes(image(size=(24, 40)))
    check_takes_no_paths(running.url, host, str(outside), component)
    assert not copies_of(outside.read_bytes())


@pytest.mark.parametrize("component", [*FILES, "vae_lab_source", "vae_lab_picked"])
def test_a_url_is_not_fetched(running: Running, component: str) -> None:
    config = json.loads(get(f"{running.url}config")[2])
    with site(image(), "image/png") as (address, asked):
        for value in as_values(f"{address}a.png"):
            call(running.url, config, component, value)
    assert not asked


def test_the_same_in_the_tab_of_a_host(host: StandaloneHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "uploads").mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    outside = tmp_path / "private.png"
    outside.write_bytes(image(size=(24, 40)))
    with gr.Blocks(analytics_enabled=False) as page:
        build_tab(host)
    app, url = serve(page)
    try:
        add_routes(app, host)
        for component in FILES:
            check_takes_no_paths(url, host, str(outside), component)
    finally:
        close(page)
    assert not copies_of(outside.read_bytes())


def test_files_and_urls_are_not_served(running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here.txt").write_text("private")
    monkeypatch.chdir(tmp_path)
    for path in ("file=here.txt", f"file={tmp_path / 'here.txt'}", "file/here.txt", "file=https://example.org/"):
        assert get(f"{running.url}{path}")[0] == 404
    assert get(f"{running.url}proxy=https://example.org/")[0] == 404


# --- other machines --------------------------------------------------------------------------------------------------


def test_other_machines_need_the_token(make_host: MakeHost) -> None:
    running = launch(make_host(), listen=True)
    try:
        assert get(running.url)[0] == 200
        address, _, token = running.url_elsewhere.partition("/?token=")
        assert len(token) >= 32
        there = {"Host": address.removeprefix("http://")}
        assert httpx.get(f"{running.url}?token={token}", headers=there).status_code == 200
        refused = httpx.get(running.url, headers=there)
        assert (refused.status_code, "?token=" in refused.text) == (403, True)
    finally:
        running.close()
        collect_sockets()


# --- the browser -----------------------------------------------------------------------------------------------------


def test_nothing_is_asked_of_other_servers(browser: Browser, running: Running, tmp_path: Path) -> None:
    """Everything that is not for this page goes to a proxy, also what a page does not know of, such as preconnects."""
    picture = tmp_path / "cat.png"
    picture.write_bytes(image())
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.setblocking(False)
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        with browser.new_context(proxy={"server": address, "bypass": "127.0.0.1"}) as context:
            page, asked = context.new_page(), []
            page.on("request", lambda request: asked.append(request.url))
            page.goto(running.url)
            expect(page.locator("#vae_lab_compare")).to_be_visible(timeout=90_000)
            page.locator("#vae_lab_image input[type=file]").set_input_files(picture)
            expect(page.locator("#vae_lab_image .download a")).to_be_attached(timeout=90_000)
            page.locator("#vae_lab_roundtrip_image input[type=file]").first.set_input_files(picture)
            links = page.locator("link, script").evaluate_all("(all) => all.map((each) => each.href || each.src || '')")
            page.goto("about:blank")
        elsewhere = [url for url in [*asked, *links] if not url.startswith((running.url, "data:", "blob:", "about:"))]
        assert set(elsewhere) <= {""}
        with pytest.raises(BlockingIOError):
            proxy.accept()


TRY_EVERYTHING = """async ([target, routes, bodies]) => {
    const got = [], tries = [];
    const ended = (element, events) =>
        new Promise((done) => events.forEach((name) => (element[name] = () => done(name))));
    for (const [method, path] of routes) {
        const url = target + path, body = method === "POST" ? (bodies[path] ?? "{}") : undefined;
        tries.push(fetch(url, { method, body, mode: "no-cors", credentials: "include" }).catch(() => {}));
        tries.push(fetch(url, { method, body }).then((answer) => got.push(`read ${url}`)).catch(() => {}));
        const element = document.createElement(method === "POST" ? "iframe" : "img");
        if (method === "POST") {
            const form = document.createElement("form"), field = document.createElement("input");
            element.name = form.target = `frame of ${url}`;
            // As plain text, a form can send JSON: name=value is {"x": "=", ...}
            Object.assign(field, { name: `${body.slice(0, -1)}${body === "{}" ? "" : ","}"x": "`, value: '"}' });
            Object.assign(form, { action: url, method, enctype: "text/plain" });
            form.append(field);
            document.body.append(element, form);
            tries.push(ended(element, ["onload"]));
            form.submit();
        } else {
            const shown = ended(element, ["onload", "onerror"]);
            tries.push(shown.then((how) => how === "onload" && got.push(`shown ${url}`)));
            element.src = url;
        }
    }
    const socket = new WebSocket(`${target.replace("http", "ws")}/queue/join`);
    tries.push(ended(socket, ["onopen", "onerror"]).then((how) => how === "onopen" && got.push("a websocket")));
    const late = new Promise((done) => setTimeout(() => done(got.push("no end")), 30000));
    await Promise.race([Promise.all(tries), late]);
    return got;
}"""


def test_a_hostile_page_gets_and_changes_nothing(browser: Browser, running: Running, host: StandaloneHost) -> None:
    """Over two seconds: every route, in every way that a browser has, under two names."""
    config = json.loads(get(f"{running.url}config")[2])
    ids = {each["props"].get("elem_id"): each["id"] for each in config["components"]}
    uses = enumerate(config["dependencies"])
    use = next(
        (i, event) for i, event in uses if ids["vae_lab_decoder"] in event["inputs"] and len(event["inputs"]) == 2
    )
    choice = {"fn_index": use[1].get("id", use[0]), "data": ["anime.vae.pt", None], "session_hash": "x"}
    latent = host.generations.newest_first()[0].id
    bodies = {
        "/run/predict": json.dumps(choice),
        "/queue/join": json.dumps(choice),
        "/vae-lab/v1/compare": json.dumps({"latents": latent, "vaes": ["anime.vae.pt"]}),
        "/vae-lab/v1/choose": json.dumps({"reach": "checkpoint", "vae": "anime.vae.pt"}),
        "/vae-lab/v1/inspect": json.dumps({"names": ["anime.vae.pt"]}),
    }
    routes = sorted(
        {
            (method, re.sub(r"/(run|api)/x", r"/\1/predict", re.sub(r"{[^}]*}", "x", route.path)))
            for route in running.app.routes
            for method in getattr(route, "methods", None) or ()
            if method in ("GET", "POST") and not route.path.endswith("/")
        }
        | {("GET", "/")}
    )
    service, before = service_of(host), (host.decision(), host.generations.newest_first())
    statuses: dict[str, int] = {}
    with site(b"<!doctype html><body></body>", "text/html") as (address, _), browser.new_context() as context:
        page = context.new_page()
        page.on("response", lambda answer: statuses.update({f"{answer.request.method} {answer.url}": answer.status}))
        page.goto(address)
        statuses.clear()
        got = []
        for target in (running.url.rstrip("/"), running.url.rstrip("/").replace("127.0.0.1", "localhost")):
            got += page.evaluate(TRY_EVERYTHING, [target, routes, bodies])
    assert got == []
    assert {url: status for url, status in statuses.items() if status != 403} == {}
    asked = {(name.split()[0], urlsplit(name.split()[1]).path) for name in statuses}
    assert asked == set(routes) - {("GET", "/favicon.ico")}  # the browser reports no icons
    assert (host.decision(), host.generations.newest_first()) == before
    assert service.comparisons.shown is None
    assert (service.runs.status.total, service.hashes.status.total) == (0, 0)
