"""Pages of other sites can start, stop and change nothing through our routes, whatever is between them and us."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from tests.sample_hosts import MakeHost
from vae_lab.api.origin import AllowedOrigins
from vae_lab.api.routes import PREFIX, add_routes
from vae_lab.host.standalone import StandaloneHost

CANCEL = f"{PREFIX}/cancel"
EVIL = "https://evil.example"


@pytest.fixture(scope="module")
def host(make_host: MakeHost) -> StandaloneHost:
    return make_host()


@pytest.fixture(scope="module")
def app(host: StandaloneHost) -> FastAPI:
    app = FastAPI()
    add_routes(app, host)
    return app


@pytest.fixture(scope="module")
def client(app: FastAPI) -> TestClient:
    return TestClient(app)


def status(client: TestClient, path: str = CANCEL, method: str = "POST", **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.request(method, path, headers={"Host": "192.168.1.5:7860", **named}).status_code


def test_nothing_of_ours_but_reading_is_open_to_other_sites(app: FastAPI, client: TestClient) -> None:
    ours = [route for route in app.routes if isinstance(route, APIRoute) and route.path.startswith(f"{PREFIX}/")]
    changing = {(route.path, method) for route in ours for method in route.methods if method != "GET"}
    assert len(changing) >= 12
    for path, method in changing:
        for headers in ({"Origin": EVIL}, {"Sec_Fetch_Site": "cross-site"}, {"Origin": "null"}):
            answer = client.request(
                method, path, json={}, headers={name.replace("_", "-"): value for name, value in headers.items()}
            )
            assert answer.status_code == 403, path
            assert "another site" in answer.json()["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {},  # a program
        {"Authorization": "Basic eDp5"},
        {"Origin": "http://192.168.1.5:7860"},
        {"Origin": "http://192.168.1.5:7860", "Sec_Fetch_Site": "same-origin"},
        {"Sec_Fetch_Site": "none"},
        # a share: gradio's servers pass the name on
        {"Host": "0123456789abcdef.gradio.live", "Origin": "https://0123456789abcdef.gradio.live"},
        # reverse proxies: one keeps the name, one says it, one does neither, but the browser knows
        {"Host": "sd.example", "Origin": "https://sd.example", "X_Forwarded_Proto": "https"},
        {"Host": "127.0.0.1:7860", "Origin": "https://sd.example", "X_Forwarded_Host": "sd.example"},
        {"Host": "127.0.0.1:7860", "Origin": "http://sd.example:8080", "X_Forwarded_Host": "sd.example:8080, inner"},
        {"Host": "127.0.0.1:7860", "Origin": "https://sd.example", "Forwarded": 'for=10.0.0.1;host="sd.example"'},
        {"Host": "127.0.0.1:7860", "Origin": "https://sd.example", "Sec_Fetch_Site": "same-origin"},
        # nginx' $host has no port
        {"Host": "sd.example", "Origin": "http://sd.example:8080", "X_Real_IP": "10.0.0.1"},
        {"Host": "SD.example:80", "Origin": "http://sd.example"},
        {"Host": "[::1]:7860", "Origin": "http://[::1]:7860"},
    ],
)
def test_the_own_page_and_programs_are_let_in(client: TestClient, headers: dict[str, str]) -> None:
    assert status(client, **headers) == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": EVIL},
        {"Origin": "null"},
        {"Origin": "file://"},
        {"Origin": "http://192.168.1.5"},
        {"Origin": "http://192.168.1.5:7861"},
        {"Origin": "http://192.168.1.5:port"},
        {"Origin": "http://192.168.1.5.evil.example:7860"},
        {"Origin": "http://192.168.1.5:7860", "Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Host": "sd.example", "Origin": "http://sd.example:8080"},
        {"Host": "sd.example", "Origin": EVIL, "X_Real_IP": "10.0.0.1"},
        {"Host": "", "Origin": EVIL},
    ],
)
def test_other_sites_are_not(client: TestClient, headers: dict[str, str]) -> None:
    assert status(client, **headers) == 403


def test_whom_the_user_lets_in(make_host: MakeHost) -> None:
    """--cors-allow-origins and --cors-allow-origins-regex of the WebUI."""
    allowed = AllowedOrigins(("https://tool.example",), r"https://.*\.mine\.example")
    app = FastAPI()
    add_routes(app, make_host(), origins=allowed)
    client = TestClient(app)
    assert status(client, Origin="https://tool.example", Sec_Fetch_Site="cross-site") == 200
    assert status(client, Origin="https://a.mine.example") == 200
    assert status(client, Origin="https://a.mine.example.evil.example") == 403
    assert EVIL in AllowedOrigins(("*",))


def test_a_get_changes_nothing(app: FastAPI, client: TestClient, host: StandaloneHost) -> None:
    """Other sites can send any GET."""
    client.post(f"{PREFIX}/choose", json={"reach": "always", "vae": "anime.vae.pt"})
    folders = [path.parent for path in host.listing().checkpoints.values()]

    def state() -> object:
        files = sorted((str(path), path.stat().st_mtime_ns) for folder in folders for path in folder.iterdir())
        latents = [generation.id for generation in host.generations.newest_first()]
        return files, latents, client.get(f"{PREFIX}/active").json(), client.get(f"{PREFIX}/progress").json()

    before, seen = state(), 0
    for route in app.routes:
        if isinstance(route, APIRoute) and route.path.startswith(f"{PREFIX}/") and "GET" in route.methods:
            names = dict.fromkeys(("comparison_id", "number", "generation_id", "round_trip_id", "kind"), "1")
            answer = client.get(route.path.format(**names), headers={"Origin": EVIL})
            assert answer.status_code in (200, 404, 422), route.path
            seen += 1
    assert seen >= 18
    assert state() == before


def test_a_large_request_is_not_read(client: TestClient) -> None:
    """Without a limit, one request would take as much memory as its sender likes."""

    def body() -> Iterator[bytes]:
        for _ in range(300):
            yield b" " * 2**16

    for path in ("compare", "inspect", "choose", "fixes", "merge-preview", "bake", "undo"):
        answer = client.post(f"{PREFIX}/{path}", content=body(), headers={"Content-Type": "application/json"})
        assert answer.status_code == 413, path
        assert answer.json() == {"detail": "requests are limited to 2 MB here"}
