"""The VAE Lab tab."""

from __future__ import annotations

import gradio as gr

from vae_lab.api.uploads import accept_only_uploads
from vae_lab.host.base import Host
from vae_lab.messages import text
from vae_lab.ui.compat import build_for
from vae_lab.ui.panels.checkup import build_checkup_panel
from vae_lab.ui.panels.comparison import build_comparison_panel
from vae_lab.ui.panels.library import build_library_panel
from vae_lab.ui.panels.round_trip import build_round_trip_panel
from vae_lab.ui.views import comparison as views
from vae_lab.ui.views.about import about, heading

__all__ = ["build_tab"]


def build_tab(host: Host, page: gr.Blocks | None = None) -> gr.Blocks:
    """Build the tab for ``host``, with the pages Compare, Round trip, Checkup and Library.

    Args:
        host: the program that the panels work with.
        page: Blocks to build the tab in, for a stand-alone page.

    Returns:
        Blocks for the host to show. They need the routes of :func:`vae_lab.api.routes.add_routes` on the same app.
    """
    with build_for(host), page or gr.Blocks(analytics_enabled=False) as tab:
        with gr.Column(elem_classes=["vae-lab"]):
            gr.HTML(heading(alone=page is not None), elem_id="vae_lab_heading")
            if host.not_found is not None:
                gr.HTML(views.alert(_limited(host.not_found)), elem_id="vae_lab_limited")
        with gr.Tabs(elem_id="vae_lab_pages") as pages:
            # The WebUI would store the current page as the default for later starts.
            pages.do_not_save_to_config = True
            with gr.Tab("Compare", id="compare", elem_id="vae_lab_page_compare"):
                comparison = build_comparison_panel(host)
            with gr.Tab("Round trip", id="roundtrip", elem_id="vae_lab_page_roundtrip"):
                build_round_trip_panel(host)
            with gr.Tab("Checkup", id="checkup", elem_id="vae_lab_page_checkup"):
                build_checkup_panel(host, comparison.picked)
            with gr.Tab("Library", id="library", elem_id="vae_lab_page_library"):
                build_library_panel(host)
        with gr.Column(elem_classes=["vae-lab"]):
            gr.HTML(about(), elem_id="vae_lab_about")
    accept_only_uploads(tab)
    return tab


def _limited(not_found: tuple[str, ...]) -> str:
    if not not_found:
        return text(
            "VAE Lab works with files only, and changes no image, because of an error; the log has the details."
        )
    return text(
        "VAE Lab works with files only, and changes no image. Not found in this WebUI: {parts}.",
        parts=", ".join(not_found),
    )
