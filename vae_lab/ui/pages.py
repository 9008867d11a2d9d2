"""All that a host shows, in one object that it can be handed."""

from __future__ import annotations

import functools
from typing import Any

import gradio as gr

from vae_lab.ui.panels.accordion import build_accordion
from vae_lab.ui.tab import build_tab

__all__ = ["WebuiPages"]


class _Several(gr.Dropdown):
    """A menu of which several can be chosen. A class, since the host makes it anew from the choices alone."""

    @functools.wraps(gr.Dropdown.__init__)  # gradio 4 hands the browser what is in the signature, and that alone
    def __init__(self, **options: Any) -> None:
        super().__init__(**options | {"multiselect": True})

    def get_block_name(self) -> str:
        """To the browser it is a dropdown like any other."""
        return "dropdown"


class WebuiPages:
    """For a WebUI: the tab, the accordion, and the components that settings are made of."""

    dropdown = gr.Dropdown
    several = _Several
    slider = gr.Slider
    radio = gr.Radio
    build_tab = staticmethod(build_tab)
    build_accordion = staticmethod(build_accordion)
