"""``vae-lab download``: get a published VAE."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from vae_lab.checkup.findings import STATUS_TITLES
from vae_lab.cli.arguments import INTERRUPTED, UNUSABLE, Commands, exit_code
from vae_lab.cli.console import progress_bar, say
from vae_lab.errors import HostError, VaeLabError
from vae_lab.identity import PublishedVae, published_vaes
from vae_lab.latents.family import FAMILIES
from vae_lab.library.download import by_hand, download_vae, stored_bytes
from vae_lab.text import sized

__all__ = ["add_download"]


def add_download(commands: Commands, published: Sequence[PublishedVae] | None = None) -> None:
    """Add the command to the parser.

    Args:
        commands: where to.
        published: what can be downloaded; None for what the catalogue has.
    """
    files = published_vaes() if published is None else published
    download = commands.add_parser("download", help="get a published VAE, checked by its size and SHA-256")
    download.add_argument("name", nargs="?", metavar="NAME", help="of the VAE; without it, list what can be downloaded")
    download.add_argument("-o", "--out", type=Path, metavar="FOLDER", help="folder for the file, such as models/VAE")

    def run(args: argparse.Namespace) -> int:
        if args.name is None:
            return _list(files)
        return _download(_named(args.name, files), args.out)

    download.set_defaults(function=run)


def _list(files: Sequence[PublishedVae]) -> int:
    for each in files:
        say(f"{each.name}: {FAMILIES[each.family].title}, {each.size:,} bytes, SHA-256 {each.sha256}, {each.address}")
    return 0


def _named(name: str, files: Sequence[PublishedVae]) -> PublishedVae:
    found = next((each for each in files if each.name == name), None)
    if found is None:
        raise HostError(f"no published VAE named {name} can be downloaded: {', '.join(each.name for each in files)}")
    return found


def _download(published: PublishedVae, folder: Path | None) -> int:
    if folder is None:
        raise HostError("give the folder for the file with --out FOLDER")
    if not folder.is_dir():
        raise HostError(f"{folder} is not a folder. Create it first.")
    try:
        with progress_bar(published.file, "B", scale=True) as progress:
            record = download_vae(published, folder, progress=progress)
    except KeyboardInterrupt:
        stored = sized(stored_bytes(published, folder))
        say(f"Interrupted; {stored} are stored. Run the same command to resume.", sys.stderr)
        return INTERRUPTED
    except VaeLabError as error:
        say(str(error), sys.stderr)
        say(by_hand(published, folder), sys.stderr)
        return UNUSABLE
    say(record.path)
    say(f"{STATUS_TITLES[record.status]}, SHA-256 as published", sys.stderr)
    return exit_code([record.status])
