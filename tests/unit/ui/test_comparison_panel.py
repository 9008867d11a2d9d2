"""The panel that compares, without a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import torch

from tests.unit.makers import F8, SD1_TEXT, UNET, kl_state, prefixed, write
from vae_lab.host.choices import AUTOMATIC, BUILT_IN
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.latents import Generation
from vae_lab.latents.family import FAMILIES
from vae_lab.ui.panels.comparison import ComparisonPanel


def checkpoint(models: Path, name: str) -> None:
    state = {**UNET, **SD1_TEXT, **prefixed("first_stage_model.", kl_state(F8))}
    write(models / "Stable-diffusion" / name, state)


def listed(update: Any) -> list[str]:
    """The choices in an update."""
    return update.get("choices", []) if isinstance(update, dict) else []


def opened(models: Path) -> ComparisonPanel:
    """The panel over ``models``, as a page has it when the program starts."""
    panel = ComparisonPanel(StandaloneHost(Folders.of_models(models, models / "data")))
    with gr.Blocks(analytics_enabled=False):
        panel.build()
    return panel


def test_what_has_changed_since_the_program_started_is_in_the_menus(tmp_path: Path) -> None:
    """The browser loads the menus of the start, and presses Refresh."""
    (tmp_path / "Stable-diffusion").mkdir()
    (tmp_path / "VAE").mkdir()
    checkpoint(tmp_path, "first.safetensors")
    panel = opened(tmp_path)
    checkpoint(tmp_path, "second.safetensors")
    write(tmp_path / "VAE" / "new.safetensors", kl_state(F8))
    panel.host.select_checkpoint("second.safetensors")
    updates = panel.on_refresh(None, [], AUTOMATIC, BUILT_IN, panel.checkpoint.value, None)
    (menu,) = (update for update in updates if "second.safetensors" in listed(update))
    assert (menu["choices"], menu["value"]) == (["first.safetensors", "second.safetensors"], "second.safetensors")
    assert sum("new.safetensors" in str(update) for update in updates) == 3, "VAEs to compare, active VAE, encoder"
    again = panel.on_refresh(None, [], AUTOMATIC, BUILT_IN, "second.safetensors", None)
    (menu,) = (update for update in again if "second.safetensors" in listed(update))
    assert "value" not in menu, "what the user selects meanwhile stays"


def test_a_page_that_does_not_list_the_latents_yet_compares_the_newest(tmp_path: Path) -> None:
    """Inside a WebUI, the page is built before the first generation; a slow refresh may come after Compare."""
    (tmp_path / "Stable-diffusion").mkdir()
    checkpoint(tmp_path, "c.safetensors")
    panel = opened(tmp_path)
    host = panel.host
    assert panel.source.value is None
    for name in ("older", "newer"):
        host.generations.add(Generation(name, torch.zeros(1, 4, 4, 4), FAMILIES["sd1"], title=name))
    *_, compared = panel.on_compare(None, [])
    assert panel.service.comparisons.get(compared).generation.title == "newer"
    _, message, *_ = panel.on_compare("gone", [])
    assert "has been discarded" in message
