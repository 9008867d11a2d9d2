"""The command ``scan``: whole folders, with a summary and reports."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import torch
from tqdm import tqdm

from vae_lab.checkup.findings import HEALTHY, STATUS_PHRASES, UNREADABLE, Status
from vae_lab.errors import HostError
from vae_lab.identity import DuplicateGroup, find_duplicates
from vae_lab.library import UNCHECKED, WORST_FIRST, DaskEngine, FileCache, FileRecord, Records, Scan
from vae_lab.library.cache import user_cache_folder
from vae_lab.library.reports import json_line, write_csv, write_html
from vae_lab.progress import Progress
from vae_lab.text import sized

__all__ = ["add_scan"]

_CODES = {HEALTHY: 0, UNREADABLE: 2}  # of all others it is 1
_INTERRUPTED = 130
_MOST_FILES = 20  # named in the summary
_MOST_GROUPS = 10
_STANDARD_OUTPUT = "-"


def add_scan(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    scan = commands.add_parser("scan", help="look at all files in folders: what is broken, and what is there twice")
    scan.add_argument("paths", nargs="+", metavar="DIR", help="folders; also files, and https:// addresses of them")
    scan.add_argument("--jsonl", metavar="FILE", help="one JSON object for each file, a line each; - for the output")
    scan.add_argument("--csv", type=Path, metavar="FILE", help="a table for spreadsheets")
    scan.add_argument("--html", type=Path, metavar="FILE", help="a page with table and charts that needs nothing else")
    scan.add_argument("--jobs", type=_count, metavar="N", help="threads; by default one for each processor, 8 at most")
    scan.add_argument("--no-probe", action="store_true", help="facts and structure alone, without decoding a chart")
    scan.add_argument("--engine", choices=("local", "dask"), default="local", help="where files are checked")
    scan.add_argument("--dask-scheduler", metavar="ADDRESS", help="of a Dask cluster, such as tcp://10.0.0.1:8786")
    scan.add_argument("--cache", type=Path, metavar="DIR", help="where to keep what is known of files between scans")
    scan.set_defaults(function=_scan)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _scan(args: argparse.Namespace) -> int:
    if (args.engine == "dask") != bool(args.dask_scheduler):
        raise HostError("--engine dask and --dask-scheduler ADDRESS go together")
    for out in (args.csv, args.html, Path(args.jsonl) if args.jsonl not in (None, _STANDARD_OUTPUT) else None):
        if out is not None and not out.absolute().parent.is_dir():  # better told now than after an hour
            raise HostError(f"{out}: there is no folder {out.parent}")
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
            engine = DaskEngine(args.dask_scheduler, probe=not args.no_probe, charts=args.html is not None)
            stack.callback(engine.close)
        elif args.jobs != 1:  # checks run side by side, and shall not fight for the processors
            torch.set_num_threads(max(1, torch.get_num_threads() // 2))
        bar = stack.enter_context(tqdm(desc="scanning", unit="step", disable=not sys.stderr.isatty()))
        write = stack.enter_context(_lines(args.jsonl))
        scan = Scan(args.paths, cache, probe=not args.no_probe, jobs=args.jobs, engine=engine, progress=_shown(bar))
        try:
            with closing(scan.run()) as found:
                for record in found:
                    counts[record.status] += 1
                    write(record)
        except KeyboardInterrupt:
            interrupted = True
    out = sys.stderr if args.jsonl == _STANDARD_OUTPUT else sys.stdout
    duplicates = find_duplicates(scan.records)
    _summary(scan.records, counts, duplicates, out)
    if interrupted:
        _say(out, "Stopped. The same command goes on from here.")
    _write_reports(args, scan.records, duplicates)
    return _INTERRUPTED if interrupted else max((_CODES.get(status, 1) for status in counts), default=0)


@contextmanager
def _lines(target: str | None) -> Iterator[Callable[[FileRecord], object]]:
    """What writes the JSON line of a record at once, so that whole lines are there however the scan ends."""
    if target is None:
        yield lambda _: None
    elif target == _STANDARD_OUTPUT:
        yield lambda record: sys.stdout.write(f"{json_line(record)}\n")
    else:
        with open(target, "w", encoding="utf8", buffering=1) as out:
            yield lambda record: out.write(f"{json_line(record)}\n")


def _shown(bar: Any) -> Progress:
    def report(done: int, total: int, what: str) -> None:
        bar.total = total
        bar.set_postfix_str(_printable(what), refresh=False)
        bar.update(done - bar.n)

    return report


def _write_reports(args: argparse.Namespace, records: Records, duplicates: Sequence[DuplicateGroup]) -> None:
    if args.csv:
        with args.csv.open("w", encoding="utf8", errors="backslashreplace", newline="") as out:
            write_csv(records.worst_first, out)
    if args.html:
        with args.html.open("w", encoding="utf8") as out:
            write_html(records.worst_first, out, duplicates=duplicates, charts=records.charts)


def _summary(records: Records, counts: Counter[Status], duplicates: Sequence[DuplicateGroup], out: TextIO) -> None:
    unchecked = len(records) - sum(counts.values())
    counts = counts + Counter[Status]({UNCHECKED: unchecked})
    told = ", ".join(f"{counts[status]:,} {STATUS_PHRASES[status]}" for status in WORST_FIRST if counts[status])
    files = "1 file" if len(records) == 1 else f"{len(records):,} files"
    _say(out, f"{files}{': ' if told else ''}{told}")
    faulty = (record for record in records.worst_first if record.status not in (HEALTHY, UNCHECKED))
    for record in islice(faulty, _MOST_FILES):
        _say(out, f"  {record.status}: {record.path}: {record.verdict.findings[0].text}")
    more = sum(counts[status] for status in counts if status not in (HEALTHY, UNCHECKED)) - _MOST_FILES
    if more > 0:
        _say(out, f"  and {more:,} more; --csv, --html and --jsonl name all of them")
    if duplicates:
        freeable = sum(group.freeable_bytes for group in duplicates)
        room = f", {sized(freeable)} could be freed (nothing is ever deleted by VAE Lab)" if freeable else ""
        _say(out, f"VAEs that are in several files: {len(duplicates):,}{room}")
    for group in duplicates[:_MOST_GROUPS]:
        _say(out, f"  {group.sentence}")
    if len(duplicates) > _MOST_GROUPS:
        _say(out, f"  and {len(duplicates) - _MOST_GROUPS:,} more; --html names all of them")


def _say(out: TextIO, text: str) -> None:
    """Write a line, whatever the terminal can show of it."""
    encoding = out.encoding or "utf8"
    out.write(f"{_printable(text).encode(encoding, 'backslashreplace').decode(encoding)}\n")


def _printable(text: str) -> str:
    """A file's name may hold anything, such as what a terminal takes for a command."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
