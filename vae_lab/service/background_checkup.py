"""Looks at the checkpoint that a host has loaded, in the background, and warns once if its VAE is no good."""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from collections.abc import Callable

from vae_lab.errors import VaeLabError
from vae_lab.host.base import BUILT_IN, Host
from vae_lab.host.guard import guarded
from vae_lab.library import FileRecord

__all__ = ["BackgroundCheckup"]

log = logging.getLogger("vae_lab")

_PATIENCE = 10.0  # seconds, at exit


def _stop(checkup: weakref.ref[BackgroundCheckup]) -> None:
    found = checkup()
    if found is not None:
        found.stop()


class BackgroundCheckup:
    """One background thread at a time; it ends when there is nothing new to look at.

    Args:
        host: whose checkpoint is looked at.
        afterwards: called in the thread after each look, such as to look at the VAE in the host's memory.
    """

    def __init__(self, host: Host, afterwards: Callable[[], None] | None = None) -> None:
        self._host: Host = weakref.proxy(host)
        self._afterwards = afterwards
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._again = False
        self._stopped = False
        self._warned: set[str] = set()
        # A thread that the interpreter leaves behind in the middle of torch takes the whole process down with it.
        atexit.register(_stop, weakref.ref(self))

    def checkpoint_changed(self) -> None:
        """Look at the current checkpoint soon; returns at once."""
        with self._lock:
            self._again = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="vae-lab-checkup", daemon=True)
                self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait until there is nothing to look at; False if that takes longer than ``seconds``."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(seconds)
        return thread is None or not thread.is_alive()

    def stop(self) -> None:
        """Look at nothing more, and wait a while for what is being looked at."""
        self._stopped = True
        self.wait(_PATIENCE)

    @property
    def busy(self) -> bool:
        """Whether a look is going on."""
        return self._thread is not None

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._again or self._stopped:
                    self._thread = None
                    return
                self._again = False
            with guarded("looking at the checkpoint's VAE"):
                self._look()
            if self._afterwards is not None and not self._stopped:
                with guarded("looking at the VAE in memory"):
                    self._afterwards()

    def _look(self) -> None:
        name = self._host.current_checkpoint()
        if not name:
            return
        try:
            report = self._host.inspect(BUILT_IN)
        except VaeLabError as error:
            log.warning("VAE Lab, looking at %s: %s", name, error)
            return
        if report.verdict.faults and not self._stopped:
            found = self._host.recommendation(search=True)
            self._warn(name, report, f" Recommended: {found.name}; {found.reason}." if found else "")

    def _warn(self, name: str, report: FileRecord, advice: str) -> None:
        key = f"{report.path}:{report.fingerprint}"
        if key in self._warned:
            return
        self._warned.add(key)
        worst = report.verdict.faults[0]
        log.warning("VAE Lab: the VAE in %s is %s. %s%s", name, report.verdict.status, worst.text, advice)
