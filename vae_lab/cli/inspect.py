"""``vae-lab inspect``: identify the VAE in each file and check its health."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from vae_lab.autoencoders import open_vae
from vae_lab.cli.arguments import Commands, display_name, exit_code, path_or_url
from vae_lab.cli.console import print_json, progress_bar, say
from vae_lab.errors import FileError
from vae_lab.identity import Sketch, short, sketch_of_file
from vae_lab.library import FileRecord, inspect_file
from vae_lab.text import as_json

__all__ = ["add_inspect"]


def add_inspect(commands: Commands) -> None:
    """Add the command to the parser."""
    inspect = commands.add_parser("inspect", help="identify the VAE in a file and check its health")
    inspect.add_argument(
        "paths", type=path_or_url, nargs="+", metavar="FILE", help="VAEs and checkpoints: paths or https URLs"
    )
    inspect.add_argument("--json", action="store_true", help="print one JSON object per file, one per line")
    inspect.add_argument(
        "--no-probe", action="store_true", help="check structure and known facts only; decode no chart"
    )
    inspect.set_defaults(function=_inspect)


def _inspect(args: argparse.Namespace) -> int:
    statuses = []
    paths = list(dict.fromkeys(args.paths))
    with progress_bar("inspecting", "file", hidden=args.json) as progress:
        for number, path in enumerate(paths):
            progress(number, len(paths), display_name(path, paths))
            report = inspect_file(path, probe=not args.no_probe, relatives=_relatives(path, paths))
            statuses.append(report.status)
            if args.json:
                print_json(as_json(report.to_json()))
            else:
                say(_as_text(report))
        progress(len(paths), len(paths), "")
    return exit_code(statuses)


def _relatives(path: Path | str, paths: Sequence[Path | str]) -> dict[str, Sketch]:
    """Sketches of the other files of the call: the parents of a merge may be among them."""
    return {display_name(other, paths): sketch for other in paths if other != path and (sketch := _sketch(str(other)))}


@cache
def _sketch(path: str) -> Sketch | None:
    try:
        with open_vae(path) as file:
            return sketch_of_file(file)
    except FileError:
        return None


def _as_text(report: FileRecord) -> str:
    facts = [report.family.title if report.family else "unknown family", report.dtype, report.layout]
    if report.fingerprint:
        facts.append(short(report.fingerprint))
    lines = [f"{report.path}: {report.status}"]
    if report.layout:
        lines.append(f"  {', '.join(filter(None, facts))}")
    if report.identity:
        lines.append(f"  this {'file ' if report.identity.match == 'file' else ''}is {report.identity.words}")
    for finding in report.verdict.findings:
        lines.append(f"  {finding.title} ({finding.code}, {finding.severity}): {finding.text}")
        if finding.evidence:
            lines.append(f"    {'; '.join(map(str, finding.evidence))}")
        if finding.remedy:
            lines.append(f"    {finding.remedy}")
    return "\n".join(lines)
