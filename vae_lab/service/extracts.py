"""Extract all: write every built-in VAE that no VAE file has yet to its own file, each once, and check the files."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from vae_lab.errors import Cancelled, FileError, HostError, UnknownChoice
from vae_lab.host.base import Host
from vae_lab.library import FileRecord
from vae_lab.library.extraction import Extraction, find_extractions, free_name
from vae_lab.repair import extract
from vae_lab.repair.checkpoint import extracted_size
from vae_lab.service.runs import Runs

__all__ = ["ExtractPlan", "ExtractResult", "ExtractService", "Extracted"]


@dataclass(frozen=True)
class ExtractPlan:
    """What would be done.

    Attributes:
        folder: of the new files.
        extractions: one for each distinct built-in VAE.
        unchecked: number of checkpoints of which nothing is known, because no scan has checked them yet.
        unknown: number of VAE files that no scan has read yet; they are read before anything is written.
        free: bytes on that disk.
    """

    folder: Path
    extractions: Sequence[Extraction]
    unchecked: int = 0
    unknown: int = 0
    free: int = 0

    @property
    def wanted(self) -> list[Extraction]:
        """Those that would be written."""
        return [extraction for extraction in self.extractions if not extraction.skipped]

    @property
    def skipped(self) -> list[Extraction]:
        """The others."""
        return [extraction for extraction in self.extractions if extraction.skipped]

    @property
    def needed(self) -> int:
        """Bytes of the new files, about."""
        return sum(extraction.size for extraction in self.wanted)


@dataclass(frozen=True)
class Extracted:
    """A new file.

    Attributes:
        checkpoint: name of the checkpoint whose VAE it is.
        path: where it is.
        record: what was found when it was checked.
    """

    checkpoint: str
    path: Path
    record: FileRecord


@dataclass(frozen=True)
class ExtractResult:
    """What was done.

    Attributes:
        written: the new files.
        failed: name of the checkpoint, and why its VAE was not written.
        cancelled: whether VAEs are left because the user cancelled.
    """

    written: Sequence[Extracted]
    failed: Sequence[tuple[str, str]]
    cancelled: bool = False


class ExtractService:
    """Plans and writes the files. Thread-safe.

    Args:
        host: of the files.
        runs: of the host; this is one of them.
    """

    def __init__(self, host: Host, runs: Runs) -> None:
        self._host = host
        self._runs = runs

    def plan(self, *, broken: bool = False, fresh: bool = True) -> ExtractPlan:
        """What would be done, by the results of scans; only reads the headers of checkpoints to extract from.

        Args:
            broken: also extract broken VAEs.
            fresh: list the host's files again.

        Raises:
            HostError: there is no folder for VAEs.
        """
        host, cache = self._host, self._host.file_cache
        folder = host.vae_folder()
        listing = host.listing(fresh=fresh)
        records = {name: cache.checked(str(path)) for name, path in listing.checkpoints.items()}
        vaes = {name: cache.known(str(path)) for name, path in listing.vaes.items()}
        known = {name: record for name, record in records.items() if record is not None}
        found = find_extractions(known, {name: one for name, one in vaes.items() if one is not None}, broken=broken)
        stems = {path.stem for path in listing.checkpoints.values()}
        files: list[str] = []
        extractions = []
        for one in found:
            if not one.skipped:
                one = self._with_file(one, listing.checkpoints[one.checkpoint], folder, stems, files)
                files.append(one.file)
            extractions.append(one)
        unknown = sum(record is None for record in vaes.values())
        return ExtractPlan(folder, extractions, len(records) - len(known), unknown, _free_bytes(folder))

    def _with_file(
        self, one: Extraction, path: Path, folder: Path, stems: Collection[str], files: Collection[str]
    ) -> Extraction:
        try:
            size = extracted_size(path)
        except FileError as error:
            return replace(one, skipped=error.reason)
        return replace(one, file=free_name(path, folder, stems, files), size=size)

    def apply(self, checkpoints: Collection[str] | None = None, *, broken: bool = False) -> ExtractResult:
        """Write the planned files, and check each. The checkpoints are not changed.

        Args:
            checkpoints: names of those to extract from; None for all that are planned.
            broken: also extract broken VAEs.

        Raises:
            UnknownChoice: the VAE of one of them is not to be extracted; nothing was written.
            HostError: the files cannot be written; or another task is running.
        """
        with self._runs.one_at_a_time():
            self._runs.report(0, 0, "looking for files")
            # A VAE file that no scan has read may have the same weights.
            self._host.identify(self._runs.report, self._runs.cancelled)
            plan = self.plan(broken=broken, fresh=False)
            wanted = {one.checkpoint: one for one in plan.wanted}
            unknown = [name for name in checkpoints or () if name not in wanted]
            if unknown:
                raise UnknownChoice(f"there is nothing to extract from {unknown[0]}")
            chosen = [one for name, one in wanted.items() if checkpoints is None or name in checkpoints]
            needed = sum(one.size for one in chosen)
            if plan.free < needed:
                raise HostError(
                    f"not enough disk space: {needed / 1e9:.2f} GB needed, {plan.free / 1e9:.2f} GB free; "
                    "choose fewer checkpoints"
                )
            if self._runs.cancelled():
                return ExtractResult([], [], cancelled=True)
            return self._apply(plan.folder, chosen)

    def _apply(self, folder: Path, chosen: Sequence[Extraction]) -> ExtractResult:
        if chosen:
            _make(folder)
        total = sum(one.size for one in chosen)
        written: list[Extracted] = []
        failed: list[tuple[str, str]] = []
        files, cancelled, done = self._host.checkpoint_files(), False, 0
        for one in chosen:
            path, report = folder / one.file, partial(self._report, done, total, one.file)
            try:
                extract(files[one.checkpoint], path, progress=report, cancelled=self._runs.cancelled)
                written.append(Extracted(one.checkpoint, path, self._host.file_cache.check(str(path))))
            except FileError as error:
                failed.append((one.checkpoint, error.reason))
            except Cancelled:
                cancelled = True
                break
            done += one.size
        self._host.listing(fresh=True)
        return ExtractResult(written, failed, cancelled)

    def _report(self, before: int, total: int, file: str, done: int, _: int, __: str) -> None:
        self._runs.report(before + done, total, file, unit="bytes")


def _free_bytes(folder: Path) -> int:
    existing = next((one for one in (folder, *folder.parents) if one.is_dir()), folder)
    try:
        return shutil.disk_usage(existing).free
    except OSError as error:
        raise HostError(f"{existing}: {error.strerror or error}") from error


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(f"{folder} could not be made: {error.strerror or error}") from error
