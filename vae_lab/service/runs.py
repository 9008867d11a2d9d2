"""What is running: one task at a time, with progress and cancel."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from vae_lab.errors import HostError

__all__ = ["RunStatus", "Runs"]


@dataclass(frozen=True)
class RunStatus:
    """How far the current run is.

    Attributes:
        busy: whether anything is running.
        done: steps completed.
        total: steps in all; 0 while unknown.
        what: the next step, human-readable.
    """

    busy: bool = False
    done: int = 0
    total: int = 0
    what: str = ""


class Runs:
    """The current run of a host. Thread-safe."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._cancel = threading.Event()
        self._status = RunStatus()
        self.idle = threading.Event()
        """Set while nothing is running."""
        self.idle.set()

    @property
    def status(self) -> RunStatus:
        """How far the current run is, whichever thread it is in."""
        return self._status

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
            self._status = RunStatus(True, 0, 0, "waiting for the model")
            yield
        finally:
            self._status = RunStatus()
            self.idle.set()
            self._turn.release()

    def report(self, done: int, total: int, what: str) -> None:
        """Progress of the current run; see :class:`RunStatus`."""
        self._status = RunStatus(True, done, total, what)

    def cancel(self) -> bool:
        """Ask the current run to stop after its current step. False if nothing is running."""
        busy = self._status.busy
        if busy:
            self._cancel.set()
        return busy

    def cancelled(self) -> bool:
        """Whether the last run was asked to stop."""
        return self._cancel.is_set()
