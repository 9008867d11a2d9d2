"""Work in the background, one thread at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["BackgroundTask"]


class BackgroundTask:
    """Work that is done once more if it is asked for again while it is being done. Thread-safe.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._again = False

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
                if not self._again:
                    self._thread = None
                    return
                self._again = False
            work()
