"""The panel that compares, without a page."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
import torch

from tests.unit.makers import F8, SD1_TEXT, UNET, kl_state, prefixed, write
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.latents import Generation
from vae_lab.latents.family import FAMILIES
from vae_lab.ui.panels.comparison import ComparisonPanel


def test_a_page_that_does_not_list_the_latents_yet_compares_the_newest(tmp_path: Path) -> None:
    """Inside a WebUI, the page is built before the first generation; a slow refresh may come after Compare."""
    (tmp_path / "Stable-diffusion").mkdir()
    state = {**UNET, **SD1_TEXT, **prefixed("first_stage_model.", kl_state(F8))}
    write(tmp_path / "Stable-diffusion" / "c.safetensors", state)
    host = StandaloneHost(Folders.of_models(tmp_path, tmp_path / "data"))
    panel = ComparisonPanel(host)
    with gr.Blocks(analytics_enabled=False):
        panel.build()
    assert panel.source.value is None
    for name in ("older", "newer"):
        host.generations.add(Generation(name, torch.zeros(1, 4, 4, 4), FAMILIES["sd1"], title=name))
    *_, compared = panel.on_compare(None, [])
    assert panel.service.comparisons.get(compared).generation.title == "newer"
    _, message, *_ = panel.on_compare("gone", [])
    assert "has been discarded" in message
