"""Remote files, from a local server that misbehaves on request."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import httpx
import pytest
import torch
from safetensors.torch import load_file, save

from tests.unit.makers import CONTAINERS, F8, kl_state, prefixed
from vae_lab import inspect_file, load_autoencoder
from vae_lab.autoencoders import open_vae
from vae_lab.autoencoders.kl.module import AutoencoderKL, KLConfig
from vae_lab.cli import main
from vae_lab.errors import FileError, NotFinished, UnreadableFile
from vae_lab.formats import ByteSource, LocalFile, file_name, http_file, is_url, open_source, open_weights, shown_name
from vae_lab.formats.http_file import HttpFile
from vae_lab.formats.range_cache import BLOCK, READ_AHEAD, RangeCache
from vae_lab.identity import known_file, sketch_of_file, sketch_of_state
from vae_lab.samples import SampleSet
from vae_lab.time_limit import TimeLimit
from vae_lab.version import __version__

DATA = bytes(range(256)) * 2000  # 512,000 bytes

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Serves ranges of the server's content; ``server.script`` takes the place of that, request by request."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave together, or each answer waits for the client's delayed acknowledgement
    disable_nagle_algorithm = True
    timeout = 10
    server: Server

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.seen.append((self.path, dict(self.headers)))
            step = self.server.script.pop(0) if self.server.script else self.server.always
        (step or serve)(self)

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"", *, length: int | None = -1) -> None:
        """``length`` is the declared Content-Length: by default the true one; None omits it."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if length is None:
            self.send_header("Connection", "close")
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(body) if length == -1 else length))
        self.end_headers()
        with self.server.lock:  # before they leave, or the client could be faster
            self.server.sent += len(body)
        self.wfile.write(body)
        self.wfile.flush()

    @property
    def range(self) -> tuple[int, int]:
        """First and last byte asked for, within the file."""
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"])
        assert match
        return int(match[1]), min(int(match[2]), self.server.size - 1)

    def log_message(self, *args: Any) -> None:
        """Tests have nothing to say."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.give(DATA)
        self.script: list[Answer | None] = []
        self.always: Answer | None = None
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.sent = 0
        self.etag = '"one"'

    def give(self, content: bytes | Path) -> None:
        self.content = content
        self.size = len(content) if isinstance(content, bytes) else content.stat().st_size

    def bytes_at(self, first: int, last: int) -> bytes:
        if isinstance(self.content, bytes):
            return self.content[first : last + 1]
        with self.content.open("rb") as file:
            file.seek(first)
            return file.read(last + 1 - first)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/models/model.safetensors"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is what many of these tests are about."""


def serve(handler: Handler, **changes: Any) -> None:
    first, last = handler.range
    server = handler.server
    headers = {"Content-Range": f"bytes {first}-{last}/{server.size}", "ETag": server.etag}
    handler.answer(206, headers | changes.pop("headers", {}), server.bytes_at(first, last), **changes)


def status(code: int, body: bytes = b"sorry", **headers: str) -> Answer:
    return lambda handler: handler.answer(
        code, {name.replace("_", "-"): value for name, value in headers.items()}, body
    )


def redirect(location: str, code: int = 302) -> Answer:
    return status(code, Location=location)


def saying(content_range: str) -> Answer:
    return lambda handler: serve(handler, headers={"Content-Range": content_range})


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy, and no waiting between tries."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setattr("vae_lab.formats.http_file._RETRY_DELAY", 0.01)


def running() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


@pytest.fixture
def server() -> Iterator[Server]:
    yield from running()


@pytest.fixture
def other() -> Iterator[Server]:
    """A second server: another port is another origin."""
    yield from running()


def refusal(url: str, timeout: float = 5) -> str:
    """The reason why the address cannot be opened."""
    with pytest.raises(UnreadableFile) as caught:
        HttpFile(url, timeout=timeout)
    assert caught.value.path == shown_name(url)
    assert len(str(caught.value).splitlines()) == 1
    return caught.value.reason


# --- what is a URL, and what is shown of one -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", [r"C:\models\a.ckpt", "C:/a.ckpt", "c://a.ckpt", "a.ckpt", "/a/b://c", "http:/a/b", ""]
)
def test_paths_are_no_addresses(text: str) -> None:
    assert not is_url(text)
    with pytest.raises(UnreadableFile):
        open_source(text)


def test_local_files_are_opened_as_such(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"abc")
    for path in (tmp_path / "a.bin", str(tmp_path / "a.bin"), os.fsencode(tmp_path / "a.bin")):
        source = open_source(path)
        assert isinstance(source, LocalFile)
        source.close()


def test_an_address_that_was_made_into_a_path() -> None:
    with pytest.raises(UnreadableFile, match="a URL was passed as a Path; pass it as a string"):
        open_source(Path("https://example.org/model.safetensors?token=SECRET"))


