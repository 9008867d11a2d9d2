"""Bake all: write a copy with a healthy VAE of every checkpoint whose VAE is broken or missing, and undo all of it."""

from __future__ import annotations

import shutil
import stat
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vae_lab.checkup.findings import MISSING
from vae_lab.errors import Cancelled, FileError, HostError, UnknownChoice, VaeLabError
from vae_lab.host.base import Host
from vae_lab.library import FileRecord
from vae_lab.library.remedies import Remedy
from vae_lab.new_file import sync_folder
from vae_lab.repair import bake
from vae_lab.service.bakes import family_of, free_file_name
from vae_lab.service.manifest import ChangeList
from vae_lab.service.runs import Runs

__all__ = [
    "MANIFEST", "BakeAllPlan", "BakeAllResult", "BakeAllService", "BakedFile", "BakedFiles", "PlannedBake", "Room",
    "UndoneBakes", "undo_bakes",
]  # fmt: skip

MANIFEST = "bakes.json"
"""Name of the list of new files, in a host's data folder."""


@dataclass(frozen=True)
class BakedFile:
    """A file that was written.

    Attributes:
        path: the file.
        checkpoint: path of the checkpoint that it is a copy of.
        vae: name of the VAE in it.
        size: in bytes.
        mtime_ns: time of its last change, in ns since the epoch.
        inode: its number on the disk.
    """

    path: str
    checkpoint: str
    vae: str
    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path, checkpoint: Path, vae: str) -> BakedFile:
        """Raises OSError: there is no such file."""
        now = path.lstat()
        return cls(str(path), str(checkpoint), vae, now.st_size, now.st_mtime_ns, now.st_ino)

    def problem(self) -> str:
        """Why it must not be removed, or ""; ``FileNotFoundError`` if there is no such file.

        Raises:
            OSError: the disk cannot say.
        """
        now = Path(self.path).lstat()
        same = (now.st_size, now.st_mtime_ns, now.st_ino) == (self.size, self.mtime_ns, self.inode)
        return "" if same and stat.S_ISREG(now.st_mode) else "it was changed since, so it stays"

    @property
    def is_there(self) -> bool:
        """Whether it is as it was written."""
        try:
            return not self.problem()
        except OSError:
            return False


