"""Addresses of files elsewhere: what may be shown of them, and where a redirect may lead."""

from __future__ import annotations

import base64
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

__all__ = ["Address", "file_name", "is_http", "is_url", "shown_name"]

# Two characters at least: C:\ is a drive.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_HTTP = re.compile(r"https?://", re.IGNORECASE)
_PORTS = {"http": 80, "https": 443}
_SAFE = "/%:@!$&'()*+,;=~?"


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether this is an address such as ``https://…``, not a path. A path object never is: it ruins the slashes."""
    return isinstance(path, str) and bool(_SCHEME.match(path))


def is_http(url: str) -> bool:
    """Whether an address is one of http or https."""
    return bool(_HTTP.match(url))


def shown_name(path: str | os.PathLike[str]) -> str:
    """A path as it is; an address without user, password and query: signed addresses are keys to the file."""
    if not is_url(path):
        return os.fsdecode(path)
    url = os.fsdecode(path)
    if is_http(url):
        return _without_secrets(url)
    return "::".join(map(_without_secrets, url.split("::")))  # fsspec's way to name a file within another


def _without_secrets(url: str) -> str:
    try:
        parts = urlsplit(url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:  # brackets that do not close
        return f"{url.partition('://')[0]}://…"


def file_name(path: str | os.PathLike[str]) -> str:
    """The last part of a path or of an address, for people."""
    if not is_url(path):
        return Path(path).name
    shown = shown_name(path).rstrip("/")
    return unquote(shown.rpartition("/")[2]) or shown


@dataclass(frozen=True)
class Address:
    """Where to ask for a file over http or https.

    Attributes:
        scheme: ``http`` or ``https``.
        host: name or number, without brackets.
        port: never left out.
        target: path and query, as sent to the server.
        authorization: value of the header of that name, or "".
    """

    scheme: str
    host: str
    port: int
    target: str = field(repr=False)
    authorization: str = field(default="", repr=False)

    @classmethod
    def parse(cls, url: str) -> Address:
        """Take an address apart.

        Raises:
            ValueError: it is not a valid one; says why without repeating it.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ValueError("the address is not valid: its host or port cannot be understood") from error
        scheme = parts.scheme.lower()
        if scheme not in _PORTS:
            raise ValueError(f"addresses with {quote(scheme)}: are not read, only http: and https:")
        if not parts.hostname:
            raise ValueError("the address is not valid: it names no host")
        try:
            host = parts.hostname if ":" in parts.hostname else parts.hostname.encode("idna").decode("ascii")
        except UnicodeError as error:
            raise ValueError("the address is not valid: its host's name is impossible") from error
        if re.search(r"[\x00-\x20\x7f]", host):
            raise ValueError("the address is not valid: its host's name is impossible")
        target = quote(parts.path or "/", safe=_SAFE) + (f"?{quote(parts.query, safe=_SAFE)}" if parts.query else "")
        authorization = ""
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = f"Basic {base64.b64encode(login.encode()).decode()}"
        return cls(scheme, host, port or _PORTS[scheme], target, authorization)

    @property
    def origin(self) -> tuple[str, str, int]:
        """What must be the same for credentials to be sent again, and for a connection to be used again."""
        return self.scheme, self.host, self.port

    @property
    def url(self) -> str:
        """The whole address, without credentials in front of the host; the query is in it, so it is not for eyes."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.target}"

    def redirected(self, location: str) -> Address:
        """Where a redirect leads, ``location`` being what the server says. Credentials stay with their host.

        Raises:
            ValueError: it leads nowhere, or where it is not safe to follow.
        """
        if not location:
            raise ValueError("the server redirects without saying where to")
        # Header lines come in latin-1, whatever they were written in.
        plain = quote(location.encode("latin-1", "replace"), safe=f"{_SAFE}#[]")
        try:
            target = Address.parse(urljoin(self.url, plain))
        except ValueError as error:
            raise ValueError(f"the server redirects to where nothing can be read: {error}") from error
        if self.scheme == "https" and target.scheme != "https":
            raise ValueError("the server redirects from https to http, which is not safe and not followed")
        if target.authorization or target.origin != self.origin:
            return target
        return Address(target.scheme, target.host, target.port, target.target, self.authorization)