@pytest.mark.parametrize(
    ("url", "shown", "name"),
    [
        ("https://u:pw@h.org:8443/a/My%20VAE.pt?sig=SECRET#x", "https://h.org:8443/a/My%20VAE.pt", "My VAE.pt"),
        ("https://h.org/a/b.ckpt", "https://h.org/a/b.ckpt", "b.ckpt"),
        ("https://h.org/", "https://h.org/", "h.org"),
        ("HTTP://[::1]:80/x.pt?y", "http://[::1]:80/x.pt", "x.pt"),
        ("s3://key:SECRET@bucket/x.pt", "s3://bucket/x.pt", "x.pt"),
        ("zip://x.pt::https://u:SECRET@h.org/y?z=SECRET", "zip://x.pt::https://h.org/y", "y"),
        ("https://[x/y?SECRET", "https://...", "..."),
        (str(Path("a") / "b.pt"), str(Path("a") / "b.pt"), "b.pt"),
    ],
)
def test_what_is_shown_of_an_address(url: str, shown: str, name: str) -> None:
    assert (shown_name(url), file_name(url)) == (shown, name)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://", "it has no host name"),
        ("http://h:port/", "its host name or port is malformed"),
        ("http://[x/y", "its host name or port is malformed"),
        ("http://[x]/y", "its host name or port is malformed"),
        ("http://a b/", "its host name or port is malformed"),
        (f"http://{'x' * 70}.org/", "its host name or port is malformed"),
        ("gone://x/y", "cannot be read through fsspec: Protocol not known: gone"),
    ],
)
def test_addresses_that_are_none(url: str, reason: str) -> None:
    with pytest.raises(UnreadableFile) as caught:
        open_source(url)
    assert reason in str(caught.value)


def test_odd_characters_are_sent_as_they_must_be(server: Server) -> None:
    HttpFile(f"{server.url}/猫 %20é?a=b&c=d%2F é\r\nX: y").close()
    path = "/models/model.safetensors/%E7%8C%AB%20%20%C3%A9?a=b&c=d%2F%20%C3%A9X:%20y"
    assert [seen for seen, _ in server.seen] == [path]


# --- reading ---------------------------------------------------------------------------------------------------------


def test_reads_what_a_local_file_would_give(server: Server) -> None:
    source = open_source(server.url)
    assert isinstance(source, ByteSource)
    assert (source.size, source.name) == (len(DATA), server.url)
    for start, length in [(0, 8), (len(DATA) - 3, 3), (100_000, 300_000), (65_530, 20), (5, 0), (0, len(DATA))]:
        assert source.read_at(start, length) == DATA[start : start + length]
    for start, length in [(-1, 2), (0, -1), (len(DATA) - 1, 2)]:
        with pytest.raises(UnreadableFile, match="truncated: bytes"):
            source.read_at(start, length)
    assert source.bytes_read == server.sent
    source.close()
    source.close()
    with pytest.raises(UnreadableFile, match="the file is closed"):
        source.read_at(70_000, 100_000)


def test_what_is_sent_along(server: Server) -> None:
    with open_weights_of(server, save({"a": torch.ones(3)})) as file:
        assert file.read("a").tolist() == [1, 1, 1]
    ((_, headers),) = server.seen
    assert headers["User-Agent"] == f"vae-lab/{__version__}"
    assert headers["Range"] == f"bytes=0-{READ_AHEAD - 1}"
    assert headers["Accept-Encoding"] == "identity"


def open_weights_of(server: Server, data: bytes):
    server.give(data)
    return open_weights(server.url)


def test_one_connection_is_reused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    original = Handler.setup
    monkeypatch.setattr(Handler, "setup", lambda handler: (opened.append(1), original(handler)))
    source = HttpFile(server.url)
    for start in range(100_000, 400_000, 50_000):
        source.read_at(start, 10)
    source.close()
    assert (len(opened), source.requests) == (1, 7)


