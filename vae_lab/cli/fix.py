"""``vae-lab fix``: a healthy VAE for every checkpoint whose own is broken or missing, and undo that."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vae_lab.cli.arguments import Commands
from vae_lab.cli.console import print_json, progress_bar, say
from vae_lab.cli.folders import (
    ConsoleRuns,
    add_cache_option,
    add_vae_dir_option,
    cache_folder,
    models_folders,
    opened_host,
    require_folders,
    scan_host,
    table,
)
from vae_lab.errors import HostError
from vae_lab.host.checkpoint_choices import JsonFiles
from vae_lab.host.standalone import StandaloneHost
from vae_lab.library.remedies import Remedy
from vae_lab.service import bake_all
from vae_lab.service.bake_all import BakeAllPlan, BakeAllResult, BakeAllService, BakedFiles, undo_bakes
from vae_lab.service.fixes import MANIFEST, FixPlan, FixResult, FixService, undo_fixes
from vae_lab.service.manifest import Manifest
from vae_lab.service.runs import Runs
from vae_lab.text import sized

__all__ = ["add_fix"]

_LEFT = 1
_BAKE_HEAD = ("CHECKPOINT", "VAE", "SIZE", "NEW FILE")
_HEAD = ("CHECKPOINT", "VERDICT", "VAE NOW", "USE", "WHY")


def add_fix(commands: Commands) -> None:
    """Add the command to the parser."""
    fix = commands.add_parser("fix", help="choose a healthy VAE for every checkpoint whose own is broken or missing")
    fix.add_argument(
        "folder", nargs="?", type=Path, metavar="DIR", help="folder with checkpoints, or one like the WebUI's models/"
    )
    add_vae_dir_option(fix)
    fix.add_argument("--apply", action="store_true", help="do it; without it, only print the table")
    fix.add_argument(
        "--bake", action="store_true",
        help="write a copy of each checkpoint with the VAE built in, instead of a preference",
    )  # fmt: skip
    fix.add_argument("--manifest", type=Path, metavar="FILE", help="where --apply stores what --undo needs")
    fix.add_argument("--undo", type=Path, metavar="FILE", help="undo everything that is listed in this file")
    fix.add_argument("--json", action="store_true", help="print one JSON object")
    add_cache_option(fix)
    fix.set_defaults(function=_fix)


def _fix(args: argparse.Namespace) -> int:
    if args.undo:
        if args.folder or args.apply or args.bake or args.manifest or args.vae_dir:
            raise HostError("--undo takes everything from its file; give no folder and no --apply with it")
        if not args.undo.is_file():
            raise HostError(f"{args.undo} does not exist. Give the file that --apply has printed.")
        return (
            _undo_bakes(args.undo, as_json=args.json)
            if _lists_bakes(args.undo)
            else _undo(args.undo, as_json=args.json)
        )
    if args.folder is None:
        raise HostError("give a folder with checkpoints, or --undo FILE")
    require_folders([args.folder, *(args.vae_dir or ())])
    with opened_host(args, models_folders(args, args.folder)) as host:
        manifest = (args.manifest or cache_folder(args) / (bake_all.MANIFEST if args.bake else MANIFEST)).absolute()
        return _bake_with(args, host, manifest) if args.bake else _fix_with(args, host, manifest)


def _fix_with(args: argparse.Namespace, host: StandaloneHost, manifest: Path) -> int:
    scan_host(host)
    service = FixService(host, Runs(), manifest)
    plan = service.plan(fresh=False)
    result = service.apply() if args.apply and plan.usable else None
    if args.json:
        print_json(json.dumps(_as_json(plan, result, manifest)))
    else:
        _report(plan, result, manifest, apply=args.apply)
    done = not plan.usable if result is None else not result.failed
    return 0 if done and not plan.left else _LEFT


def _bake_with(args: argparse.Namespace, host: StandaloneHost, manifest: Path) -> int:
    scan_host(host)
    with progress_bar("baking", "B", scale=True, hidden=args.json) as progress:
        runs = ConsoleRuns(progress)
        fixes = FixService(host, runs, manifest.with_name(MANIFEST))
        service = BakeAllService(host, runs, fixes.usable, manifest)
        found, plan = fixes.plan(fresh=False), service.plan(fresh=False)
        result = service.apply() if args.apply and plan.bakes else None
    if args.json:
        print_json(json.dumps(_bakes_as_json(found, plan, result, manifest)))
    else:
        _report_bakes(found, plan, result, manifest)
    done = not plan.bakes if result is None else not result.failed
    healthy = result is None or not any(record.verdict.faults for _, _, record in result.written)
    return 0 if done and healthy and not found.left else _LEFT


def _bakes_as_json(found: FixPlan, plan: BakeAllPlan, result: BakeAllResult | None, manifest: Path) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "bakes": [asdict(one) for one in plan.bakes],
        "rooms": [asdict(room) for room in plan.rooms],
        "before": [{"checkpoint": name, "path": path} for name, path in plan.before],
        "left": [asdict(remedy) for remedy in found.left],
        "applied": None,
    }
    if result is not None:
        written = [
            {"checkpoint": name, "path": str(path), "status": record.verdict.status}
            for name, path, record in result.written
        ]
        failed = [{"checkpoint": name, "reason": reason} for name, reason in result.failed]
        plain["applied"] = {"written": written, "failed": failed, "undo": str(manifest) if written else None}
    return plain


def _report_bakes(found: FixPlan, plan: BakeAllPlan, result: BakeAllResult | None, manifest: Path) -> None:
    rows = [(one.checkpoint, one.vae, sized(one.size), one.file) for one in plan.bakes]
    for line in table(_BAKE_HEAD, rows) if rows else ["Nothing to bake."]:
        say(line)
    for name, path in plan.before:
        say(f"Baked before: {name}: {path}")
    for remedy in found.left:
        say(f"Not fixed: {remedy.checkpoint}: {remedy.reason}")
    for room in plan.rooms:
        say(f"{room.folder}: {sized(room.needed)} needed, {sized(room.free)} free")
    if result is not None:
        for _, path, record in result.written:
            say(f"{path}: {record.verdict.status}")
        for name, reason in result.failed:
            say(f"  failed: {name}: {reason}")
        if result.written:
            say(f"To remove these files: vae-lab fix --undo {manifest}")
    elif plan.bakes:
        say(f"Nothing was written. To bake {_checkpoints(len(plan.bakes))}, run the same command with --apply.")


def _as_json(plan: FixPlan, result: FixResult | None, manifest: Path) -> dict[str, Any]:
    plain: dict[str, Any] = {"checkpoints": [asdict(remedy) for remedy in plan.remedies], "applied": None}
    if result is not None:
        changed = [{"checkpoint": name, "vae": vae} for name, vae in result.changed]
        failed = [{"checkpoint": name, "reason": reason} for name, reason in result.failed]
        plain["applied"] = {"changed": changed, "failed": failed, "undo": str(manifest) if changed else None}
    return plain


def _report(plan: FixPlan, result: FixResult | None, manifest: Path, *, apply: bool) -> None:
    if not plan.remedies:
        say("Nothing to fix: no checkpoint has a broken VAE or lacks one.")
        return
    for line in table(_HEAD, [_row(remedy) for remedy in plan.remedies]):
        say(line)
    if plan.left:
        say(f"Not fixed: {len(plan.left):,}")
    if result is not None:
        say(f"Changed: {len(result.changed):,}")
        for name, reason in result.failed:
            say(f"  failed: {name}: {reason}")
        if result.changed:
            say(f"To undo all of it: vae-lab fix --undo {manifest}")
    elif plan.usable and not apply:
        say(f"Nothing was changed. To fix {_checkpoints(len(plan.usable))}, run the same command with --apply.")


def _checkpoints(count: int) -> str:
    return "1 checkpoint" if count == 1 else f"{count:,} checkpoints"


def _row(remedy: Remedy) -> tuple[str, ...]:
    use = {"use": remedy.vae, "keep": "(stays)", "none": "(not fixed)"}[remedy.action]
    return remedy.checkpoint, f"{remedy.status}: {remedy.title.lower()}", remedy.now, use, remedy.reason


def _lists_bakes(path: Path) -> bool:
    """Whether it is a list of files that were written; else it is one of preferences, or none at all."""
    try:
        return bool(BakedFiles(path).read())
    except HostError:
        return False


def _undo_bakes(path: Path, *, as_json: bool) -> int:
    undone = undo_bakes(BakedFiles(path))
    return _print_undone("removed", "path", undone.removed, undone.refused, as_json=as_json)


def _undo(path: Path, *, as_json: bool) -> int:
    undone = undo_fixes(JsonFiles(), Manifest(path))
    return _print_undone("restored", "checkpoint", undone.restored, undone.refused, as_json=as_json)


def _print_undone(
    what: str, kind: str, done: Sequence[str], refused: Sequence[tuple[str, str]], *, as_json: bool
) -> int:
    if as_json:
        print_json(json.dumps({what: list(done), "refused": [{kind: name, "reason": why} for name, why in refused]}))
    else:
        say(f"{what.capitalize()}: {len(done):,}")
        for name, why in refused:
            say(f"  not {what}: {name}: {why}")
    return _LEFT if refused else 0
