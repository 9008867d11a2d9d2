"""VAE Lab: which VAE decodes best, why an image is grey, and what VAE a file really holds."""

from vae_lab.autoencoders import Autoencoder, load_autoencoder
from vae_lab.checkup import Verdict, judge_output
from vae_lab.comparison import Comparison, compare
from vae_lab.errors import VaeLabError
from vae_lab.latents import load_latents
from vae_lab.library import FileRecord, inspect_file
from vae_lab.repair.checkpoint import bake, extract, strip
from vae_lab.version import __version__

__all__ = [
    "Autoencoder",
    "Comparison",
    "FileRecord",
    "VaeLabError",
    "Verdict",
    "__version__",
    "bake",
    "compare",
    "extract",
    "inspect_file",
    "judge_output",
    "load_autoencoder",
    "load_latents",
    "strip",
]
