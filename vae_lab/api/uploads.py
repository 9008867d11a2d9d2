"""Which paths from a browser are accepted: files that were uploaded to gradio's folder.

Gradio's components take any path: they copy the file to where it can be downloaded (3), or read it unless the request
says that it is a file (4), and fetch URLs (4).
"""

from __future__ import annotations

import atexit
import base64
import binascii
import functools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from vae_lab.errors import MalformedFile, UnreadableFile
from vae_lab.images import check_image

__all__ = ["MAX_BASE64", "accept_only_uploads", "image_bytes", "is_upload", "make_room", "use_private_folder"]

_VARIABLE = "GRADIO_TEMP_DIR"
MAX_BASE64 = 100_000_000
"""Characters of an image; :mod:`vae_lab.images` accepts fewer bytes."""
_MAX_STORED = 2 * 2**30  # bytes of uploads that are stored; the oldest are removed for new ones


def is_upload(path: str) -> bool:
    """Whether ``path`` is inside gradio's folder of uploads, links resolved."""
    # As gradio computes it; 3 has no function for it.
    folder = Path(os.environ.get(_VARIABLE) or Path(tempfile.gettempdir()) / "gradio").absolute()
    try:
        inside, named = folder.resolve(), Path(os.path.abspath(path))  # noqa: PTH100  takes ".." out without the disk
        # Nothing else is asked of the disk: on Windows, a path can name another machine.
        if not (named.is_relative_to(folder) or named.is_relative_to(inside)):
            return False
        real = named.resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links, a zero byte
        return False
    return real != inside and real.is_relative_to(inside)


@functools.lru_cache(maxsize=1)
def use_private_folder() -> None:
    """From now on gradio stores uploads of this process in a new folder that only this user can read.

    It is removed when the process ends. Before any component is built: they remember the folder.
    """
    folder = tempfile.mkdtemp(prefix="vae-lab-uploads-", dir=os.environ.get(_VARIABLE) or None)
    os.environ[_VARIABLE] = folder
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


def make_room(max_bytes: int = _MAX_STORED) -> None:
    """Remove the oldest uploads of this process while all of them exceed ``max_bytes``.

    Gradio stores every upload until the process ends. Does nothing without :func:`use_private_folder`.
    """
    if not use_private_folder.cache_info().currsize:
        return
    files: list[tuple[float, int, Path]] = []
    for folder, _, names in os.walk(os.environ[_VARIABLE]):  # follows no links to folders
        for path in (Path(folder, name) for name in names):
            with suppress(OSError):
                found = path.lstat()
                files.append((found.st_mtime, found.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= max_bytes:
            break
        with suppress(OSError):  # on Windows, it may be open
            path.unlink()
            total -= size


def accept_only_uploads(blocks: Any) -> None:
    """From now on all components in these Blocks of gradio refuse paths that are no uploads, and URLs.

    Those for images also refuse what is too large, or not of a common format, before gradio decodes it.
    """
    for component in getattr(blocks, "children", ()):
        accept_only_uploads(component)
        if hasattr(component, "preprocess"):
            component.preprocess = _checking(component.preprocess, is_image=hasattr(component, "image_mode"))
        if hasattr(component, "async_move_resource_to_block_cache"):  # gradio 4 calls it before ``preprocess``
            component.async_move_resource_to_block_cache = _checking(component.async_move_resource_to_block_cache)


def _checking(method: Callable[[Any], Any], *, is_image: bool = False) -> Callable[[Any], Any]:
    @functools.wraps(method)
    def checked(value: Any) -> Any:
        paths = [value] if method.__name__ == "async_move_resource_to_block_cache" else list(_paths(value))
        for path in paths:
            if path is not None and not is_upload(str(path)):
                raise UnreadableFile("upload", "only files that were uploaded to this page are read")
        if is_image:
            _check_images(value, paths)
        return method(value)

    return checked


def _check_images(value: Any, paths: Iterable[Any]) -> None:
    """Gradio 3 has base64 here, and gradio 4 the path of an upload."""
    for path in paths:
        if path is not None:
            check_image(path)
    texts = value.values() if isinstance(value, Mapping) else [value]
    for text in texts:
        if isinstance(text, str) and text.startswith("data:"):
            check_image(image_bytes(text))


def image_bytes(text: str) -> bytes:
    """An image in base64, optionally as a ``data:`` URL.

    Raises:
        MalformedFile: it is too large, or not base64.
    """
    if len(text) > MAX_BASE64:
        raise MalformedFile("image", "the image is too large")
    try:
        return base64.b64decode(text.partition("base64,")[2] or text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedFile("image", "this is not base64") from error


def _paths(value: Any) -> Iterator[Any]:
    """All paths in a component's value: gradio 3 has dictionaries, gradio 4 models."""
    if isinstance(value, Mapping):
        if value.get("is_file"):
            yield value.get("name")
        yield value.get("path")
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _paths(each)
    else:
        yield getattr(value, "path", None)
        yield from _paths(getattr(value, "root", None) or ())
