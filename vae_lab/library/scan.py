"""Scans many files: finds and identifies them, then checks them, the worst suspects first."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from vae_lab.autoencoders import open_vae
from vae_lab.checkup.findings import HEALTHY
from vae_lab.errors import FileError, NotFinished
from vae_lab.identity import Merge, Sketch
from vae_lab.library.cache import FileCache, Records
from vae_lab.library.folders import FileKey, Walk, file_key
from vae_lab.library.inspect import UNFORESEEN, digest_of, inspect_file, list_file, not_finished, scan_file
from vae_lab.library.record import MAX_PARENTS, Depth, FileRecord, explained, failed, file_facts
from vae_lab.progress import Progress
from vae_lab.time_limit import TimeLimit

__all__ = ["Engine", "Progress", "Scan"]

_MAX_PROBES = 2  # at a time: each needs memory for a VAE and its activations, and torch uses its own threads
_WINDOW = 4  # files queued per thread

# The order in which weights are checked.
_NOT_FINITE, _KNOWN_BAD, _NO_FAMILY, _MERGED, _UNKNOWN, _KNOWN_HEALTHY = range(6)


Engine = Callable[[Iterable[str]], Iterator[tuple[str, FileRecord]]]
"""Maps :func:`scan_file` over paths, on other machines, and yields each with its record; in any order, each once."""

_Result = TypeVar("_Result")


class Scan:
    """A scan of folders and files. Records are stored by file, so the next scan only reads files that have changed.

    Args:
        paths: folders (searched for weight files), files, and URLs.
        cache: stores all records. Others may use it at the same time.
        listed: (name, path) of each file, if already listed; ``paths`` are then not searched.
        probe: whether to check VAEs that were not judged yet with the colour chart.
        jobs: threads; by default one per processor, at most 8. At most two of them check weights.
        engine: checks files elsewhere, instead of threads.
        progress: called for each step, in the iterating thread.
        cancelled: called between files; checks in progress are finished and stored.
        time: makes the limit for one file. A file that takes longer is reported, and the scan continues. An ``engine``
            has its own.
    """

    def __init__(
        self,
        paths: Iterable[str | os.PathLike[str]],
        cache: FileCache,
        *,
        listed: Sequence[tuple[str, str]] | None = None,
        probe: bool = True,
        jobs: int | None = None,
        engine: Engine | None = None,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
        time: Callable[[], TimeLimit] = TimeLimit,
    ) -> None:
        self._paths = list(paths)
        self._cache = cache
        self._listed = listed
        self._wanted = Depth.CHECKED if probe else Depth.IDENTIFIED
        self._jobs = max(1, jobs or min(8, os.cpu_count() or 1))
        self._engine = engine
        self._progress = progress
        self._cancelled = cancelled or (lambda: False)
        self._time = time
        self._files: list[tuple[str, str]] = []
        self._done = 0
        self._total = 0
        self._found = 0
        self._parents: list[_Parent] = []
        self._sources: dict[int, str] = {}
        self.adopted: set[str] = set()
        """Files that were not read, because another name of the same file was."""

    @property
    def complete(self) -> bool:
        """Whether every file was examined as far as requested."""
        return bool(self._total) and self._found == len(self._files)

    @property
    def records(self) -> Records:
        """The records of all files, including those that were only identified; see :class:`Records`."""
        return Records(self._files, self._cache)

    def run(self) -> Generator[FileRecord, None, None]:
        """Yield the record of each file once, as soon as it is done. Ends early if ``cancelled`` returns True."""
        self._files = list(Walk().find_all(self._paths) if self._listed is None else self._listed)
        self._done, self._total, self._found = 0, 2 * len(self._files), 0
        for record in self._elsewhere(self._engine) if self._engine else self._here():
            self._found += 1
            yield record

    # --- in threads ----------------------------------------------------------------------------------------------

    def _here(self) -> Iterator[FileRecord]:
        self._sources, self.adopted = self._other_names(), set()
        indices = range(len(self._files))
        yield from self._examine([index for index in indices if index not in self._sources])
        yield from self._examine(self._sources)

    def _other_names(self) -> dict[int, str]:
        """Hard links, and links to a listed file: index -> the name of the same file that is read."""
        names: dict[tuple[str, str], list[int]] = {}
        for index, (_, path) in enumerate(self._files):
            file_id = file_facts(path).get("file_id", "")
            if file_id:  # some findings are about the extension
                names.setdefault((file_id, Path(path).suffix.lower()), []).append(index)
        sources = {}
        for indices in names.values():
            if len(indices) > 1:
                first = next(filter(self._is_done, indices), indices[0])
                sources |= {index: self._files[first][1] for index in indices if index != first}
        return sources

    def _is_done(self, index: int) -> bool:
        record = self._cache.current(self._files[index][1])
        return record is not None and record.depth >= self._wanted

    def _examine(self, indices: Iterable[int]) -> Iterator[FileRecord]:
        pending: list[_Pending] = []
        everything = map(_Pending, indices)
        for found in self._parallel(self._identify, everything, self._jobs, "reading"):
            if isinstance(found, FileRecord):
                self._done += 1  # nothing is left to check
                yield found
            else:
                pending.append(found)
        first, copies = self._in_order(pending)
        for group in (first, copies):  # copies of a VAE wait until it has been judged
            yield from self._parallel(self._check, group, min(self._jobs, _MAX_PROBES), "checking")

    def _identify(self, one: _Pending) -> FileRecord | _Pending:
        """The final record of a file, or what remains to be checked."""
        name, path = self._files[one.index]
        key = file_key(path)
        record = self._cache.current(path, name)
        if one.index in self._sources and (record is None or record.depth < self._wanted):
            record = self._adopted(one.index) or record
        if record is not None and record.depth >= self._wanted:
            return record
        try:
            record, sketch = self._identity(path) if record is None else (record, self._cache.sketch(path))
        except NotFinished as error:
            record = replace(not_finished(path, error.reason), name=name)
            self._cache.add(path, record, None)
            return record
        except FileError:
            # No VAE can be loaded from such a file, so inspecting it reads no weights.
            record = replace(scan_file(path, time=self._time()), name=name)
            self._cache.add(path, record, key)
            return record
        except UNFORESEEN:
            return one  # the checkup will fail too, and report why
        if record.depth == Depth.LISTED:
            self._cache.add(path, record, key)
        finite = sketch is None or sketch.finite
        digest = digest_of(sketch)
        return replace(one, kind=record.kind, hint=record.hint_id, sketch=digest, dtype=record.dtype, finite=finite)

    def _adopted(self, index: int) -> FileRecord | None:
        name, path = self._files[index]
        if not self._cache.adopt(path, self._sources[index]):
            return None
        record = self._cache.current(path, name)
        if record is not None and record.depth >= self._wanted:
            self.adopted.add(path)
        return record

    def _identity(self, path: str) -> tuple[FileRecord, Sketch | None]:
        with open_vae(path, self._time()) as file:
            sketch = self._cache.sketch(path, file)
            return list_file(file, sketch), sketch

    def _in_order(self, pending: Sequence[_Pending]) -> tuple[list[_Pending], list[_Pending]]:
        """Files to check first, the worst suspects first; and files with the same weights as one of these."""
        self._parents = self._find_parents(pending)
        first: list[_Pending] = []
        copies: list[_Pending] = []
        leaders: dict[tuple[str, str], _Pending] = {}
        for one in pending:
            leader = leaders.get((one.sketch, one.hint)) if one.sketch else None
            if leader is not None:
                copies.append(replace(one, rank=leader.rank, merge=leader.merge))
                continue
            if self._cancelled():
                break
            ranked = self._ranked(one)
            leaders[one.sketch, one.hint] = ranked
            first.append(ranked)
        return sorted(first, key=_rank), sorted(copies, key=_rank)

    def _ranked(self, one: _Pending) -> _Pending:
        if not one.finite:
            return replace(one, rank=_NOT_FINITE)
        merge = self._explained(one, FileRecord(""), {}).merge
        one = replace(one, merge=merge)
        if merge is not None and merge.certain:
            return replace(one, rank=_MERGED)
        judged = self._cache.judged(one.sketch, one.hint)
        if judged is not None:
            return replace(one, rank=_KNOWN_HEALTHY if judged == HEALTHY else _KNOWN_BAD)
        return replace(one, rank=_NO_FAMILY if one.kind == "checkpoint" and not one.hint else _UNKNOWN)

    def _find_parents(self, pending: Sequence[_Pending]) -> list[_Parent]:
        """VAEs that may be parents of merges, external ones first, up to the limit."""
        parents: dict[tuple[str, str], _Parent] = {}
        for wanted in ("vae", "checkpoint"):
            for parent in self._known(pending):
                if len(parents) == MAX_PARENTS:
                    break
                # Copies in another precision are different parents: the rounding shows which one was merged.
                key = parent.digest, parent.dtype
                if key in parents or parent.kind != wanted or not parent.digest:
                    continue
                sketch = self._cache.sketch(parent.path)
                if sketch is not None and sketch.finite:
                    parents[key] = replace(parent, sketch=sketch)
        return list(parents.values())

    def _known(self, pending: Sequence[_Pending]) -> Iterator[_Parent]:
        """Files identified now, then those already known."""
        if not pending:
            return
        for one in pending:
            yield _Parent(*self._files[one.index], one.kind, one.sketch, one.dtype)
        for name, path in self._files:
            if self._cancelled():
                return
            stored = self._cache.current(path, name)
            if stored is not None and not stored.problem:
                yield _Parent(name, path, stored.kind, stored.sketch, stored.dtype)

    def _explained(self, one: _Pending, record: FileRecord, known: Mapping[str, FileRecord]) -> FileRecord:
        """The record of a file with what it was merged from."""
        others = {parent.name: parent.sketch for parent in self._parents if parent.digest != one.sketch}
        sketches = {name: sketch for name, sketch in others.items() if sketch is not None}
        sketch = self._cache.sketch(self._files[one.index][1]) if len(sketches) > 1 else None
        return explained(record, sketch, sketches, known) if sketch is not None else record

    def _with_parents(self, one: _Pending, record: FileRecord) -> FileRecord:
        """As :meth:`_explained`, after reading the weights of the parents: a sample of them does not show all NaN."""
        paths = {parent.name: parent.path for parent in self._parents}
        known: dict[str, FileRecord] = {}
        found = record.with_merge(one.merge)
        while found.merge is not None:
            new = {parent.name for parent in found.merge.parents} - known.keys()
            known |= {name: self._cache.identify(paths[name]) for name in new}
            if all(known[parent.name].can_be_parent_of(record) for parent in found.merge.parents):
                break
            found = self._explained(one, record, known)
        return found

    def _check(self, one: _Pending) -> FileRecord:
        name, path = self._files[one.index]
        key = file_key(path)
        try:
            time = self._time()
            if self._wanted == Depth.CHECKED:
                record = self._cache.check(path, time=time)
            else:
                record = inspect_file(path, probe=False, time=time)
            if record.fingerprint:
                record = self._with_parents(one, record)
        except UNFORESEEN as error:
            record = failed(path, f"it could not be checked: {type(error).__name__}: {error}")
            key = None  # another version may support it
        record = replace(record.with_charts({}), name=name)
        if self._wanted != Depth.CHECKED or record.merge is not None or key is None:  # else it is already stored
            self._cache.add(path, record, key)
        return record

    def _parallel(
        self, function: Callable[[_Pending], _Result], items: Iterable[_Pending], threads: int, what: str
    ) -> Iterator[_Result]:
        """Yield the result of ``function`` for each item, in order of completion."""
        waiting = iter(items)
        running: dict[Future[_Result], _Pending] = {}
        with ThreadPoolExecutor(threads, thread_name_prefix="vae-lab-scan") as pool:
            try:
                while True:
                    while len(running) < threads * _WINDOW and not self._cancelled():
                        item = next(waiting, None)
                        if item is None:
                            break
                        running[pool.submit(function, item)] = item
                    if self._cancelled():
                        running = {future: item for future, item in running.items() if not future.cancel()}
                    if not running:
                        return
                    for done in wait(running, return_when=FIRST_COMPLETED).done:
                        self._step(f"{what} {self._files[running.pop(done).index][0]}")
                        yield done.result()
            finally:  # also if the caller stops iterating
                pool.shutdown(wait=True, cancel_futures=True)

    def _step(self, what: str) -> None:
        self._done += 1
        if self._progress:
            self._progress(self._done, self._total, what)

    # --- on an engine -----------------------------------------------------------------------------------------------

    def _elsewhere(self, engine: Engine) -> Iterator[FileRecord]:
        left: dict[str, str] = {}
        for name, path in self._files:
            stored = self._cache.current(path, name)
            if stored is None or stored.depth < self._wanted:
                left[path] = name
                continue
            self._done += 1
            self._step(f"known: {name}")
            yield stored
        keys: dict[str, FileKey | None] = {}

        def handed_out() -> Iterator[str]:
            for path in left:
                if self._cancelled():
                    return
                keys[path] = file_key(path)
                yield path

        for path, found in engine(handed_out()):
            record = replace(found.with_charts({}), name=left[path])
            self._cache.add(path, record, keys.pop(path))
            self._cache.put_charts(found)
            self._done += 1
            self._step(f"checking {record.name}")
            yield record


@dataclass(frozen=True, slots=True)
class _Pending:
    """A file whose weights will be checked. Small, because there can be ten thousand."""

    index: int
    kind: str = ""
    hint: str = ""
    sketch: str = ""
    dtype: str = ""
    finite: bool = True
    rank: int = _UNKNOWN
    merge: Merge | None = None


@dataclass(frozen=True, slots=True)
class _Parent:
    """A file whose VAE may be a parent of merges."""

    name: str
    path: str
    kind: str
    digest: str
    dtype: str
    sketch: Sketch | None = None


def _rank(one: _Pending) -> tuple[int, int]:
    return one.rank, one.index
