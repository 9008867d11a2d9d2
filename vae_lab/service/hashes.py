"""The SHA-256 of the user's files: computed in the background, and looked up for images of other people."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vae_lab.host.base import Host
from vae_lab.host.guard import guarded
from vae_lab.host.infotext import vae_hash
from vae_lab.identity import known_vae_by_short_hash
from vae_lab.library.hashes import hash_files
from vae_lab.service.background_task import BackgroundTask
from vae_lab.service.runs import Runs, RunStatus

__all__ = ["FoundVae", "HashService"]

_WAIT = 0.5  # seconds
_BEGINNING = RunStatus(True, 0, 0, "looking for files to hash")


@dataclass(frozen=True)
class FoundVae:
    """The VAE that an image's generation parameters name by its hash.

    Attributes:
        digest: as in the parameters.
        names: of the user's files with this VAE.
        known: its published name, or "".
        unhashed: number of files whose hash was not computed yet.
        misnamed: name of the VAE in the parameters, if the user has a file of that name with another hash, or "".
    """

    digest: str
    names: tuple[str, ...]
    known: str = ""
    unhashed: int = 0
    misnamed: str = ""


class HashService:
    """One background thread at a time, which waits while anything else is running. Thread-safe.

    Args:
        host: whose files are hashed.
        runs: what else is running.
        done: called in the thread when hashes were stored.
    """

    def __init__(self, host: Host, runs: Runs, done: Callable[[], None] = lambda: None) -> None:
        self._host = host
        self._runs = runs
        self._done = done
        self._task = BackgroundTask("vae-lab-hashes")
        self._cancelled = threading.Event()
        self._progress = _BEGINNING
        self._hashed = 0

    @property
    def status(self) -> RunStatus:
        """How far the background thread is; when it is not busy, ``done`` counts all files that it has hashed."""
        return self._progress if self._task.busy else RunStatus(False, self._hashed, self._hashed)

    def start(self) -> None:
        """Hash all files of the host that have no hash yet, in the background; returns immediately."""
        self._cancelled.clear()
        self._task.start(self._run)

    def cancel(self) -> bool:
        """Stop the background thread soon. False if nothing is being hashed. The next start resumes."""
        busy = self._task.stop_repeating()  # asked first: the thread may end as soon as it is cancelled
        self._cancelled.set()
        return busy

    def wait(self, seconds: float) -> bool:
        """Wait until nothing is left to hash; False if that takes longer than ``seconds``."""
        return self._task.wait(seconds)

    def find(self, infotext: str) -> FoundVae | None:
        """The VAE that ``infotext`` names by its hash; None if it names none. Reads no file."""
        named = vae_hash(infotext)
        if named is None:
            return None
        listing, cache = self._host.listing(), self._host.file_cache
        if named.of_weights:
            records = {name: cache.known(str(path)) for name, path in {**listing.vaes, **listing.checkpoints}.items()}
            hashes = {name: record.fingerprint for name, record in records.items() if record}
            unknown = sum(record is None for record in records.values())
            return FoundVae(named.digest, _matching(hashes, named.digest), unhashed=unknown)
        hashes = {name: cache.sha256(str(path)) for name, path in listing.vaes.items()}
        names = _matching(hashes, named.digest)
        others = {Path(name).name for name, digest in hashes.items() if digest and name not in names}
        known = known_vae_by_short_hash(named.digest)
        return FoundVae(
            digest=named.digest,
            names=names,
            known=known.name if known else "",
            unhashed=sum(not digest for digest in hashes.values()),
            misnamed=named.name if named.name in others - {Path(name).name for name in names} else "",
        )

    def _run(self) -> None:
        with guarded("computing the hashes of files"):
            files, cache = self._host.listing().files, self._host.file_cache
            self._hashed += hash_files(files, cache, self._report, self._is_cancelled)
            self._done()
        self._progress = _BEGINNING  # of the next time

    def _report(self, done: int, total: int, what: str) -> None:
        self._progress = RunStatus(True, done, total, f"hashing {what}")

    def _is_cancelled(self) -> bool:
        """Also waits until nothing else is running."""
        while not self._cancelled.is_set() and not self._runs.idle.wait(_WAIT):
            pass
        return self._cancelled.is_set()


def _matching(hashes: Mapping[str, str], digest: str) -> tuple[str, ...]:
    return tuple(name for name, full in hashes.items() if full.startswith(digest))
