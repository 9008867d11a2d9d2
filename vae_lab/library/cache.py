"""Stores what is known about files between runs.

A file is recognised by path, size and modification times, so a replaced one is read again. Checkups are stored by the
identity of the weights: a thousand checkpoints with one VAE share one checkup, one sketch and one set of charts.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import platformdirs

from vae_lab.autoencoders import VaeFile, open_vae
from vae_lab.checkup import CHECKUP_VERSION, DECODED, ROUND_TRIP, Checkup, identity_key
from vae_lab.checkup.findings import WORST_FIRST, Status
from vae_lab.errors import FileError, NotFinished
from vae_lab.formats import is_url
from vae_lab.identity import Conversion, Conversions, Sketch, Sketched, file_sha256, sketch_of_file
from vae_lab.latents.family import FAMILIES
from vae_lab.library.folders import FileKey, file_key, real_path
from vae_lab.library.inspect import identify_file, inspect_file
from vae_lab.library.record import MAX_PARENTS, Depth, FileRecord, explained, file_facts
from vae_lab.library.store import Store
from vae_lab.time_limit import TimeLimit

__all__ = ["FileCache", "Records", "WorstFirst", "user_cache_folder"]

_MAX_CHECKPOINTS_READ = 16  # in search of the parents of one merge; each takes about a megabyte of its file
_VERSION = f"5.{CHECKUP_VERSION}"  # increase the first number when records contain other facts
_RECENT_ROW, _MAX_RECENT = "recent", 8
_PNG = b"\x89PNG\r\n\x1a\n"


def user_cache_folder() -> Path:
    """The system's cache folder, for hosts without a data folder."""
    return Path(platformdirs.user_cache_dir("vae-lab", appauthor=False))


