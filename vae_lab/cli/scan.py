"""``vae-lab scan``: whole folders, with a summary and reports."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import TextIO

import torch

from vae_lab.checkup.findings import HEALTHY, NO_VAE, STATUS_PHRASES, Status
from vae_lab.cli.arguments import (
    INTERRUPTED,
    Commands,
    add_overwrite_option,
    add_time_option,
    at_least,
    check_outputs,
    exit_code,
)
from vae_lab.cli.console import print_json, progress_bar, say
from vae_lab.errors import HostError
from vae_lab.identity import Conversion, DuplicateGroup, find_duplicates
from vae_lab.library import UNCHECKED, WORST_FIRST, DaskEngine, FileCache, FileRecord, Records, Scan
from vae_lab.library.cache import user_cache_folder
from vae_lab.library.folders import Walk
from vae_lab.library.hashes import hash_files
from vae_lab.library.reports import json_line, write_csv, write_html
from vae_lab.new_file import new_file
from vae_lab.state_dict import KINDS_BY_ID, Kind
from vae_lab.state_dict.kinds import KINDS
from vae_lab.text import sized
from vae_lab.time_limit import TimeLimit

__all__ = ["add_scan"]

_MAX_FILES = 20  # listed in the summary
_MAX_GROUPS = 10
_STANDARD_OUTPUT = "-"
_NOT_LISTED = (HEALTHY, UNCHECKED, NO_VAE)


def add_scan(commands: Commands) -> None:
    """Add the command to the parser."""
    scan = commands.add_parser("scan", help="check all files in folders: which are broken, which are duplicates")
    scan.add_argument("paths", nargs="+", metavar="PATH", help="folders to search; also single files and https URLs")
    scan.add_argument("--jsonl", metavar="FILE", help="write one JSON object per file, one per line; - for stdout")
    scan.add_argument("--csv", type=Path, metavar="FILE", help="write a table for spreadsheets")
    scan.add_argument("--html", type=Path, metavar="FILE", help="write one self-contained page with table and charts")
    add_overwrite_option(scan)
    add_time_option(scan)
    scan.add_argument("--jobs", type=at_least(1), metavar="N", help="threads (default: one per processor, up to 8)")
    scan.add_argument("--no-probe", action="store_true", help="check structure and known facts only; decode no chart")
    scan.add_argument(
        "--hashes", action="store_true", help="also compute the SHA-256 of each file, which reads whole files, once"
    )
    scan.add_argument(
        "--engine", choices=("local", "dask"), default="local",
        help="where to check files: on this machine or on a Dask cluster (default: %(default)s)",
    )  # fmt: skip
    scan.add_argument("--dask-scheduler", metavar="ADDRESS", help="address of the scheduler, e.g. tcp://10.0.0.1:8786")
    scan.add_argument(
        "--cache", type=Path, metavar="FOLDER", help="where to store results between scans (default: your cache folder)"
    )
    scan.set_defaults(function=_scan)


def _scan(args: argparse.Namespace) -> int:
    if (args.engine == "dask") != bool(args.dask_scheduler):
        raise HostError("--engine dask needs --dask-scheduler ADDRESS, and the other way round. Give both or neither.")
    lines = Path(args.jsonl) if args.jsonl not in (None, _STANDARD_OUTPUT) else None
    reports = [out for out in (args.csv, args.html, lines) if out is not None]
    if len({out.absolute() for out in reports}) < len(reports):
        raise HostError("--jsonl, --csv and --html need a file each.")
    check_outputs(reports, overwrite=args.overwrite)
    with closing(FileCache(args.cache or user_cache_folder())) as cache:
        if args.cache and cache.failure:
            raise HostError(f"choose another folder with --cache: {args.cache} {cache.failure}")
        return _scan_with(args, cache)


def _scan_with(args: argparse.Namespace, cache: FileCache) -> int:
    counts: Counter[Status] = Counter()
    interrupted = False
    with ExitStack() as stack:
        engine = None
        if args.engine == "dask":
            engine = DaskEngine(
                args.dask_scheduler, probe=not args.no_probe, charts=args.html is not None, seconds=args.time_limit
            )
            stack.callback(engine.close)
        elif args.jobs != 1:  # checks run side by side and must not compete for the processors
            torch.set_num_threads(max(1, torch.get_num_threads() // 2))
        progress = stack.enter_context(progress_bar("scanning", "step"))
        write = stack.enter_context(_lines(args.jsonl, args.overwrite))
        files = list(Walk().find_all(args.paths))
        probe = not args.no_probe
        time = partial(TimeLimit, args.time_limit)
        scan = Scan((), cache, listed=files, probe=probe, jobs=args.jobs, engine=engine, progress=progress, time=time)
        try:
            if args.hashes:
                hash_files(files, cache, progress, time=time)
            with closing(scan.run()) as records:
                for record in records:
                    counts[record.status] += 1
                    write(replace(record, sha256=cache.sha256(record.path)))
        except KeyboardInterrupt:
            interrupted = True
    out = sys.stderr if args.jsonl == _STANDARD_OUTPUT else sys.stdout
    duplicates, conversions = find_duplicates(scan.records), scan.records.conversions()
    _summary(scan.records, counts, duplicates, conversions, out)
    if interrupted:
        reports = args.csv or args.html or args.jsonl not in (None, _STANDARD_OUTPUT)
        rest = ", with --overwrite for the reports" if reports else ""
        say(f"Interrupted. Run the same command to resume{rest}.", out)
    _write_reports(args, scan.records, duplicates, conversions)
    return INTERRUPTED if interrupted else exit_code(counts)


@contextmanager
def _lines(target: str | None, overwrite: bool) -> Iterator[Callable[[FileRecord], object]]:
    """A function that writes a record's JSON line."""
    if target is None:
        yield lambda _: None
    elif target == _STANDARD_OUTPUT:
        yield lambda record: print_json(json_line(record))
    else:
        with _new_text(Path(target), overwrite) as out:
            yield lambda record: out.write(f"{json_line(record)}\n")


