"""Work in the background, one thread at a time."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable

__all__ = ["BackgroundTask"]

_EXIT_TIMEOUT = 10.0  # seconds


def _stop(task: weakref.ref[BackgroundTask]) -> None:
    alive = task()
    if alive is not None:
        alive.stop()


class BackgroundTask:
    """Work that is done once more if it is asked for again while it is being done. Thread-safe.

    Args:
        name: of the thread.
        uses_torch: stop it before the interpreter exits: a thread that is inside torch then crashes the process.

    Attributes:
        stopped: whether it must do nothing more. Work that takes long looks at it between its steps.
    """

    def __init__(self, name: str, *, uses_torch: bool = False) -> None:
        self._name = name
        self.stopped = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._again = False
        if uses_torch:
            atexit.register(_stop, weakref.ref(self))

    @property
    def busy(self) -> bool:
        """Whether it is being done."""
        return self._thread is not None

    def start(self, work: Callable[[], None]) -> None:
        """Do ``work``, which raises nothing, soon; returns immediately."""
        with self._lock:
            self._again = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, args=(work,), name=self._name, daemon=True)
                self._thread.start()

    def stop_repeating(self) -> bool:
        """Do it no more after this time. False if it is not being done."""
        with self._lock:
            self._again = False
            return self.busy

    def stop(self) -> None:
        """Do nothing more, and wait a while for what is being done."""
        self.stopped = True
        self.wait(_EXIT_TIMEOUT)

    def wait(self, seconds: float) -> bool:
        """Wait until there is nothing left to do; False if that takes longer than ``seconds``."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(seconds)
        return thread is None or not thread.is_alive()

    def _run(self, work: Callable[[], None]) -> None:
        while True:
            with self._lock:
                if not self._again or self.stopped:
                    self._thread = None
                    return
                self._again = False
            work()
