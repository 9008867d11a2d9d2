"""Bake, a part of the Checkup page: a copy of the selected checkpoint with another VAE."""

from __future__ import annotations

from typing import Any, Protocol

import gradio as gr

from vae_lab.errors import HostError, VaeLabError
from vae_lab.host.base import Host
from vae_lab.service.bakes import BakePlan
from vae_lab.service.service import service_of
from vae_lab.ui.compat import connect, html_update
from vae_lab.ui.views import bake as bake_views
from vae_lab.ui.views import comparison as views

__all__ = ["BakeSection"]

UPDATES = 4
"""Number of updates that :meth:`BakeSection.show` returns."""


class Shown(Protocol):
    """What a page shows."""

    checkpoint: str


class BakeSection:
    """Layout and behaviour. The checkpoint is the one that the page shows."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.service = service_of(host)

    def build(self) -> None:
        """Add the section; it is visible while a checkpoint is shown."""
        with gr.Accordion(
            "Bake a VAE into a copy of this checkpoint", open=False, visible=False, elem_id="vae_lab_bake"
        ) as self.box:
            self.about = gr.HTML(elem_id="vae_lab_bake_about")
            with gr.Row(elem_classes=["vae-lab-top"]):
                self.vae = gr.Dropdown([], label="VAE to bake in", scale=2, min_width=240, elem_id="vae_lab_bake_vae")
                self.name = gr.Textbox(
                    label="Name of the new file", max_lines=1, scale=2, min_width=240, elem_id="vae_lab_bake_file"
                )
                self.run = gr.Button("Bake", variant="primary", scale=0, min_width=140, elem_id="vae_lab_bake_run")
        for field in (self.vae, self.name):
            field.do_not_save_to_config = True  # the WebUI would store what was shown today as the default
        self.shown = [self.box, self.vae, self.name, self.about]

    def wire(self, state: gr.State, ended: gr.State) -> Any:
        """Attach the handlers; returns the event after which the page shows the result.

        Args:
            state: whose ``checkpoint`` is the one that the page shows.
            ended: where the result goes.
        """
        connect(self.vae.input, self.on_vae, [state, self.vae], [self.name, self.about])
        return connect(self.run.click, self.on_bake, [state, self.vae, self.name], [ended, self.name])

    def show(self, checkpoint: str) -> tuple[Any, ...]:
        """Updates for ``shown``: filled for the checkpoint, or hidden for ""."""
        hidden = (gr.update(visible=False), *[gr.update()] * (UPDATES - 1))
        try:
            plan = self.service.bakes.plan(checkpoint) if checkpoint else None
        except VaeLabError:  # its file has just been removed
            return hidden
        if plan is None:
            return hidden
        vaes = gr.update(choices=list(plan.vaes), value=plan.vae or None)
        return gr.update(visible=True), vaes, gr.update(value=plan.file), html_update(self._about(plan))

    def _about(self, plan: BakePlan) -> str:
        known = self.host.known_reports([plan.checkpoint, plan.vae])
        return bake_views.about(plan, known.get(plan.checkpoint), known.get(plan.vae))

    # --- handlers --------------------------------------------------------------------------------------------

    def on_vae(self, state: Shown | None, vae: str | None) -> tuple[Any, ...]:
        """Another VAE was selected: propose a name, and show its chart."""
        try:
            plan = self.service.bakes.plan(state.checkpoint if state else "", vae or "")
        except VaeLabError as error:
            return gr.update(), html_update(views.alert(error))
        return gr.update(value=plan.file), html_update(self._about(plan))

    def on_bake(self, state: Shown | None, vae: str | None, file: str) -> tuple[Any, ...]:
        """Write the copy, and report what its checkup found."""
        checkpoint = state.checkpoint if state else ""
        try:
            if not vae:
                raise HostError("choose the VAE to bake in")
            baked = self.service.bakes.bake(checkpoint, vae, file)
            return bake_views.baked(baked), gr.update(value=self.service.bakes.plan(checkpoint, vae).file)
        except VaeLabError as error:
            return views.alert(error), gr.update()
