"""Latents: families, generations, files, the colour chart, and a preview without a VAE."""

from vae_lab.latents.family import FAMILIES, Family, get_family
from vae_lab.latents.files import latents_file, load_latents, read_latents, read_limited, save_latents
from vae_lab.latents.generation import Generation
from vae_lab.latents.store import GenerationStore

__all__ = [
    "FAMILIES",
    "Family",
    "Generation",
    "GenerationStore",
    "get_family",
    "latents_file",
    "load_latents",
    "read_latents",
    "read_limited",
    "save_latents",
]
