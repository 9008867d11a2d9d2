"""``vae-lab certify``: a page and a JSON file about one model, to publish beside it."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from vae_lab.checkup.findings import UNREADABLE
from vae_lab.cli.arguments import Commands, add_overwrite_option, check_outputs, display_name, exit_code
from vae_lab.cli.console import progress_bar, say
from vae_lab.cli.inspect import explained_among
from vae_lab.identity import file_sha256
from vae_lab.library import inspect_file
from vae_lab.library.reports import certificate_html, certificate_json
from vae_lab.new_file import new_files

__all__ = ["add_certify"]


def add_certify(commands: Commands) -> None:
    """Add the command to the parser."""
    certify = commands.add_parser("certify", help="write a page and a JSON file about a model, to publish beside it")
    certify.add_argument("model", type=Path, metavar="MODEL", help="a VAE or a checkpoint")
    certify.add_argument(
        "-o", "--out", type=Path, metavar="FOLDER", help="where to write them; by default next to MODEL"
    )
    certify.add_argument(
        "--among", type=Path, nargs="+", default=[], metavar="FILE", help="VAEs that it may have been merged from"
    )
    add_overwrite_option(certify)
    certify.set_defaults(function=_certify)


def _certify(args: argparse.Namespace) -> int:
    folder = args.out or args.model.absolute().parent
    page, data = (folder / f"{args.model.name}.vae-lab.{ending}" for ending in ("html", "json"))
    check_outputs([page, data], overwrite=args.overwrite)
    files = list(dict.fromkeys([args.model, *args.among]))
    paths = {display_name(path, files): str(path) for path in files}
    with progress_bar("inspecting", "file") as progress:
        reports = {}
        for number, (name, path) in enumerate(paths.items()):
            progress(number, len(paths), name)
            reports[name] = inspect_file(path)
        progress(len(paths), len(paths), "")
    name = next(iter(paths))
    record = explained_among(name, paths[name], reports, paths)
    if record.status != UNREADABLE:
        record = replace(record, sha256=file_sha256(args.model))
    with new_files(folder, overwrite=args.overwrite) as write:
        write(page.name, certificate_html(record).encode())
        write(data.name, certificate_json(record).encode())
    say(str(page))
    say(str(data))
    return exit_code([record.status])