class FileCache:
    """Records by file; checkups, charts and sketches by identity. Safe to use from several threads.

    Values that cannot be written stay in memory until the program ends; see :class:`Store`.

    Args:
        folder: contains the cache; created if missing.
    """

    def __init__(self, folder: Path) -> None:
        self._store = Store(folder)
        self._adding = threading.Lock()
        self._conversions = Conversions()

    @property
    def failure(self) -> str:
        """Why nothing is written to disk, or ""."""
        return self._store.failure

    def close(self) -> None:
        """Close the cache. Nothing can be read afterwards."""
        self._store.close()

    # --- records by file ------------------------------------------------------------------------------------------

    def known(self, path: str) -> FileRecord | None:
        """The record of an identified or checked file, if the file has not changed since; without charts.

        Does not read the file.
        """
        record = self.current(path)
        return record if record is not None and record.family_id is not None else None

    def checked(self, path: str) -> FileRecord | None:
        """As :meth:`known`, for a checked file."""
        record = self.current(path)
        return record if record is not None and record.depth == Depth.CHECKED else None

    def identify(self, path: str) -> FileRecord:
        """As :meth:`known`, reading the VAE's weights if needed. A bad file also gets a record; never raises."""
        record = self.known(path)
        if record is None:
            key = file_key(path)
            record = identify_file(path)
            self.add(path, record, key)
        return record

    def check(
        self,
        path: str,
        relatives: Mapping[str, str] | None = None,
        checkpoints: Mapping[str, str] | None = None,
        time: TimeLimit | None = None,
    ) -> FileRecord:
        """As :meth:`checked`, with charts, inspecting the file if needed.

        Args:
            path: a checkpoint or a VAE.
            relatives: name -> file of VAEs that it may be merged from; only their sketches are read.
            checkpoints: the same for checkpoints, by their built-in VAEs. Of those without a stored sketch, only a few
                are read.
            time: see :func:`inspect_file`.
        """
        record, key = self.checked(path), file_key(path)
        record = self.with_charts(record) if record is not None else None
        if record is None:
            record = inspect_file(path, memory=self, time=time)
            self.add(path, record, key)
        if (relatives or checkpoints) and record.fingerprint:
            found = self._explained(record, relatives or {}, checkpoints or {})
            if found != record:
                self.add(path, found, key)
            return found
        return record

    def _explained(
        self, record: FileRecord, relatives: Mapping[str, str], checkpoints: Mapping[str, str]
    ) -> FileRecord:
        target = self.sketch(record.path)
        if target is None:
            return record
        own, left = real_path(record.path), _MAX_CHECKPOINTS_READ
        sketches: dict[str, Sketch] = {}
        known: dict[str, FileRecord] = {}
        seen: set[bytes] = set()
        for built_in, files in ((False, relatives), (True, checkpoints)):
            for name, path in files.items():
                if len(sketches) == MAX_PARENTS or name in sketches or real_path(path) == own:
                    continue
                stored, sketch = self._current_sketch(path)
                if not stored and (left or not built_in):
                    left -= built_in
                    sketch = self.sketch(path)
                digest = hashlib.sha256(sketch.values.tobytes()).digest() if sketch else b""
                if sketch is None or digest in seen:
                    continue
                seen.add(digest)
                sketches[name] = sketch
                if other := self.current(path):
                    known[name] = other
        return explained(record, target, sketches, known)

    # --- records by file, of any depth ---------------------------------------------------------------------------

    def current(self, path: str, name: str = "") -> FileRecord | None:
        """The record of a file, if it has not changed since. Does not read the file."""
        stored, key = self._stored(path), file_key(path)
        return _record(stored, path, name) if stored and key and stored.get("file") == list(key) else None

    def last(self, path: str, name: str = "") -> FileRecord | None:
        """As :meth:`current`, whether the file has changed or not."""
        stored = self._stored(path)
        return _record(stored, path, name) if stored else None

    def add(self, path: str, record: FileRecord, key: FileKey | None) -> None:
        """Store the record of a file, unless another thread has meanwhile examined the same file more thoroughly.

        Args:
            path: the file.
            record: its charts are not stored with it.
            key: of the file, before it was read; None if the record must not outlive this scan.
        """
        # Else it was replaced in the meantime.
        unchanged = key is not None and record.finished and key == file_key(path)
        value = {"version": _VERSION, "file": key if unchanged else None, "record": record.to_cache()}
        with self._adding:
            stored = self.current(path)
            if stored is None or stored.depth <= record.depth:
                self._store.set_json(_file_row("record", path), value)
        if record.sketch and record.depth == Depth.CHECKED and not record.problem:
            self._store.set_json(_judged_row(record.sketch, record.hint_id), record.status)

    def judged(self, sketch: str, hint_id: str) -> Status | None:
        """Status of weights with this sketch, if already judged."""
        status = self._store.get_json(_judged_row(sketch, hint_id)) if sketch else None
        return status if status in WORST_FIRST else None

    def keep(self, path: str, before: FileKey | None) -> None:
        """What is known of the file that had the key ``before`` holds for the file that is there now.

        For a file that was replaced by a link to one with the same bytes, or the other way round.
        """
        now = file_key(path)
        if before is None or now is None:
            return
        for kind in ("record", "sha256", "sketch"):
            row = _file_row(kind, path)
            stored = self._store.get_json(row)
            if not isinstance(stored, dict) or stored.get("file") != list(before):
                continue
            if kind == "record" and isinstance(stored.get("record"), dict):
                facts = file_facts(path)
                stored["record"] |= {name: facts[name] for name in ("mtime", "file_id") if name in facts}
            self._store.set_json(row, {**stored, "file": now})

    def adopt(self, path: str, source: str) -> bool:
        """What is known of ``source`` holds for ``path``, another name of the same file. False if nothing is known."""
        key, own = file_key(source), file_key(path)
        if key is None or own is None or file_facts(source).get("file_id") != file_facts(path).get("file_id"):
            return False
        for kind in ("sha256", "sketch", "record"):
            stored = self._store.get_json(_file_row(kind, source))
            if not isinstance(stored, dict) or stored.get("file") != list(key):
                continue
            if kind == "record" and isinstance(stored.get("record"), dict):
                stored["record"] |= {"bytes_read": 0, "seconds": 0.0}
            self._store.set_json(_file_row(kind, path), {**stored, "file": own})
        return self.current(path) is not None

    def _stored(self, path: str) -> dict[str, Any] | None:
        """The stored record of a file and, as ``hashed``, its stored hash."""
        row = _file_row("record", path)
        stored = self._store.get_json(row)
        if isinstance(stored, dict):
            stored["hashed"] = self._store.get_json(row.replace("record", "sha256", 1))
        return stored if isinstance(stored, dict) and stored.get("version") == _VERSION else None

    # --- what the user works with --------------------------------------------------------------------------------

    def recent(self) -> list[str]:
        """The files that were used last, the last one first."""
        stored = self._store.get_json(_RECENT_ROW)
        return [path for path in stored if isinstance(path, str)] if isinstance(stored, list) else []

    def note_used(self, paths: Iterable[str]) -> None:
        """Add files to :meth:`recent`, which forgets the oldest ones."""
        with self._adding:
            used = dict.fromkeys((*paths, *self.recent()))
            self._store.set_json(_RECENT_ROW, list(used)[:_MAX_RECENT])

    # --- hashes of files -----------------------------------------------------------------------------------------

    def sha256(self, path: str) -> str:
        """64 hex digits over a file, if stored and the file has not changed since; else "". Does not read it."""
        return _sha256_of(self._store.get_json(_file_row("sha256", path)), file_key(path))

    def hash(self, path: str, cancelled: Callable[[], bool] | None = None) -> str:
        """As :meth:`sha256`, reading the file if needed.

        Raises:
            UnreadableFile: the file cannot be read.
            Cancelled: ``cancelled``, called every 4 MiB, returned True.
        """
        digest, key = self.sha256(path), file_key(path)
        if not digest:
            digest = file_sha256(path, cancelled)
            self.put_sha256(path, digest, key)
        return digest

    def put_sha256(self, path: str, digest: str, key: FileKey | None) -> None:
        """Store the hash of a file, unless it is no longer the one with this key."""
        if key is not None and key == file_key(path):
            self._store.set_json(_file_row("sha256", path), {"file": key, "sha256": digest})

    # --- checkups by identity; a vae_lab.library.inspect.CheckupStore ------------------------------------------

    def get(self, key: str) -> Checkup | None:
        """The checkup of this identity, with its charts, if stored."""
        stored = self._store.get_json(f"checkup:{key}")
        try:
            checkup = Checkup.from_json(stored["checkup"])
            names = [name for name in (DECODED, ROUND_TRIP) if name in stored["charts"]]
        except (KeyError, TypeError, ValueError):
            return None
        charts = {name: self._store.get_bytes(f"chart:{key}:{name}") or b"" for name in names}
        return replace(checkup, charts=charts) if all(png.startswith(_PNG) for png in charts.values()) else None

    def put(self, key: str, checkup: Checkup) -> None:
        """Store a checkup and its charts."""
        for name, png in checkup.charts.items():
            self._store.set_bytes(f"chart:{key}:{name}", png)
        self._store.set_json(f"checkup:{key}", {"checkup": checkup.to_json(), "charts": list(checkup.charts)})

    def with_charts(self, record: FileRecord) -> FileRecord | None:
        """The record with its checkup's charts; None if those are no longer stored."""
        if record.checkup is None or not record.fingerprint:  # of weights with NaN, only the decoder was checked
            return record
        checkup = self.get(_identity_key(record))
        return None if checkup is None else record.with_charts(checkup.charts)

    def charts(self, record: FileRecord) -> Mapping[str, bytes]:
        """Charts of a record's checkup, PNG by name; empty if none are stored."""
        found = self.with_charts(record)
        return found.charts if found else {}

    def put_charts(self, record: FileRecord) -> None:
        """Store the checkup of a record from another machine, if it has charts."""
        if record.checkup is not None and record.charts:
            self.put(_identity_key(record), record.checkup)

    # --- sketches ------------------------------------------------------------------------------------------------

    def sketch(self, path: str, opened: VaeFile | None = None) -> Sketch | None:
        """The sketch of a file's VAE; None if there is none. Read from the file once, until it changes.

        Args:
            path: a checkpoint or a VAE.
            opened: the same file, if it is already open.

        Raises:
            NotFinished: the time of ``opened`` is over.
        """
        row, key = _file_row("sketch", path), file_key(path)
        stored, sketch = self._current_sketch(path)
        if stored:
            return sketch
        try:
            with nullcontext(opened) if opened else open_vae(path) as file:
                sketch = sketch_of_file(file)
        except NotFinished:  # no fact about the file
            if opened:
                raise
            return None
        except FileError:
            sketch = None
        if key and key == file_key(path):  # else it was replaced in the meantime
            data = sketch.to_bytes() if sketch else b""
            digest = hashlib.sha256(data).hexdigest()[:32] if data else None
            if data:
                self._store.set_bytes(f"sketch:{digest}", data)
            self._store.set_json(row, {"file": key, "sketch": digest})
        return sketch

    def conversions(self, files: Iterable[Sketched]) -> list[Conversion]:
        """Rounded copies among ``files``, by their stored sketches. Does not read the files."""
        return self._conversions.find(files, lambda path: self._current_sketch(path)[1])

    def _current_sketch(self, path: str) -> tuple[bool, Sketch | None]:
        """Whether the sketch is stored, and the sketch, if the file has a VAE. Does not read the file."""
        stored, key = self._store.get_json(_file_row("sketch", path)), file_key(path)
        if not key or not isinstance(stored, dict) or stored.get("file") != list(key):
            return False, None
        if stored.get("sketch") is None:
            return True, None
        sketch = self._stored_sketch(stored["sketch"])
        return sketch is not None, sketch

    def _stored_sketch(self, digest: object) -> Sketch | None:
        data = self._store.get_bytes(f"sketch:{digest}") if isinstance(digest, str) and digest.isalnum() else None
        try:
            return Sketch.from_bytes(data) if data else None
        except (ValueError, RecursionError, OverflowError):
            return None