def test_random_reads_agree(server: Server) -> None:
    """In any order, cached or not, announced or not, long or short."""
    source = HttpFile(server.url)
    generator = torch.Generator().manual_seed(0)
    for step in range(150):
        start, size = (int(x) for x in torch.randint(0, len(DATA), (2,), generator=generator))
        length = min(size if step % 7 == 0 else size % 5000, len(DATA) - start)
        if step % 11 == 0:
            source.prefetch([(start, length), (start // 2, 300), (start // 3, 3)])
        assert source.read_at(start, length) == DATA[start : start + length]
    assert source.bytes_read == server.sent
    source.close()


def test_threads_do_not_mix_up_their_answers(server: Server) -> None:
    source = HttpFile(server.url)
    with ThreadPoolExecutor(8) as pool:
        pieces = list(pool.map(lambda start: source.read_at(start, 100), range(0, 500_000, 5003)))
    assert pieces == [DATA[start : start + 100] for start in range(0, 500_000, 5003)]
    assert source.bytes_read == server.sent
    source.close()


def test_closed_by_another_thread(server: Server) -> None:
    source = HttpFile(server.url, timeout=5)
    asked, closed = threading.Event(), threading.Event()

    def slow(handler: Handler) -> None:
        asked.set()
        closed.wait(10)
        serve(handler)

    server.always = slow
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(source.read_at, 200_000, 100)
        asked.wait(10)
        source.close()
        closed.set()
        error = reading.exception(30)
    assert error is None or isinstance(error, UnreadableFile)
    with pytest.raises(UnreadableFile, match="the file is closed"):
        source.read_at(300_000, 100)


def test_few_requests_for_reads_that_go_on() -> None:
    asked: list[tuple[int, int]] = []

    def fetch(start: int, length: int) -> bytes:
        asked.append((start, length))
        return DATA[start : start + length]

    cache = RangeCache(len(DATA), fetch)
    for start in range(0, 200_000, 500):
        cache.read(start, 500)
    assert len(asked) == 4 + 1  # the first one did not resume anything
    asked.clear()
    cache.read(299_500, 3)
    cache.read(299_900, 3)
    assert asked == [(299_008, BLOCK)]
    asked.clear()
    assert cache.read(299_500, 212_500) == DATA[299_500:]
    assert cache.read(299_100, 212_900) == DATA[299_100:]
    assert asked == [(300_032, 211_968)]


def test_the_cache_forgets_in_time() -> None:
    data = bytes(20_000_000)
    cache = RangeCache(len(data), lambda start, length: data[start : start + length])
    for start in range(0, len(data) - 100, 3000):
        cache.read(start, 100)
    assert sum(map(len, cache._blocks.values())) <= 4 * 2**20


# --- redirects -------------------------------------------------------------------------------------------------------


def test_redirects_are_followed_once(server: Server) -> None:
    server.script = [redirect("/a"), redirect("b?signature=1", 307), redirect(f"{server.url}?signature=2", 301)]
    source = HttpFile(server.url)
    assert source.read_at(300_000, 10) == DATA[300_000:300_010]
    paths = [path for path, _ in server.seen]
    final = "/models/model.safetensors?signature=2"
    assert paths == ["/models/model.safetensors", "/a", "/b?signature=1", final, final]
    assert source.name == server.url
    source.close()


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_every_kind_of_redirect(server: Server, code: int) -> None:
    server.script = [redirect("/a", code)]
    HttpFile(server.url).close()
    assert len(server.seen) == 2


def test_redirects_in_a_circle(server: Server) -> None:
    server.script = [redirect("/a"), redirect("/b"), redirect("/a")]
    assert refusal(server.url) == "redirect loop"
    server.always = redirect(server.url)
    assert refusal(server.url) == "redirect loop"


def test_too_many_redirects(server: Server) -> None:
    server.script = [redirect(f"/{number}") for number in range(5)]
    HttpFile(server.url).close()
    server.script = [redirect(f"/{number}") for number in range(6)]
    assert refusal(server.url) == "the server redirects more than 5 times"


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("", "the server redirects without a target"),
        (
            "file:///etc/passwd",
            "redirects to an unusable URL: file: URLs are not supported here, only http",
        ),
        ("ftp://127.0.0.1/x", "ftp: URLs are not supported here, only http: and https:"),
        ("http://h:port/", "its host name or port is malformed"),
        ("https://", "the URL is not valid: it has no host name"),
    ],
)
def test_redirects_to_nowhere(server: Server, location: str, reason: str) -> None:
    server.script = [redirect(location)]
    assert reason in refusal(server.url)


def test_credentials_stay_with_their_host(server: Server, other: Server) -> None:
    server.script = [redirect("/same"), redirect(f"{other.url}?signature=SECRET")]
    url = server.url.replace("http://", "http://me:p%40ss@") + "?key=SECRET"
    source = HttpFile(url)
    assert source.read_at(400_000, 4) == DATA[400_000:400_004]
    assert [headers.get("Authorization") for _, headers in server.seen] == ["Basic bWU6cEBzcw=="] * 2
    assert [headers.get("Authorization") for _, headers in other.seen] == [None] * 2
    assert source.name == server.url
    assert "SECRET" not in repr(vars(source))
    source.close()


def test_urls_are_not_logged(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    server.script = [redirect("/b?signature=SECRET")]
    HttpFile(server.url.replace("http://", "http://me:SECRET@") + "?key=SECRET").close()
    assert not caplog.records


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], list[httpx.Request]]:
    """Makes a web in which some URLs redirect; returns the requests to come."""

    def make(redirects: dict[str, str]) -> list[httpx.Request]:
        requests: list[httpx.Request] = []

        def respond(request: httpx.Request) -> httpx.Response:
            requests.append(request)
            if location := redirects.get(str(request.url)):
                return httpx.Response(302, headers=[(b"Location", location.encode("latin-1"))])
            return httpx.Response(206, headers={"Content-Range": "bytes 0-2/3"}, stream=httpx.ByteStream(b"abc"))

        monkeypatch.setattr(http_file, "_new_transport", lambda url, time: httpx.MockTransport(respond))
        return requests

    return make


