"""Which paths from a browser are accepted: files that were uploaded to gradio's folder.

Gradio's components take any path: they copy the file to where it can be downloaded (3), or read it unless the request
says that it is a file (4), and fetch URLs (4).
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vae_lab.errors import UnreadableFile

__all__ = ["accept_only_uploads", "is_upload", "use_private_folder"]

_VARIABLE = "GRADIO_TEMP_DIR"


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


def accept_only_uploads(blocks: Any) -> None:
    """From now on all components in these Blocks of gradio refuse paths that are no uploads, and URLs."""
    for component in getattr(blocks, "children", ()):
        accept_only_uploads(component)
        if hasattr(component, "preprocess"):
            component.preprocess = _checking(component.preprocess)
        if hasattr(component, "async_move_resource_to_block_cache"):  # gradio 4 calls it before ``preprocess``
            component.async_move_resource_to_block_cache = _checking(component.async_move_resource_to_block_cache)


def _checking(method: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(method)
    def checked(value: Any) -> Any:
        paths = [value] if method.__name__ == "async_move_resource_to_block_cache" else _paths(value)
        for path in paths:
            if path is not None and not is_upload(str(path)):
                raise UnreadableFile("upload", "only files that were uploaded to this page are read")
        return method(value)

    return checked


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