class BakedFiles(ChangeList[BakedFile]):
    """The files that were written, in a JSON file.

    Args:
        path: the JSON file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, asdict, _baked_file)


def _baked_file(entry: Any) -> BakedFile:
    found = BakedFile(**entry)
    texts, numbers = (found.path, found.checkpoint, found.vae), (found.size, found.mtime_ns, found.inode)
    valid = (
        all(isinstance(text, str) and "\0" not in text for text in texts)
        and all(type(number) is int and 0 <= number < 2**128 for number in numbers)
        and Path(found.path).is_absolute()
        and Path(found.path).suffix.lower() == ".safetensors"
        and Path(found.path).parent == Path(found.checkpoint).parent
        and found.path != found.checkpoint
    )
    if not valid:
        raise ValueError("not a file that was written")
    return found


@dataclass(frozen=True)
class PlannedBake:
    """A copy that would be written: names of the checkpoint, the VAE and the new file, and its size in bytes, about."""

    checkpoint: str
    vae: str
    file: str
    size: int


@dataclass(frozen=True)
class Room:
    """Bytes that are needed and free on the disk of a folder."""

    folder: str
    needed: int
    free: int


@dataclass(frozen=True)
class BakeAllPlan:
    """What would be done, and what can be undone.

    Attributes:
        bakes: one for each checkpoint that Fix all has a VAE for, and that has no such copy yet.
        rooms: one for each disk.
        before: names of the checkpoints that have such a copy, with its path.
        written: path of each file that was written and can be removed, and name of the VAE in it.
    """

    bakes: Sequence[PlannedBake]
    rooms: Sequence[Room] = ()
    before: Sequence[tuple[str, str]] = ()
    written: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class BakeAllResult:
    """What was done.

    Attributes:
        written: name of each checkpoint, path of its copy, and what was found when that was checked.
        failed: name of the checkpoint, and why no copy of it was written.
        cancelled: whether checkpoints are left because the user cancelled.
    """

    written: Sequence[tuple[str, Path, FileRecord]]
    failed: Sequence[tuple[str, str]]
    cancelled: bool = False


@dataclass(frozen=True)
class UndoneBakes:
    """What was removed.

    Attributes:
        removed: paths of files.
        refused: path of each file that stays, and why.
    """

    removed: Sequence[str]
    refused: Sequence[tuple[str, str]]


class BakeAllService:
    """Plans, writes and removes the copies. Thread-safe.

    Args:
        host: of the files.
        runs: of the host; this is one of them.
        remedies: gives the remedies of Fix all that have a VAE to use, with the files as listed now, or listed again.
        manifest: where to store what can be undone; by default in the host's data folder.
        done: called when files were written or removed.
    """

    def __init__(
        self,
        host: Host,
        runs: Runs,
        remedies: Callable[[bool], Sequence[Remedy]],
        manifest: Path | None = None,
        done: Callable[[], None] = lambda: None,
    ) -> None:
        self._host = host
        self._runs = runs
        self._remedies = remedies
        self._given = manifest
        self._done = done

    @property
    def manifest(self) -> BakedFiles:
        """The list of what can be undone."""
        return BakedFiles(self._given or self._host.data_folder() / MANIFEST)

    def written(self) -> list[tuple[str, str]]:
        """Path of each file that was written and can be removed, and name of the VAE in it.

        Raises:
            HostError: the list cannot be read.
        """
        return [(one.path, one.vae) for one in self.manifest.read()]

    def plan(self, checkpoints: Collection[str] | None = None, *, fresh: bool = True) -> BakeAllPlan:
        """What would be done, by the results of scans; only reads the headers of broken checkpoints.

        Args:
            checkpoints: names of those to bake; None for all that can be.
            fresh: list the host's files again.

        Raises:
            UnknownChoice: there is no VAE to bake into one of them.
            HostError: VAE Lab cannot choose a VAE in this host, or the list of what can be undone cannot be read.
        """
        usable = {remedy.checkpoint: remedy for remedy in self._remedies(fresh)}
        unknown = [name for name in checkpoints or () if name not in usable]
        if unknown:
            raise UnknownChoice(f"there is nothing to bake into {unknown[0]}")
        listed = self.manifest.read()
        copies = {one.checkpoint: one.path for one in listed if one.is_there}
        files, vaes, before = self._host.checkpoint_files(), self._host.vae_files(), []
        bakes, needed = [], defaultdict[str, int](int)
        for name, remedy in usable.items():
            if checkpoints is not None and name not in checkpoints:
                continue
            if str(files[name]) in copies:
                before.append((name, copies[str(files[name])]))
                continue
            added = vaes.get(remedy.vae) if remedy.status == MISSING else None
            size = _size(files[name]) + (_size(added) if added else 0)
            bakes.append(PlannedBake(name, remedy.vae, free_file_name(files[name], remedy.vae), size))
            needed[str(files[name].parent)] += size
        return BakeAllPlan(bakes, _rooms(needed), before, [(one.path, one.vae) for one in listed])

    def apply(self, checkpoints: Collection[str] | None = None) -> BakeAllResult:
        """Write the planned copies, each next to its checkpoint, which is not changed, and check each.

        Args:
            checkpoints: names of those to bake; None for all that can be. One that has such a copy is left out.

        Raises:
            UnknownChoice: there is no VAE to bake into one of them; nothing was written.
            HostError: there is too little room for all of them, and nothing was written; or another task is running.
        """
        with self._runs.one_at_a_time():
            self._runs.report(0, 0, "looking for files")
            plan = self.plan(checkpoints)
            for room in plan.rooms:
                if room.free < room.needed:
                    raise HostError(
                        f"{room.folder}: not enough disk space: {room.needed / 1e9:.2f} GB needed, "
                        f"{room.free / 1e9:.2f} GB free; choose fewer checkpoints"
                    )
            try:
                return self._apply(plan.bakes)
            finally:
                self._host.listing(fresh=True)
                self._done()

    def _apply(self, bakes: Sequence[PlannedBake]) -> BakeAllResult:
        total, done = sum(one.size for one in bakes), 0
        written: list[tuple[str, Path, FileRecord]] = []
        failed: list[tuple[str, str]] = []
        cancelled = False
        for one in bakes:
            try:
                path = self._bake(one, partial(self._report, done, total, one.file))
                written.append((one.checkpoint, path, self._host.file_cache.check(str(path))))
            except Cancelled:
                cancelled = True
                break
            except VaeLabError as error:
                failed.append((one.checkpoint, error.reason if isinstance(error, FileError) else str(error)))
            done += one.size
        return BakeAllResult(written, failed, cancelled)

    def _bake(self, one: PlannedBake, report: Callable[[int, int, str], None]) -> Path:
        """Write and list one copy."""
        checkpoint, vae = self._host.checkpoint_files()[one.checkpoint], self._host.vae_file(one.vae)
        if vae is None:
            raise UnknownChoice(f"no VAE named {one.vae}")
        path = checkpoint.with_name(one.file)
        family = family_of(self._host, vae)
        bake(checkpoint, vae, path, family=family, progress=report, cancelled=self._runs.cancelled)
        with ExitStack() as unlisted:
            unlisted.callback(path.unlink, missing_ok=True)  # it could not be undone later
            with self.manifest.alone(create=True):
                self.manifest.write([*self.manifest.read(), BakedFile.of(path, checkpoint, one.vae)])
            unlisted.pop_all()
        return path

    def _report(self, before: int, total: int, file: str, done: int, _: int, __: str) -> None:
        self._runs.report(before + done, total, file, unit="bytes")

    def undo(self) -> UndoneBakes:
        """Remove every file that was written and is unchanged.

        Raises:
            UnknownChoice: there is nothing to undo.
            HostError: the list of what was written cannot be read, or another task is running.
        """
        with self._runs.one_at_a_time():
            try:
                return undo_bakes(self.manifest)
            finally:
                self._host.listing(fresh=True)
                self._done()


def undo_bakes(manifest: BakedFiles) -> UndoneBakes:
    """Remove the files in a manifest. What could not be removed stays in it.

    Raises:
        UnknownChoice: there is nothing to undo.
        HostError: the manifest cannot be read.
    """
    with manifest.alone():
        files = manifest.read()
        if not files:
            raise UnknownChoice("There is nothing to undo")
        removed: list[str] = []
        refused: list[tuple[str, str]] = []
        left: list[BakedFile] = []
        for one in files:
            try:
                why = one.problem()
                if not why:
                    Path(one.path).unlink()
            except FileNotFoundError:
                why = "it is gone"
            except OSError as error:
                left.append(one)
                why = f"it could not be removed: {error.strerror or error}"
            if why:
                refused.append((one.path, why))
            else:
                removed.append(one.path)
        for folder in {Path(path).parent for path in removed}:
            sync_folder(folder)
        manifest.write(left)
        return UndoneBakes(removed, refused)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # removed meanwhile: baking it says so
        return 0


def _rooms(needed: Mapping[str, int]) -> list[Room]:
    """One for each disk, under the name of a folder on it."""
    rooms: dict[int, Room] = {}
    for folder, size in needed.items():
        try:
            disk, free = Path(folder).stat().st_dev, shutil.disk_usage(folder).free
        except OSError as error:
            raise HostError(f"{folder}: {error.strerror or error}") from error
        before = rooms.get(disk)
        rooms[disk] = Room(before.folder, before.needed + size, free) if before else Room(folder, size, free)
    return list(rooms.values())
