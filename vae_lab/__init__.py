"""VAE Lab: which VAE decodes best, why a picture is grey, and what VAE a file really holds."""

from vae_lab.autoencoders import Autoencoder, load_autoencoder
from vae_lab.comparison import Comparison, compare
from vae_lab.errors import VaeLabError
from vae_lab.version import __version__

__all__ = ["Autoencoder", "Comparison", "VaeLabError", "__version__", "compare", "load_autoencoder"]
