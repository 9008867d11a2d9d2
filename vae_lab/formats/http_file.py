"""A file on a web server, read by range and never downloaded."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus

from vae_lab.errors import UnreadableFile
from vae_lab.text import one_line, quoted, sized
from vae_lab.version import __version__

from .addresses import Address, shown_name
from .range_cache import READ_AHEAD, RangeCache

__all__ = ["HttpFile"]

_REDIRECTS = 5
_RETRIES = 2
_PAUSE = 0.2  # seconds before the first retry, twice that before the second
_SLOWEST = 1000  # bytes per second, over a whole answer
_CONNECTIONS = 6  # at once, as browsers have them
_PIECE = 1 << 20
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_EMPTY = re.compile(r"bytes \*/0+")

_REFUSALS = {
    401: "the server wants a login first (401)",
    403: "the server refuses access (403): a login may be needed, or the link has expired",
    404: "there is no such file on the server (404)",
    407: "the proxy wants a login first (407)",
    410: "the file is no longer on the server (410)",
    416: "the server does not have the bytes that should be there (416): the file is shorter than it said",
    429: "the server asks to wait, it has had too many requests (429)",
}
_NO_RANGES = "the server does not support reading by range; download the file to inspect it"
_CHANGED = "the file has changed while it was being read"


class _TransientError(Exception):
    """Worth another try; the text is the reason, if that fails too."""


@dataclass
class _Link:
    """A connection that is kept open."""

    connection: http.client.HTTPConnection
    origin: tuple[str, str, int]
    headers: dict[str, str] = field(repr=False)
    """What the proxy wants with every request."""
    whole_url: bool
    """Whether requests name the whole address: a proxy needs that for http."""
    lasting: bool = False
    """Whether it can be used again after its last answer."""


@dataclass(frozen=True)
class _Part:
    """One answer: bytes, and what the server said about the file they are from."""

    data: bytes
    total: int
    version: str
    """ETag, or time of change where there is none; "" if the server gives neither."""


class HttpFile:
    """A file behind an http or https address, as a ByteSource. Safe to read from several threads.

    ``bytes_read`` counts what the server sent of the file. Opening asks for the first 64 KiB, following redirects;
    later requests go to where these led. Passing troubles of the network are tried again twice.

    Args:
        url: the address. User and password in it are sent to that host alone, and shown nowhere.
        timeout: seconds to wait for a connection, and for each piece of an answer.

    Raises:
        UnreadableFile: the server cannot be reached, refuses, cannot read by range, or contradicts itself.
    """

    def __init__(self, url: str, *, timeout: float = 20.0) -> None:
        self.name = shown_name(url)
        self.size = 0
        self.bytes_read = 0
        self.requests = 0
        """How many requests were sent."""
        self._timeout = timeout
        self._version = ""
        self._idle: list[_Link] = []
        self._closed = False
        self._lock = threading.Lock()
        try:
            self._address = Address.parse(url)
        except ValueError as error:
            raise UnreadableFile(self.name, str(error)) from error
        try:
            first = self._get(0, READ_AHEAD)
        except UnreadableFile:
            self.close()
            raise
        self.size, self._version = first.total, first.version
        self._cache = RangeCache(self.size, self._fetch)
        self._cache.keep(0, first.data)

    def read_at(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes from ``offset`` on."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise UnreadableFile(self.name, f"truncated: bytes {offset} to {offset + length} of {self.size} are needed")
        return self._cache.read(offset, length)

    def prefetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Fetch what short reads of these ranges (offset, length) will want, over several connections at once."""
        self._cache.prefetch(ranges, _CONNECTIONS)

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            self._closed = True
        self._drop_idle()

    def _fetch(self, start: int, length: int) -> bytes:
        part = self._get(start, length)
        if part.total != self.size or (part.version and self._version and part.version != self._version):
            raise UnreadableFile(self.name, _CHANGED)
        return part.data

    def _get(self, start: int, length: int) -> _Part:
        """Ask for a range, again if it is worth it. A file that ends before gives fewer bytes, if that is not known."""
        for pause in (*(_PAUSE * number for number in range(1, _RETRIES + 1)), None):
            try:
                return self._follow(start, length)
            except _TransientError as error:
                self._drop_idle()  # what was open to that server has most likely gone the same way
                if pause is None:
                    raise UnreadableFile(self.name, str(error)) from error
                time.sleep(pause)
        raise AssertionError  # the last round raises or returns

    def _follow(self, start: int, length: int) -> _Part:
        address = self._address
        seen = {address.url}
        while True:
            link = self._link(address)
            answer: _Part | str = ""
            try:
                with self._in_words(address.host):
                    answer = self._ask(link, address, start, length)
            finally:
                self._give_back(link, isinstance(answer, _Part))
            if isinstance(answer, _Part):
                self._address = address
                return answer
            try:
                address = address.redirected(answer)
            except ValueError as error:
                raise UnreadableFile(self.name, str(error)) from error
            if address.url in seen:
                raise UnreadableFile(self.name, "the server redirects in a circle")
            if len(seen) > _REDIRECTS:
                raise UnreadableFile(self.name, f"the server redirects more than {_REDIRECTS} times")
            seen.add(address.url)

    def _ask(self, link: _Link, address: Address, start: int, length: int) -> _Part | str:
        """One request: the range, or where a redirect leads."""
        headers = {
            "Range": f"bytes={start}-{start + length - 1}",
            "User-Agent": f"vae-lab/{__version__}",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
        } | link.headers
        if address.authorization:
            headers["Authorization"] = address.authorization
        with self._lock:
            self.requests += 1
        link.connection.request("GET", address.url if link.whole_url else address.target, headers=headers)
        with link.connection.getresponse() as response:
            if response.status in (301, 302, 303, 307, 308):
                return response.getheader("Location") or ""
            link.lasting = not response.will_close
            return self._part_of(response, start, length)

    def _part_of(self, response: http.client.HTTPResponse, start: int, length: int) -> _Part:
        self._check_status(response)
        expected, total = self._check_range(response.getheader("Content-Range"), start, length)
        if (response.getheader("Content-Encoding") or "identity").strip().lower() != "identity":
            raise UnreadableFile(self.name, "the server compresses the file on its way; its bytes cannot be told apart")
        version = (response.getheader("ETag") or response.getheader("Last-Modified") or "").removeprefix("W/")
        return _Part(self._body(response, expected), total, version)

    def _check_status(self, response: http.client.HTTPResponse) -> None:
        status = response.status
        if status == 206:
            return
        content_range = response.getheader("Content-Range") or ""
        if (status == 200 and response.length == 0) or (status == 416 and _EMPTY.fullmatch(content_range.strip())):
            raise UnreadableFile(self.name, "the file is empty (0 bytes)")
        if status == 200:
            page = (response.getheader("Content-Type") or "").lower().startswith("text/html")
            hint = "the address leads to a web page, not to a file; use the link that downloads the file"
            raise UnreadableFile(self.name, hint if page else _NO_RANGES)
        if status >= 500:
            raise _TransientError(f"the server failed ({_titled(status)})")
        reason = _REFUSALS.get(status, f"the server does not give the file ({_titled(status)})")
        if status in (408, 429):
            raise _TransientError(reason)
        raise UnreadableFile(self.name, reason)

    def _check_range(self, said: str | None, start: int, length: int) -> tuple[int, int]:
        """How many bytes will come, and how many the file has: as said by the server, if that can be true."""
        match = _CONTENT_RANGE.fullmatch((said or "").strip())
        if match is None:
            what = f"says {quoted(said)}" if said else "does not say which bytes it sends"
            raise UnreadableFile(self.name, f"the server answers a range, but {what}")
        if match[3] == "*":
            raise UnreadableFile(self.name, "the server does not say how large the file is")
        first, last, total = int(match[1]), int(match[2]), int(match[3])
        if self.size and total != self.size:
            raise UnreadableFile(self.name, _CHANGED)
        wanted = min(start + length, total) - 1
        if (first, last) != (start, wanted):
            reason = f"asked for bytes {start} to {wanted} of {total}, the server sends {first} to {last}"
            raise UnreadableFile(self.name, reason)
        return last - first + 1, total

    def _body(self, response: http.client.HTTPResponse, expected: int) -> bytes:
        """The bytes of an answer; no more than ``expected`` are taken into memory."""
        if response.length not in (None, expected):
            reason = f"the server announces {response.length} bytes for a range of {expected}"
            raise UnreadableFile(self.name, reason)
        pieces: list[bytes] = []
        started, missing = time.monotonic(), expected
        while missing:
            piece = response.read1(min(missing, _PIECE))
            if not piece:
                raise _TransientError(f"the server sent {expected - missing} of {expected} bytes")
            pieces.append(piece)
            missing -= len(piece)
            with self._lock:
                self.bytes_read += len(piece)
            seconds = time.monotonic() - started
            if missing and seconds > self._timeout and expected - missing < seconds * _SLOWEST:
                raise UnreadableFile(
                    self.name, f"the server sends too slowly: {sized(expected - missing)} in {seconds:.0f} s"
                )
        if response.length is None and response.read1(1):
            raise UnreadableFile(self.name, f"the server sends more than the {expected} bytes asked for")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @contextmanager
    def _in_words(self, host: str) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise _TransientError(f"the server does not answer: nothing came within {self._timeout:g} s") from error
        except socket.gaierror as error:
            reason = f"no server named {quoted(host)} was found; is there a connection to the internet?"
            raise UnreadableFile(self.name, reason) from error
        except ConnectionRefusedError as error:
            raise UnreadableFile(self.name, "the server cannot be reached: it refuses the connection") from error
        except ssl.SSLCertVerificationError as error:
            reason = f"the server's certificate cannot be trusted: {one_line(error.verify_message)}"
            raise UnreadableFile(self.name, reason) from error
        except (ConnectionError, http.client.IncompleteRead) as error:  # RemoteDisconnected is a ConnectionError
            raise _TransientError("the server broke off the connection") from error
        except http.client.BadStatusLine as error:
            raise _TransientError("what answers is not a web server") from error
        except (OSError, http.client.HTTPException) as error:
            detail = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise UnreadableFile(self.name, f"the server cannot be read from: {one_line(detail)}") from error

    # The connections

    def _link(self, address: Address) -> _Link:
        with self._lock:
            if self._closed:
                raise UnreadableFile(self.name, "it has been closed")
            for link in self._idle:
                if link.origin == address.origin:
                    self._idle.remove(link)
                    return link
        return self._new_link(address)

    def _new_link(self, address: Address) -> _Link:
        """A connection, through the proxy that the system is set to, not opened yet."""
        try:
            proxy = _proxy_for(address)
        except ValueError as error:
            raise UnreadableFile(self.name, f"the proxy in the system's settings cannot be used: {error}") from error
        by = proxy or address
        if address.scheme == "http":
            connection = http.client.HTTPConnection(by.host, by.port, timeout=self._timeout)
        else:
            connection = http.client.HTTPSConnection(by.host, by.port, timeout=self._timeout)
        login = {"Proxy-Authorization": proxy.authorization} if proxy and proxy.authorization else {}
        if proxy and address.scheme == "https":
            connection.set_tunnel(address.host, address.port, headers=login)
            login = {}  # for the proxy, not for the server at the tunnel's end
        return _Link(connection, address.origin, headers=login, whole_url=bool(proxy) and address.scheme == "http")

    def _give_back(self, link: _Link, answered: bool) -> None:
        with self._lock:
            if answered and link.lasting and not self._closed:
                self._idle.append(link)
                return
        link.connection.close()

    def _drop_idle(self) -> None:
        with self._lock:
            links, self._idle = self._idle, []
        for link in links:
            link.connection.close()


def _titled(status: int) -> str:
    """A status with its name; the server's own words for it are left out."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _proxy_for(address: Address) -> Address | None:
    proxies = urllib.request.getproxies()
    proxy = proxies.get(address.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(address.host):
        return None
    return Address.parse(proxy if "://" in proxy else f"http://{proxy}")
