"""Write a file so that its name never stands for half a file, and never takes the place of another file by accident."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

__all__ = ["TAKEN", "is_taken", "name_file", "new_file", "sync_folder"]

TAKEN = "already exists"
"""``strerror`` of the error about a name that is taken."""


def is_taken(target: Path) -> bool:
    """Whether there is something that a new file would replace; devices and pipes are only written to."""
    return os.path.lexists(target) and not _is_stream(target)


@contextmanager
def new_file(target: Path, *, overwrite: bool = False) -> Iterator[BinaryIO]:
    """A new file with another name in the same folder, to write and to read; afterwards it gets the name ``target``.

    After an error in the block there is no new file, and ``target`` is what it was. Of two writers without
    ``overwrite``, one succeeds.

    Args:
        target: in a folder that exists. A device or a pipe is written to directly.
        overwrite: replace a file, or the link itself if it is one.

    Raises:
        FileExistsError: with ``TAKEN``, if ``target`` exists, or appears while the new file is being written.
        OSError: the file cannot be written.
    """
    if _is_stream(target):
        with target.open("wb") as stream:
            yield stream
        return
    if not overwrite:
        _require_free(target)
    fresh = target.with_name(f".vae-lab-{secrets.token_hex(8)}.part")
    file = fresh.open("x+b")
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            fresh.replace(target)
        else:
            name_file(fresh, target)
    finally:
        fresh.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk too, where the system can do that; a file's content is there already."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _is_stream(target: Path) -> bool:
    try:
        mode = target.stat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def _require_free(target: Path) -> None:
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, TAKEN, str(target))


def name_file(fresh: Path, target: Path) -> None:
    """Give ``fresh`` the name ``target``, which nothing may have yet; the system checks that in the same step.

    It may keep its own name as well; remove that then.

    Args:
        fresh: a whole file, in the same folder.
        target: the new name.

    Raises:
        FileExistsError: with ``TAKEN``, if ``target`` exists.
        OSError: it cannot be named so.
    """
    try:
        if os.name == "nt":
            fresh.rename(target)  # replaces nothing there
        else:
            os.link(fresh, target)
    except FileExistsError as error:
        raise FileExistsError(errno.EEXIST, TAKEN, str(target)) from error
    except OSError:
        if os.name == "nt":
            raise
        _name_without_links(fresh, target)


def _name_without_links(fresh: Path, target: Path) -> None:
    """On file systems without hard links, such as exFAT: reserve the name with an empty file, and replace that one."""
    try:
        target.open("xb").close()
    except FileExistsError as error:
        raise FileExistsError(errno.EEXIST, TAKEN, str(target)) from error
    try:
        fresh.replace(target)
    except BaseException:
        with suppress(OSError):
            target.unlink()
        raise
