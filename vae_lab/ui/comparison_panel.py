"""The panel that decodes one kept latent with many VAEs and shows the pictures side by side."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from vae_lab.errors import VaeLabError
from vae_lab.host.base import AUTOMATIC, BUILT_IN, Host, VaeEntry
from vae_lab.host.service import ComparisonService, service_of
from vae_lab.latents import Generation, read_limited
from vae_lab.pictures import read_picture
from vae_lab.ui import numbers_views, source_views, views
from vae_lab.ui.compat import choice_update, connect, html_update, uploaded
from vae_lab.ui.selection import (
    Memory,
    decoder_choices,
    encoder_choices,
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
                    self.numbers = gr.HTML(elem_id="vae_lab_numbers")
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
            self.wanted = gr.Textbox(label="Picked VAE", scale=0, min_width=0, elem_id="vae_lab_wanted")
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
        # Filled by javascript/vae_lab.js when one of the small pictures is chosen.
        self.picked_latent = gr.Textbox(label="Picked latent", elem_id="vae_lab_picked_latent")
        kept, card = source_views.thumbnails(view.generations), self._card(view.chosen)
        self.kept = gr.HTML(kept, visible=bool(kept), elem_id="vae_lab_kept")
        self.latent = gr.HTML(card, visible=bool(card), elem_id="vae_lab_latent")
        with gr.Row(elem_classes=["vae-lab-tools"]):
            self.refresh = gr.Button("Refresh", size="sm", min_width=80, elem_id="vae_lab_refresh")
            self.load = gr.UploadButton(
                "Load latent", size="sm", min_width=100, file_types=[".safetensors"], elem_id="vae_lab_load"
            )
        with gr.Accordion("From an image", open=False, elem_id="vae_lab_from_image"):
            self.image = gr.File(label="PNG, JPEG, WebP …", height=100, elem_id="vae_lab_image")
            self.encoder = gr.Dropdown(
                encoder_choices(view.entries), value=BUILT_IN, label="Encoded by", elem_id="vae_lab_encoder"
            )
            self.encode = gr.Button("Encode", size="sm", elem_id="vae_lab_encode")
        # What is of today must not become everyone's default of tomorrow in the WebUI.
        for component in (self.picked_latent, self.encoder):
            component.do_not_save_to_config = True

    def _build_vaes(self, view: _View) -> None:
        self.built_in = gr.HTML(self._built_in_line(view.entries), elem_id="vae_lab_built_in")
        self.vaes = gr.CheckboxGroup(
            vae_choices(view.entries), value=view.ticked, label="VAEs to compare", elem_id="vae_lab_vaes",
            elem_classes=["vae-lab-vaes"],
        )  # fmt: skip
        with gr.Row(elem_classes=["vae-lab-tools"]):
            self.all = gr.Button("All", size="sm", min_width=60, elem_id="vae_lab_all")
            self.none = gr.Button("None", size="sm", min_width=60, elem_id="vae_lab_none")
            self.identify = gr.Button("Identify all", size="sm", min_width=100, elem_id="vae_lab_identify")
        self.compare = gr.Button("Compare", variant="primary", elem_id="vae_lab_compare")

    def _stay_out_of_ui_config(self) -> None:
        # The WebUI would store lists of today as everyone's defaults of tomorrow.
        for component in (self.checkpoint, self.decoder, self.source, self.vaes, self.wanted):
            component.do_not_save_to_config = True

    def _wire(self) -> None:
        shown = [
            *(self.source, self.kept, self.vaes, self.latent, self.empty, self.built_in, self.decoder, self.encoder),
            *(self.deciding, self.memory, self.message),
        ]
        state = [self.source, self.vaes, self.decoder, self.encoder, self.memory]
        connect(self.refresh.click, self.on_refresh, state, shown)
        connect(self.load.upload, self.on_load, [self.load, *state], shown)
        connect(self.encode.click, self.on_encode, [self.image, *state], shown)
        chosen = [self.latent, self.vaes, self.memory]
        connect(self.source.input, self.on_source, [self.source, self.vaes, self.memory], chosen)
        # ``change``, since gradio 4 drops an ``input`` that comes while an earlier one is being answered.
        connect(
            self.picked_latent.change,
            self.on_picked_latent,
            [self.picked_latent, self.vaes, self.memory],
            [self.source, *chosen],
        )
        connect(self.all.click, self.on_all, [self.source, self.vaes], [self.vaes])
        connect(self.none.click, self.on_none, [], [self.vaes])
        connect(self.identify.click, self.on_identify, [self.source, self.vaes], [self.vaes, self.message])
        compared = [self.results, self.message, self.vaes, self.numbers]
        connect(self.compare.click, self.on_compare, [self.source, self.vaes], compared)
        decided = [self.deciding, self.message]
        connect(self.for_checkpoint.click, self.on_use_for_checkpoint, [self.decoder], decided)
        connect(self.always.click, self.on_use_always, [self.decoder], decided)
        connect(self.wanted.change, self.on_wanted, [self.wanted], decided)
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
        return views.latent_card(generation, source_views.save_link(generation)) if generation else ""

    def _latent(self, source: str | None) -> Generation | None:
        return find_latent(self.host.generations.newest_first(), source)

    def _fitting(self, entries: Sequence[VaeEntry], source: str | None) -> list[str]:
        latent = self._latent(source)
        return [entry.name for entry in entries if fits(entry, latent.family if latent else None)]

    # --- handlers --------------------------------------------------------------------------------------------

    def on_refresh(self, *state: Any) -> tuple[Any, ...]:
        """Show what the host has now."""
        try:
            self.host.refresh()
            return self._shown(state[0], "", *state)
        except VaeLabError as error:
            return self._told(error)

    def on_load(self, file: Any, *state: Any) -> tuple[Any, ...]:
        """A file of latents: one more generation, and the chosen one."""
        try:
            path = Path(uploaded(file))
            generation = self.service.add_latents(read_limited(path, self.service.most_upload), path.name)
            return self._shown(latent_choice(generation), source_views.added(generation, "kept"), *state)
        except VaeLabError as error:
            return self._told(error)

    def on_encode(self, file: Any, *state: Any) -> tuple[Any, ...]:
        """A picture through the encoder of the chosen VAE: one more generation, and the chosen one."""
        if file is None:
            return self._told("There is no image yet: drop one into the field above the button.")
        vae = state[3] or BUILT_IN
        try:
            generation, remarks = self.service.encode(read_picture(uploaded(file)), vae)
            said = source_views.added(generation, f"encoded by {vae} and kept", remarks)
            return self._shown(latent_choice(generation), said, *state)
        except VaeLabError as error:
            return self._told(error)

    def _told(self, error: VaeLabError | str) -> tuple[Any, ...]:
        return (*[gr.update()] * 10, views.alert(error))

    def _shown(
        self, wanted: str | None, said: str, source: str | None, ticked: list[str], decoder: str, encoder: str,
        memory: Memory | None,
    ) -> tuple[Any, ...]:  # fmt: skip
        """Updates for everything, with the latent that is listed as ``wanted``; ``said`` is the message, if any."""
        view = self._view(wanted, ticked or (), memory)
        latents = list(map(latent_choice, view.generations))
        decoders, encoders = decoder_choices(view.entries), encoder_choices(view.entries)
        return (
            choice_update(latents, latent_choice(view.chosen) if view.chosen else None, source),
            html_update(source_views.thumbnails(view.generations)),
            choice_update(vae_choices(view.entries), view.ticked, ticked),
            html_update(self._card(view.chosen)),
            html_update("" if view.generations else views.empty(self.host.how_to_begin)),
            self._built_in_line(view.entries),
            choice_update(decoders, decoder if decoder in decoders else AUTOMATIC, decoder),
            choice_update(encoders, encoder if encoder in encoders else BUILT_IN, encoder),
            self._deciding(),
            view.memory,
            said or gr.update(),
        )

    def on_picked_latent(self, picked: str, ticked: list[str], memory: Memory | None) -> tuple[Any, ...]:
        """One of the small pictures. What the script wrote is the time and the id, with a bar between."""
        wanted = picked.partition("|")[2]
        chosen = next((kept for kept in self.host.generations.newest_first() if kept.id == wanted), None)
        if chosen is None:
            return gr.update(), gr.update(), gr.update(), memory
        return gr.update(value=latent_choice(chosen)), *self.on_source(latent_choice(chosen), ticked, memory)

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
            return gr.update(), views.alert(_gone(source, self.host.how_to_begin)), gr.update(), gr.update()
        try:
            stored = self.service.compare(latent.id, in_order(self.host.vaes(), ticked or ()))
        except VaeLabError as error:
            return gr.update(), views.alert(error), gr.update(), gr.update()
        # Decoding tells families that were not known before; the list shows them, and keeps what is ticked.
        entries = self.host.vaes()
        kept = [entry.name for entry in entries if entry.name in (ticked or ())]
        ticks = choice_update(vae_choices(entries), kept, ticked)
        return views.results(stored), views.summary(stored), ticks, numbers_views.numbers(stored)

    def on_use_for_checkpoint(self, vae: str) -> tuple[Any, ...]:
        """The choice of the current checkpoint, to stay."""
        return self._use(self.host.use_for_checkpoint, vae)

    def on_use_always(self, vae: str) -> tuple[Any, ...]:
        """The choice of every checkpoint, to stay."""
        return self._use(self.host.use_always, vae)

    def on_wanted(self, picked: str) -> tuple[Any, ...]:
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