class Records:
    """The stored records of the files of a scan. Can be iterated over as often as needed; one is in memory at a time.

    Args:
        files: (name, path) of each file.
        cache: contains the records.
    """

    def __init__(self, files: Sequence[tuple[str, str]], cache: FileCache) -> None:
        self._files = files
        self._cache = cache

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[FileRecord]:
        """In the order in which the files were listed; files without a record are omitted."""
        for name, path in self._files:
            record = self._cache.last(path, name)
            if record is not None:
                yield record

    def charts(self, record: FileRecord) -> Mapping[str, bytes]:
        """Charts of a record's checkup, PNG by name; empty if none are stored."""
        return self._cache.charts(record)

    def conversions(self, files: Iterable[Sketched] | None = None) -> list[Conversion]:
        """Rounded copies among these files; see :class:`vae_lab.identity.Conversions`.

        Args:
            files: those with a VAE, if the caller has them already.
        """
        if files is None:
            files = (Sketched(one.path, one.name, one.sketch) for one in self if one.sketch and not one.problem)
        return self._cache.conversions(files)

    @property
    def worst_first(self) -> WorstFirst:
        """The same records, worst status first."""
        return WorstFirst(self._files, self._cache)


class WorstFirst:
    """Records in the order of a report; can be iterated over as often as a report needs."""

    def __init__(self, files: Sequence[tuple[str, str]], cache: FileCache) -> None:
        self._files = files
        self._cache = cache

    def __iter__(self) -> Iterator[FileRecord]:
        unknown = len(WORST_FIRST)
        ranks = bytearray()
        for name, path in self._files:
            record = self._cache.last(path, name)
            ranks.append(WORST_FIRST.index(record.status) if record else unknown)
        for rank in range(unknown):
            for (name, path), own in zip(self._files, ranks, strict=True):
                record = self._cache.last(path, name) if own == rank else None
                if record is not None:
                    yield record


