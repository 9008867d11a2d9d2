"""Check the loaded checkpoint in a background thread: log one warning for each broken VAE, or choose a healthy one."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Sequence

from vae_lab.checkup.findings import BROKEN, MISSING
from vae_lab.errors import Cancelled, VaeLabError
from vae_lab.host.base import Host
from vae_lab.host.choices import AUTOMATIC, BUILT_IN
from vae_lab.host.guard import guarded
from vae_lab.library import FileRecord
from vae_lab.service.background_task import BackgroundTask
from vae_lab.service.fixes import FixResult

__all__ = ["BackgroundCheckup"]

log = logging.getLogger("vae_lab")


class BackgroundCheckup:
    """One background thread at a time; it ends when there is nothing left to check.

    Args:
        host: whose checkpoint is checked.
        afterwards: called in the thread after each check, for example to check the VAE in the host's memory.
        fix: chooses the recommended VAE for the checkpoints of these names, with undo; see :class:`FixService`.
    """

    def __init__(
        self,
        host: Host,
        afterwards: Callable[[], None] | None = None,
        fix: Callable[[Sequence[str]], FixResult] | None = None,
    ) -> None:
        self._host: Host = weakref.proxy(host)
        self._afterwards = afterwards
        self._fix = fix
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
        name, on_broken = self._host.current_checkpoint(), self._host.on_broken
        if not name or on_broken == "off":
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
            if on_broken == "fix" and found and self._is_fixed(name, report):
                self._warned.add(_key(report))  # the host reports the same checkpoint again
                return
            self._warn(name, report, f" Recommended: {found.name}; {found.reason}." if found else "")

    def _is_fixed(self, name: str, report: FileRecord) -> bool:
        """Choose the recommended VAE for a checkpoint, unless the user has chosen any; False leaves it to the user."""
        host = self._host
        if self._fix is None or report.verdict.status not in (BROKEN, MISSING):
            return False
        host.wait_until_loaded()
        if host.current_checkpoint() != name or host.decision().vae != BUILT_IN:
            return False
        try:
            if host.checkpoint_choices().chosen(name) != AUTOMATIC:
                return False
            result = self._fix([name])
        except VaeLabError as error:
            log.warning("VAE Lab, choosing a VAE for %s: %s", name, error)
            return False
        for checkpoint, vae in result.changed:
            status = report.verdict.status
            log.warning("VAE Lab: the VAE in %s is %s, so %s was chosen for it.", checkpoint, status, vae)
        for checkpoint, reason in result.failed:
            log.warning("VAE Lab, choosing a VAE for %s: %s", checkpoint, reason)
        return bool(result.changed)

    def _warn(self, name: str, report: FileRecord, advice: str) -> None:
        if _key(report) in self._warned:
            return
        self._warned.add(_key(report))
        worst = report.verdict.faults[0]
        log.warning("VAE Lab: the VAE in %s is %s. %s%s", name, report.verdict.status, worst.text, advice)


def _key(report: FileRecord) -> str:
    return f"{report.path}:{report.fingerprint}"
