"""Scans on more than one machine."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from vae_lab.errors import HostError
from vae_lab.library.inspect import scan_file
from vae_lab.library.record import FileRecord, failed
from vae_lab.time_limit import FILE_SECONDS

__all__ = ["DaskEngine"]

_WINDOW = 4  # files in flight per thread of the cluster


class DaskEngine:
    """Checks files on a running Dask cluster, whose workers see them under the same paths.

    Args:
        scheduler: its address, such as ``tcp://10.0.0.1:8786``.
        probe: as in :func:`scan_file`.
        charts: whether workers return the charts, for the HTML report: 100 KB per file.
        seconds: the limit for one file; 0 for none.

    Raises:
        HostError: Dask is not installed.
        OSError: the scheduler does not answer.
    """

    def __init__(
        self, scheduler: str, *, probe: bool = True, charts: bool = False, seconds: float = FILE_SECONDS
    ) -> None:
        try:
            self._dask = importlib.import_module("distributed")
        except ImportError as error:
            raise HostError('the engine "dask" needs Dask: pip install "dask[distributed]"') from error
        self._client = self._dask.Client(scheduler, timeout="10s", set_as_default=False)
        self._scan = partial(scan_file, probe=probe, charts=charts, seconds=seconds)

    def __call__(self, paths: Iterable[str]) -> Iterator[tuple[str, FileRecord]]:
        """Yield each path and its record as soon as it is done; few are in flight, so that memory use stays flat."""
        waiting = iter(paths)
        running: dict[Any, str] = {}
        done = self._dask.as_completed(loop=self._client.loop, raise_errors=False)
        most = _WINDOW * max(1, sum(self._client.nthreads().values()))
        while True:
            while len(running) < most and (path := next(waiting, None)) is not None:
                future = self._client.submit(self._scan, path, pure=False)
                running[future.key] = path
                done.add(future)
            if not running:
                return
            future = next(done)
            path = running.pop(future.key)
            if future.status == "finished":
                yield path, future.result()
            else:  # its worker was killed repeatedly, most likely because this file needs too much memory
                reason = f"it could not be checked: {future.exception()}"
                yield path, failed(path, reason)
            future.release()

    def close(self) -> None:
        """Disconnect from the cluster, which keeps running."""
        self._client.close()
