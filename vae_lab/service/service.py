"""Everything that pages and API can do with one host."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

from vae_lab.host.base import Host
from vae_lab.library.inventory import ScanSummary
from vae_lab.service.bake_all import BakeAllService
from vae_lab.service.bakes import BakeService
from vae_lab.service.checkups import CheckupService
from vae_lab.service.choices import ChoiceService
from vae_lab.service.comparisons import ComparisonService
from vae_lab.service.dedupe import DedupeService
from vae_lab.service.downloads import DownloadService
from vae_lab.service.extracts import ExtractService
from vae_lab.service.fixes import FixService
from vae_lab.service.hashes import HashService
from vae_lab.service.merge_previews import MergePreviewService
from vae_lab.service.round_trips import RoundTripService
from vae_lab.service.runs import Runs
from vae_lab.service.scans import ScanService
from vae_lab.service.sources import SourceService

__all__ = ["Service", "service_of"]


class Service:
    """The services of one host; those that compute share ``runs``, so that one task runs at a time. Thread-safe."""

    def __init__(self, host: Host) -> None:
        proxy: Host = weakref.proxy(host)
        self.runs = Runs()
        self.bakes = BakeService(proxy, self.runs)
        self.checkups = CheckupService(proxy, self.runs)
        self.choices = ChoiceService(proxy)
        self.comparisons = ComparisonService(proxy, self.runs)
        self.downloads = DownloadService(proxy, self.runs)
        self.extracts = ExtractService(proxy, self.runs)
        self.fixes = FixService(proxy, self.runs)
        self.merge_previews = MergePreviewService(proxy, self.runs)
        self.round_trips = RoundTripService(proxy, self.runs)
        self.scans = ScanService(proxy, self.runs)
        self.bake_all = BakeAllService(proxy, self.runs, self.fixes.usable, done=self.scans.forget)
        self.dedupe = DedupeService(proxy, self.runs, done=self.scans.forget)
        self.hashes = HashService(proxy, self.runs, self.scans.forget)
        self.sources = SourceService(proxy, self.runs)

    def scan(self) -> ScanSummary:
        """Scan all files; see :meth:`ScanService.scan`. Then their hashes are computed in the background."""
        summary = self.scans.scan()
        if summary.complete:
            self.hashes.start()
        return summary

    def cancel(self) -> bool:
        """Ask the current run to stop after its current step, or without one, the hashing. False if nothing runs."""
        return self.runs.cancel() or self.hashes.cancel()


def _make_service_of() -> Callable[[Host], Service]:
    services: weakref.WeakKeyDictionary[Host, Service] = weakref.WeakKeyDictionary()
    lock = threading.Lock()

    def service_of(host: Host) -> Service:
        """The one service of ``host``: pages and API see the same runs and the same results."""
        with lock:
            if host not in services:
                services[host] = Service(host)
            return services[host]

    return service_of


service_of = _make_service_of()