@contextmanager
def _new_text(target: Path, overwrite: bool, newline: str | None = None) -> Iterator[TextIO]:
    # A name's bytes that are not UTF-8 become escapes.
    with new_file(target, overwrite=overwrite) as file:
        out = TextIOWrapper(file, "utf8", "backslashreplace", newline, line_buffering=True)
        yield out
        out.detach()  # else it would close the file


def _write_reports(
    args: argparse.Namespace, records: Records, duplicates: Sequence[DuplicateGroup], conversions: Sequence[Conversion]
) -> None:
    if args.csv:
        with _new_text(args.csv, args.overwrite, newline="") as out:
            write_csv(records.worst_first, out)
    if args.html:
        with _new_text(args.html, args.overwrite) as out:
            write_html(records.worst_first, out, duplicates=duplicates, conversions=conversions, charts=records.charts)


def _summary(
    records: Records,
    counts: Counter[Status],
    duplicates: Sequence[DuplicateGroup],
    conversions: Sequence[Conversion],
    out: TextIO,
) -> None:
    unchecked = len(records) - sum(counts.values())
    counts = counts + Counter[Status](
        {UNCHECKED: unchecked}
    )  # a copy, because the caller needs its own for the exit code
    statuses = ", ".join(f"{counts[status]:,} {STATUS_PHRASES[status]}" for status in WORST_FIRST if counts[status])
    files = "1 file" if len(records) == 1 else f"{len(records):,} files"
    say(f"{files}{': ' if statuses else ''}{statuses}", out)
    faulty = (record for record in records.worst_first if record.status not in _NOT_LISTED)
    for record in islice(faulty, _MAX_FILES):
        say(f"  {record.status}: {record.path}: {record.verdict.findings[0].text}", out)
    more = sum(counts[status] for status in counts if status not in _NOT_LISTED) - _MAX_FILES
    if more > 0:
        say(f"  and {more:,} more; --csv, --html and --jsonl list all of them", out)
    if counts[NO_VAE]:
        say(_without_vae(records), out)
    if duplicates:
        freeable = sum(group.freeable_bytes for group in duplicates)
        room = f", {sized(freeable)} could be freed (nothing is ever deleted by VAE Lab)" if freeable else ""
        say(f"VAEs found in more than one file: {len(duplicates):,}{room}", out)
    for group in duplicates[:_MAX_GROUPS]:
        say(f"  {group.sentence}", out)
    if len(duplicates) > _MAX_GROUPS:
        say(f"  and {len(duplicates) - _MAX_GROUPS:,} more; --html lists all of them", out)
    if conversions:
        say(f"Converted copies of VAEs: {len(conversions):,}", out)
    for conversion in conversions[:_MAX_GROUPS]:
        say(f"  {conversion.sentence}", out)
    if len(conversions) > _MAX_GROUPS:
        say(f"  and {len(conversions) - _MAX_GROUPS:,} more; --html lists all of them", out)


def _without_vae(records: Records) -> str:
    """Such as ``29 files hold no VAE: 25 LoRAs, 1 ControlNet …``; nothing is wrong with them."""
    kinds = Counter(record.architecture for record in records if record.status == NO_VAE)
    named = [_number_of(kinds[kind.id], kind) for kind in KINDS if kinds[kind.id]]
    if kinds["shard"]:
        named.append(f"{kinds['shard']:,} {'part' if kinds['shard'] == 1 else 'parts'} of split models")
    others = kinds.total() - sum(kinds[kind] for kind in ("shard", *KINDS_BY_ID))
    if others:
        named.append(f"{others:,} of an unknown kind")
    total = kinds.total()
    return f"{total:,} {'file holds' if total == 1 else 'files hold'} no VAE: {', '.join(named)}"


def _number_of(count: int, kind: Kind) -> str:
    if kind.answer == "pixels":
        return f"{count:,} {'model that needs none' if count == 1 else 'models that need none'}"
    return f"1 {kind.title.partition(' ')[2]}" if count == 1 else f"{count:,} {kind.plural}"
