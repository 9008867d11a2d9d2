"""Reads files over HTTP by byte range, without downloading them."""

from __future__ import annotations

import base64
import os
import re
import socket
import ssl
import threading
import time as clock
import urllib.request
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from urllib.parse import quote, unquote, urljoin, urlsplit

import httpx

from vae_lab.errors import FileError, UnreadableFile
from vae_lab.text import one_line, quoted, sized
from vae_lab.time_limit import TimeLimit
from vae_lab.version import __version__

from .addresses import shown_name
from .deadline import limit_time
from .range_cache import READ_AHEAD, RangeCache
from .source import require_range

__all__ = ["HttpFile"]

_MAX_REDIRECTS = 5
_RETRIES = 2
_RETRY_DELAY = 0.2  # seconds before the first retry, twice that before the second
_MAX_SECONDS = 3600.0  # for all that is read from one file, without another limit
_MIN_RATE = 1000  # bytes per second, averaged over a whole response
_PARALLEL_REQUESTS = 6  # per host, as in browsers
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_EMPTY = re.compile(r"bytes \*/0+")
_URL_CHARACTERS = "/%:@!$&'()*+,;=~?"  # not to be escaped in a path or query

_STATUS_REASONS = {
    401: "the server requires a login (401)",
    403: "the server denies access (403): a login may be needed, or the link has expired",
    404: "there is no such file on the server (404)",
    407: "the proxy requires a login (407)",
    410: "the file is no longer on the server (410)",
    416: "the server does not have the requested bytes (416): the file is shorter than the server reported",
    429: "the server received too many requests (429); try again later",
}
_NO_RANGES = "the server does not support range requests; download the file to inspect it"
_CHANGED = "the file changed while it was being read"
_CLOSED = "the file is closed"
_WAITING = "waiting for the server"


class _TransientError(Exception):
    """A failure that a retry may fix. Its text becomes the reason if the retries fail too."""


@dataclass(frozen=True)
class _Address:
    """An http or https URL. Its query may be a signature, so neither field is part of the repr."""

    url: httpx.URL = field(repr=False)
    """Without user name and password."""
    authorization: str = field(default="", repr=False)
    """Value of the header of that name, or ""."""

    @classmethod
    def parse(cls, url: str) -> _Address:
        """Raises ValueError if the URL is not valid; the message does not repeat the URL."""
        malformed = "the URL is not valid: its host name or port is malformed"
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ValueError(malformed) from error
        if parts.scheme not in ("http", "https"):
            raise ValueError(f"{quote(parts.scheme)}: URLs are not supported here, only http: and https:")
        if not host:
            raise ValueError("the URL is not valid: it has no host name")
        try:
            host = host if ":" in host else host.encode("idna").decode()
            if re.search(r"[\x00-\x20\x7f]", host):
                raise ValueError(malformed)
            # Escaped here: httpx 0.24 turns "%2F" into "%252F" where other characters need escaping too.
            target = _escaped(parts.path or "/") + (f"?{_escaped(parts.query)}" if parts.query else "")
            parsed = httpx.URL(scheme=parts.scheme, host=host, port=port, raw_path=target.encode())
        except (UnicodeError, httpx.InvalidURL) as error:
            raise ValueError(malformed) from error
        authorization = ""
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = f"Basic {base64.b64encode(login.encode()).decode()}"
        return cls(parsed, authorization)

    @property
    def origin(self) -> tuple[str, str, int | None]:
        """Credentials and connections are only used for one origin."""
        return self.url.scheme, self.url.host, self.url.port

    def redirected(self, response: httpx.Response) -> _Address:
        """The target of a redirect. Raises ValueError if it cannot or should not be followed."""
        location = response.headers.get("Location")
        if not location:
            raise ValueError("the server redirects without a target")
        location = quote(location.encode(response.headers.encoding), safe=f"{_URL_CHARACTERS}#[]")
        try:
            target = self.parse(urljoin(str(self.url), location))
        except ValueError as error:
            raise ValueError(f"the server redirects to an unusable URL: {error}") from error
        if self.url.scheme == "https" and target.url.scheme != "https":
            raise ValueError("the server redirects from https to http, which is not safe")
        if target.authorization or target.origin != self.origin:
            return target
        return replace(target, authorization=self.authorization)


