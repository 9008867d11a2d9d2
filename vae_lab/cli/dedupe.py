"""``vae-lab dedupe``: replace VAE files that are the same byte for byte by links to one, and undo that."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from vae_lab.autoencoders import open_vae
from vae_lab.cli.arguments import Commands
from vae_lab.cli.console import print_json, progress_bar, say
from vae_lab.cli.folders import ConsoleRuns, add_cache_option, cache_folder, opened_host, require_folders, table
from vae_lab.errors import FileError, HostError
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.library import FileCache
from vae_lab.library.hashes import hash_files
from vae_lab.service.dedupe import MANIFEST, DedupePlan, DedupeResult, DedupeService, Replacements, undo_links
from vae_lab.service.runs import Runs
from vae_lab.text import listed, sized

__all__ = ["add_dedupe"]

_LEFT = 1
_HEAD = ("FILE", "SIZE", "LINK TO")


def add_dedupe(commands: Commands) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "dedupe", help="replace VAE files that are the same byte for byte by links to one, and undo that"
    )
    command.add_argument("folder", nargs="?", type=Path, metavar="DIR", help="folder to search for VAE files")
    command.add_argument("--apply", action="store_true", help="replace the files; without it, only print the table")
    command.add_argument("--manifest", type=Path, metavar="FILE", help="where --apply stores what --undo needs")
    command.add_argument(
        "--undo", type=Path, metavar="FILE", help="make every file that is listed in this file independent again"
    )
    command.add_argument("--json", action="store_true", help="print one JSON object")
    add_cache_option(command)
    command.set_defaults(function=_dedupe)


def _dedupe(args: argparse.Namespace) -> int:
    if args.undo:
        if args.folder or args.apply or args.manifest:
            raise HostError("--undo takes everything from its file; give no folder and no --apply with it")
        return _undo(args)
    if args.folder is None:
        raise HostError("give a folder with VAEs, or --undo FILE")
    require_folders([args.folder])
    folder, cache = args.folder.absolute(), cache_folder(args)
    manifest = (args.manifest or cache / MANIFEST).absolute()
    with opened_host(args, Folders(folder / "vae-lab", (), (folder,), cache=cache)) as host:
        _read(host)
        plan = DedupeService(host, Runs(), manifest).plan(fresh=False)
        result = None
        if args.apply and plan.identical.copies:
            with progress_bar("comparing", "B", scale=True) as progress:
                result = DedupeService(host, ConsoleRuns(progress), manifest).apply()
    if args.json:
        print_json(json.dumps(_as_json(plan, result, manifest)))
    else:
        _report(plan, result, manifest, apply=args.apply)
    return _LEFT if (plan.identical.copies if result is None else result.skipped) else 0


def _read(host: StandaloneHost) -> None:
    """Identify the VAE files, and hash those that may be copies; of other files, only read the header."""
    cache = host.file_cache
    files = host.listing().files
    with progress_bar("reading", "file") as progress:
        vaes = []
        for i, (name, path) in enumerate(files):
            progress(i, len(files), name)
            if _is_vae(path, cache):
                cache.identify(path)
                vaes.append((name, path))
    sizes = Counter(_size(path) for _, path in vaes)
    with progress_bar("hashing", "file") as progress:
        hash_files([(name, path) for name, path in vaes if sizes[_size(path)] > 1], cache, progress)


def _is_vae(path: str, cache: FileCache) -> bool:
    known = cache.current(path)
    if known is not None:
        return known.kind == "vae"
    try:
        with open_vae(path) as file:
            return file.layout.kind == "vae"
    except FileError:
        return False


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


def _as_json(plan: DedupePlan, result: DedupeResult | None, manifest: Path) -> dict[str, Any]:
    found = plan.identical
    plain: dict[str, Any] = {
        "copies": [{"name": one.name, "source": one.source, "size": one.replacement.size} for one in found.copies],
        "freed": found.freed,
        "skipped": [{"name": name, "reason": reason} for name, reason in found.skipped],
        "others": [list(names) for names in plan.others],
        "applied": None,
    }
    if result is not None:
        plain["applied"] = {
            "replaced": [{"name": name, "source": source} for name, source in result.replaced],
            "reflinks": result.reflinks,
            "freed": result.freed,
            "skipped": [{"name": name, "reason": reason} for name, reason in result.skipped],
            "undo": str(manifest) if result.replaced else None,
        }
    return plain


def _report(plan: DedupePlan, result: DedupeResult | None, manifest: Path, *, apply: bool) -> None:
    found = plan.identical
    if found.copies:
        for line in table(_HEAD, [(one.name, sized(one.replacement.size), one.source) for one in found.copies]):
            say(line)
    else:
        say("Nothing to replace: no VAE file has a copy that is the same byte for byte.")
    for name, reason in found.skipped:
        say(f"  stays: {name}: {reason}")
    for names in plan.others:
        say(f"  stay: {listed(names)} are the same VAE in other bytes")
    if result is not None:
        say(f"Replaced by links: {len(result.replaced):,}, {sized(result.freed)} freed")
        for name, reason in result.skipped:
            say(f"  skipped: {name}: {reason}")
        if result.replaced:
            say(f"To undo all of it: vae-lab dedupe --undo {manifest}")
    elif found.copies and not apply:
        files = "1 file" if len(found.copies) == 1 else f"{len(found.copies):,} files"
        say(f"Nothing was changed. To replace {files} by links ({sized(found.freed)}),")
        say("run the same command with --apply.")


def _undo(args: argparse.Namespace) -> int:
    if not args.undo.is_file():
        raise HostError(f"{args.undo} does not exist. Give the file that --apply has printed.")
    with progress_bar("copying", "B", scale=True) as progress:
        undone = undo_links(Replacements(args.undo), progress)
    if args.json:
        refused = [{"path": path, "reason": reason} for path, reason in undone.refused]
        print_json(json.dumps({"restored": list(undone.restored), "refused": refused}))
    else:
        say(f"Independent again: {len(undone.restored):,}")
        for path, reason in undone.refused:
            say(f"  not restored: {path}: {reason}")
    return _LEFT if undone.refused else 0