@pytest.mark.parametrize(
    ("start", "location", "url", "known"),
    [
        ("http://u:p@a.org/x", "/y", "http://a.org/y", True),
        ("http://u:p@a.org/x", "http://a.org:80/y", "http://a.org/y", True),
        ("http://u:p@a.org/x", "http://a.org:81/y", "http://a.org:81/y", False),
        ("http://u:p@a.org/x", "https://a.org/y", "https://a.org/y", False),
        ("https://u:p@a.org/x", "https://b.a.org/y", "https://b.a.org/y", False),
        ("https://u:p@a.org/x", "//[::1]/é", "https://[::1]/%E9", False),
    ],
)
def test_where_redirects_lead(web: Any, start: str, location: str, url: str, known: bool) -> None:
    requests = web({start.replace("u:p@", ""): location})
    HttpFile(start).close()
    assert requests[0].headers["Authorization"] == "Basic dTpw"
    assert (str(requests[1].url), "Authorization" in requests[1].headers) == (url, known)


def test_a_redirect_with_credentials_of_its_own(web: Any) -> None:
    requests = web({"http://a.org/x": "http://v:q@b.org/y"})
    HttpFile("http://u:p@a.org/x").close()
    assert [request.headers["Authorization"] for request in requests] == ["Basic dTpw", "Basic djpx"]


def test_redirects_in_latin_1(server: Server) -> None:
    """Header lines may be in any encoding: their bytes are sent back as they came."""
    server.script = [redirect("/\xe9")]
    HttpFile(server.url).close()
    assert server.seen[1][0] == "/%E9"


def test_a_stream_is_one_request(server: Server) -> None:
    with closing(HttpFile(server.url)) as source:
        assert b"".join(source.stream(100_000)) == DATA[100_000:]
        assert (len(server.seen), source.requests) == (2, 2)
        with pytest.raises(UnreadableFile, match="truncated"):
            next(source.stream(len(DATA) + 1))


def test_a_stream_that_is_cut_off_is_right_so_far_and_can_be_continued(server: Server) -> None:
    with closing(HttpFile(server.url)) as source:
        arrived: list[bytes] = []
        server.script = [cut]
        with pytest.raises(UnreadableFile, match=f"the server sent 100 of {len(DATA) - 100_000} bytes"):
            arrived.extend(source.stream(100_000))
        assert b"".join(arrived) == DATA[100_000:100_100]
        assert b"".join(source.stream(100_100)) == DATA[100_100:]
        server.etag = '"two"'
        with pytest.raises(UnreadableFile, match="the file changed while it was being read"):
            next(source.stream(100_100))


def test_https_never_becomes_http(web: Any) -> None:
    requests = web({"https://a.org/x": "http://a.org/y"})
    assert refusal("https://a.org/x") == "the server redirects from https to http, which is not safe"
    assert len(requests) == 1


def test_through_a_proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = f"127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("http_proxy", f"http://me:pw@{proxy}")
    monkeypatch.setenv("https_proxy", proxy)
    source = HttpFile("http://nowhere.invalid/x?y=z")
    source.close()
    ((path, headers),) = server.seen
    assert path == "http://nowhere.invalid/x?y=z"
    assert (headers["Host"], headers["Proxy-Authorization"]) == ("nowhere.invalid", "Basic bWU6cHc=")
    assert refusal("https://nowhere.invalid/x").startswith("the proxy cannot connect to the server: 501")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    HttpFile(server.url).close()
    assert server.seen[-1][0] == "/models/model.safetensors"
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:1")
    HttpFile("http://nowhere.invalid/x").close()
    for setting in ("gopher://127.0.0.1:1", "http://me:SECRET@127.0.0.1:port"):
        monkeypatch.setenv("http_proxy", setting)
        assert refusal("http://nowhere.invalid/x").startswith("the proxy in the system's settings cannot be used; ")


