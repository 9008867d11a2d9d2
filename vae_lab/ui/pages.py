"""All that a host shows, in one object that it can be handed."""

from __future__ import annotations

import gradio as gr

from vae_lab.ui.accordion import build_accordion
from vae_lab.ui.tab import build_tab

__all__ = ["WebuiPages"]


class WebuiPages:
    """For a WebUI: the tab, the accordion, and the components that settings are made of."""

    dropdown = gr.Dropdown
    slider = gr.Slider
    radio = gr.Radio
    build_tab = staticmethod(build_tab)
    build_accordion = staticmethod(build_accordion)
