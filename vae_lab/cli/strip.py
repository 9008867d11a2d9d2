"""``vae-lab strip``: remove a checkpoint's VAE."""

from __future__ import annotations

from vae_lab.cli.arguments import Commands
from vae_lab.cli.rewrite import add_rewrite
from vae_lab.repair.checkpoint import strip

__all__ = ["add_strip"]


def add_strip(commands: Commands) -> None:
    """Add the command to the parser."""
    add_rewrite(commands, strip, ("checkpoint",), "remove a checkpoint's VAE")
