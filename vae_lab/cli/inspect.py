"""``vae-lab inspect``: identify the VAE in each file and check its health."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from vae_lab.autoencoders import open_vae
from vae_lab.cli.arguments import (
    Commands,
    add_overwrite_option,
    add_time_option,
    check_outputs,
    display_name,
    exit_code,
    path_or_url,
)
from vae_lab.cli.console import print_json, progress_bar, say
from vae_lab.errors import Cancelled, FileError
from vae_lab.formats import is_url
from vae_lab.identity import Sketch, file_sha256, short, sketch_of_file
from vae_lab.library import FileRecord, inspect_file
from vae_lab.library.record import explained
from vae_lab.library.reports import github_annotations, junit_xml
from vae_lab.new_file import new_file
from vae_lab.text import as_json
from vae_lab.time_limit import TimeLimit

__all__ = ["add_inspect", "explained_among"]


def add_inspect(commands: Commands) -> None:
    """Add the command to the parser."""
    inspect = commands.add_parser("inspect", help="identify the VAE in a file and check its health")
    inspect.add_argument(
        "paths", type=path_or_url, nargs="+", metavar="FILE", help="VAEs and checkpoints: paths or https URLs"
    )
    inspect.add_argument("--json", action="store_true", help="print one JSON object per file, one per line")
    inspect.add_argument(
        "--no-probe",
        action="store_true",
        help="check structure and known facts only; decode no chart",
    )
    inspect.add_argument(
        "--hashes",
        action="store_true",
        help="also compute the SHA-256 of checkpoints, which reads whole files; that of VAEs is always computed",
    )
    inspect.add_argument("--junit", type=Path, metavar="FILE", help="also write JUnit XML, for continuous integration")
    inspect.add_argument(
        "--github", action="store_true", help="also print annotations of GitHub Actions for files that are not healthy"
    )
    add_overwrite_option(inspect)
    add_time_option(inspect)
    inspect.set_defaults(function=_inspect)


def _inspect(args: argparse.Namespace) -> int:
    paths = list(dict.fromkeys(args.paths))
    check_outputs([args.junit] if args.junit else [], overwrite=args.overwrite)
    names = {path: display_name(path, paths) for path in paths}
    reports: dict[str, FileRecord] = {}
    with progress_bar("inspecting", "file", hidden=args.json) as progress:
        for number, path in enumerate(paths):
            progress(number, len(paths), names[path])
            limit = partial(TimeLimit, args.time_limit)
            report = inspect_file(path, probe=not args.no_probe, time=limit()).with_charts({})
            is_hashed = args.hashes or (report.kind == "vae" and not args.no_probe)
            reports[names[path]] = replace(report, sha256=_sha256(path, limit())) if is_hashed else report
        progress(len(paths), len(paths), "")
    # Only now is it known which files are broken, and so are nobody's parents.
    for path in paths:
        report = explained_among(names[path], str(path), reports, {names[other]: str(other) for other in paths})
        if args.json:
            print_json(as_json(report.to_json()))
        else:
            for line in _as_text(report):
                say(line)
    for line in github_annotations(reports) if args.github else ():
        say(line, sys.stderr if args.json else None)  # GitHub reads both
    if args.junit:
        with new_file(args.junit, overwrite=args.overwrite) as out:
            out.write(junit_xml(reports))
    return exit_code(report.status for report in reports.values())


def _sha256(path: Path | str, time: TimeLimit) -> str:
    """Of the whole file; "" of a URL, and of a file that cannot be read, or not in time."""
    try:
        return "" if is_url(path) else file_sha256(path, time.expired)
    except (FileError, Cancelled):
        return ""


def explained_among(name: str, path: str, reports: Mapping[str, FileRecord], paths: Mapping[str, str]) -> FileRecord:
    """The report with the parents of a merge, if they are among the other files of the call."""
    report, sketch = reports[name], _sketch(path) if len(paths) > 2 and reports[name].fingerprint else None
    if sketch is None:
        return report
    others = {other: found for other, file in paths.items() if other != name and (found := _sketch(file))}
    return explained(report, sketch, others, reports)


@cache
def _sketch(path: str) -> Sketch | None:
    try:
        with open_vae(path) as file:
            return sketch_of_file(file)
    except FileError:
        return None


def _as_text(report: FileRecord) -> list[str]:
    facts = [report.family.title if report.family else "unknown family", report.dtype, report.layout]
    if report.fingerprint:
        facts.append(short(report.fingerprint))
    lines = [f"{report.path}: {report.status}"]
    if report.layout:
        lines.append(f"  {', '.join(filter(None, facts))}")
    if report.sha256:
        lines.append(f"  SHA-256 {report.sha256} (VAE hash {report.autov2})")
    if report.identity:
        lines.append(f"  this {'file ' if report.identity.match == 'file' else ''}is {report.identity.words}")
    if report.merge and not report.merge.certain:
        lines.append(f"  related to {report.merge.names}; which was made from which is not certain")
    for finding in report.verdict.findings:
        lines.append(f"  {finding.title} ({finding.code}, {finding.severity}): {finding.text}")
        if finding.evidence:
            lines.append(f"    {'; '.join(map(str, finding.evidence))}")
        if finding.remedy:
            lines.append(f"    {finding.remedy}")
    return lines