# --- servers that refuse, fail, or contradict themselves -------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (status(200, bytes(50_000)), "the server does not support range requests; download the file to inspect it"),
        (status(200, b"<html>", Content_Type="text/html; charset=utf-8"), "leads to a web page, not to a file"),
        (status(200, b""), "the file is empty (0 bytes)"),
        (status(416, b"", Content_Range="bytes */0"), "the file is empty (0 bytes)"),
        (status(416, b"", Content_Range="bytes */9"), "the server does not have the requested bytes (416)"),
        (status(401), "the server requires a login (401)"),
        (status(403), "the server denies access (403): a login may be needed, or the link has expired"),
        (status(404), "there is no such file on the server (404)"),
        (status(410), "the file is no longer on the server (410)"),
        (status(418), "the server does not return the file (418 I'm a teapot)"),
        (status(299), "the server does not return the file (299)"),
        (status(304), "the server does not return the file (304 Not Modified)"),
        (saying("bytes 0-9/*"), "the server does not report the size of the file"),
        (saying("bytes 0-65535/65535"), "bytes 0 to 65534 of 65535 were requested, but the server sends 0 to 65535"),
        (saying("bytes 1-65536/512000"), "bytes 0 to 65535 of 512000 were requested, but the server sends 1 to 65536"),
        (saying("bytes 0-65534/512000"), "bytes 0 to 65535 of 512000 were requested, but the server sends 0 to 65534"),
        (saying("bytes 0-99/100"), "the server announces 65536 bytes for a range of 100"),
        (saying("bytes 0-0/0"), "bytes 0 to -1 of 0 were requested"),
        (saying("bytes=0-9/10"), "the server sends a range but calls it 'bytes=0-9/10'"),
        (saying(f"bytes 0-{'9' * 5000}/5"), "the server sends a range but calls it 'bytes 0-99"),
        (status(206), "the server sends a range without saying which"),
        (
            lambda handler: serve(handler, headers={"Content-Encoding": "gzip"}),
            "the server applies content encoding",
        ),
        (lambda handler: serve(handler, length=65_535), "announces 65535 bytes for a range of 65536"),
    ],
)
def test_refusals(server: Server, answer: Answer, reason: str) -> None:
    server.always = answer
    assert reason in refusal(server.url)
    assert len(server.seen) == 1, "asking again would not help"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (status(500), "the server failed (500 Internal Server Error)"),
        (status(503), "the server failed (503 Service Unavailable)"),
        (status(429), "the server received too many requests (429); try again later"),
        (lambda handler: hang_up(handler), "the server closed the connection"),
        (lambda handler: not_http(handler), "the host did not speak HTTP"),
        (lambda handler: cut(handler), "the server sent 100 of 65536 bytes"),
        (lambda handler: cut_chunks(handler), "the server sent 3 of 65536 bytes"),
    ],
)
def test_troubles_that_may_pass(server: Server, answer: Answer, reason: str) -> None:
    """Asked three times in all; the last answer counts."""
    server.always = answer
    assert refusal(server.url) == reason
    assert len(server.seen) == 3
    server.always = None
    server.script = [answer, answer]
    source = HttpFile(server.url)
    server.script = [answer, answer]
    assert source.read_at(100_000, 300_000) == DATA[100_000:400_000]
    source.close()


def hang_up(handler: Handler) -> None:
    handler.close_connection = True


def not_http(handler: Handler) -> None:
    handler.wfile.write(b"220 mail.example.org ESMTP\r\n\r\n")
    handler.close_connection = True


def cut(handler: Handler) -> None:
    first, last = handler.range
    content_range = {"Content-Range": f"bytes {first}-{last}/{handler.server.size}"}
    handler.answer(206, content_range, DATA[first : first + 100], length=last + 1 - first)
    handler.close_connection = True


def chunks(*parts: bytes, end: bytes = b"0\r\n\r\n") -> Answer:
    def answer(handler: Handler) -> None:
        first, last = handler.range
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {first}-{last}/{handler.server.size}")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for part in parts or (DATA[first : last + 1],):
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        handler.wfile.write(end)
        handler.close_connection = not end

    return answer


def cut_chunks(handler: Handler) -> None:
    chunks(b"abc", end=b"")(handler)


def test_answers_in_chunks(server: Server) -> None:
    server.always = chunks()
    source = HttpFile(server.url)
    assert source.read_at(0, len(DATA)) == DATA
    assert len({headers["Host"] for _, headers in server.seen}) == 1
    source.close()


@pytest.mark.parametrize("way", ["chunks", "until the connection closes"])
def test_more_than_was_asked_for(server: Server, way: str) -> None:
    """An endless response does not fill the memory."""

    def endless(handler: Handler) -> None:
        serve_open_end(handler, b"x" * 20_000_000)

    def serve_open_end(handler: Handler, body: bytes) -> None:
        handler.answer(206, {"Content-Range": f"bytes 0-65535/{len(DATA)}"}, body, length=None)

    server.always = chunks(DATA[:READ_AHEAD], b"!" * 20_000_000) if way == "chunks" else endless
    assert refusal(server.url) == "the server sends more than the 65536 bytes requested"


