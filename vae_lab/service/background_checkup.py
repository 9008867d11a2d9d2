"""Check the loaded checkpoint in a background thread, and log one warning for each broken VAE."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable

from vae_lab.errors import Cancelled, VaeLabError
from vae_lab.host.base import Host
from vae_lab.host.choices import BUILT_IN
from vae_lab.host.guard import guarded
from vae_lab.library import FileRecord
from vae_lab.service.background_task import BackgroundTask

__all__ = ["BackgroundCheckup"]

log = logging.getLogger("vae_lab")


class BackgroundCheckup:
    """One background thread at a time; it ends when there is nothing left to check.

    Args:
        host: whose checkpoint is checked.
        afterwards: called in the thread after each check, for example to check the VAE in the host's memory.
    """

    def __init__(self, host: Host, afterwards: Callable[[], None] | None = None) -> None:
        self._host: Host = weakref.proxy(host)
        self._afterwards = afterwards
        self._task = BackgroundTask("vae-lab-checkup", uses_torch=True)
        self._warned: set[str] = set()

    def checkpoint_changed(self) -> None:
        """Check the current checkpoint soon; returns immediately."""
        self._task.start(self._run)

    def wait(self, seconds: float) -> bool:
        """Wait until there is nothing left to check; False if that takes longer than ``seconds``."""
        return self._task.wait(seconds)

    def stop(self) -> None:
        """Start no more checks, and wait a while for the current one."""
        self._task.stop()

    @property
    def busy(self) -> bool:
        """Whether a check is running."""
        return self._task.busy

    def _run(self) -> None:
        with guarded("checking the checkpoint's VAE"):
            self._check()
        if self._afterwards is not None and not self._task.stopped:
            with guarded("checking the VAE in memory"):
                self._afterwards()

    def _check(self) -> None:
        name = self._host.current_checkpoint()
        if not name:
            return
        try:
            report = self._host.inspect(BUILT_IN)
        except Cancelled:  # the program ends
            return
        except VaeLabError as error:
            log.warning("VAE Lab, checking %s: %s", name, error)
            return
        if report.verdict.faults and not self._task.stopped:
            found = self._host.recommendation(search=True)
            self._warn(name, report, f" Recommended: {found.name}; {found.reason}." if found else "")

    def _warn(self, name: str, report: FileRecord, advice: str) -> None:
        key = f"{report.path}:{report.fingerprint}"
        if key in self._warned:
            return
        self._warned.add(key)
        worst = report.verdict.faults[0]
        log.warning("VAE Lab: the VAE in %s is %s. %s%s", name, report.verdict.status, worst.text, advice)
