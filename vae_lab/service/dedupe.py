"""Deduplicate: replace VAE files that are the same byte for byte by links to one, and undo all of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vae_lab.errors import Cancelled, FileError, HostError, UnknownChoice
from vae_lab.host.base import Host
from vae_lab.identity import find_duplicates
from vae_lab.library import FileCache, FileRecord
from vae_lab.library.folders import FileKey, file_key
from vae_lab.library.identical import IdenticalFiles, find_identical, other_containers
from vae_lab.library.links import Replacement, make_independent, remove_leftover, replace_by_link
from vae_lab.service.manifest import ChangeList
from vae_lab.service.runs import Runs

__all__ = ["MANIFEST", "DedupePlan", "DedupeResult", "DedupeService", "Replacements", "UndoneLinks", "undo_links"]

MANIFEST = "links.json"
"""Name of the list of replaced files, in a host's data folder."""

OnBytes = Callable[[int, int, str], None]
"""Called with bytes done, bytes in all, and the file."""


@dataclass(frozen=True)
class DedupePlan:
    """What would be done, and what can be undone.

    Attributes:
        identical: which files can become links, and which cannot.
        others: names of VAE files with the same weights and other bytes, which stay; one tuple for each VAE.
        unscanned: number of VAE files of which nothing is known, because no scan has read them yet.
        replaced: path of each file that was replaced and can be made independent, and of the file that it links to.
    """

    identical: IdenticalFiles
    others: Sequence[tuple[str, ...]] = ()
    unscanned: int = 0
    replaced: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class DedupeResult:
    """What was done.

    Attributes:
        replaced: name of each file that became a link, and of the file that it links to.
        reflinks: number of these that are reflinks, and not hard links.
        freed: bytes.
        skipped: name of each file that stayed as it is, and why.
        cancelled: whether files are left because the user cancelled.
    """

    replaced: Sequence[tuple[str, str]]
    reflinks: int
    freed: int
    skipped: Sequence[tuple[str, str]]
    cancelled: bool = False


@dataclass(frozen=True)
class UndoneLinks:
    """What was undone.

    Attributes:
        restored: paths of files that are independent again.
        refused: path of each file that stays as it is, and why.
        cancelled: whether files are left because the user cancelled.
    """

    restored: Sequence[str]
    refused: Sequence[tuple[str, str]]
    cancelled: bool = False


