"""What ``bake``, ``strip`` and ``extract`` have in common: each writes a new file from others."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

from vae_lab.cli.arguments import Commands
from vae_lab.cli.console import progress_bar, say

__all__ = ["add_rewrite", "run_rewrite"]

_HELP = {
    "checkpoint": "the checkpoint; it is not changed",
    "vae": "a VAE, or a checkpoint to take the VAE from",
}


def add_rewrite(commands: Commands, operation: Callable[..., object], sources: tuple[str, ...], words: str) -> None:
    """Add a command named like ``operation`` that takes the paths ``sources`` and ``--out``."""
    command = commands.add_parser(operation.__name__, help=words)
    for name in sources:
        command.add_argument(name, type=Path, help=_HELP[name])
    command.add_argument(
        "-o", "--out", type=Path, required=True, metavar="FILE", help="the new file, named .safetensors"
    )

    def run(args: argparse.Namespace) -> int:
        return run_rewrite(operation, [getattr(args, name) for name in sources], args.out)

    command.set_defaults(function=run)


def run_rewrite(operation: Callable[..., object], sources: Iterable[Path], out: Path) -> int:
    """Write the new file, with a progress bar; returns the exit code."""
    with progress_bar(out.name, "B", scale=True) as progress:
        operation(*sources, out, progress=progress)
    say(str(out))
    return 0
