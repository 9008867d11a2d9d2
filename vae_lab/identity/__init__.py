"""What VAE a file really holds."""

from vae_lab.identity.fingerprint import fingerprint, short

__all__ = ["fingerprint", "short"]
