"""Finds VAE files that are the same byte for byte, and which of them can become links to one."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vae_lab.formats import is_url
from vae_lab.identity import DuplicateGroup
from vae_lab.library.folders import real_path
from vae_lab.library.links import Replacement, permissions, temporary_name

__all__ = ["Copy", "IdenticalFiles", "find_identical", "other_containers"]


@dataclass(frozen=True)
class Copy:
    """A file that can become a link.

    Attributes:
        name: of the file.
        source: name of the file to link to.
        replacement: what to do.
    """

    name: str
    source: str
    replacement: Replacement


@dataclass(frozen=True)
class IdenticalFiles:
    """Files that are the same byte for byte.

    Attributes:
        copies: those that can become links.
        skipped: name of a file with a copy, and why it stays as it is.
        unhashed: number of files of the same size as another one whose hash is not known yet.
        freed: bytes that the links would free.
    """

    copies: Sequence[Copy] = ()
    skipped: Sequence[tuple[str, str]] = ()
    unhashed: int = 0
    freed: int = 0


@dataclass(frozen=True)
class _File:
    """One name of a file on the disk."""

    name: str
    path: str
    stat: os.stat_result
    inside: bool

    @property
    def place(self) -> tuple[int, int]:
        """The same for all hard links."""
        return self.stat.st_dev, self.stat.st_ino


def find_identical(
    files: Iterable[tuple[str, str]],
    folders: Iterable[str | os.PathLike[str]],
    sha256: Callable[[str], str],
    is_clone: Callable[[str, int], bool] = lambda *_: False,
) -> IdenticalFiles:
    """Group files by their hash. Does not read them.

    Args:
        files: (name, path) of VAE files. Symbolic links are left out, for they take no space.
        folders: only files in these are replaced; a link that leads out of them is not followed.
        sha256: returns the hash of a file, or "" if it is not known.
        is_clone: whether the file of this path and number on the disk shares its bytes with another one already.
    """
    roots = [Path(real_path(folder)) for folder in folders]
    by_size: defaultdict[int, list[_File]] = defaultdict(list)
    for file in _on_disk(files, roots):
        by_size[file.stat.st_size].append(file)
    by_hash: defaultdict[str, list[_File]] = defaultdict(list)
    unhashed = 0
    for candidates in by_size.values():
        if len({file.place for file in candidates}) < 2:
            continue
        for file in candidates:
            digest = sha256(file.path)
            unhashed += not digest
            if digest and not is_clone(file.path, file.stat.st_ino):
                by_hash[digest].append(file)
    copies: list[Copy] = []
    skipped: list[tuple[str, str]] = []
    for digest, group in by_hash.items():
        _add_group(digest, group, copies, skipped)
    copies.sort(key=lambda copy: (-copy.replacement.size, copy.name.casefold()))
    return IdenticalFiles(copies, sorted(skipped), unhashed, _freed(copies))


def other_containers(
    groups: Iterable[DuplicateGroup], name: Callable[[str], str], sha256: Callable[[str], str]
) -> list[tuple[str, ...]]:
    """Names of VAE files with the same weights and other bytes, which are never replaced; one tuple for each VAE.

    Args:
        groups: of files with the same weights.
        name: returns the name of a path.
        sha256: as for :func:`find_identical`.
    """
    found = []
    for group in groups:
        hashes = {sha256(path) or path for path in group.vaes} if group.confirmed else set()
        if len(hashes) > 1:
            found.append(tuple(name(path) for path in group.vaes))
    return found


def _on_disk(files: Iterable[tuple[str, str]], roots: Sequence[Path]) -> Iterable[_File]:
    """Each name of a regular file once, by its path without links."""
    seen: set[str] = set()
    for name, listed in files:
        if is_url(listed) or Path(listed).is_symlink():
            continue
        path = real_path(listed)  # its folder may be a link
        if path in seen:
            continue
        seen.add(path)
        try:
            found = Path(path).lstat()
        except OSError:
            continue
        if stat.S_ISREG(found.st_mode) and found.st_size:
            yield _File(name, path, found, any(Path(path).is_relative_to(root) for root in roots))


def _add_group(digest: str, files: Sequence[_File], copies: list[Copy], skipped: list[tuple[str, str]]) -> None:
    by_place: defaultdict[tuple[int, int], list[_File]] = defaultdict(list)
    for file in files:
        by_place[file.place].append(file)
    by_device: defaultdict[int, list[list[_File]]] = defaultdict(list)
    for (device, _), names in by_place.items():
        by_device[device].append(names)
    for places in by_device.values():
        if len(places) == 1:
            if len(by_place) > 1:
                skipped += [(file.name, "its copies are on another file system") for file in places[0]]
            continue
        inside = sorted((names for names in places if all(file.inside for file in names)), key=_to_keep)
        source = inside[0][0] if inside else None
        for names in places:
            if source is None or names[0].place != source.place:
                _add_file(digest, names, source, copies, skipped)


def _add_file(
    digest: str, names: Sequence[_File], source: _File | None, copies: list[Copy], skipped: list[tuple[str, str]]
) -> None:
    if source is None or not all(file.inside for file in names):
        why = "it lies outside of the folder, behind a symbolic link"
    else:
        why = _obstacle(names[0].stat, len(names), source.stat)
    for file in names:
        if why or source is None:
            skipped.append((file.name, why))
            continue
        replacement = _replacement(file, source, digest)
        if replacement.is_valid:  # else it could not be undone
            copies.append(Copy(file.name, source.name, replacement))


def _to_keep(names: Sequence[_File]) -> tuple[object, ...]:
    """First the file that has links elsewhere, then that with most names, then the oldest one."""
    facts = names[0].stat
    return facts.st_nlink <= len(names), -len(names), facts.st_mtime_ns, min(file.path for file in names)


def _obstacle(own: os.stat_result, names: int, source: os.stat_result) -> str:
    """Why a file with so many listed names must stay as it is, or ""."""
    if own.st_nlink > names:
        return "it has hard links elsewhere, so replacing it would free nothing"
    if hasattr(os, "geteuid") and os.geteuid() not in (0, own.st_uid):
        return "it belongs to another user"
    rights = [(permissions(found), found.st_uid, found.st_gid) for found in (own, source)]
    return "it has another owner or other permissions" if rights[0] != rights[1] else ""


def _replacement(file: _File, source: _File, digest: str) -> Replacement:
    found = file.stat
    return Replacement(
        file.path, source.path, found.st_size, digest, found.st_mtime_ns, permissions(found), found.st_ino,
        temporary_name(),
    )  # fmt: skip


def _freed(copies: Iterable[Copy]) -> int:
    """Hard links of one file take its size once."""
    return sum({copy.replacement.inode: copy.replacement.size for copy in copies}.values())