def test_an_open_end_that_fits(server: Server) -> None:
    """HTTP/1.0: no length is declared, the connection closes."""
    server.always = lambda handler: serve(handler, length=None)
    source = HttpFile(server.url)
    assert source.read_at(0, len(DATA)) == DATA
    source.close()


def test_bytes_after_an_answer_are_not_taken_for_the_next(server: Server) -> None:
    def trailing(handler: Handler) -> None:
        serve(handler)
        handler.wfile.write(b"HTTP/1.1 206 forged\r\n\r\n" * 10_000)

    server.always = trailing
    try:
        source = HttpFile(server.url)
        assert source.read_at(100_000, 300_000) == DATA[100_000:400_000]
    except UnreadableFile:
        return  # noticed, which is as good
    source.close()


@pytest.mark.parametrize("change", ["size", "etag", "time"])
def test_changes_while_it_is_read(server: Server, change: str) -> None:
    if change == "time":
        server.always = lambda handler: serve(handler, headers={"ETag": "", "Last-Modified": server.etag})
    source = HttpFile(server.url)
    assert source.read_at(200_000, 10) == DATA[200_000:200_010]
    if change == "size":
        server.give(DATA + b"more")
    else:
        server.etag = '"two"'
    with pytest.raises(UnreadableFile, match="the file changed while it was being read"):
        source.read_at(300_000, 10)
    source.close()


def test_a_weak_etag_is_the_same_etag(server: Server) -> None:
    source = HttpFile(server.url)
    server.etag = 'W/"one"'
    assert source.read_at(200_000, 10) == DATA[200_000:200_010]
    source.close()


def test_a_size_that_lies(server: Server) -> None:
    """The server says 900,000 bytes and has 512,000."""

    def lying(handler: Handler) -> None:
        first, _ = handler.range
        if first >= len(DATA):
            return handler.answer(416, {"Content-Range": f"bytes */{len(DATA)}"})
        return serve(handler)

    server.always = lying
    server.size = 900_000
    source = HttpFile(server.url)
    with pytest.raises(UnreadableFile, match="the file is shorter than the server reported"):
        source.read_at(800_000, 10)
    source.close()
    server.size = 100 + len(data := save({"a": torch.ones(100_000)}))
    server.content = data
    with pytest.raises(FileError, match="100 bytes follow after the last tensor"):
        open_weights(server.url)


def test_no_answer_in_time(server: Server) -> None:
    done = threading.Event()
    server.always = lambda handler: done.wait(10) and None
    assert refusal(server.url, timeout=0.15) == "the server did not respond within 0.15 s"
    done.set()


def test_an_answer_that_drips(server: Server) -> None:
    """Each byte comes in time, all of them would take an hour."""
    done = threading.Event()

    def drip(handler: Handler) -> None:
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes 0-65535/{len(DATA)}")
        handler.send_header("Content-Length", "65536")
        handler.end_headers()
        for _ in range(1000):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            if done.wait(0.05):
                break

    server.always = drip
    assert refusal(server.url, timeout=0.3).startswith("the server is too slow: ")
    done.set()


class Clock:
    """Each look at it takes 15 s: less than the timeout of a read, so that only the limit for all of them counts."""

    def __init__(self) -> None:
        self.now = 0.0
        self.looks = threading.Semaphore(0)

    def __call__(self) -> float:
        self.now += 15.0
        self.looks.release()
        return self.now


@pytest.mark.parametrize(
    "begin", [b"X-Long: ", b"Content-Range: bytes 0-65535/512000\r\nContent-Length: 65536\r\n\r\n"]
)
def test_a_server_that_is_never_done(server: Server, begin: bytes) -> None:
    """Each byte of its header, or of the file, comes in time."""
    clock = Clock()

    def drip(handler: Handler) -> None:
        handler.close_connection = True
        handler.connection.sendall(b"HTTP/1.1 206 Partial Content\r\n" + begin)
        with suppress(OSError):
            while clock.looks.acquire(timeout=5):
                handler.connection.sendall(b"x")

    server.always = drip
    with pytest.raises(NotFinished, match="not finished in 600 s; it was stopped while waiting for the server"):
        HttpFile(server.url, time=TimeLimit(600, clock))
    assert len(server.seen) == 1, "no retry"
    record = inspect_file(server.url, time=TimeLimit(600, clock))
    assert (record.status, record.verdict.findings[0].code) == ("not-checked", "not-finished")


