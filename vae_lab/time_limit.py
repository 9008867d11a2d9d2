"""A limit on the time that one file may take, so that none holds up all others."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from vae_lab.errors import NotFinished

__all__ = ["FILE_SECONDS", "TimeLimit"]

FILE_SECONDS = 900.0
"""The default for one file. A checkup takes seconds; on a slow machine that is busy, minutes."""


class TimeLimit:
    """Begins when it is created. Whoever works on the file asks between two steps whether time is left.

    Args:
        seconds: 0 for no limit.
        clock: returns seconds.
    """

    def __init__(self, seconds: float = FILE_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._began = clock()

    @property
    def remaining(self) -> float:
        """Seconds left, at least 0; infinite without a limit."""
        return max(0.0, self._began + self.seconds - self._clock()) if self.seconds else math.inf

    def expired(self) -> bool:
        """Whether the time is over: a ``cancelled`` callback."""
        return self.remaining <= 0.0

    def check(self, path: str, step: str) -> None:
        """Raise NotFinished if the time is over.

        Args:
            path: the file, as shown to the user.
            step: what is being done, such as ``reading the file``.
        """
        if self.expired():
            raise NotFinished(path, f"not finished in {self.seconds:g} s; it was stopped while {step}")
