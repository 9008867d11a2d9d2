"""Distinguishes URLs from paths, and shows them without passwords and signatures."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

__all__ = ["file_name", "is_http", "is_url", "shown_name"]

# At least two characters: C:\ is a drive.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_HTTP = re.compile(r"https?://", re.IGNORECASE)


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether this is a URL such as ``https://...``. A path object never is: it merges the slashes."""
    return isinstance(path, str) and bool(_SCHEME.match(path))


def is_http(url: str) -> bool:
    """Whether this is an http or https URL."""
    return bool(_HTTP.match(url))


def shown_name(path: str | os.PathLike[str]) -> str:
    """A path as it is; a URL without user name, password and query, which may be a signature."""
    if not is_url(path):
        return os.fsdecode(path)
    url = os.fsdecode(path)
    if is_http(url):
        return _without_secrets(url)
    return "::".join(map(_without_secrets, url.split("::")))  # fsspec's syntax for a file within another


def _without_secrets(url: str) -> str:
    try:
        parts = urlsplit(url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:  # unbalanced brackets
        return f"{url.partition('://')[0]}://..."


def file_name(path: str | os.PathLike[str]) -> str:
    """The last part of a path or URL, for display."""
    if not is_url(path):
        return Path(path).name
    shown = shown_name(path).rstrip("/")
    return unquote(shown.rpartition("/")[2]) or shown
