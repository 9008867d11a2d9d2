"""Downloads of published VAEs, for checkpoints whose own is broken or missing while no healthy one is on the disk."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from vae_lab.errors import Cancelled, HostError, UnknownChoice
from vae_lab.host.base import Host
from vae_lab.identity import PublishedVae
from vae_lab.latents.family import Family
from vae_lab.library import FileRecord
from vae_lab.library.download import download_vae, stored_bytes
from vae_lab.service.runs import Runs
from vae_lab.text import sized

__all__ = ["DownloadPlan", "DownloadService", "Downloaded"]


@dataclass(frozen=True)
class DownloadPlan:
    """What would be downloaded.

    Attributes:
        published: the file.
        folder: where to.
        needed: bytes that are left to download.
        free: bytes on that disk.
    """

    published: PublishedVae
    folder: Path
    needed: int
    free: int


@dataclass(frozen=True)
class Downloaded:
    """The new file.

    Attributes:
        path: where it is.
        name: of the VAE in the host's lists; "" if it is not listed.
        record: what was found when it was checked.
    """

    path: Path
    name: str
    record: FileRecord


class DownloadService:
    """Plans and makes downloads. Thread-safe.

    Args:
        host: has the catalogue, and the folder.
        runs: of the host; a download is one of them.
    """

    def __init__(self, host: Host, runs: Runs) -> None:
        self._host = host
        self._runs = runs

    def plans(self, checkpoint: str = "") -> list[DownloadPlan]:
        """What can be downloaded; sends nothing.

        Args:
            checkpoint: name of the one that it is for; "" for everything. If its family is not known, nothing fits.

        Raises:
            UnknownChoice: no checkpoint has that name.
            HostError: the host has no folder for VAEs.
        """
        if not checkpoint:
            return [self._plan(published) for published in self._host.published]
        path = self._host.checkpoint_files().get(checkpoint)
        if path is None:
            raise UnknownChoice(f"no checkpoint named {checkpoint}")
        record = self._host.file_cache.known(str(path))
        return self._fitting(record.model_family if record else None)

    def plan(self, family: Family | None) -> DownloadPlan | None:
        """The recommended one of a family; None if there is none, or no folder for it."""
        try:
            return next(iter(self._fitting(family)), None)
        except HostError:
            return None

    def download(self, name: str) -> Downloaded:
        """Download a file, check it, and list it.

        Args:
            name: that of the catalogue.

        Raises:
            UnknownChoice: the catalogue has no address for such a VAE.
            HostError: another task is running, the user cancelled, or the file cannot be written.
            UnreadableFile: the server cannot be reached, or has another file.
        """
        published = next((each for each in self._host.published if each.name == name), None)
        if published is None:
            raise UnknownChoice(f"no published VAE named {name} can be downloaded")
        folder = self._host.vae_folder()
        with self._runs.one_at_a_time():
            try:
                folder.mkdir(exist_ok=True)
                record = download_vae(
                    published, folder, progress=self._report, cancelled=self._runs.cancelled,
                    memory=self._host.file_cache,
                )  # fmt: skip
            except Cancelled as error:
                stored, size = sized(stored_bytes(published, folder)), sized(published.size)
                raise HostError(
                    f"cancelled; {stored} of {size} are stored, and the next download resumes there"
                ) from error
            except OSError as error:
                raise HostError(f"{folder}: {error.strerror or error}") from error
            self._host.refresh_vaes()
            path = Path(record.path)
            listed = self._host.listing().name_of(path)
            return Downloaded(path, listed, self._host.inspect(listed) if listed else record)

    def _fitting(self, family: Family | None) -> list[DownloadPlan]:
        if family is None:
            return []
        return [self._plan(published) for published in self._host.published if published.family == family.id]

    def _plan(self, published: PublishedVae) -> DownloadPlan:
        folder = self._host.vae_folder()
        try:
            free = shutil.disk_usage(folder if folder.is_dir() else folder.parent).free
        except OSError as error:
            raise HostError(f"{folder}: {error.strerror or error}") from error
        return DownloadPlan(published, folder, published.size - stored_bytes(published, folder), free)

    def _report(self, done: int, total: int, what: str) -> None:
        self._runs.report(done, total, what, unit="bytes")