def test_the_time_is_over_between_reads(server: Server) -> None:
    clock = Clock()
    with closing(HttpFile(server.url, time=TimeLimit(600, clock))) as file:
        clock.now += 600
        with pytest.raises(NotFinished):
            file.read_at(200_000, 100_000)


def test_nobody_there() -> None:
    with Server() as closed:
        url = closed.url
    assert refusal(url) == "the server cannot be reached: it refuses the connection"


def test_unknown_host(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", fail)
    assert refusal("https://nowhere.invalid/x").startswith("no server named 'nowhere.invalid' was found")


def test_a_web_server_that_does_not_speak_tls(server: Server) -> None:
    reason = refusal(server.url.replace("http:", "https:"))
    assert reason.startswith(("reading from the server failed: ", "the server closed"))


# --- what fsspec opens -----------------------------------------------------------------------------------------------


@pytest.fixture
def in_memory() -> Iterator[fsspec.AbstractFileSystem]:
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()


def test_through_fsspec(in_memory: fsspec.AbstractFileSystem) -> None:
    in_memory.pipe("/a/model.safetensors", save({"a": torch.arange(1000.0), "b": torch.zeros(1_000_000)}))
    with open_weights("memory://a/model.safetensors") as file:
        assert file.read("a").tolist() == list(range(1000))
        assert file.path == "memory://a/model.safetensors"
        assert file.bytes_read < 100_000 < file.size
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(lambda start: not file.read_flat("b", start, 50).any(), range(0, 900_000, 9000)))


