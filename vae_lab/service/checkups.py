"""Checkups of VAEs and checkpoints that a user asks for."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from vae_lab.errors import VaeLabError
from vae_lab.host.base import Host, VaeEntry
from vae_lab.host.choices import BUILT_IN
from vae_lab.host.guard import guarded
from vae_lab.library import FileRecord
from vae_lab.service.background_task import BackgroundTask
from vae_lab.service.runs import Runs

__all__ = ["CheckupService"]

log = logging.getLogger("vae_lab")

_WAIT = 0.5  # seconds between two looks at whether to stop


class CheckupService:
    """Identifies and inspects files of a host."""

    def __init__(self, host: Host, runs: Runs) -> None:
        self._host = host
        self._runs = runs
        self._lock = threading.Lock()
        self._waiting: list[str] = []
        self._task = BackgroundTask("vae-lab-verdicts", uses_torch=True)

    def check_soon(self, names: Sequence[str]) -> None:
        """Check VAEs and checkpoints in the background, while nothing else is running; returns immediately.

        Args:
            names: of VAEs and checkpoints; those of an earlier call that are still waiting come after them.
        """
        with self._lock:
            self._waiting = list(dict.fromkeys((*names, *self._waiting)))
        if self._waiting:
            self._task.start(self._check_waiting)

    @property
    def waiting(self) -> Sequence[str]:
        """Names of what is still to be checked in the background."""
        return tuple(self._waiting)

    def wait(self, seconds: float) -> bool:
        """Wait until the background has nothing left to check; False if that takes longer than ``seconds``."""
        return self._task.wait(seconds)

    def stop(self) -> None:
        """Check no more in the background, and wait a while for the current check."""
        self._task.stop()

    def _check_waiting(self) -> None:
        while self._waiting and not self._task.stopped:
            if not self._runs.idle.wait(_WAIT):
                continue
            name = self._waiting[0]
            with guarded("checking a VAE that was compared"):
                try:
                    self._host.inspect(name)
                except VaeLabError as error:
                    log.warning("VAE Lab, checking %s: %s", name, error)
            with self._lock:
                self._waiting.remove(name)

    def identify(self) -> list[VaeEntry]:
        """Determine the family of every VAE.

        Raises:
            HostError: another task is running.
        """
        with self._runs.one_at_a_time():
            return self._host.identify(self._runs.report, self._runs.cancelled)

    def inspect(self, names: Sequence[str], *, fresh: bool = True) -> dict[str, FileRecord]:
        """Inspect VAEs and checkpoints one by one; after a cancel, the result has those inspected so far.

        If the current checkpoint is among them and its VAE has faults, a healthy VAE is searched for as well.

        Args:
            names: of VAEs and checkpoints.
            fresh: list the host's files first; False if ``names`` came from a fresh listing.

        Raises:
            HostError: another task is running.
            UnknownChoice: a name is unknown; nothing was inspected.
        """
        unique = list(dict.fromkeys(names))
        self._host.listing(fresh=fresh)
        for name in unique:
            self._host.file_of(name)
        current = {BUILT_IN, self._host.current_checkpoint()}
        reports: dict[str, FileRecord] = {}
        with self._runs.one_at_a_time():
            for i, name in enumerate(unique):
                if self._runs.cancelled():
                    break
                self._runs.report(i, len(unique), name)
                reports[name] = self._host.inspect(name)
            faulty = any(reports[name].verdict.faults for name in current & reports.keys())
            if faulty and not self._runs.cancelled():
                self._host.recommendation(search=True, progress=self._runs.report, cancelled=self._runs.cancelled)
        return reports
