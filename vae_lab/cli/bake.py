"""``vae-lab bake``: put a VAE into a checkpoint."""

from __future__ import annotations

from vae_lab.cli.arguments import Commands
from vae_lab.cli.rewrite import add_rewrite
from vae_lab.repair.checkpoint import bake

__all__ = ["add_bake"]


def add_bake(commands: Commands) -> None:
    """Add the command to the parser."""
    add_rewrite(commands, bake, ("checkpoint", "vae"), "put a VAE into a checkpoint")
