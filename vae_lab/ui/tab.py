"""The VAE Lab tab."""

from __future__ import annotations

import gradio as gr

from vae_lab.host.base import Host
from vae_lab.ui.comparison_panel import build_comparison_panel

__all__ = ["build_tab"]


def build_tab(host: Host, page: gr.Blocks | None = None) -> gr.Blocks:
    """Build the tab for ``host``.

    Args:
        host: what the panels ask and tell.
        page: Blocks to build it in, where it is to be a page of its own.

    Returns:
        Blocks for the host to show. They need the routes of :func:`vae_lab.host.api.add_routes` on the same app.
    """
    with page or gr.Blocks(analytics_enabled=False) as tab:
        build_comparison_panel(host)
    return tab
