"""A web server that stands in for a publisher of VAEs: https, with ranges, and with faults on request."""

from __future__ import annotations

import hashlib
import os
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from vae_lab.identity import PublishedVae
from vae_lab.samples import SampleSet

__all__ = ["Publisher", "Request", "breaks_off_after", "publisher", "redirects_to", "refuses"]

CERTIFICATE = Path(__file__).with_name("localhost.pem")
"""For ``localhost``, with its key, which protects nothing: ``openssl req -x509 -newkey ec -days 36500 …``."""

Answer = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    """A request for the published file; answered by the server's next fault, if any is left."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: Publisher

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.asked.append((self.path, self.headers["Range"]))
            answer = self.server.faults.pop(0) if self.server.faults else Request.send_range
        answer(self)

    def send_range(self, most: int = 2**60) -> None:
        """The bytes that were asked for, but not more than ``most`` of them."""
        content = self.server.content
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"])
        assert match
        first, last = int(match[1]), min(int(match[2]), len(content) - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        self.wfile.write(content[first : min(last + 1, first + most)])
        self.wfile.flush()
        self.close_connection = most < last + 1 - first

    def log_message(self, *_: object) -> None:
        """Tests have nothing to say."""


class Publisher(ThreadingHTTPServer):
    """Serves ``content`` as every path.

    Attributes:
        content: of the file on the server.
        faults: answers to the next requests.
        asked: (path, range) of every request.
    """

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.content = content
        self.lock = threading.Lock()
        self.faults: list[Answer] = []
        self.asked: list[tuple[str, str]] = []

    def publishes(self, file: str = "published.safetensors", family: str = "sd1", **others: object) -> PublishedVae:
        """What a catalogue says about the file, unless ``others`` say otherwise."""
        facts = {
            "name": "published", "family": family, "file": file, "size": len(self.content),
            "address": f"https://localhost:{self.server_address[1]}/models/{file}",
            "sha256": hashlib.sha256(self.content).hexdigest(),
        }  # fmt: skip
        return PublishedVae(**{**facts, **others})  # type: ignore[arg-type]

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients hang up."""


def breaks_off_after(count: int) -> Answer:
    """Announces everything, but sends only so many bytes."""
    return lambda request: request.send_range(count)


def refuses(status: int) -> Answer:
    """Answers with an error."""
    return lambda request: _send(request, status)


def redirects_to(address: str) -> Answer:
    """Names another address."""
    return lambda request: _send(request, 302, Location=address)


def _send(request: Request, status: int, **headers: str) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    request.send_header("Content-Length", "0")
    request.end_headers()
    request.wfile.flush()


@contextmanager
def _running(content: bytes) -> Iterator[Publisher]:
    with Publisher(content) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


@pytest.fixture
def publisher(sample_set: SampleSet, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    """A server with a healthy VAE, whose certificate is trusted during the test."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    with _running(sample_set.smooth.read_bytes()) as server:
        yield server
