"""Opens a path or URL as a ByteSource: a local file, a file on a web server, or whatever fsspec supports."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from vae_lab.errors import UnreadableFile
from vae_lab.text import one_line
from vae_lab.time_limit import TimeLimit

from .addresses import is_http, is_url, shown_name
from .range_cache import RangeCache
from .source import ByteSource, LocalFile, require_range

__all__ = ["FsspecFile", "open_source"]


def open_source(
    path_or_url: str | os.PathLike[str], *, timeout: float = 20.0, time: TimeLimit | None = None
) -> ByteSource:
    """Open a local file, an http or https URL, or a URL of any other scheme that fsspec supports.

    Args:
        path_or_url: only a string can be a URL.
        timeout: seconds to wait for each piece of a web server's answer.
        time: the limit for everything that is read from a web server; see :class:`HttpFile`.

    Raises:
        UnreadableFile: it does not exist, cannot be reached, or cannot be read by range.
        NotFinished: ``time`` is over.
    """
    if not isinstance(path_or_url, str) or not is_url(path_or_url):
        text = os.fsdecode(path_or_url)
        if not isinstance(path_or_url, str) and re.match(r"https?:[/\\][^/\\]", text):
            raise UnreadableFile(text.partition("?")[0], "a URL was passed as a Path; pass it as a string")
        return LocalFile(path_or_url)
    if is_http(path_or_url):
        from .http_file import HttpFile  # httpx takes 0.3 s to import, and local files do not need it

        return HttpFile(path_or_url, timeout=timeout, time=time)
    return FsspecFile(path_or_url)


class FsspecFile:
    """A file that fsspec opens, as a ByteSource. Safe to read from several threads, which take turns.

    Raises:
        UnreadableFile: a package for this scheme is not installed, or the file cannot be read.
    """

    def __init__(self, url: str) -> None:
        self.name = shown_name(url)
        self.bytes_read = 0
        self._url = url
        self._file: Any = None
        self._lock = threading.Lock()
        with ExitStack() as undo:
            undo.callback(self.close)
            with self._errors_explained():
                import fsspec  # only needed here

                filesystem, path = fsspec.core.url_to_fs(url)
                # No cache of its own: the default reads 5 MB ahead.
                self._file = filesystem.open(path, "rb", cache_type="none")
                self.size = int(self._file.seek(0, os.SEEK_END))
            if self.size == 0:
                raise UnreadableFile(self.name, "the file is empty (0 bytes)")
            undo.pop_all()
        self._cache = RangeCache(self.size, self._fetch)

    def read_at(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes, starting at ``offset``."""
        require_range(self, offset, length)
        return self._cache.read(offset, length)

    def close(self) -> None:
        """Close the file."""
        # Nothing was written, so a failure loses nothing.
        with suppress(UnreadableFile), self._errors_explained():
            if self._file is not None:
                self._file.close()

    def _fetch(self, start: int, length: int) -> bytes:
        pieces: list[bytes] = []
        missing = length
        with self._lock, self._errors_explained():
            self._file.seek(start)
            while missing:
                piece = self._file.read(missing)
                if not piece:
                    break
                pieces.append(piece)
                missing -= len(piece)
                self.bytes_read += len(piece)
        if missing:
            raise UnreadableFile(self.name, f"received {length - missing} of {length} bytes")
        return b"".join(pieces)

    @contextmanager
    def _errors_explained(self) -> Iterator[None]:
        scheme = self.name.partition("://")[0]
        try:
            yield
        except ImportError as error:
            reason = f"reading {scheme}:// needs a package that is not installed: {self._shown(error)}"
            raise UnreadableFile(self.name, reason) from error
        except FileNotFoundError as error:
            raise UnreadableFile(self.name, "there is no such file") from error
        except PermissionError as error:
            raise UnreadableFile(self.name, "no permission to read it") from error
        # The packages behind fsspec raise their own errors, which share no base class and cannot be imported.
        except Exception as error:
            raise UnreadableFile(self.name, f"cannot be read through fsspec: {self._shown(error)}") from error

    def _shown(self, error: Exception) -> str:
        """The text of an error, with the URL's secrets removed."""
        text = f"{error}" or type(error).__name__
        for secret in (self._url, self._url.partition("://")[2]):
            text = text.replace(secret, self.name)
        return one_line(re.sub(r"(://)[^/@\s]*@|\?[^\s'\"]*=[^\s'\"]*", r"\1", text))
