"""Records on the disk, by file: what a scan found is there for the next one, and for its reports."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from vae_lab.checkup import identity_key
from vae_lab.formats import is_url
from vae_lab.latents.family import FAMILIES
from vae_lab.library.cache import Checkups, FactsCache
from vae_lab.library.folders import FileKey, file_key
from vae_lab.library.record import PROBED, WORST_FIRST, ScanRecord

__all__ = ["RecordStore", "Records"]

_VERSION = 2  # raise when other things are found out, or stored otherwise


class RecordStore:
    """Records by file, in the same store as all that is known of files. Safe to use from several threads."""

    def __init__(self, facts: FactsCache) -> None:
        self._store = facts.store
        self._checkups = Checkups(facts)

    def get(self, path: str, name: str) -> ScanRecord | None:
        """What was found of a file, if it has not changed since. Reads nothing of it."""
        stored = self._store.get(self._key(path))
        if not isinstance(stored, dict) or stored["key"] is None or stored["key"] != file_key(path):
            return None
        return _restored(stored["record"], path, name)

    def last(self, path: str, name: str) -> ScanRecord | None:
        """As :meth:`get`, whether the file has changed or not."""
        stored = self._store.get(self._key(path))
        return _restored(stored["record"], path, name) if isinstance(stored, dict) else None

    def put(self, path: str, record: ScanRecord, key: FileKey | None) -> None:
        """Store the record of a file.

        Args:
            path: the file.
            record: its charts are left out.
            key: of the file, before it was read; None if the record shall not outlive this scan.
        """
        kept = key if key is not None and key == file_key(path) else None  # else it was replaced in between
        self._store.set(self._key(path), {"key": kept, "record": asdict(replace(record, charts={}))})
        if record.sketch and record.depth == PROBED and not record.problem:
            self._store.set(("judged", _VERSION, record.sketch, record.hint), record.status)

    def judged(self, sketch: str, hint: str) -> str | None:
        """Status of weights with this sketch, if they were judged before."""
        status = self._store.get(("judged", _VERSION, sketch, hint)) if sketch else None
        return status if isinstance(status, str) else None

    def put_charts(self, record: ScanRecord) -> None:
        """Store the charts of a record that came from elsewhere."""
        if record.charts:
            self._store.set(("charts", _VERSION, record.fingerprint, record.hint), dict(record.charts))

    def charts(self, record: ScanRecord) -> Mapping[str, bytes]:
        """What became of the chart."""
        if not record.fingerprint:
            return {}
        checkup = self._checkups.get(identity_key(record.fingerprint, FAMILIES.get(record.hint)))
        if checkup is not None:
            return checkup.charts
        stored = self._store.get(("charts", _VERSION, record.fingerprint, record.hint))
        return stored if isinstance(stored, dict) else {}

    @staticmethod
    def _key(path: str) -> tuple[str, int, str]:
        resolved = path if is_url(path) else str(Path(path).resolve())
        # Hashed, since a path may hold what the store cannot take for text.
        return "scan", _VERSION, hashlib.sha256(os.fsencode(resolved)).hexdigest()


def _restored(record: dict[str, Any], path: str, name: str) -> ScanRecord:
    """The file may be called otherwise this time; an address is never shown in full, as it may hold a password."""
    return ScanRecord(**{**record, "path": record["path"] if is_url(path) else path, "name": name})


class Records:
    """What is stored of the files of a scan. Can be iterated over as often as needed; holds one record at a time."""

    def __init__(self, files: Sequence[tuple[str, str]], store: RecordStore) -> None:
        self._files = files
        self._store = store

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[ScanRecord]:
        """In the order in which the files were found; those that nothing is known of are left out."""
        for name, path in self._files:
            record = self._store.last(path, name)
            if record is not None:
                yield record

    def worst_first(self) -> Iterator[ScanRecord]:
        """As iterating, those of the worst status first."""
        order = {status: rank for rank, status in enumerate(WORST_FIRST)}
        ranks = bytearray()
        for name, path in self._files:
            record = self._store.last(path, name)
            ranks.append(order[record.status] if record else len(order))
        for rank in range(len(order)):
            for (name, path), own in zip(self._files, ranks, strict=True):
                record = self._store.last(path, name) if own == rank else None
                if record is not None:
                    yield record

    def charts(self, record: ScanRecord) -> Mapping[str, bytes]:
        """What became of the chart: PNG by name; nothing where it was not put through."""
        return self._store.charts(record)
