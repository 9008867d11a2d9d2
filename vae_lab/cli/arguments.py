"""What several commands share: argument types, options, exit codes, display names."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

from vae_lab.checkup.findings import HEALTHY, NO_VAE, NOT_CHECKED, UNCHECKED, UNREADABLE
from vae_lab.errors import HostError
from vae_lab.formats import file_name, is_url, shown_name
from vae_lab.new_file import TAKEN, is_taken
from vae_lab.time_limit import FILE_SECONDS

__all__ = [
    "INTERRUPTED",
    "UNUSABLE",
    "Commands",
    "add_overwrite_option",
    "add_page_options",
    "add_time_option",
    "add_vae_option",
    "at_least",
    "check_outputs",
    "display_name",
    "exit_code",
    "path_or_url",
]

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # argparse has no public name for it
"""What each command adds its parser to."""

UNUSABLE = 2
"""Exit code: a file could not be read, or the command line is wrong."""

INTERRUPTED = 130
"""Exit code: stopped with Ctrl+C, as shells report it."""

NOT_JUDGED = 3
"""Exit code: nothing wrong was found, but there is a VAE of a kind that the checkup cannot judge."""

_NOT_HEALTHY = 1
_EXIT_CODES = {HEALTHY: 0, UNCHECKED: 0, NO_VAE: 0, NOT_CHECKED: NOT_JUDGED, UNREADABLE: UNUSABLE}
_WORST_CODES = (UNUSABLE, _NOT_HEALTHY, NOT_JUDGED, 0)


def exit_code(statuses: Iterable[str]) -> int:
    """The exit code of a checkup: 2 (unreadable), else 1 (not healthy), else 3 (cannot be judged), else 0.

    A file that was not to be checked (``--no-probe``), or that is another kind of model, does not count.
    """
    codes = {_EXIT_CODES.get(status, _NOT_HEALTHY) for status in statuses}
    return next(code for code in _WORST_CODES if code in codes or code == 0)


def path_or_url(text: str) -> Path | str:
    """A local path, or a URL as it was typed: a ``Path`` would drop one of its slashes."""
    return text if is_url(text) else Path(text)


def at_least(minimum: int) -> Callable[[str], int]:
    """An argparse type: a whole number not below ``minimum``."""

    def number(text: str) -> int:
        value = int(text) if text.lstrip("-").isdecimal() else None
        if value is None or value < minimum:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {minimum} or more")
        return value

    return number


def add_vae_option(command: argparse.ArgumentParser) -> None:
    """``--vae``, once for each VAE to compare."""
    command.add_argument(
        "--vae", type=path_or_url, action="append", required=True, metavar="FILE",
        help="a VAE, or a checkpoint that contains one; give it once for each VAE",
    )  # fmt: skip


def add_overwrite_option(command: argparse.ArgumentParser) -> None:
    """``--overwrite``, of the commands that write reports and images."""
    command.add_argument("--overwrite", action="store_true", help="replace files that exist")


def add_time_option(command: argparse.ArgumentParser) -> None:
    """``--time-limit``, of the commands that inspect files."""
    command.add_argument(
        "--time-limit", type=at_least(0), default=round(FILE_SECONDS), metavar="SECONDS",
        help="give up on a file that takes longer, and continue with the next; 0 for no limit (default: %(default)s)",
    )  # fmt: skip


def check_outputs(files: Iterable[Path], *, overwrite: bool) -> None:
    """Refuse what could not be written, before an hour of work: the folder is missing, or the name is taken.

    Raises:
        HostError: with the reason.
    """
    for file in files:
        if not file.absolute().parent.is_dir():
            raise HostError(f"{file}: the folder {file.parent} does not exist. Create it first.")
        if file.is_dir():
            raise HostError(f"{file} is a folder. Choose another name.")
        if not overwrite and is_taken(file):
            raise HostError(f"{file} {TAKEN}. Choose another name, or add --overwrite.")


def add_page_options(command: argparse.ArgumentParser) -> None:
    """The options of the commands that serve the stand-alone app."""
    command.add_argument("--port", type=int, default=0, help="TCP port on this machine (default: any free port)")
    command.add_argument(
        "--listen", action="store_true", help="serve other machines too; they need the token that is printed"
    )
    command.add_argument("--no-browser", action="store_true", help="print the address, but do not open a browser")


def display_name(path: Path | str, paths: Sequence[Path | str]) -> str:
    """The file's name, or its whole path if another one of ``paths`` has the same name."""
    name = file_name(path)
    return name if sum(file_name(other) == name for other in paths) == 1 else shown_name(path)
