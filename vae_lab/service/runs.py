"""What is running: one task at a time, with progress and cancel."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from vae_lab.errors import HostError

__all__ = ["RunStatus", "Runs", "Unit"]

Unit = Literal["steps", "bytes"]


@dataclass(frozen=True)
class RunStatus:
    """How far the current run is.

    Attributes:
        busy: whether anything is running.
        done: steps completed.
        total: steps in all; 0 while unknown.
        what: the next step, human-readable.
        seconds: since it began.
        results: how many results of a comparison can be shown already.
        unit: what ``done`` and ``total`` count: ``steps`` or ``bytes``.
    """

    busy: bool = False
    done: int = 0
    total: int = 0
    what: str = ""
    seconds: float = 0.0
    results: int = 0
    unit: Unit = "steps"


class Runs:
    """The current run of a host. Thread-safe."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._cancel = threading.Event()
        self._status = RunStatus()
        self._began = 0.0
        self.idle = threading.Event()
        """Set while nothing is running."""
        self.idle.set()

    @property
    def status(self) -> RunStatus:
        """How far the current run is, whichever thread it is in."""
        status = self._status
        return replace(status, seconds=time.monotonic() - self._began) if status.busy else status

    @contextmanager
    def one_at_a_time(self) -> Iterator[None]:
        """A run, for as long as the context lasts.

        Raises:
            HostError: another one is running.
        """
        if not self._turn.acquire(blocking=False):
            raise HostError("another task is running; wait for it or cancel it")
        try:
            self.idle.clear()
            self._cancel.clear()
            self._began = time.monotonic()
            self._status = RunStatus(True, 0, 0, "waiting for the model")
            yield
        finally:
            self._status = RunStatus()
            self.idle.set()
            self._turn.release()

    def report(self, done: int, total: int, what: str, *, unit: Unit = "steps") -> None:
        """Progress of the current run; see :class:`RunStatus`."""
        self._status = replace(self._status, busy=True, done=done, total=total, what=what, unit=unit)

    def has_results(self, results: int) -> None:
        """The current run is a comparison, and so many of its results can be shown."""
        self._status = replace(self._status, results=results)

    def cancel(self) -> bool:
        """Ask the current run to stop after its current step. False if nothing is running."""
        busy = self._status.busy
        if busy:
            self._cancel.set()
        return busy

    def cancelled(self) -> bool:
        """Whether the last run was asked to stop."""
        return self._cancel.is_set()
