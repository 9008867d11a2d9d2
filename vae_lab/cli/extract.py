"""``vae-lab extract``: write a checkpoint's VAE to its own file, or those of a whole library, each once."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

from vae_lab.cli.arguments import Commands
from vae_lab.cli.console import print_json, progress_bar, say
from vae_lab.cli.folders import (
    ConsoleRuns,
    add_cache_option,
    add_vae_dir_option,
    models_folders,
    opened_host,
    require_folders,
    scan_host,
    table,
)
from vae_lab.cli.rewrite import run_rewrite
from vae_lab.errors import HostError
from vae_lab.host.standalone import Folders
from vae_lab.library.extraction import Extraction
from vae_lab.repair.checkpoint import extract
from vae_lab.service.extracts import ExtractPlan, ExtractResult, ExtractService
from vae_lab.service.runs import Runs
from vae_lab.text import sized

__all__ = ["add_extract"]

_LEFT = 1
_HEAD = ("CHECKPOINT", "VERDICT", "SIZE", "NEW FILE")


def add_extract(commands: Commands) -> None:
    """Add the command to the parser."""
    command = commands.add_parser("extract", help="write a checkpoint's VAE to its own file, or those of a library")
    command.add_argument("checkpoint", nargs="?", type=Path, help="the checkpoint; it is not changed")
    command.add_argument("-o", "--out", type=Path, metavar="FILE", help="the new file, named .safetensors")
    command.add_argument(
        "--all", type=Path, metavar="DIR",
        help="list the built-in VAEs of all checkpoints in this folder that no VAE file has yet, each once",
    )  # fmt: skip
    add_vae_dir_option(command)
    command.add_argument("--apply", action="store_true", help="with --all: write them into the folder with VAEs")
    command.add_argument("--broken", action="store_true", help="with --all: broken VAEs too")
    command.add_argument("--json", action="store_true", help="with --all: print one JSON object")
    add_cache_option(command)
    command.set_defaults(function=_extract)


def _extract(args: argparse.Namespace) -> int:
    if args.all is None:
        if args.checkpoint is None or args.out is None:
            raise HostError("give a checkpoint and --out FILE, or --all DIR")
        if args.apply or args.broken or args.json or args.vae_dir:
            raise HostError("--apply, --broken, --json and --vae-dir need --all DIR")
        return run_rewrite(extract, (args.checkpoint,), args.out)
    if args.checkpoint or args.out:
        raise HostError("--all names the new files itself; give no checkpoint and no --out with it")
    require_folders([args.all])
    with opened_host(args, _folders(args)) as host:
        scan_host(host)
        plan = ExtractService(host, Runs()).plan(broken=args.broken, fresh=False)
        result = None
        if args.apply and plan.wanted:
            with progress_bar("extracting", "B", scale=True) as progress:
                result = ExtractService(host, ConsoleRuns(progress)).apply(broken=args.broken)
    if args.json:
        print_json(json.dumps(_as_json(plan, result)))
    else:
        _report(plan, result, apply=args.apply)
    return _LEFT if (plan.wanted if result is None else result.failed) else 0


def _folders(args: argparse.Namespace) -> Folders:
    """With a folder for VAEs, which is made if it does not exist."""
    folders = models_folders(args, args.all)
    return folders if folders.vaes else replace(folders, vaes=(args.all.absolute() / "VAE",))


def _as_json(plan: ExtractPlan, result: ExtractResult | None) -> dict[str, object]:
    plain: dict[str, object] = {
        "folder": str(plan.folder), "vaes": [asdict(one) for one in plan.extractions], "applied": None,
    }  # fmt: skip
    if result is not None:
        written = [{"checkpoint": one.checkpoint, "path": str(one.path)} for one in result.written]
        failed = [{"checkpoint": name, "reason": reason} for name, reason in result.failed]
        plain["applied"] = {"written": written, "failed": failed}
    return plain


def _report(plan: ExtractPlan, result: ExtractResult | None, *, apply: bool) -> None:
    if not plan.extractions:
        say("Nothing to extract: no checkpoint has a VAE.")
        return
    for line in table(_HEAD, [_row(one) for one in (*plan.wanted, *plan.skipped)]):
        say(line)
    if result is not None:
        say(f"Written to {plan.folder}: {len(result.written):,}")
        for name, reason in result.failed:
            say(f"  failed: {name}: {reason}")
    elif plan.wanted and not apply:
        say(f"Nothing was written. To write {_vaes(len(plan.wanted))} ({sized(plan.needed)}) to {plan.folder},")
        say("run the same command with --apply.")


def _row(one: Extraction) -> tuple[str, ...]:
    also = f" (+{len(one.also):,})" if one.also else ""
    verdict = f"{one.status}: {one.title.lower()}" if one.title else one.status
    if one.skipped:
        return one.checkpoint + also, verdict, "", f"(not extracted: {one.skipped})"
    return one.checkpoint + also, verdict, sized(one.size), one.file


def _vaes(count: int) -> str:
    return "1 VAE" if count == 1 else f"{count:,} VAEs"
