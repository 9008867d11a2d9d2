"""Components for the host's settings page."""

from __future__ import annotations

import gradio as gr

__all__ = ["SettingComponents"]


class SettingComponents:
    """Component classes to name in a setting, for code that may not import gradio itself."""

    dropdown = gr.Dropdown
    slider = gr.Slider
