"""``vae-lab extract``: write a checkpoint's VAE to its own file."""

from __future__ import annotations

from vae_lab.cli.arguments import Commands
from vae_lab.cli.rewrite import add_rewrite
from vae_lab.repair.checkpoint import extract

__all__ = ["add_extract"]


def add_extract(commands: Commands) -> None:
    """Add the command to the parser."""
    add_rewrite(commands, extract, ("checkpoint",), "write a checkpoint's VAE to its own file")
