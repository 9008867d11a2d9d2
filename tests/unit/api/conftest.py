"""The routes on a plain FastAPI app, over HTTP: neither gradio nor a browser."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import uvicorn
from fastapi import FastAPI

from tests.once import each_image_once
from tests.sample_hosts import families_of_samples, grey_host, latents_folder, make_host, samples, shared_host
from vae_lab.api.routes import add_routes
from vae_lab.host.standalone import StandaloneHost
from vae_lab.service.service import service_of


@dataclass(frozen=True)
class Served:
    """A running server of one host's routes.

    Attributes:
        url: address, with a slash at the end.
        app: the app with the routes.
    """

    url: str
    app: FastAPI
    _host: StandaloneHost
    _server: uvicorn.Server
    _thread: threading.Thread

    def close(self) -> None:
        """Cancel the current run and stop the server."""
        service_of(self._host).runs.cancel()
        self._server.should_exit = self._server.force_exit = True
        self._thread.join()


def launch(host: StandaloneHost) -> Served:
    """Serve the routes of ``host`` until it is closed, as ``vae_lab.ui.app.launch`` serves the whole page."""
    app = FastAPI()
    add_routes(app, host)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()  # the socket listens already: whoever connects now is served as soon as the server runs
    return Served(f"http://127.0.0.1:{listener.getsockname()[1]}/", app, host, server, thread)


@pytest.fixture(scope="module")
def shared_url(shared_host: StandaloneHost) -> Iterator[str]:
    """Address of the routes of ``shared_host``."""
    running = launch(shared_host)
    yield running.url
    running.close()
