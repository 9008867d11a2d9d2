"""Scans of all files in the host's folders, and the library that they fill."""

from __future__ import annotations

import threading
import time

from vae_lab.errors import UnknownChoice
from vae_lab.host.base import Host
from vae_lab.library import WORST_FIRST, Scan
from vae_lab.library.inventory import SORTS, Inventory, LibraryPage, ScanSummary, VaePage
from vae_lab.service.runs import Runs

__all__ = ["ScanService"]


class ScanService:
    """Scans the folders of a host and answers questions about the files in them."""

    def __init__(self, host: Host, runs: Runs) -> None:
        self._host = host
        self._runs = runs
        self._inventory: Inventory | None = None
        self._lock = threading.Lock()

    def scan(self) -> ScanSummary:
        """Scan all files in the host's folders; after a cancel, the next scan resumes where this one stopped.

        Raises:
            HostError: another task is running.
        """
        with self._runs.one_at_a_time():
            started = time.perf_counter()
            self._runs.report(0, 0, "looking for files")
            known = self.inventory(fresh=True)
            listing = self._host.listing()
            scan = Scan(
                (),
                self._host.file_cache,
                listed=listing.files,
                progress=self._runs.report,
                cancelled=self._runs.cancelled,
            )
            scanned = read = bytes_read = 0
            for record in scan.run():
                scanned += 1
                if not known.has(record) and record.path not in scan.adopted:
                    read += 1
                    bytes_read += record.bytes_read
            inventory = Inventory(scan.records, listing)
            with self._lock:
                self._inventory = inventory
        complete = scan.complete or inventory.overview.files == 0
        seconds = time.perf_counter() - started
        return ScanSummary(inventory.overview, complete, scanned, read, bytes_read, seconds)

    def inventory(self, *, fresh: bool = False) -> Inventory:
        """The stored results of scans of the host's files. Does not read the files.

        Args:
            fresh: list the files again, instead of returning the last list.
        """
        with self._lock:
            if self._inventory is None or fresh:
                self._inventory = Inventory.known(self._host.listing(fresh=fresh), self._host.file_cache)
            return self._inventory

    def forget(self) -> None:
        """Read what is stored again when it is needed next, because there is more now."""
        with self._lock:
            self._inventory = None

    def page(
        self,
        filter: str = "",  # noqa: A002
        status: str = "",
        sort: str = "worst",
        page: int = 0,
        page_size: int = 50,
    ) -> LibraryPage:
        """Some rows of the table of all files; see :meth:`Inventory.page`.

        Raises:
            UnknownChoice: no such status or sort order.
        """
        _check(status, sort)
        return self.inventory().page(filter, status, sort, page, max(1, page_size))

    def vaes(self, words: str, status: str, sort: str, page: int, page_size: int) -> VaePage:
        """Some rows of a table with one row for each VAE; see :meth:`Inventory.vaes`.

        Raises:
            UnknownChoice: no such status or sort order.
        """
        _check(status, sort)
        return self.inventory().vaes(words, status, sort, page, max(1, page_size))


def _check(status: str, sort: str) -> None:
    if status not in ("", *WORST_FIRST):
        raise UnknownChoice(f"no status {status}; valid are {', '.join(WORST_FIRST)}")
    if sort not in SORTS:
        raise UnknownChoice(f"no sort order {sort}; valid are {', '.join(SORTS)}")
