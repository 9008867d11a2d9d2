"""The tab's heading, and its end: what VAE Lab runs in, filled by ``javascript/tab/about.mjs`` when it is opened."""

from __future__ import annotations

from vae_lab.ui.views.html import render

__all__ = ["about", "heading"]


def about() -> str:
    """Closed, and empty until the user opens it."""
    return render("about", "about")


def heading(*, alone: bool = False) -> str:
    """The name, and what it is for.

    Args:
        alone: the page is the stand-alone app, whose heading this is.
    """
    return render("about", "heading", alone)
