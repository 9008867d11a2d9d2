"""Whether a request comes from a page of another site.

A browser sends some requests to any address for any page, with the user's cookies and from inside the user's network:
the page cannot read the answer, but what the request does is done.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection, Request

__all__ = ["FORWARDED", "OTHER_SITE", "AllowedOrigins", "is_same_origin", "refuse_other_sites", "sent_by_other_site"]

OTHER_SITE = "a page of another site may not use this one"
FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host")
"""Headers that a reverse proxy adds, and that no other site's page can."""

_OF_PROXIES = (*FORWARDED, "x-forwarded-proto", "x-real-ip", "via")
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_FORWARDED_HOST = re.compile(r'(?:^|[;,])\s*host="?([^;,"]+)', re.IGNORECASE)


@dataclass(frozen=True)
class AllowedOrigins:
    """Other sites that the user lets in, as with the WebUI's ``--cors-allow-origins``.

    Attributes:
        names: origins such as ``https://example.org``; ``*`` for all.
        pattern: a regular expression for the whole origin, or "".
    """

    names: tuple[str, ...] = ()
    pattern: str = ""

    def __contains__(self, origin: str) -> bool:
        if "*" in self.names or origin in self.names:
            return True
        return bool(self.pattern) and re.fullmatch(self.pattern, origin) is not None


def refuse_other_sites(allowed: AllowedOrigins = AllowedOrigins()) -> Callable[[Request], None]:
    """A dependency of routes that answers 403 to another site's page, unless the request only reads.

    Args:
        allowed: other sites that may send everything.
    """

    def refuse(request: Request) -> None:
        origin = request.headers.get("origin", "")
        if request.method in _SAFE_METHODS or (origin and origin in allowed):
            return
        if sent_by_other_site(request):
            raise HTTPException(403, OTHER_SITE)

    return refuse


def sent_by_other_site(asked: HTTPConnection) -> bool:
    """Whether a browser sends this for a page of another origin, also where a reverse proxy is in between.

    Programs send neither header. Browsers send ``Origin`` with everything that is not a GET, and ``Sec-Fetch-Site``,
    which does not depend on what a proxy makes of the host's name, to https and to this machine.
    """
    site = asked.headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = asked.headers.get("origin")
    if origin is None:
        return False
    return not any(_same(origin, host, by_name) for host, by_name in _own_hosts(asked.headers))


def is_same_origin(asked: HTTPConnection) -> bool:
    """Whether ``Origin`` and ``Host`` are the same, or there is no ``Origin``; believes no proxy."""
    origin = asked.headers.get("origin")
    return origin is None or origin.partition("://")[2].lower() == asked.headers.get("host", "").lower()


def _own_hosts(headers: Headers) -> list[tuple[str, bool]]:
    """What the browser may have called this server, each with whether a proxy may have left out its port."""
    proxied = any(name in headers for name in _OF_PROXIES)
    hosts = [headers.get("host", "")]
    for line in headers.getlist("x-forwarded-host"):
        hosts += line.split(",")
    for line in headers.getlist("forwarded"):
        hosts += _FORWARDED_HOST.findall(line)
    return [(host.strip(), proxied) for host in hosts if host.strip()]


def _same(origin: str, host: str, by_name: bool) -> bool:
    try:
        page, own = urlsplit(origin), urlsplit(f"//{host}")
        default = _DEFAULT_PORTS.get(page.scheme)
        if not page.hostname or page.hostname != own.hostname:
            return False
        return (page.port or default) == (own.port or default) or (by_name and own.port is None)
    except ValueError:  # a malformed port
        return False
