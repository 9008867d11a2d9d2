"""Downloads a published VAE: only a file of which address, size and SHA-256 are known.

What has arrived is in a file of our own, whose name hosts do not list, and which the next download continues. It gets
the name of a VAE only after everything about it was checked.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from vae_lab.checkup.findings import BROKEN, MISSING, NO_VAE, UNREADABLE
from vae_lab.errors import Cancelled, HostError, UnreadableFile
from vae_lab.identity import PublishedVae, file_sha256
from vae_lab.library.folders import is_file
from vae_lab.library.inspect import CheckupStore, inspect_file
from vae_lab.library.record import FileRecord
from vae_lab.new_file import name_file
from vae_lab.progress import Progress
from vae_lab.text import sized

if sys.platform != "win32":
    import fcntl

__all__ = ["by_hand", "download_vae", "stored_bytes"]

_PIECE = 2**22  # bytes
_FLAGS = os.O_RDWR | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
_REFUSED = (BROKEN, MISSING, NO_VAE, UNREADABLE)
_NOT_OURS = "is not a file that VAE Lab has made; nothing was written to it. Remove it first"


def download_vae(
    published: PublishedVae,
    folder: Path,
    *,
    progress: Progress = lambda *_: None,
    cancelled: Callable[[], bool] = lambda: False,
    memory: CheckupStore | None = None,
) -> FileRecord:
    """Download a file, check it, and give it its name, or with ``-2`` and so on if another file has that one.

    A file that is there already, with the same hash, is only checked.

    Args:
        published: the file.
        folder: where to; it must exist.
        progress: called with the bytes that have arrived now, and how many had to; at the end with the file's name.
        cancelled: asked for each piece that arrives.
        memory: stores checkups by identity of the weights.

    Returns:
        What the checkup found, with the path of the file.

    Raises:
        UnreadableFile: the server cannot be reached, refuses, breaks off before anything has arrived, or has another
            file.
        HostError: it does not fit on the disk, it cannot be written, or another program is downloading it.
        Cancelled: ``cancelled`` returned True. What has arrived stays for the next download.
    """
    part = _part(published, folder)
    try:
        target = _already(published, folder, cancelled)
        if target is None:
            with _own(part) as file:
                transferred = _transfer(published, file, folder, progress, cancelled)
                digest = _digest(file, cancelled)
            if digest != published.sha256:
                part.unlink()
                reason = (
                    f"what arrived has the SHA-256 {digest}, but the published file has {published.sha256}. "
                    "It was deleted"
                )
                raise UnreadableFile(published.address, reason)
            progress(transferred, transferred, published.file)
            record = inspect_file(part, memory=memory)
            if record.status in _REFUSED:
                part.unlink()
                sentence = record.verdict.findings[0].text
                reason = f"it is the published file, but cannot be used: {sentence} It was deleted"
                raise UnreadableFile(published.address, reason)
            target = _named(part, folder / published.file)
        else:
            record = inspect_file(target, memory=memory)
        part.unlink(missing_ok=True)
    except OSError as error:
        raise HostError(f"{error.filename or part}: {error.strerror or error}") from error
    return replace(record, path=str(target), name=target.name)


def stored_bytes(published: PublishedVae, folder: Path) -> int:
    """How much of the file an earlier download has left."""
    try:
        found = _part(published, folder).lstat()
    except OSError:
        return 0
    return min(found.st_size, published.size) if stat.S_ISREG(found.st_mode) else 0


def by_hand(published: PublishedVae, folder: Path) -> str:
    """What to do without VAE Lab, in one line."""
    return (
        f"To get it by hand: save {published.address} as {folder / published.file} "
        f"({published.size:,} bytes, SHA-256 {published.sha256})."
    )


def _part(published: PublishedVae, folder: Path) -> Path:
    return folder / f".vae-lab-{published.sha256[:16]}.part"


def _already(published: PublishedVae, folder: Path, cancelled: Callable[[], bool]) -> Path | None:
    """The file, if it is in the folder under its name."""
    target = folder / published.file
    if not is_file(target) or target.stat().st_size != published.size:
        return None
    return target if file_sha256(target, cancelled) == published.sha256 else None


# --- the file for what has arrived -----------------------------------------------------------------------------------


@contextmanager
def _own(part: Path) -> Iterator[BinaryIO]:
    """Our file: a new one, or that of an earlier download. No other process has it meanwhile, where locks exist."""
    try:
        number = os.open(part, _FLAGS | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        number = _opened_again(part)
    with os.fdopen(number, "r+b") as file:
        _lock(file, part)
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
        finally:
            if not file.seek(0, os.SEEK_END):
                with suppress(OSError):  # open files cannot be removed in Windows
                    part.unlink()


def _opened_again(part: Path) -> int:
    """Never a link, nor another name of a file: what VAE Lab writes must change no other file."""
    before = part.lstat()
    if not stat.S_ISREG(before.st_mode) or before.st_nlink != 1:
        raise HostError(f"{part} {_NOT_OURS}")
    number = os.open(part, _FLAGS)
    if not os.path.samestat(before, os.fstat(number)):
        os.close(number)
        raise HostError(f"{part} {_NOT_OURS}")
    return number


def _lock(file: BinaryIO, part: Path) -> None:
    if sys.platform == "win32":
        return  # two writers would only cost a second download: the hash decides
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise HostError(f"{part.parent}: another program is downloading this file") from error
    except OSError:
        return  # a file system without locks


# --- transfer and check ----------------------------------------------------------------------------------------------


def _transfer(
    published: PublishedVae, file: BinaryIO, folder: Path, progress: Progress, cancelled: Callable[[], bool]
) -> int:
    """Append what is missing, and return how much that was.

    A connection that breaks off is replaced, as long as each one brings something.
    """
    if file.seek(0, os.SEEK_END) > published.size:
        file.truncate(0)
    begin = have = file.seek(0, os.SEEK_END)
    left, free = published.size - begin, shutil.disk_usage(folder).free
    if left > free:
        raise HostError(f"{folder}: {sized(left)} are needed, but {sized(free)} are free")
    while have < published.size:
        before = have
        try:
            for piece in _pieces(published, have):
                file.write(piece)
                have += len(piece)
                progress(have - begin, left, "")
                if cancelled():
                    raise Cancelled("cancelled")
        except UnreadableFile:
            if have == before:
                raise
    return left


def _pieces(published: PublishedVae, start: int) -> Iterator[bytes]:
    if not published.address.startswith("https://"):
        raise HostError(f"{published.address}: only https addresses are downloaded from")
    from vae_lab.formats.http_file import HttpFile  # httpx takes 0.3 s to import

    with closing(HttpFile(published.address)) as source:
        if source.size != published.size:
            reason = (
                f"the file on the server has {source.size:,} bytes, but the published file has {published.size:,}; "
                "nothing was downloaded from there"
            )
            raise UnreadableFile(source.name, reason)
        with closing(source.stream(start)) as pieces:
            yield from pieces


def _digest(file: BinaryIO, cancelled: Callable[[], bool]) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while piece := file.read(_PIECE):
        if cancelled():
            raise Cancelled("cancelled")
        digest.update(piece)
    return digest.hexdigest()


def _named(part: Path, wanted: Path) -> Path:
    """Give the file its name, or one with a number if that is taken. Returns its path."""
    target, number = wanted, 2
    while True:
        try:
            name_file(part, target)
        except FileExistsError:
            target, number = wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}"), number + 1
        else:
            return target
