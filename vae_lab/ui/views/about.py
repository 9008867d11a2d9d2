"""What VAE Lab runs in: filled by ``javascript/tab/about.mjs`` when it is opened."""

from __future__ import annotations

from vae_lab.ui.views.html import render

__all__ = ["about"]


def about() -> str:
    """Closed, and empty until the user opens it."""
    return render("about", "about")
