"""What VAE Lab runs with, for the page, the log and bug reports. In English in every language, as the log is."""

from __future__ import annotations

import platform
from importlib import metadata

from vae_lab.version import __version__

__all__ = ["versions"]

_PACKAGES = ("torch", "gradio", "fastapi", "pydantic", "safetensors")


def versions() -> dict[str, str]:
    """Name -> version of VAE Lab, Python, and the packages that hosts pin differently."""
    found = {"VAE Lab": __version__, "Python": f"{platform.python_version()} on {platform.system()}"}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
