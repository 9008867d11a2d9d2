"""Replaces a file by a link to another file with the same bytes, and makes it an independent file again.

A reflink (Linux: btrfs, XFS and others) shares the bytes on the disk, but stays a file of its own: an edit of one does
not change the other. Where the file system has none, the link is a hard link. Under either, the name never stands for
anything else than its own bytes: the link is made under a temporary name, which then replaces the file in one step.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from vae_lab.errors import Cancelled, UnreadableFile
from vae_lab.library.folders import WEIGHT_SUFFIXES
from vae_lab.new_file import sync_folder

__all__ = [
    "Replacement", "clone_file", "make_independent", "permissions", "remove_leftover", "replace_by_link",
    "temporary_name",
]  # fmt: skip

_CHUNK = 2**22  # bytes
_FICLONE = 0x40049409  # of linux/fs.h
_TEMPORARY = re.compile(r"\.vae-lab-[0-9a-f]{16}\.part")

OnRead = Callable[[int], None]
"""Called with the number of bytes that were read."""


@dataclass(frozen=True)
class Replacement:
    """A file that is replaced by a link, and what is needed to make it a file of its own again.

    Attributes:
        path: the file.
        source: the file to link to.
        size: bytes of either.
        sha256: 64 hex digits over either.
        mtime_ns: time of the file's last change before, in ns since the epoch.
        mode: its permissions before.
        inode: its number on the disk before; 0 if it was a link already.
        temporary: name of the link before it replaces the file, in the same folder.
        clone: number of the file on the disk that has replaced it, if that is a reflink; else 0.
    """

    path: str
    source: str
    size: int
    sha256: str
    mtime_ns: int
    mode: int
    inode: int
    temporary: str
    clone: int = 0

    @property
    def is_valid(self) -> bool:
        """Whether the texts and numbers are of the form that they should have; of a stored one, nothing is certain."""
        numbers = (self.size, self.mtime_ns, self.mode, self.inode, self.clone)
        texts = (self.path, self.source, self.sha256, self.temporary)
        return (
            all(type(number) is int and 0 <= number < 2**128 for number in numbers)
            and all(isinstance(text, str) and "\0" not in text for text in texts)
            and Path(self.path).is_absolute()
            and Path(self.path).suffix.lower() in WEIGHT_SUFFIXES
            and max(self.size, self.mtime_ns) < 2**63
            and self.mode <= 0o777
            and re.fullmatch("[0-9a-f]{64}", self.sha256) is not None
            and _TEMPORARY.fullmatch(self.temporary) is not None
        )


def permissions(found: os.stat_result) -> int:
    """Who may read and write a file, as for ``chmod``."""
    return found.st_mode & 0o777


def temporary_name() -> str:
    """A name that no file has, and no host lists."""
    return f".vae-lab-{secrets.token_hex(8)}.part"


def replace_by_link(planned: Replacement, on_read: OnRead, cancelled: Callable[[], bool]) -> Replacement:
    """Compare all bytes of both files, and replace ``planned.path`` by a link to ``planned.source``.

    Returns what was done. After an error, the file is as it was.

    Raises:
        FileError: one of the files has changed or they differ, or no link can be made.
        Cancelled: ``cancelled``, called every 4 MiB, returned True.
    """
    path = Path(planned.path)
    temporary = path.with_name(planned.temporary)
    try:
        with _opened(path) as own, _opened(Path(planned.source)) as kept:
            before, of_kept = os.fstat(own.fileno()), os.fstat(kept.fileno())
            facts = (before.st_size, before.st_mtime_ns, permissions(before))
            if facts != (planned.size, planned.mtime_ns, planned.mode):
                raise UnreadableFile(planned.path, "it has changed since, so it was not replaced")
            if _compared(own, kept, on_read, cancelled) != planned.sha256:
                raise UnreadableFile(planned.path, "its bytes are no longer the same, so it was not replaced")
            clone = _make_link(planned, kept, temporary, before)
        if _facts(path.lstat()) != _facts(before) or _contents(Path(planned.source).lstat()) != _contents(of_kept):
            raise UnreadableFile(planned.path, "it was changed in the meantime, so it was not replaced")
        temporary.replace(path)
    except OSError as error:
        raise UnreadableFile(planned.path, f"it could not be replaced: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return replace(planned, clone=clone)


def make_independent(done: Replacement, on_read: OnRead, cancelled: Callable[[], bool]) -> str:
    """Undo :func:`replace_by_link`: the file gets its own copy of the bytes, with its own time and permissions.

    Returns "", also if it was not replaced at all, or why the file stays as it is.

    Raises:
        FileError: the copy cannot be written; the file is as it was.
        Cancelled: ``cancelled``, called every 4 MiB, returned True.
    """
    path = Path(done.path)
    remove_leftover(done)
    try:
        now = path.lstat()
        # A number alone says little: the next new file may get one that has become free.
        if done.inode and (now.st_ino, now.st_size, now.st_mtime_ns) == (done.inode, done.size, done.mtime_ns):
            return ""
        if not stat.S_ISREG(now.st_mode) or now.st_size != done.size or not _copied(done, now, on_read, cancelled):
            return f"{path.name} was changed since, so it stays as it is"
    except FileNotFoundError:
        return f"{path} no longer exists"
    except OSError as error:
        raise UnreadableFile(done.path, f"it could not be copied: {error.strerror or error}") from error
    sync_folder(path.parent)
    return ""


def _copied(done: Replacement, now: os.stat_result, on_read: OnRead, cancelled: Callable[[], bool]) -> bool:
    """Replace the file by a copy of its bytes; False, and nothing done, if they are no longer those of ``done``."""
    path = Path(done.path)
    _require_room(path.parent, done.size)
    # A name of its own: another program that undoes the same at this time must not write to the same file.
    temporary = path.with_name(done.temporary.replace(".part", f"-{secrets.token_hex(8)}.part"))
    try:
        with _opened(path) as own, temporary.open("xb") as copy:
            digest = hashlib.sha256()
            while chunk := _read(own, on_read, cancelled):
                digest.update(chunk)
                copy.write(chunk)
            copy.flush()  # else the rest would be written after the time was set
            _set_facts(path, copy.name, now, done)
            os.fsync(copy.fileno())
        if digest.hexdigest() != done.sha256 or _facts(path.lstat()) != _facts(now):
            return False
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _require_room(folder: Path, size: int) -> None:
    if shutil.disk_usage(folder).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def remove_leftover(planned: Replacement) -> None:
    """Remove what a program that was killed has left under temporary names; the file itself has its own bytes."""
    stem = planned.temporary.removesuffix(".part")
    with suppress(OSError):
        for leftover in Path(planned.path).parent.glob(f"{stem}*.part"):
            if stat.S_ISREG(leftover.lstat().st_mode):
                leftover.unlink()


def clone_file(source: BinaryIO, target: BinaryIO) -> None:
    """Make ``target``, an empty file, a reflink of ``source``.

    Raises:
        OSError: the file system, or this system, cannot do that.
    """
    if not sys.platform.startswith("linux"):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    import fcntl

    fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())


def _make_link(planned: Replacement, kept: BinaryIO, temporary: Path, own: os.stat_result) -> int:
    """Returns the number of the new file if it is a reflink, or 0 for a hard link."""
    try:
        with temporary.open("x+b") as fresh:
            clone_file(kept, fresh)
            _set_facts(Path(planned.path), fresh.name, own, planned)
            os.fsync(fresh.fileno())
            return os.fstat(fresh.fileno()).st_ino
    except OSError:
        temporary.unlink(missing_ok=True)
    other = _other_facts(planned, own, os.fstat(kept.fileno()))
    if other:
        raise UnreadableFile(planned.path, other)
    os.link(planned.source, temporary)
    # Some file systems give every name a number of its own; then it could not be told what is a link.
    if not os.path.samestat(temporary.lstat(), os.fstat(kept.fileno())):
        raise UnreadableFile(planned.path, "the file system does not show hard links, so it was not replaced")
    return 0


def _other_facts(planned: Replacement, own: os.stat_result, kept: os.stat_result) -> str:
    """Why a hard link would lose what belongs to the file besides its bytes, or ""."""
    if permissions(own) != permissions(kept) or (own.st_uid, own.st_gid) != (kept.st_uid, kept.st_gid):
        return "it has another owner or other permissions, which a hard link cannot have"
    if _attributes(planned.path) != _attributes(planned.source):
        return "it has other extended attributes, which a hard link cannot have"
    return ""


def _attributes(path: str) -> dict[str, bytes]:
    if not hasattr(os, "listxattr"):
        return {}
    try:
        return {name: os.getxattr(path, name) for name in os.listxattr(path)}
    except OSError:  # a file system without them
        return {}


def _set_facts(path: Path, copy: str, own: os.stat_result, before: Replacement) -> None:
    """Give a new file the owner and attributes of ``path``, and the time and permissions of ``before``."""
    if hasattr(os, "chown"):
        found = Path(copy).stat()
        if (found.st_uid, found.st_gid) != (own.st_uid, own.st_gid):
            os.chown(copy, own.st_uid, own.st_gid)
    shutil.copystat(path, copy)
    Path(copy).chmod(before.mode)
    os.utime(copy, ns=(own.st_atime_ns, before.mtime_ns))


def _opened(path: Path) -> BinaryIO:
    """A regular file, opened to read; a symbolic link is not followed.

    Raises:
        OSError: it is none, or cannot be read.
    """
    if not stat.S_ISREG(path.lstat().st_mode):  # a pipe would wait for a writer
        raise OSError(errno.EINVAL, "it is not a regular file")
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags), "rb")


def _read(file: BinaryIO, on_read: OnRead, cancelled: Callable[[], bool]) -> bytes:
    if cancelled():
        raise Cancelled("cancelled")
    chunk = file.read(_CHUNK)
    on_read(len(chunk))
    return chunk


def _compared(own: BinaryIO, kept: BinaryIO, on_read: OnRead, cancelled: Callable[[], bool]) -> str:
    """The SHA-256 of both files; "" if they differ."""
    digest = hashlib.sha256()
    while True:
        chunk = _read(own, on_read, cancelled)
        if chunk != kept.read(_CHUNK):
            return ""
        if not chunk:
            return digest.hexdigest()
        digest.update(chunk)


def _facts(found: os.stat_result) -> tuple[int, ...]:
    """What changes with every change of a file."""
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_mode)


def _contents(found: os.stat_result) -> tuple[int, ...]:
    """The same, apart from what a new hard link changes."""
    return (found.st_ino, found.st_size, found.st_mtime_ns)