def test_missing_or_empty_through_fsspec(in_memory: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    in_memory.pipe("/empty", b"")
    with pytest.raises(UnreadableFile, match="memory://gone: there is no such file"):
        open_source("memory://gone")
    with pytest.raises(UnreadableFile, match=r"the file is empty \(0 bytes\)"):
        open_source("memory://empty")


def test_truncated_through_fsspec(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(DATA)
    source = open_source(path.as_uri())
    assert source.read_at(300_000, 300) == DATA[300_000:300_300]
    os.truncate(path, 400_000)
    with pytest.raises(UnreadableFile, match="received 0 of 1024 bytes"):
        source.read_at(500_000, 10)
    source.close()


def test_a_package_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(UnreadableFile) as caught:
        open_source("s3://bucket/x.safetensors")
    reason = "reading s3:// needs a package that is not installed: Install s3fs to access S3"
    assert str(caught.value) == f"s3://bucket/x.safetensors: {reason}"


def test_errors_of_any_package_hold_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    class CredentialsError(Exception):
        """With its own base class, as in such packages."""

    def failing(url: str) -> None:
        raise CredentialsError(f"403 for {url}, also {url.replace('x', 'y')}")

    monkeypatch.setattr(fsspec.core, "url_to_fs", failing)
    with pytest.raises(UnreadableFile) as caught:
        open_source("s3://me:SECRET@bucket/x?token=SECRET")
    assert "SECRET" not in str(caught.value)
    assert "cannot be read through fsspec: 403 for s3://bucket/x, also s3://bucket/y" in str(caught.value)


# --- whole checkpoints -----------------------------------------------------------------------------------------------


def padded(path: Path, folder: Path) -> tuple[Path, int]:
    """A checkpoint with 40 MB of zeros before and after the rest; and how many bytes its VAE has."""
    tensors = load_file(path)
    vae = sum(t.nbytes for name, t in tensors.items() if name.startswith("first_stage_model."))
    filler = {name: torch.zeros(20_000_000, dtype=torch.float16) for name in ("a.filler", "model.diffusion_model.z")}
    (folder / "model.safetensors").write_bytes(save(tensors | filler))
    return folder / "model.safetensors", vae


def test_the_same_report_as_of_a_local_file(server: Server, sample_set: SampleSet, tmp_path: Path) -> None:
    path, vae_bytes = padded(sample_set.grey_merge, tmp_path)
    server.give(path)
    local, remote = inspect_file(path), inspect_file(f"{server.url}?key=SECRET")
    assert remote.verdict == local.verdict
    assert remote.verdict.status != "healthy"
    facts = ("kind", "layout", "family_id", "hint_id", "dtype", "fingerprint", "architecture", "checkup")
    assert [getattr(remote, name) for name in facts] == [getattr(local, name) for name in facts]
    assert remote.path == server.url
    assert "SECRET" not in json.dumps(remote.to_json())
    assert remote.bytes_read == server.sent
    assert vae_bytes < server.sent <= vae_bytes + 300_000


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_checkpoints_of_torch(server: Server, tmp_path: Path, kind: str) -> None:
    vae = prefixed("first_stage_model.", kl_state(F8))
    filler = {"model.diffusion_model.x": torch.zeros(5_000_000)}
    path = CONTAINERS[kind](tmp_path / "model.ckpt", filler | vae)
    server.give(path)
    remote = inspect_file(server.url, probe=False)
    assert remote.fingerprint == inspect_file(path, probe=False).fingerprint != ""
    wanted = sum(tensor.nbytes for tensor in vae.values())
    # The old format orders tensors by where they lay in memory: how much is read ahead in vain differs.
    assert server.sent - wanted < 0.05 * (server.size - wanted)


def test_load_over_http(server: Server, sample_set: SampleSet) -> None:
    server.give(sample_set.healthy)
    url = server.url.replace("model.safetensors", "my%20model.safetensors?key=SECRET")
    loaded, local = load_autoencoder(url, family="sd1"), load_autoencoder(sample_set.healthy, family="sd1")
    assert (loaded.name, loaded.path) == ("my model.safetensors", url.partition("?")[0])
    assert all(map(torch.equal, loaded.module.parameters(), local.module.parameters()))


def test_published_facts_are_not_downloaded_for(server: Server) -> None:
    assert known_file(server.url) is None
    assert not server.seen


def test_a_bad_address_is_a_finding(server: Server) -> None:
    server.always = status(404)
    report = inspect_file(f"{server.url}?key=SECRET")
    assert report.verdict.status == "unreadable"
    assert report.path == server.url
    (finding,) = report.verdict.findings
    assert finding.text == "There is no such file on the server (404)."
    assert finding.remedy == "Check the address, or download the file and check it locally."
    assert len(server.seen) == 1, "and is not asked for again"


def test_a_checkpoint_without_a_vae(server: Server, sample_set: SampleSet) -> None:
    server.give(sample_set.no_vae)
    report = inspect_file(server.url)
    assert (report.verdict.status, report.kind, report.hint_id) == ("missing", "checkpoint", "sd1")


def test_inspect_on_the_command_line(server: Server, sample_set: SampleSet, capsys: pytest.CaptureFixture[str]) -> None:
    server.give(sample_set.healthy)
    url = f"{server.url}?key=SECRET"
    assert main(["inspect", "--json", "--no-probe", url, str(sample_set.grey_merge), str(sample_set.photo_b)]) == 0
    written = capsys.readouterr()
    assert "SECRET" not in written.out + written.err
    healthy, merge, _ = map(json.loads, written.out.splitlines())
    assert healthy["path"] == server.url
    assert {parent["name"] for parent in merge["merge"]["parents"]} == {"model.safetensors", "photo-b.ckpt"}
    server.always = status(403)
    assert main(["inspect", url]) == 2
    assert "the server denies access (403)" in capsys.readouterr().out.lower()


def sd15_checkpoint(path: Path) -> Path:
    """2.1 GB that take no disk space: the shapes of a real VAE, and as much other data as in SD 1.5."""
    with torch.device("meta"):
        module = AutoencoderKL(KLConfig(block_out_channels=(128, 256, 512, 512), layers_per_block=2))
    vae = {f"first_stage_model.{name}": tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    unet = {f"model.diffusion_model.output_blocks.{i}.1.attn1.to_q.weight": (1248, 1140) for i in range(686)}
    text = {"cond_stage_model.transformer.text_model.final_layer_norm.weight": (768,)}
    header: dict[str, object] = {}
    position = 0
    for name, shape in sorted((unet | vae | text).items()):
        size = 2 * int(torch.Size(shape).numel())
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [position, position + size]}
        position += size
    raw = json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw)
    os.truncate(path, 8 + len(raw) + position)
    with path.open("r+b") as file:  # something to tell right ranges from wrong ones
        for name, entry in header.items():
            if name.endswith("conv1.weight"):
                file.seek(8 + len(raw) + entry["data_offsets"][0] + 50_000)  # type: ignore[index]
                file.write(torch.arange(100_000).remainder(1000).half().numpy().tobytes())
    return path


def test_identity_of_a_real_checkpoint_takes_a_megabyte(server: Server, tmp_path: Path) -> None:
    path = sd15_checkpoint(tmp_path / "model.safetensors")
    server.give(path)
    assert server.size > 2_100_000_000
    with open_vae(server.url) as file, open_vae(path) as local:
        assert sum(torch.Size(shape).numel() for shape in file.shapes.values()) == 83_653_863
        sketch, expected = sketch_of_file(file), sketch_of_file(local)
        assert file.weights.bytes_read == server.sent <= 1_500_000
    assert sketch.to_bytes() == expected.to_bytes()
    assert sketch.values.any()


def test_identity_is_that_of_the_weights(server: Server, tmp_path: Path) -> None:
    state = kl_state(F8)
    server.give(save(state))
    with open_vae(server.url) as file:
        assert sketch_of_file(file).to_bytes() == sketch_of_state(state).to_bytes()
