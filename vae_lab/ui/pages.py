"""All components that a host shows, as one object."""

from __future__ import annotations

import functools
from typing import Any

import gradio as gr

from vae_lab.ui.panels.accordion import build_accordion
from vae_lab.ui.panels.extras import build_extras
from vae_lab.ui.tab import build_tab

__all__ = ["WebuiPages"]


class _Several(gr.Dropdown):
    """A multi-select menu. A class, because the host creates it again from its choices only."""

    @functools.wraps(gr.Dropdown.__init__)  # gradio 4 only sends the browser what is in the signature
    def __init__(self, **options: Any) -> None:
        super().__init__(**options | {"multiselect": True})

    def get_block_name(self) -> str:
        """The browser sees an ordinary dropdown."""
        return "dropdown"


class WebuiPages:
    """For a WebUI: the tab, the accordions, and the components for settings."""

    dropdown = gr.Dropdown
    several = _Several
    slider = gr.Slider
    radio = gr.Radio
    build_tab = staticmethod(build_tab)
    build_accordion = staticmethod(build_accordion)
    build_extras = staticmethod(build_extras)
