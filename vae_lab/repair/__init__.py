"""Extracts, removes and replaces the VAE of a checkpoint."""

from vae_lab.repair.checkpoint import bake, extract, strip

__all__ = ["bake", "extract", "strip"]
