"""A key-value store on disk: JSON or bytes in one SQLite file, which several processes may use at the same time.

Losing a cache only costs time, so none of its failures raises: a damaged file is rebuilt; one that is locked, read-only
or from a newer version is not changed, and values stay in memory until the program ends. Either is logged once. Stored
values are untrusted: JSON and bytes of limited size, never code or pickles.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from pathlib import Path
from typing import Any

__all__ = ["FILE_NAME", "MAX_VALUE_BYTES", "Store"]

log = logging.getLogger("vae_lab")

FILE_NAME = "files.sqlite3"
MAX_VALUE_BYTES = 8 * 2**20
"""Larger values are ignored; the largest that VAE Lab stores are images of 100 KB."""

_VERSION = 1  # increase when the table changes; each value has its own version
_BUSY_SECONDS = 2.0  # maximum wait for another process, whose writes take milliseconds
_TABLE = "CREATE TABLE entries (key TEXT PRIMARY KEY, value NOT NULL)"


class Store:
    """Values by key. Never raises because of the file. Safe to use from several threads.

    Args:
        folder: contains the file; created if missing.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME
        self._lock = threading.RLock()
        self._memory: dict[str, str | bytes] = {}
        self._database: sqlite3.Connection | None = None
        self._writable = True
        self._logged = False
        self.failure = ""
        """Why values are not written to disk, or ""."""
        with self._lock:
            self._open()

    def get_json(self, key: str) -> Any:
        """The value that :meth:`set_json` stored; None if it is missing or cannot be read."""
        text = self._get(key)
        if not isinstance(text, str):
            return None
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return None

    def set_json(self, key: str, value: Any) -> None:
        """Store plain values."""
        self._set(key, json.dumps(value))

    def get_bytes(self, key: str) -> bytes | None:
        """The value that :meth:`set_bytes` stored; None if it is missing or cannot be read."""
        value = self._get(key)
        return value if isinstance(value, bytes) else None

    def set_bytes(self, key: str, value: bytes) -> None:
        """Store bytes."""
        self._set(key, value)

    def delete(self, key: str) -> None:
        """Delete a value."""
        with self._lock:
            self._memory.pop(key, None)
            self._execute("DELETE FROM entries WHERE key = ?", key)

    def close(self) -> None:
        """Close the file. Nothing can be read afterwards."""
        with self._lock:
            self._memory.clear()
            self._disconnect()

    # --- one statement at a time ---------------------------------------------------------------------------------

    def _get(self, key: str) -> object:
        with self._lock:
            if key in self._memory:
                return self._memory[key]
            question = "SELECT value FROM entries WHERE key = ? AND length(value) <= ?"
            rows = self._execute(question, key, MAX_VALUE_BYTES)
            return rows[0][0] if rows else None

    def _set(self, key: str, value: str | bytes) -> None:
        with self._lock:
            written = self._execute("INSERT OR REPLACE INTO entries VALUES (?, ?)", key, value)
            if written is None:
                self._memory[key] = value
            else:
                self._memory.pop(key, None)

    def _execute(self, statement: str, *values: object) -> list[Any] | None:
        """The rows that a statement returns; None if it failed."""
        reads = statement.startswith("SELECT")
        for _ in range(2):  # a second time after rebuilding the file
            if self._database is None or not (reads or self._writable):
                return None
            try:
                return self._database.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                if _is_damage(error):
                    self._rebuild(error)
                    continue
                self._writable = False  # waiting for each of ten thousand writes would take hours
                self._warn("cannot be read" if reads else "cannot be written", error)
                if reads:
                    self._disconnect()
                return None
        return None

    # --- the file ------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connect()
        except (sqlite3.Error, OSError) as error:
            if _is_damage(error):
                self._rebuild(error)
            else:
                self._bypass("cannot be used", error)

    def _connect(self) -> None:
        database = sqlite3.connect(self.path, _BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        self._database = database
        database.execute("PRAGMA trusted_schema = OFF")
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version > _VERSION:
            self._bypass("is from a newer version of VAE Lab", "")
            return
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("BEGIN IMMEDIATE")  # another process may be creating the table
        schema = database.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        if not schema:
            database.execute(_TABLE)
            database.execute(f"PRAGMA user_version = {_VERSION}")
        database.execute("COMMIT")
        if schema not in ([], [(_TABLE,)]) or (schema and version != _VERSION):
            raise sqlite3.DatabaseError("its tables are not those of this version")

    def _rebuild(self, reason: object) -> None:
        self._warn("is damaged and was rebuilt", reason)
        self._disconnect()
        try:
            for suffix in ("", "-wal", "-shm", "-journal"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
            self._connect()
        except (sqlite3.Error, OSError) as error:  # for example open in another process, on Windows
            self._bypass("is damaged and cannot be rebuilt", error)

    def _bypass(self, what: str, reason: object) -> None:
        self._writable = False
        self._disconnect()
        self._warn(what, reason)

    def _disconnect(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def _warn(self, what: str, reason: object) -> None:
        text = f"{what}{f': {reason}' if str(reason) else ''}"
        if not self._writable:
            self.failure = text
        if not self._logged:
            self._logged = True
            log.warning("VAE Lab: the cache %s %s", self.path, text)


def _is_damage(error: BaseException) -> bool:
    """Whether the file is not a database, or a damaged one; other errors have their own subclasses."""
    return type(error) is sqlite3.DatabaseError