def _record(stored: Mapping[str, Any], path: str, name: str) -> FileRecord | None:
    """The file may be listed under another name; a URL is never shown in full, because it may contain a password."""
    try:
        record = FileRecord.from_cache(stored.get("record"))
    except ValueError:
        return None
    sha256 = _sha256_of(stored.get("hashed"), stored.get("file"))
    shown = record.path if is_url(path) else path
    return replace(record, path=shown, name=name or os.path.basename(path), sha256=sha256)  # noqa: PTH119


def _sha256_of(stored: Any, file: Sequence[object] | None) -> str:
    """The stored hash of this file, or ""."""
    if not isinstance(stored, dict) or file is None or stored.get("file") != list(file):
        return ""
    digest = stored.get("sha256")
    return digest if isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest) else ""


def _file_row(kind: str, path: str) -> str:
    resolved = path if is_url(path) else real_path(path)
    # Hashed, because a path may contain bytes that the store rejects as text.
    return f"{kind}:{hashlib.sha256(os.fsencode(resolved)).hexdigest()}"


def _judged_row(sketch: str, hint_id: str) -> str:
    return f"judged:{_VERSION}:{sketch}:{hint_id}"


def _identity_key(record: FileRecord) -> str:
    return identity_key(record.fingerprint, FAMILIES.get(record.hint_id))