class HttpFile:
    """A file at an http or https URL, as a ByteSource. Safe to read from several threads.

    Opening it requests the first 64 KiB and follows redirects; later requests go straight to their target.
    Transient network errors are retried twice. ``bytes_read`` counts the bytes of the file that the server sent.

    Args:
        url: its user name and password are only sent to its own host, and never shown.
        timeout: seconds to wait for a connection, and for each piece of a response.
        time: the limit for all of it, however small the pieces are; by default an hour.

    Raises:
        UnreadableFile: the server cannot be reached, refuses, does not support ranges, or contradicts itself.
        NotFinished: ``time`` is over; also raised by reads.
    """

    def __init__(self, url: str, *, timeout: float = 20.0, time: TimeLimit | None = None) -> None:
        self.name = shown_name(url)
        self.size = 0
        self.bytes_read = 0
        self.requests = 0
        """Number of requests sent."""
        self._timeout = timeout
        self._time = time or TimeLimit(_MAX_SECONDS)
        self._version = ""
        self._transports: dict[tuple[str, str, int | None], httpx.HTTPTransport] = {}
        self._closed = False
        self._lock = threading.Lock()
        try:
            self._address = _Address.parse(url)
        except ValueError as error:
            raise UnreadableFile(self.name, str(error)) from error
        try:
            first, self.size = self._get(0, READ_AHEAD)
        except FileError:
            self.close()
            raise
        self._cache = RangeCache(self.size, lambda start, length: self._get(start, length)[0])
        self._cache.put(0, first)

    def read_at(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes, starting at ``offset``."""
        require_range(self, offset, length)
        return self._cache.read(offset, length)

    def prefetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Fetch what short reads of these ranges (offset, length) will need, over several connections in parallel."""
        self._cache.prefetch(ranges, _PARALLEL_REQUESTS)

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            self._closed = True
            transports, self._transports = self._transports, {}
        for transport in transports.values():
            transport.close()

    def stream(self, start: int = 0) -> Generator[bytes, None, None]:
        """Yield the file from ``start`` to its end, in pieces as they arrive: one request, without retries.

        Raises:
            UnreadableFile: as for opening. What was yielded before that is right, and can be continued from there.
        """
        require_range(self, start, self.size - start)
        try:
            with self._response(start, self.size - start) as (response, expected, _):
                yield from self._pieces(response, expected)
        except _TransientError as error:
            raise UnreadableFile(self.name, str(error)) from error

    def _get(self, start: int, length: int) -> tuple[bytes, int]:
        """Request a range, with retries. Returns its bytes (fewer at the end of the file), and the file's size."""
        for attempt in range(_RETRIES + 1):
            self._time.check(self.name, _WAITING)
            try:
                with self._response(start, length) as (response, expected, total):
                    return b"".join(self._pieces(response, expected)), total
            except _TransientError as error:
                if attempt == _RETRIES:
                    raise UnreadableFile(self.name, str(error)) from error
                clock.sleep(_RETRY_DELAY * (attempt + 1))
        raise AssertionError  # the last attempt returns or raises

    @contextmanager
    def _response(self, start: int, length: int) -> Iterator[tuple[httpx.Response, int, int]]:
        """The response with a range, after redirects; the number of bytes in it; and the file's size."""
        address = self._address
        visited = {address.url}
        while True:
            with self._errors_explained(address.url.host), closing(self._send(address, start, length)) as response:
                if response.status_code not in (301, 302, 303, 307, 308):
                    expected, total, version = self._checked(response, start, length)
                    yield response, expected, total
                    self._address, self._version = address, self._version or version
                    return
            try:
                address = address.redirected(response)
            except ValueError as error:
                raise UnreadableFile(self.name, str(error)) from error
            if address.url in visited:
                raise UnreadableFile(self.name, "redirect loop")
            if len(visited) > _MAX_REDIRECTS:
                raise UnreadableFile(self.name, f"the server redirects more than {_MAX_REDIRECTS} times")
            visited.add(address.url)

    def _send(self, address: _Address, start: int, length: int) -> httpx.Response:
        headers = {
            "Range": f"bytes={start}-{start + length - 1}",
            "User-Agent": f"vae-lab/{__version__}",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
        }
        if address.authorization:
            headers["Authorization"] = address.authorization
        transport = self._transport(address)
        with self._lock:
            self.requests += 1
        # Through the transport, because an httpx.Client logs whole URLs, and a query may be a signature.
        extensions = {"timeout": httpx.Timeout(self._timeout).as_dict()}
        return transport.handle_request(httpx.Request("GET", address.url, headers=headers, extensions=extensions))

    def _transport(self, address: _Address) -> httpx.HTTPTransport:
        """The connection pool for an origin, which uses the proxy of the system's settings."""
        with self._lock:
            if self._closed:
                raise UnreadableFile(self.name, _CLOSED)
            if address.origin not in self._transports:
                try:
                    self._transports[address.origin] = _new_transport(address.url, self._time)
                except (ValueError, ImportError, httpx.InvalidURL) as error:
                    reason = "the proxy in the system's settings cannot be used; SOCKS proxies need the package socksio"
                    raise UnreadableFile(self.name, reason) from error
            return self._transports[address.origin]

    def _checked(self, response: httpx.Response, start: int, length: int) -> tuple[int, int, str]:
        """The length of the response and of the file, and the file's version, according to the headers."""
        self._check_status(response)
        expected, total = self._check_range(response.headers.get("Content-Range", "").strip(), start, length)
        headers = response.headers
        if headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            raise UnreadableFile(self.name, "the server applies content encoding, so byte ranges cannot be used")
        announced = None if "Transfer-Encoding" in headers else headers.get("Content-Length")
        if announced not in (None, str(expected)):
            raise UnreadableFile(self.name, f"the server announces {announced} bytes for a range of {expected}")
        version = (headers.get("ETag") or headers.get("Last-Modified") or "").removeprefix("W/")
        if self._version and version and version != self._version:
            raise UnreadableFile(self.name, _CHANGED)
        return expected, total, version

    def _check_status(self, response: httpx.Response) -> None:
        status, headers = response.status_code, response.headers
        if status == 206:
            return
        empty = _EMPTY.fullmatch(headers.get("Content-Range", "").strip())
        if (status == 200 and headers.get("Content-Length") == "0") or (status == 416 and empty):
            raise UnreadableFile(self.name, "the file is empty (0 bytes)")
        if status == 200:
            page = headers.get("Content-Type", "").lower().startswith("text/html")
            hint = "the URL leads to a web page, not to a file; use the download link"
            raise UnreadableFile(self.name, hint if page else _NO_RANGES)
        if status >= 500:
            raise _TransientError(f"the server failed ({_titled(status)})")
        reason = _STATUS_REASONS.get(status, f"the server does not return the file ({_titled(status)})")
        if status in (408, 429):
            raise _TransientError(reason)
        raise UnreadableFile(self.name, reason)

    def _check_range(self, content_range: str, start: int, length: int) -> tuple[int, int]:
        """The length of the response and of the file according to the server, if both are plausible."""
        match = _CONTENT_RANGE.fullmatch(content_range)
        if match is None:
            problem = f"but calls it {quoted(content_range)}" if content_range else "without saying which"
            raise UnreadableFile(self.name, f"the server sends a range {problem}")
        if match[3] == "*":
            raise UnreadableFile(self.name, "the server does not report the size of the file")
        first, last, total = int(match[1]), int(match[2]), int(match[3])
        if self.size and total != self.size:
            raise UnreadableFile(self.name, _CHANGED)
        expected = min(start + length, total) - 1
        if (first, last) != (start, expected):
            reason = f"bytes {start} to {expected} of {total} were requested, but the server sends {first} to {last}"
            raise UnreadableFile(self.name, reason)
        return last - first + 1, total

    def _pieces(self, response: httpx.Response, expected: int) -> Iterator[bytes]:
        """The bytes of a response; reading stops as soon as there are more than ``expected``."""
        received, started = 0, clock.monotonic()
        try:
            for piece in response.iter_raw():
                received += len(piece)
                with self._lock:
                    self.bytes_read += len(piece)
                if received > expected:
                    raise UnreadableFile(self.name, f"the server sends more than the {expected} bytes requested")
                yield piece
                seconds = clock.monotonic() - started
                if received < expected and seconds > self._timeout and received < seconds * _MIN_RATE:
                    reason = f"the server is too slow: {sized(received)} in {seconds:.0f} s"
                    raise UnreadableFile(self.name, reason)
        except httpx.RemoteProtocolError:
            pass  # cut off: the byte count below says so
        if received < expected:
            raise _TransientError(f"the server sent {received} of {expected} bytes")

    @contextmanager
    def _errors_explained(self, host: str) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException as error:
            self._time.check(self.name, _WAITING)
            raise _TransientError(f"the server did not respond within {self._timeout:g} s") from error
        except (AssertionError, ValueError) as error:  # from httpcore, if another thread has closed the file
            if not self._closed:
                raise
            raise UnreadableFile(self.name, _CLOSED) from error
        except httpx.TransportError as error:
            cause = _os_error(error)
            if isinstance(cause, socket.gaierror):
                reason = f"no server named {quoted(host)} was found; is there an internet connection?"
            elif isinstance(cause, ConnectionRefusedError):
                reason = "the server cannot be reached: it refuses the connection"
            elif isinstance(cause, ssl.SSLCertVerificationError):
                reason = f"the server's certificate is not trusted: {one_line(cause.verify_message)}"
            elif isinstance(error, httpx.ProxyError):
                reason = f"the proxy cannot connect to the server: {one_line(error)}"
            elif isinstance(cause, ConnectionError) or "disconnected" in str(error):
                raise _TransientError("the server closed the connection") from error
            elif isinstance(error, httpx.RemoteProtocolError):
                raise _TransientError("the host did not speak HTTP") from error
            else:
                reason = f"reading from the server failed: {one_line((cause and cause.strerror) or error)}"
            raise UnreadableFile(self.name, reason) from error


def _escaped(text: str) -> str:
    """A path or query with everything escaped that must be, including "%" where it does not begin an escape."""
    return re.sub("%(?![0-9A-Fa-f]{2})", "%25", quote(text, safe=_URL_CHARACTERS))


def _titled(status: int) -> str:
    """A status with its standard name; the server's own phrase is ignored."""
    return f"{status} {httpx.codes.get_reason_phrase(status)}".strip()


def _os_error(error: BaseException | None) -> OSError | None:
    """The system's error behind an error of httpx."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__  # httpcore 1.0 clears the cause
    return error


def _new_transport(url: httpx.URL, time: TimeLimit) -> httpx.HTTPTransport:
    # httpx itself would fail on unused settings (all_proxy=socks5://…) and ignore the exceptions set in Windows.
    proxies = urllib.request.getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if proxy and urllib.request.proxy_bypass(url.host):
        proxy = None
    if proxy and "://" not in proxy:
        proxy = f"http://{proxy}"
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=_PARALLEL_REQUESTS, keepalive_expiry=5)
    context = _ssl_context(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
    transport = httpx.HTTPTransport(verify=context, limits=limits, proxy=httpx.Proxy(proxy) if proxy else None)
    return limit_time(transport, time)


@lru_cache(maxsize=1)
def _ssl_context(*_: str | None) -> ssl.SSLContext:
    """Trusts the certificates that httpx brings and those of the system, such as a company's own.

    Both read the settings that are its arguments.
    """
    context = httpx.create_ssl_context()
    context.load_default_certs()
    return context
