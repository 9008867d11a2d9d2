"""Take a VAE out of a checkpoint, leave it out, or put another one in."""

from vae_lab.repair.checkpoint import bake, extract, strip

__all__ = ["bake", "extract", "strip"]
