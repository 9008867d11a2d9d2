"""Autoencoders: one folder per architecture, detected by tensor names and shapes."""

from vae_lab.autoencoders.autoencoder import Autoencoder, VaeFile, load_autoencoder, open_vae
from vae_lab.autoencoders.base import Architecture
from vae_lab.autoencoders.family_detection import detect_family

__all__ = ["Architecture", "Autoencoder", "VaeFile", "detect_family", "load_autoencoder", "open_vae"]
