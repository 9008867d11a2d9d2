"""Folders like the WebUI's ``models/`` for the commands that work on whole libraries."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from vae_lab.cli.console import progress_bar
from vae_lab.errors import HostError
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.library.cache import user_cache_folder
from vae_lab.library.scan import Scan
from vae_lab.progress import Progress
from vae_lab.service.runs import Runs, Unit

__all__ = [
    "ConsoleRuns", "add_cache_option", "add_vae_dir_option", "cache_folder", "models_folders", "opened_host",
    "require_folders", "scan_host", "table",
]  # fmt: skip


def add_vae_dir_option(command: argparse.ArgumentParser) -> None:
    """``--vae-dir``, once for each folder with VAEs."""
    command.add_argument(
        "--vae-dir", type=Path, action="append", metavar="DIR",
        help="folder with VAEs; give it once for each (default: VAE/ in DIR or next to it)",
    )  # fmt: skip


def add_cache_option(command: argparse.ArgumentParser) -> None:
    """``--cache``, of the commands that store results."""
    command.add_argument(
        "--cache", type=Path, metavar="FOLDER", help="where to store results between scans (default: your cache folder)"
    )


def cache_folder(args: argparse.Namespace) -> Path:
    """That of ``--cache``, or the user's."""
    return args.cache or user_cache_folder()


def require_folders(folders: Sequence[Path]) -> None:
    """Raises HostError: one of them is not a folder."""
    for folder in folders:
        if not folder.is_dir():
            raise HostError(f"{folder} is not a folder")


@contextmanager
def opened_host(args: argparse.Namespace, folders: Folders) -> Iterator[StandaloneHost]:
    """A host of these folders, as long as the context lasts.

    Raises:
        HostError: the folder given as ``--cache`` cannot be used.
    """
    host = StandaloneHost(folders)
    with closing(host.file_cache):
        if args.cache and host.file_cache.failure:
            raise HostError(f"choose another folder with --cache: {args.cache} {host.file_cache.failure}")
        yield host


def models_folders(args: argparse.Namespace, folder: Path) -> Folders:
    """``folder`` is laid out like the WebUI's ``models``, or has the checkpoints itself."""
    folder = folder.absolute()
    checkpoints = folder / "Stable-diffusion"
    if not checkpoints.is_dir():
        checkpoints = folder
    found = [path for path in (folder / "VAE", folder.parent / "VAE") if path.is_dir()][:1]
    vaes = tuple(path.absolute() for path in args.vae_dir) if args.vae_dir else tuple(found)
    return Folders(folder / "vae-lab", (checkpoints,), vaes, cache=cache_folder(args), webui=True)


def scan_host(host: StandaloneHost) -> None:
    """Check all files of a host, with a progress bar."""
    with progress_bar("scanning", "step") as progress:
        scan = Scan((), host.file_cache, listed=host.listing().files, progress=progress)
        with closing(scan.run()) as records:
            for _ in records:
                pass


class ConsoleRuns(Runs):
    """Runs whose progress in bytes goes to a progress bar.

    Args:
        progress: of the bar.
    """

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress

    def report(self, done: int, total: int, what: str, *, unit: Unit = "steps") -> None:
        super().report(done, total, what, unit=unit)
        if unit == "bytes":
            self._progress(done, total, what)


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """The lines of a table; the last column may have any width."""
    every = [head, *rows]
    widths = [max(len(row[i]) for row in every) for i in range(len(head) - 1)]
    return [
        "  ".join((*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1])) for row in every
    ]
