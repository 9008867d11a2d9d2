"""The stand-alone app: its port, its password, its routes next to gradio's. Needs no browser."""

from __future__ import annotations

import gzip
import json
import socket
import urllib.error
import urllib.request
from pathlib import Path

import gradio as gr
import pytest
from fastapi.routing import APIRoute

from tests.browser.conftest import MakeHost, close, free_port, serve
from tests.unit.api.test_routes import get, post
from vae_lab.api.routes import PREFIX, add_routes
from vae_lab.errors import HostError
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.ui import app as ui_app
from vae_lab.ui.app import launch


def test_the_page_serves_and_publishes_every_route(make_host: MakeHost) -> None:
    running = launch(make_host())
    try:
        published = json.loads(get(f"{running.url}openapi.json")[2])["paths"]
        ours = {r.path for r in running.app.routes if isinstance(r, APIRoute) and r.path.startswith(f"{PREFIX}/")}
        assert f"{PREFIX}/vaes" in ours
        assert {path for path in published if path.startswith(f"{PREFIX}/")} == ours
        status, kind, content = get(f"{running.url.rstrip('/')}{PREFIX}/vaes")
        assert (status, kind) == (200, "application/json")
        assert json.loads(content)["vaes"]
    finally:
        running.close()


def test_routes_ask_for_the_password_of_the_app(make_host: MakeHost) -> None:
    host = make_host()
    with gr.Blocks(analytics_enabled=False) as blocks:
        gr.HTML("private")
    app, url = serve(blocks, auth=("me", "secret"))
    try:
        add_routes(app, host)
        for path in ("latents", "vaes", "progress", "images/x/0.png"):
            status, _, content = get(f"{url}vae-lab/v1/{path}")
            assert (status, json.loads(content)["detail"]) == (401, "Not authenticated")
        assert post(f"{url}vae-lab/v1/cancel")[0] == 401
    finally:
        close(blocks)


def test_the_page_of_many_files_is_light(tmp_path: Path) -> None:
    """300 VAEs and 800 checkpoints: what a browser receives of the page and of long lists."""
    for folder, count in (("VAE", 300), ("Stable-diffusion", 800)):
        (tmp_path / folder).mkdir()
        for i in range(count):
            (tmp_path / folder / f"{i}-of-many-{folder}-with-a-name-as-long-as-names-are.safetensors").touch()
    running = launch(StandaloneHost(Folders.of_models(tmp_path, tmp_path / "data")))
    try:
        sizes = {}
        for path in ("", "vae-lab/v1/vaes", "vae-lab/v1/checkpoints"):
            request = urllib.request.Request(running.url + path, headers={"Accept-Encoding": "gzip"})
            with urllib.request.urlopen(request) as answer:
                assert answer.headers["Content-Encoding"] == "gzip"
                sent = answer.read()
            assert b"299-of-many-VAE" in gzip.decompress(sent) or path.endswith("checkpoints")
            sizes[path] = len(sent)
        assert sum(sizes.values()) < 300_000, sizes
    finally:
        running.close()


def test_a_port_in_use_is_reported_clearly(make_host: MakeHost) -> None:
    running = launch(make_host())
    port = int(running.url.rsplit(":", 1)[1].strip("/"))
    try:
        with pytest.raises(HostError, match=f"port {port} cannot be used"):
            launch(make_host(), port)
    finally:
        running.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # gradio closes no socket it failed with
def test_a_free_port_that_another_program_takes_first(make_host: MakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        ports = iter([taken, taken])
        monkeypatch.setattr(ui_app, "_free_port", lambda address, port: next(ports, None) or free_port())
        running = launch(make_host())
        running.close()
    assert str(taken) not in running.url


def test_other_web_sites_may_not_read_the_page(shared_url: str) -> None:
    request = urllib.request.Request(f"{shared_url}vae-lab/v1/latents", headers={"Origin": "https://example.org"})
    with pytest.raises(urllib.error.HTTPError) as refused, urllib.request.urlopen(request, timeout=300):
        pass
    with refused.value as answer:
        assert answer.code == 403
        assert "access-control-allow-origin" not in answer.headers
