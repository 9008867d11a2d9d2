"""A network backend for httpx that waits no longer than the time that is left for a file.

httpx only limits each read from a socket: a server that sends one byte in each of them, even of a header, is never
too slow.
"""

from __future__ import annotations

import math
from typing import Any

import httpx

from vae_lab.time_limit import TimeLimit

__all__ = ["limit_time"]


def limit_time(transport: httpx.HTTPTransport, time: TimeLimit) -> httpx.HTTPTransport:
    """The same transport; once ``time`` is over, whatever it does raises httpx.TimeoutException.

    httpx has no limit for a whole response, and no parameter for another backend, in any version.
    """
    pool: Any = transport._pool
    pool._network_backend = _TimedBackend(pool._network_backend, time)
    return transport


class _Timed:
    """Hands everything on, with a timeout that is not longer than what is left."""

    def __init__(self, inner: Any, time: TimeLimit) -> None:
        self._inner = inner
        self._time = time

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def _limited(self, timeout: float | None) -> float | None:
        left = self._time.remaining
        if not left:
            raise httpx.ReadTimeout("the time is over")
        if timeout is None:
            return None if left == math.inf else left
        return min(timeout, left)


class _TimedBackend(_Timed):
    """A ``httpcore.NetworkBackend``, which httpcore 0.15, that of the WebUI, does not export."""

    def connect_tcp(self, *args: Any, timeout: float | None = None, **options: Any) -> _TimedStream:
        return _TimedStream(self._inner.connect_tcp(*args, timeout=self._limited(timeout), **options), self._time)


class _TimedStream(_Timed):
    """A ``httpcore.NetworkStream``."""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._limited(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, self._limited(timeout))

    def start_tls(self, *args: Any, timeout: float | None = None, **options: Any) -> _TimedStream:
        return _TimedStream(self._inner.start_tls(*args, timeout=self._limited(timeout), **options), self._time)
