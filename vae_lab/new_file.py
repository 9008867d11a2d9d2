"""Write files so that a name never stands for half a file, and never takes the place of another file by accident."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

if sys.platform != "win32":
    import fcntl

__all__ = ["TAKEN", "alone_in", "is_taken", "name_file", "new_file", "new_files", "remove_leftovers", "sync_folder"]

TAKEN = "already exists"
"""``strerror`` of the error about a name that is taken."""

_TRIES, _PAUSE = 200, 0.05  # seconds; whoever gives files their names needs milliseconds
_UNNAMED = ".vae-lab-new-"  # beginning of the names of files that new_file is writing
_LEFTOVER = re.compile(rf"{re.escape(_UNNAMED)}[0-9a-f]{{16}}\.part")
_STREAM_FOLDERS = ("dev", "proc")  # whose links lead to streams, such as /dev/stdout; other links are not followed


def is_taken(target: Path) -> bool:
    """Whether there is something that a new file would replace; devices and pipes are only written to."""
    return os.path.lexists(target) and not _is_stream(target)


@contextmanager
def new_file(target: Path, *, overwrite: bool = False) -> Iterator[BinaryIO]:
    """A new file with another name in the same folder, to write and to read; afterwards it gets the name ``target``.

    After an error in the block there is no new file, and ``target`` is what it was. A program that is killed leaves the
    file under its other name; see :func:`remove_leftovers`. Of two writers without ``overwrite``, one succeeds.

    Args:
        target: in a folder that exists. A device or a pipe is written to directly, but not through a link.
        overwrite: replace a file, or the link itself if it is one.

    Raises:
        FileExistsError: with ``TAKEN``, if ``target`` exists, or appears while the new file is being written.
        OSError: the file cannot be written.
    """
    if _is_stream(target):
        with _opened_stream(target) as stream:
            yield stream
        return
    if not overwrite:
        _require_free(target)
    with _in_use(target) as (fresh, file):
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _give_name(fresh, target, overwrite)


@contextmanager
def _in_use(target: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A file to write, which is removed afterwards, and until then is no leftover."""
    while True:
        fresh = _fresh(target, _UNNAMED)
        file = fresh.open("x+b")  # fails if there is anything of this name, also a link
        lock = _locked(file.fileno())
        if fresh.exists():
            break
        os.close(lock)  # removed as a leftover before it was locked
        file.close()
    try:
        yield fresh, file
    finally:
        file.close()
        fresh.unlink(missing_ok=True)
        os.close(lock)


def _locked(descriptor: int) -> int:
    """Lock an open file, where the system can; returns another descriptor, which keeps it locked until it is closed."""
    if sys.platform == "win32":
        return os.open(os.devnull, os.O_RDONLY)  # there, an open file cannot be removed
    with suppress(OSError):  # not every file system can
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return os.dup(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove what programs that were killed in :func:`new_file` have left in a folder.

    Files that are being written stay: they are locked, or the system does not remove open files.
    """
    with suppress(OSError):
        for path in folder.iterdir():
            if _LEFTOVER.fullmatch(path.name):
                with suppress(OSError):
                    _remove_unused(path)


def _remove_unused(path: Path) -> None:
    if sys.platform == "win32":
        path.unlink()
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    finally:
        os.close(descriptor)


@contextmanager
def new_files(folder: Path, *, overwrite: bool = False) -> Iterator[Callable[[str, bytes], None]]:
    """A function that writes a new file, by name and content; all of them get their names together, after the block.

    Of two writers at the same time, also in two programs, all files that both have written are of the later one.

    Args:
        folder: exists.
        overwrite: replace files, or the links themselves.

    Raises:
        FileExistsError: with ``TAKEN``, if a file exists, or appears meanwhile; no file has got its name.
        OSError: the files cannot be written, or another program is not done with giving its own their names.
    """
    written: list[tuple[Path, Path]] = []

    def write(name: str, content: bytes) -> None:
        target = folder / name
        if not overwrite:
            _require_free(target)
        fresh = _fresh(target)
        with fresh.open("xb") as file:
            written.append((fresh, target))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    try:
        yield write
        with alone_in(folder):
            for _, target in () if overwrite else written:
                _require_free(target)
            for fresh, target in written:
                _give_name(fresh, target, overwrite)
    finally:
        for fresh, _ in written:
            fresh.unlink(missing_ok=True)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Wait for other writers that are alone in a folder, where the system can lock it: not on Windows.

    Raises:
        OSError: another one is not done after ten seconds, or the folder cannot be opened.
    """
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        for left in range(_TRIES, -1, -1):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if not left:
                    raise OSError(errno.EBUSY, "another program is writing to this folder", str(folder)) from error
                time.sleep(_PAUSE)
            except OSError:  # not every file system can
                break
            else:
                break
        yield
    finally:
        os.close(handle)


def _fresh(target: Path, beginning: str = ".vae-lab-") -> Path:
    """Where to write what shall get this name: next to it, under a name that nobody can foresee."""
    return target.with_name(f"{beginning}{secrets.token_hex(8)}.part")


def _give_name(fresh: Path, target: Path, overwrite: bool) -> None:
    if overwrite:
        fresh.replace(target)
    else:
        name_file(fresh, target)


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
        if target.is_symlink() and target.absolute().parts[1:2] not in [(name,) for name in _STREAM_FOLDERS]:
            return False
        return _is_stream_mode(target.stat().st_mode)
    except (OSError, ValueError):
        return False


def _is_stream_mode(mode: int) -> bool:
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


@contextmanager
def _opened_stream(target: Path) -> Iterator[BinaryIO]:
    """Not with "wb", which would empty a file that has taken the place of the stream meanwhile."""
    with open(os.open(target, os.O_WRONLY | getattr(os, "O_BINARY", 0)), "wb") as stream:
        if not _is_stream_mode(os.fstat(stream.fileno()).st_mode):
            raise FileExistsError(errno.EEXIST, TAKEN, str(target))
        yield stream


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
