"""Chooses how to read a file by what it is named: a path, a web address, or what fsspec opens."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from vae_lab.errors import UnreadableFile
from vae_lab.text import one_line

from .addresses import is_http, is_url, shown_name
from .http_file import HttpFile
from .range_cache import RangeCache
from .source import ByteSource, LocalFile

__all__ = ["FsspecFile", "open_source"]


def open_source(path_or_url: str | os.PathLike[str], *, timeout: float = 20.0) -> ByteSource:
    """Open a file on a disk, behind http or https, or behind any other ``scheme://`` that fsspec knows.

    Args:
        path_or_url: only a string can be an address.
        timeout: seconds to wait for a web server.

    Raises:
        UnreadableFile: it is not there, cannot be reached, or cannot be read by range.
    """
    if not isinstance(path_or_url, str) or not is_url(path_or_url):
        text = os.fsdecode(path_or_url)
        if not isinstance(path_or_url, str) and re.match(r"https?:[/\\][^/\\]", text):
            raise UnreadableFile(text.partition("?")[0], "this address was made into a path; give it as text")
        return LocalFile(path_or_url)
    if is_http(path_or_url):
        return HttpFile(path_or_url, timeout=timeout)
    return FsspecFile(path_or_url)


class FsspecFile:
    """A file that fsspec opens, as a ByteSource. Safe to read from several threads, one at a time.

    Raises:
        UnreadableFile: fsspec or what it needs for this kind of address is not installed, or the file cannot be read.
    """

    def __init__(self, url: str) -> None:
        self.name = shown_name(url)
        self.bytes_read = 0
        self._url = url
        self._file: Any = None
        self._lock = threading.Lock()
        with ExitStack() as undo:
            undo.callback(self.close)
            with self._in_words():
                import fsspec  # not needed for anything else here

                filesystem, path = fsspec.core.url_to_fs(url)
                # Without a cache of its own: the usual one reads 5 MB ahead.
                self._file = filesystem.open(path, "rb", cache_type="none")
                self.size = int(self._file.seek(0, os.SEEK_END))
            if self.size == 0:
                raise UnreadableFile(self.name, "the file is empty (0 bytes)")
            undo.pop_all()
        self._cache = RangeCache(self.size, self._fetch)

    def read_at(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes from ``offset`` on."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise UnreadableFile(self.name, f"truncated: bytes {offset} to {offset + length} of {self.size} are needed")
        return self._cache.read(offset, length)

    def close(self) -> None:
        """Close the file."""
        # Nothing was written: whatever goes wrong here, nothing is lost.
        with suppress(UnreadableFile), self._in_words():
            if self._file is not None:
                self._file.close()

    def _fetch(self, start: int, length: int) -> bytes:
        pieces: list[bytes] = []
        missing = length
        with self._lock, self._in_words():
            self._file.seek(start)
            while missing:
                piece = self._file.read(missing)
                if not piece:
                    break
                pieces.append(piece)
                missing -= len(piece)
                self.bytes_read += len(piece)
        if missing:
            raise UnreadableFile(self.name, f"{length - missing} bytes came where {length} were asked for")
        return b"".join(pieces)

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        scheme = self.name.partition("://")[0]
        try:
            yield
        except ImportError as error:
            reason = f"reading {scheme}:// needs a package that is not installed: {self._said(error)}"
            raise UnreadableFile(self.name, reason) from error
        except FileNotFoundError as error:
            raise UnreadableFile(self.name, "there is no such file") from error
        except PermissionError as error:
            raise UnreadableFile(self.name, "no permission to read it") from error
        # Every package behind fsspec raises errors of its own, which have no base in common and cannot be imported.
        except Exception as error:
            raise UnreadableFile(self.name, f"cannot be read through fsspec: {self._said(error)}") from error

    def _said(self, error: Exception) -> str:
        """What an error says, without the address, which may hold a key."""
        text = f"{error}" or type(error).__name__
        for secret in (self._url, self._url.partition("://")[2]):
            text = text.replace(secret, self.name)
        return one_line(re.sub(r"(://)[^/@\s]*@|\?[^\s'\"]*=[^\s'\"]*", r"\1", text))