class Replacements(ChangeList[Replacement]):
    """The files that were replaced by links, in a JSON file.

    Args:
        path: the JSON file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, asdict, _replacement)

    @staticmethod
    def merged(earlier: Iterable[Replacement], later: Iterable[Replacement]) -> list[Replacement]:
        """One list that undoes both: a file that was replaced twice gets back what it had before the first time."""
        found = {change.path: change for change in earlier}
        for change in later:
            first = found.get(change.path)
            if first is not None and first.sha256 == change.sha256:
                change = replace(change, mtime_ns=first.mtime_ns, mode=first.mode, inode=0)
            found[change.path] = change
        return list(found.values())


def _replacement(entry: Any) -> Replacement:
    found = Replacement(**entry)
    if not found.is_valid:
        raise ValueError("not a replaced file")
    return found


class DedupeService:
    """Plans, makes and undoes the links. Thread-safe.

    Args:
        host: of the files.
        runs: of the host; this is one of them.
        manifest: where to store what can be undone; by default in the host's data folder.
        done: called when files were changed.
    """

    def __init__(
        self, host: Host, runs: Runs, manifest: Path | None = None, done: Callable[[], None] = lambda: None
    ) -> None:
        self._host = host
        self._runs = runs
        self._given = manifest
        self._done = done

    @property
    def manifest(self) -> Replacements:
        """The list of what can be undone."""
        return Replacements(self._given or self._host.data_folder() / MANIFEST)

    def replaced(self) -> list[tuple[str, str]]:
        """Path of each file that was replaced and can be made independent, and of the file that it links to.

        Raises:
            HostError: the list cannot be read.
        """
        return [(change.path, change.source) for change in self.manifest.read()]

    def plan(self, *, fresh: bool = True) -> DedupePlan:
        """What would be done, by the results of scans and the hashes that are known; reads no file.

        Args:
            fresh: list the host's files again.

        Raises:
            HostError: the list of what can be undone cannot be read.
        """
        host, cache = self._host, self._host.file_cache
        listing = host.listing(fresh=fresh)
        external = set(map(str, listing.vaes.values()))
        vaes: list[FileRecord] = []
        unscanned = 0
        for name, path in listing.files:
            record = cache.current(path, name)
            unscanned += record is None and path in external
            if record is not None and record.kind == "vae":
                vaes.append(record)
        earlier = self.manifest.read()
        clones = {change.path: change.clone for change in earlier if change.clone}
        files = [(record.name, record.path) for record in vaes]
        identical = find_identical(
            files, host.library_folders(), cache.sha256, lambda path, number: clones.get(path) == number
        )
        names = {path: name for name, path in files}
        others = other_containers(find_duplicates(vaes), names.__getitem__, cache.sha256)
        return DedupePlan(identical, others, unscanned, [(change.path, change.source) for change in earlier])

    def apply(self, files: Collection[str] | None = None) -> DedupeResult:
        """Replace the planned files by links.

        Args:
            files: names of those to replace; None for all that can be.

        Raises:
            UnknownChoice: one of them cannot be replaced; nothing was changed.
            HostError: what is needed for Undo cannot be written, and nothing was changed; or another task is running.
        """
        with self._runs.one_at_a_time():
            self._runs.report(0, 0, "looking for files")
            planned = {copy.name: copy for copy in self.plan().identical.copies}
            links = Counter(copy.replacement.inode for copy in planned.values())
            unknown = [name for name in files or () if name not in planned]
            if unknown:
                raise UnknownChoice(f"{unknown[0]} has no copy that it could be replaced by")
            wanted = [copy for name, copy in planned.items() if files is None or name in files]
            names = {copy.replacement.path: (copy.name, copy.source) for copy in wanted}
            try:
                with self.manifest.alone(create=bool(wanted)):
                    return self._apply([copy.replacement for copy in wanted], names, links)
            finally:
                self._done()

    def _apply(
        self, planned: Sequence[Replacement], names: Mapping[str, tuple[str, str]], links: Mapping[int, int]
    ) -> DedupeResult:
        earlier = self.manifest.read()
        for change in earlier:
            remove_leftover(change)
        if planned:  # before anything is changed: a program that is killed leaves a list that undoes what it has done
            self.manifest.write(Replacements.merged(earlier, planned))
        work = _Work(sum(change.size for change in planned), self._report, self._runs.cancelled)
        facts = _Facts(self._host.file_cache, planned)
        done: list[Replacement] = []
        skipped: list[tuple[str, str]] = []
        cancelled = False
        try:
            for change in planned:
                work.begin(change, names[change.path][0])
                try:
                    done.append(replace_by_link(change, work.on_read, work.cancelled))
                except FileError as error:
                    skipped.append((names[change.path][0], error.reason))
                except Cancelled:
                    cancelled = True
                    break
        finally:
            facts.keep(done)
            with suppress(HostError):  # the longer list is as good: what was not replaced is known to be independent
                self.manifest.write(Replacements.merged(earlier, done))
        replaced = [names[change.path] for change in done]
        gone = Counter(change.inode for change in done)
        freed = sum({one.inode: one.size for one in done if gone[one.inode] == links[one.inode]}.values())
        return DedupeResult(replaced, sum(change.clone > 0 for change in done), freed, skipped, cancelled)

    def _report(self, done: int, total: int, what: str) -> None:
        self._runs.report(done, total, what, unit="bytes")

    def undo(self) -> UndoneLinks:
        """Make every file that was replaced independent again.

        Raises:
            UnknownChoice: there is nothing to undo.
            HostError: the list of what was replaced cannot be read, or another task is running.
        """
        with self._runs.one_at_a_time():
            try:
                return undo_links(self.manifest, self._report, self._runs.cancelled, self._host.file_cache)
            finally:
                self._done()


def undo_links(
    manifest: Replacements,
    progress: OnBytes = lambda *_: None,
    cancelled: Callable[[], bool] = lambda: False,
    cache: FileCache | None = None,
) -> UndoneLinks:
    """Make every file in a manifest independent again. What could not be written stays in it.

    Args:
        manifest: what was replaced.
        progress: called before each file, and while it is copied.
        cancelled: called every 4 MiB.
        cache: of facts about the files, which stay known.

    Raises:
        UnknownChoice: there is nothing to undo.
        HostError: the manifest cannot be read.
    """
    with manifest.alone():
        return _undo(manifest, progress, cancelled, cache)


def _undo(
    manifest: Replacements, progress: OnBytes, cancelled: Callable[[], bool], cache: FileCache | None
) -> UndoneLinks:
    changes = manifest.read()
    if not changes:
        raise UnknownChoice("There is nothing to undo")
    work = _Work(sum(change.size for change in changes), progress, cancelled)
    facts = _Facts(cache, changes)
    restored: list[Replacement] = []
    refused: list[tuple[str, str]] = []
    left: list[Replacement] = []
    stopped = False
    for i, change in enumerate(changes):
        work.begin(change, Path(change.path).name)
        try:
            why = make_independent(change, work.on_read, work.cancelled)
        except FileError as error:
            left.append(change)
            why = error.reason
        except Cancelled:
            left += changes[i:]
            stopped = True
            break
        if why:
            refused.append((change.path, why))
        else:
            restored.append(change)
    facts.keep(restored)
    manifest.write(left)
    return UndoneLinks([change.path for change in restored], refused, stopped)


class _Work:
    """Counts bytes over several files."""

    def __init__(self, total: int, progress: OnBytes, cancelled: Callable[[], bool]) -> None:
        self._total, self._progress, self.cancelled = total, progress, cancelled
        self._done = self._next = 0
        self._what = ""

    def begin(self, change: Replacement, what: str) -> None:
        """The next file."""
        self._done, self._what = self._next, what
        self._next += change.size
        self.on_read(0)

    def on_read(self, count: int) -> None:
        """So many more bytes of the file."""
        self._done = min(self._done + count, self._next)
        self._progress(self._done, self._total, self._what)


class _Facts:
    """What is known of files whose bytes stay the same, although they become other files.

    Args:
        cache: of the facts; None for none.
        changes: of the files, before any of them is made.
    """

    def __init__(self, cache: FileCache | None, changes: Iterable[Replacement]) -> None:
        self._cache = cache
        paths = {path for change in changes for path in (change.path, change.source)} if cache else ()
        self._keys: dict[str, FileKey | None] = {path: file_key(path) for path in paths}

    def keep(self, done: Iterable[Replacement]) -> None:
        """These were made, and their bytes compared."""
        if self._cache is None:
            return
        done = list(done)
        sources = {change.source for change in done} - {change.path for change in done}
        for path in {change.path for change in done} | {path for path in sources if self._has_same_time(path)}:
            self._cache.keep(path, self._keys[path])

    def _has_same_time(self, path: str) -> bool:
        """Only its number of links has changed: key is version, path, size, mtime, ctime."""
        before, now = self._keys[path], file_key(path)
        return before is not None and now is not None and before[:4] == now[:4]
