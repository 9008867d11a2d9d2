"""The panel that decodes one kept latent with many VAEs and shows the pictures side by side."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from vae_lab.errors import VaeLabError
from vae_lab.host.base import AUTOMATIC, BUILT_IN, Host, VaeEntry
from vae_lab.host.service import ComparisonService, service_of
from vae_lab.latents import Generation
from vae_lab.ui import views
from vae_lab.ui.compat import choice_update, connect, html_update
from vae_lab.ui.selection import (
    Memory,
    decoder_choices,
    find_latent,
    fits,
    follow_newest,
    in_order,
    keep_chosen,
    latent_choice,
    vae_choices,
)

__all__ = ["ComparisonPanel", "build_comparison_panel"]


@dataclass(frozen=True)
class _View:
    """Everything that the panel shows, save results and messages."""

    generations: list[Generation]
    chosen: Generation | None
    entries: list[VaeEntry]
    ticked: list[str]

    @property
    def memory(self) -> Memory:
        return Memory(
            newest=self.generations[0].id if self.generations else "",
            family=self.chosen.family.id if self.chosen else "",
        )


class ComparisonPanel:
    """Layout and behaviour. Handlers return one update for each output that they are wired to."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.service: ComparisonService = service_of(host)
        self._asked = itertools.count()

    # --- layout ----------------------------------------------------------------------------------------------

    def build(self) -> None:
        """Add the panel to the Blocks that is being built."""
        view = self._view(None, (), None)
        with gr.Column(elem_id="vae_lab_panel", elem_classes=["vae-lab"]):
            self._build_decision(view)
            with gr.Row(elem_classes=["vae-lab-columns"]):
                with gr.Column(scale=1, min_width=320, elem_classes=["vae-lab-choices"]):
                    self._build_source(view)
                    self._build_vaes(view)
                with gr.Column(scale=4, min_width=480, elem_classes=["vae-lab-results"]):
                    with gr.Row(elem_classes=["vae-lab-running"]):
                        self.progress = gr.HTML(views.PROGRESS, elem_id="vae_lab_progress")
                        self.cancel = gr.Button(
                            "Cancel", variant="stop", size="sm", scale=0, min_width=100, elem_id="vae_lab_cancel"
                        )
                    self.message = gr.HTML(elem_id="vae_lab_message")
                    begin = "" if view.generations else views.empty(self.host.how_to_begin)
                    self.empty = gr.HTML(begin, visible=bool(begin), elem_id="vae_lab_empty")
                    self.results = gr.HTML(elem_id="vae_lab_results")
            self.memory = gr.State(None)
        self._stay_out_of_ui_config()
        self._wire()

    def _build_decision(self, view: _View) -> None:
        with gr.Row(elem_classes=["vae-lab-top"]):
            self.deciding = gr.HTML(self._deciding(), elem_id="vae_lab_deciding")
            self.decoder = gr.Dropdown(
                decoder_choices(view.entries), value=BUILT_IN, label="VAE to use from now on", scale=1, min_width=260,
                elem_id="vae_lab_decoder",
            )  # fmt: skip
            # Filled by javascript/light_table.js when the VAE of a picture is to be used from now on.
            self.picked = gr.Textbox(label="Picked VAE", scale=0, min_width=0, elem_id="vae_lab_picked")
            self.for_checkpoint = gr.Button(
                "Use for this checkpoint", scale=0, min_width=220, elem_id="vae_lab_use_for_checkpoint"
            )
            self.always = gr.Button("Use always", scale=0, min_width=120, elem_id="vae_lab_use_always")

    def _build_source(self, view: _View) -> None:
        self.checkpoint = gr.Dropdown(
            self.host.checkpoints() if self.host.chooses_checkpoint else [],
            value=self.host.current_checkpoint() or None,
            label="Checkpoint",
            visible=self.host.chooses_checkpoint,
            elem_id="vae_lab_checkpoint",
        )
        self.source = gr.Dropdown(
            list(map(latent_choice, view.generations)), value=latent_choice(view.chosen) if view.chosen else None,
            label="Latent", elem_id="vae_lab_source",
        )  # fmt: skip
        card = self._card(view.chosen)
        self.latent = gr.HTML(card, visible=bool(card), elem_id="vae_lab_latent")
        self.refresh = gr.Button("Refresh", size="sm", elem_id="vae_lab_refresh")

    def _build_vaes(self, view: _View) -> None:
        self.built_in = gr.HTML(self._built_in_line(view.entries), elem_id="vae_lab_built_in")
        self.vaes = gr.CheckboxGroup(
            vae_choices(view.entries), value=view.ticked, label="VAEs to compare", elem_id="vae_lab_vaes",
        )  # fmt: skip
        with gr.Row(elem_classes=["vae-lab-tools"]):
            self.all = gr.Button("All", size="sm", min_width=60, elem_id="vae_lab_all")
            self.none = gr.Button("None", size="sm", min_width=60, elem_id="vae_lab_none")
            self.identify = gr.Button("Identify all", size="sm", min_width=100, elem_id="vae_lab_identify")
        self.compare = gr.Button("Compare", variant="primary", elem_id="vae_lab_compare")

    def _stay_out_of_ui_config(self) -> None:
        # The WebUI would store lists of today as everyone's defaults of tomorrow.
        for component in (self.checkpoint, self.decoder, self.source, self.vaes, self.picked):
            component.do_not_save_to_config = True

    def _wire(self) -> None:
        shown = [self.source, self.vaes, self.latent, self.empty, self.built_in, self.decoder, self.deciding]
        state = [self.source, self.vaes, self.decoder, self.memory]
        connect(self.refresh.click, self.on_refresh, state, [*shown, self.memory, self.message])
        connect(self.source.input, self.on_source, [*state[:2], self.memory], [self.latent, self.vaes, self.memory])
        connect(self.all.click, self.on_all, [self.source, self.vaes], [self.vaes])
        connect(self.none.click, self.on_none, [], [self.vaes])
        connect(self.identify.click, self.on_identify, [self.source, self.vaes], [self.vaes, self.message])
        compared = [self.results, self.message, self.vaes]
        connect(self.compare.click, self.on_compare, [self.source, self.vaes], compared)
        decided = [self.deciding, self.message]
        connect(self.for_checkpoint.click, self.on_use_for_checkpoint, [self.decoder], decided)
        connect(self.always.click, self.on_use_always, [self.decoder], decided)
        connect(self.picked.input, self.on_picked, [self.picked], decided)
        if self.host.chooses_checkpoint:
            connect(self.checkpoint.input, self.on_checkpoint, [self.checkpoint], [self.built_in, *decided])
        # Cancel and the progress bar belong to javascript/vae_lab.js: they must work while a handler here blocks.

    # --- what there is to show -------------------------------------------------------------------------------

    def _view(self, source: str | None, ticked: Sequence[str], memory: Memory | None) -> _View:
        generations = self.host.generations.newest_first()
        chosen = follow_newest(generations, source, memory)
        entries = self.host.vaes()
        kept = keep_chosen(entries, chosen.family if chosen else None, ticked, memory)
        return _View(generations, chosen, entries, kept)

    def _deciding(self) -> str:
        try:
            decision = self.host.decision()
            built_in = decision.vae == BUILT_IN
            return views.deciding(decision.reason, next(self._asked), built_in_decodes=built_in)
        except VaeLabError as error:
            return views.alert(error)

    def _built_in_line(self, entries: Sequence[VaeEntry]) -> str:
        return views.built_in(self.host.current_checkpoint(), alone=not entries)

    def _card(self, generation: Generation | None) -> str:
        return views.latent_card(generation) if generation else ""

    def _latent(self, source: str | None) -> Generation | None:
        return find_latent(self.host.generations.newest_first(), source)

    def _fitting(self, entries: Sequence[VaeEntry], source: str | None) -> list[str]:
        latent = self._latent(source)
        return [entry.name for entry in entries if fits(entry, latent.family if latent else None)]

    # --- handlers --------------------------------------------------------------------------------------------

    def on_refresh(self, source: str | None, ticked: list[str], decoder: str, memory: Memory | None) -> tuple[Any, ...]:
        """Show what the host has now."""
        try:
            self.host.refresh()
            view = self._view(source, ticked or (), memory)
            built_in = self._built_in_line(view.entries)
        except VaeLabError as error:
            return (*[gr.update()] * 8, views.alert(error))
        latents, decoders = list(map(latent_choice, view.generations)), decoder_choices(view.entries)
        return (
            choice_update(latents, latent_choice(view.chosen) if view.chosen else None, source),
            choice_update(vae_choices(view.entries), view.ticked, ticked),
            html_update(self._card(view.chosen)),
            html_update("" if view.generations else views.empty(self.host.how_to_begin)),
            built_in,
            choice_update(decoders, decoder if decoder in decoders else AUTOMATIC, decoder),
            self._deciding(),
            view.memory,
            gr.update(),
        )

    def on_source(self, source: str | None, ticked: list[str], memory: Memory | None) -> tuple[Any, ...]:
        """Another latent: its card, and VAEs of its family."""
        chosen = self._latent(source)
        if chosen is None:
            return gr.update(), gr.update(), memory
        entries = self.host.vaes()
        kept = keep_chosen(entries, chosen.family, ticked or (), memory)
        seen = Memory(memory.newest if memory else "", chosen.family.id)
        return html_update(self._card(chosen)), choice_update(vae_choices(entries), kept, ticked), seen

    def on_all(self, source: str | None, ticked: list[str]) -> Any:
        """Tick all that fit the latent."""
        entries = self.host.vaes()
        return choice_update(vae_choices(entries), self._fitting(entries, source), ticked)

    def on_none(self) -> Any:
        """Tick none; the built-in VAE stays."""
        return gr.update(value=[])

    def on_identify(self, source: str | None, ticked: list[str]) -> tuple[Any, ...]:
        """Tell all families, and untick what turns out to be of another one."""
        try:
            entries = self.service.identify()
        except VaeLabError as error:
            return gr.update(), views.alert(error)
        kept = [name for name in self._fitting(entries, source) if name in (ticked or ())]
        return choice_update(vae_choices(entries), kept, ticked), views.identified(entries)

    def on_compare(self, source: str | None, ticked: list[str]) -> tuple[Any, ...]:
        """Decode, and show the pictures."""
        latent = self._latent(source)
        if latent is None:
            return gr.update(), views.alert(_gone(source, self.host.how_to_begin)), gr.update()
        try:
            stored = self.service.compare(latent.id, in_order(self.host.vaes(), ticked or ()))
        except VaeLabError as error:
            return gr.update(), views.alert(error), gr.update()
        # Decoding tells families that were not known before; the list shows them, and keeps what is ticked.
        entries = self.host.vaes()
        kept = [entry.name for entry in entries if entry.name in (ticked or ())]
        return views.results(stored), views.summary(stored), choice_update(vae_choices(entries), kept, ticked)

    def on_use_for_checkpoint(self, vae: str) -> tuple[Any, ...]:
        """The choice of the current checkpoint, to stay."""
        return self._use(self.host.use_for_checkpoint, vae)

    def on_use_always(self, vae: str) -> tuple[Any, ...]:
        """The choice of every checkpoint, to stay."""
        return self._use(self.host.use_always, vae)

    def on_picked(self, picked: str) -> tuple[Any, ...]:
        """The VAE of a picture, to stay. What the script wrote is the time, how far it reaches, and the name."""
        _, _, wanted = picked.partition("|")
        reach, _, vae = wanted.partition("|")
        return self._use(self.host.use_always if reach == "always" else self.host.use_for_checkpoint, vae)

    def _use(self, choose: Callable[[str], str], vae: str) -> tuple[Any, ...]:
        try:
            message = views.note(choose(vae or AUTOMATIC))
        except VaeLabError as error:
            message = views.alert(error)
        return self._deciding(), message

    def on_checkpoint(self, name: str) -> tuple[Any, ...]:
        """Another checkpoint, where the host leaves that to us."""
        message = ""
        try:
            self.host.select_checkpoint(name)
        except VaeLabError as error:
            message = views.alert(error)
        return self._built_in_line(self.host.vaes()), self._deciding(), message


def _gone(source: str | None, begin: str) -> str:
    if source:
        return f"The latent {source} is no longer kept; press Refresh and choose another one."
    return f"There is no latent to decode yet. {begin}"


def build_comparison_panel(host: Host) -> ComparisonPanel:
    """Add the panel to the Blocks that is being built."""
    panel = ComparisonPanel(host)
    panel.build()
    return panel
