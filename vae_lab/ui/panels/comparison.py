"""The panel that decodes one kept latent with many VAEs and shows the images side by side."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from vae_lab.errors import HostError, VaeLabError
from vae_lab.host.base import AUTOMATIC, BUILT_IN, Host, VaeEntry
from vae_lab.images import read_image
from vae_lab.latents import Generation, read_limited
from vae_lab.messages import text
from vae_lab.service.service import ComparisonService, service_of
from vae_lab.ui.compat import choice_update, connect, follow, html_update, uploaded
from vae_lab.ui.panels.selection import (
    Choice,
    Memory,
    choose_to_stay,
    chosen_to_stay,
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
from vae_lab.ui.views import comparison as views
from vae_lab.ui.views import numbers as numbers_views
from vae_lab.ui.views import sources as source_views

__all__ = ["ComparisonPanel", "build_comparison_panel"]


_REACHES = ("checkpoint", "always", "undo")


@dataclass(frozen=True)
class _View:
    """Everything that the panel shows, save results and messages."""

    generations: list[Generation]
    chosen: Generation | None
    entries: list[VaeEntry]
    ticked: list[str]
    decoder: str

    @property
    def memory(self) -> Memory:
        return Memory(
            newest=self.generations[0].id if self.generations else "",
            family=self.chosen.family.id if self.chosen else "",
            decoder=self.decoder,
        )


@dataclass(frozen=True)
class _Wanted:
    """What ``javascript/light_table.js`` asks for below an image, or ``javascript/vae_lab.js`` with Undo.

    Attributes:
        asked: the script's mark, which the answer carries.
        reach: ``checkpoint``, ``always`` or ``undo``.
        vae: as it is listed.
        checkpoint: what the images were compared with, or "".
    """

    asked: str
    reach: str
    vae: str
    checkpoint: str

    @classmethod
    def read(cls, text: str) -> _Wanted:
        """Raises HostError: the script and this program do not understand each other."""
        try:
            values = json.loads(text)
            wanted = [values[name] for name in ("asked", "reach", "vae", "checkpoint")]
        except (ValueError, KeyError, TypeError, RecursionError):
            wanted = []
        if not wanted or not all(isinstance(value, str) for value in wanted) or wanted[1] not in _REACHES:
            raise HostError("this page was loaded by another version of VAE Lab; reload it")
        return cls(*wanted)


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
                    with gr.Row(elem_classes=["vae-lab-go"]):
                        # Beside the choices, not below them: in view however many VAEs there are.
                        self.compare = gr.Button(
                            "Compare", variant="primary", scale=0, min_width=200, elem_id="vae_lab_compare"
                        )
                        self.message = gr.HTML(elem_id="vae_lab_message")
                    with gr.Row(elem_classes=["vae-lab-running"]):
                        self.progress = gr.HTML(views.PROGRESS, elem_id="vae_lab_progress")
                        self.cancel = gr.Button(
                            "Cancel", variant="stop", size="sm", scale=0, min_width=100, elem_id="vae_lab_cancel"
                        )
                    begin = "" if view.generations else views.empty(self.host.how_to_begin)
                    self.empty = gr.HTML(begin, visible=bool(begin), elem_id="vae_lab_empty")
                    self.results = gr.HTML(views.guide(), elem_id="vae_lab_results")
                    self.numbers = gr.HTML(elem_id="vae_lab_numbers")
            self.memory = gr.State(None)
            self.compared = gr.State("")  # id of the comparison that is shown
        self._stay_out_of_ui_config()
        self._wire()

    def _build_decision(self, view: _View) -> None:
        with gr.Row(elem_classes=["vae-lab-top"]):
            self.deciding = gr.HTML(self._deciding(), elem_id="vae_lab_deciding")
            self.decoder = gr.Dropdown(
                decoder_choices(view.entries), value=view.decoder, label="Active VAE", scale=1,
                min_width=260, elem_id="vae_lab_decoder",
            )  # fmt: skip
            # Filled by javascript/light_table.js when the VAE of an image is to be used from now on.
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
        # Filled by javascript/vae_lab.js when one of the small images is chosen.
        self.picked_latent = gr.Textbox(label="Picked latent", elem_id="vae_lab_picked_latent")
        kept, card = source_views.thumbnails(view.generations), self._card(view.chosen)
        self.kept = gr.HTML(kept, visible=bool(kept), elem_id="vae_lab_kept")
        self.latent = gr.HTML(card, visible=bool(card), elem_id="vae_lab_latent")
        with gr.Row(elem_classes=["vae-lab-tools"]):
            self.refresh = gr.Button("Refresh", size="sm", min_width=80, elem_id="vae_lab_refresh")
            self.load = gr.UploadButton(
                "Load latent", size="sm", min_width=100, file_types=[".safetensors"], elem_id="vae_lab_load"
            )
        with gr.Accordion("From an image", open=not view.generations, elem_id="vae_lab_from_image") as self.from_image:
            self.image = gr.File(label="PNG, JPEG, WebP …", height=100, elem_id="vae_lab_image")
            self.encoder = gr.Dropdown(
                encoder_choices(view.entries), value=BUILT_IN, label="Encode with", elem_id="vae_lab_encoder"
            )
            self.encode = gr.Button("Encode", size="sm", elem_id="vae_lab_encode")
        # What is of today must not become everyone's default of tomorrow in the WebUI.
        for component in (self.picked_latent, self.encoder):
            component.do_not_save_to_config = True

    def _build_vaes(self, view: _View) -> None:
        self.built_in = gr.HTML(self._built_in_line(view.entries, view.chosen), elem_id="vae_lab_built_in")
        self.vaes = gr.CheckboxGroup(
            vae_choices(view.entries), value=view.ticked, label="VAEs to compare", elem_id="vae_lab_vaes",
            elem_classes=["vae-lab-vaes"],
        )  # fmt: skip
        with gr.Row(elem_classes=["vae-lab-tools"]):
            self.all = gr.Button("All", size="sm", min_width=60, elem_id="vae_lab_all")
            self.none = gr.Button("None", size="sm", min_width=60, elem_id="vae_lab_none")
            self.identify = gr.Button("Identify all", size="sm", min_width=100, elem_id="vae_lab_identify")

    def _stay_out_of_ui_config(self) -> None:
        # The WebUI would store lists of today as everyone's defaults of tomorrow.
        for component in (self.checkpoint, self.decoder, self.source, self.vaes, self.wanted):
            component.do_not_save_to_config = True

    def _wire(self) -> None:
        shown = [
            *(self.source, self.kept, self.vaes, self.latent, self.empty, self.built_in, self.decoder, self.encoder),
            *(self.from_image, self.deciding, self.memory, self.message),
        ]
        state = [self.source, self.vaes, self.decoder, self.encoder, self.memory]
        connect(self.refresh.click, self.on_refresh, state, shown)
        connect(self.load.upload, self.on_load, [self.load, *state], shown)
        connect(self.encode.click, self.on_encode, [self.image, *state], shown)
        chosen = [self.latent, self.vaes, self.memory, self.built_in]
        follow([self.source.input], self.on_source, [self.source], [self.vaes, self.memory], chosen)
        follow(
            [self.picked_latent.change],
            self.on_picked_latent,
            [self.picked_latent],
            [self.vaes, self.memory],
            [self.source, *chosen, self.message],
        )
        connect(self.all.click, self.on_all, [self.source, self.vaes], [self.vaes])
        connect(self.none.click, self.on_none, [], [self.vaes])
        # What is ticked while a run goes on stays: only when it has ended, what is ticked then is looked at.
        identified = connect(self.identify.click, self.on_identify, [], [self.message])
        connect(identified.then, self.on_identified, [self.source, self.vaes], [self.vaes])
        shown = [self.results, self.message, self.numbers, self.compared]
        compared = connect(self.compare.click, self.on_compare, [self.source, self.vaes], shown)
        connect(compared.then, self.on_compared, [self.vaes], [self.vaes])
        follow([compared.then], self.on_measured, [self.compared], outputs=[self.numbers])
        decided = [self.deciding, self.message, self.decoder, self.memory]
        choosing = [self.decoder, self.memory]
        connect(self.for_checkpoint.click, self.on_use_for_checkpoint, choosing, decided)
        connect(self.always.click, self.on_use_always, choosing, decided)
        connect(self.wanted.change, self.on_wanted, [self.wanted, self.memory], decided)
        if self.host.chooses_checkpoint:
            known = [self.decoder, self.source, self.memory]
            follow([self.checkpoint.input], self.on_checkpoint, [self.checkpoint], known, [self.built_in, *decided])
        # Cancel and the progress bar belong to javascript/vae_lab.js: they must work while a handler here blocks.

    # --- what there is to show -------------------------------------------------------------------------------

    def _view(self, source: str | None, ticked: Sequence[str], memory: Memory | None) -> _View:
        generations = self.host.generations.newest_first()
        chosen = follow_newest(generations, source, memory)
        entries = self.host.vaes()
        kept = keep_chosen(entries, chosen.family if chosen else None, ticked, memory)
        return _View(generations, chosen, entries, kept, chosen_to_stay(self.host.decision(), entries))

    def _deciding(self) -> str:
        try:
            decision = self.host.decision()
            built_in = decision.vae == BUILT_IN
            return views.deciding(decision.reason, next(self._asked), built_in_decodes=built_in)
        except VaeLabError as error:
            return views.alert(error)

    def _built_in_line(self, entries: Sequence[VaeEntry], latent: Generation | None) -> str:
        of = self.host.built_in_of(latent) if latent else self.host.current_checkpoint()
        return views.built_in(of, only=not entries)

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
            problems = self.host.refresh()
            return self._shown(state[0], views.alert(" · ".join(problems)) if problems else "", *state)
        except VaeLabError as error:
            return self._told(error)

    def on_load(self, file: Any, *state: Any) -> tuple[Any, ...]:
        """A file of latents: one more generation, and the chosen one."""
        try:
            path = Path(uploaded(file))
            generation = self.service.add_latents(read_limited(path, self.service.most_upload), path.name)
            return self._shown(latent_choice(generation), source_views.loaded(generation, path.name), *state)
        except VaeLabError as error:
            return self._told(error)

    def on_encode(self, file: Any, *state: Any) -> tuple[Any, ...]:
        """An image through the encoder of the chosen VAE: one more generation, and the chosen one."""
        if file is None:
            return self._told("There is no image yet; drop one into the field above the button.")
        vae = state[3] or BUILT_IN
        try:
            generation, remarks = self.service.encode(read_image(uploaded(file)), vae)
            said = source_views.encoded(generation, vae, remarks)
            return self._shown(latent_choice(generation), said, *state)
        except VaeLabError as error:
            return self._told(error)

    def _told(self, error: VaeLabError | str) -> tuple[Any, ...]:
        return (*[gr.update()] * 11, views.alert(error))

    def _shown(
        self, wanted: str | None, said: str, source: str | None, ticked: list[str], decoder: str, encoder: str,
        memory: Memory | None,
    ) -> tuple[Any, ...]:  # fmt: skip
        """Updates for everything, with the latent that is listed as ``wanted``; ``said`` is the message, if any."""
        view = self._view(wanted, ticked or (), memory)
        latents = list(map(latent_choice, view.generations))
        decoders, encoders = decoder_choices(view.entries), encoder_choices(view.entries)
        # What someone is about to choose stays; who saw what was chosen sees what is chosen now.
        about_to = decoder if memory and decoder in decoders and decoder != memory.decoder else view.decoder
        return (
            choice_update(latents, latent_choice(view.chosen) if view.chosen else None, source),
            html_update(source_views.thumbnails(view.generations)),
            choice_update(vae_choices(view.entries), view.ticked, ticked),
            html_update(self._card(view.chosen)),
            html_update("" if view.generations else views.empty(self.host.how_to_begin)),
            self._built_in_line(view.entries, view.chosen),
            choice_update(decoders, about_to, decoder),
            choice_update(encoders, encoder if encoder in encoders else BUILT_IN, encoder),
            # A page that has just been opened; later it is the user who opens and closes it.
            gr.update(open=not view.generations) if memory is None else gr.update(),
            self._deciding(),
            replace(view.memory, back=memory.back if memory else None),
            said or gr.update(),
        )

    def on_picked_latent(self, picked: str, ticked: list[str], memory: Memory | None) -> tuple[Any, ...]:
        """One of the small images. What the script wrote is the time and the id, with a bar between."""
        wanted = picked.partition("|")[2]
        chosen = next((kept for kept in self.host.generations.newest_first() if kept.id == wanted), None)
        if chosen is None:
            gone = views.alert(_gone(wanted, self.host.how_to_begin))
            return gr.update(), gr.update(), gr.update(), memory, gr.update(), gone
        shown = self.on_source(latent_choice(chosen), ticked, memory)
        return gr.update(value=latent_choice(chosen)), *shown, gr.update()

    def on_source(self, source: str | None, ticked: list[str], memory: Memory | None) -> tuple[Any, ...]:
        """Another latent: its card, and VAEs of its family."""
        chosen = self._latent(source)
        if chosen is None:
            return gr.update(), gr.update(), memory, gr.update()
        entries = self.host.vaes()
        kept = keep_chosen(entries, chosen.family, ticked or (), memory)
        memory = memory or Memory()
        # Of another family: sent in any case, since ``ticked`` may be from before an answer that ticked others.
        choices = choice_update(vae_choices(entries), kept, ticked if memory.family == chosen.family.id else None)
        seen = replace(memory, family=chosen.family.id)
        return html_update(self._card(chosen)), choices, seen, self._built_in_line(entries, chosen)

    def on_all(self, source: str | None, ticked: list[str]) -> Any:
        """Tick all that fit the latent."""
        entries = self.host.vaes()
        return choice_update(vae_choices(entries), self._fitting(entries, source), ticked)

    def on_none(self) -> Any:
        """Tick none; the built-in VAE stays."""
        return gr.update(value=[])

    def on_identify(self) -> str:
        """Tell all families."""
        try:
            return views.identified(self.service.identify())
        except VaeLabError as error:
            return views.alert(error)

    def on_identified(self, source: str | None, ticked: list[str]) -> Any:
        """List the families, and untick what has turned out to be of another one."""
        entries = self.host.vaes()
        kept = [name for name in self._fitting(entries, source) if name in (ticked or ())]
        return choice_update(vae_choices(entries), kept, ticked)

    def on_compare(self, source: str | None, ticked: list[str]) -> tuple[Any, ...]:
        """Decode, and show the images."""
        latent = self._latent(source)
        if latent is None:
            return gr.update(), views.alert(_gone(source, self.host.how_to_begin)), gr.update(), gr.update()
        try:
            stored = self.service.compare(latent.id, in_order(self.host.vaes(), ticked or ()))
        except VaeLabError as error:
            return gr.update(), views.alert(error), gr.update(), gr.update()
        if not stored.comparison.results:  # cancelled before the first: what was there stays
            return gr.update(), views.summary(stored), gr.update(), gr.update()
        return views.results(stored), views.summary(stored), numbers_views.measuring(), stored.id

    def on_measured(self, compared: str) -> tuple[Any, ...]:
        """The numbers of the comparison that is shown: the images have not waited for them."""
        try:
            return (numbers_views.numbers(self.service.get(compared)) if compared else "",)
        except VaeLabError as error:
            return (views.alert(error),)

    def on_compared(self, ticked: list[str]) -> Any:
        """Decoding tells families that were not known before: list them, and keep what is ticked."""
        entries = self.host.vaes()
        kept = [entry.name for entry in entries if entry.name in (ticked or ())]
        return choice_update(vae_choices(entries), kept, ticked)

    def on_use_for_checkpoint(self, vae: str, memory: Memory | None) -> tuple[Any, ...]:
        """The choice of the current checkpoint, to stay."""
        return self._use("checkpoint", vae, memory)

    def on_use_always(self, vae: str, memory: Memory | None) -> tuple[Any, ...]:
        """The choice of every checkpoint, to stay."""
        return self._use("always", vae, memory)

    def on_wanted(self, picked: str, memory: Memory | None) -> tuple[Any, ...]:
        """The VAE of an image, to stay, or Undo. What the script wrote is a :class:`_Wanted`."""
        try:
            wanted = _Wanted.read(picked)
        except HostError as error:
            return gr.update(), views.alert(error), gr.update(), memory
        if wanted.reach == "undo":
            return self._chosen(memory.back if memory else None, memory, wanted.asked)
        current = self.host.current_checkpoint()
        if wanted.reach == "checkpoint" and wanted.checkpoint not in ("", current):
            template = (
                "These images are from {checkpoint}, but {current} is in use now. "
                "Select {checkpoint} first, or choose Use always."
            )
            error = text(template, checkpoint=wanted.checkpoint, current=current or text("no checkpoint"))
            return self._deciding(), views.alert(error, asked=wanted.asked), gr.update(), memory
        return self._use(wanted.reach, wanted.vae, memory, wanted.asked)

    def _use(self, reach: str, vae: str, memory: Memory | None, asked: str = "") -> tuple[Any, ...]:
        return self._chosen(Choice(reach, vae or AUTOMATIC, self.host.current_checkpoint()), memory, asked)

    def _chosen(self, choice: Choice | None, memory: Memory | None, asked: str = "") -> tuple[Any, ...]:
        try:
            said, back = choose_to_stay(self.host, choice)
            back = back or (memory.back if memory else None)
            # Of all that could decode, the menu names what was chosen just now, even if something else goes before it.
            seen = replace(memory or Memory(), decoder=choice.vae, back=back)
            told = views.note(said, undo=back is not None, asked=asked)
            return self._deciding(), told, gr.update(value=choice.vae), seen
        except VaeLabError as error:
            return self._deciding(), views.alert(error, asked=asked), gr.update(), memory

    def on_checkpoint(self, name: str, decoder: str, source: str | None, memory: Memory | None) -> tuple[Any, ...]:
        """Another checkpoint, where the host leaves that to us."""
        message = ""
        try:
            self.host.select_checkpoint(name)
        except VaeLabError as error:
            message = views.alert(error)
        entries = self.host.vaes()
        now = chosen_to_stay(self.host.decision(), entries)
        seen = replace(memory or Memory(), decoder=now)
        return (
            self._built_in_line(entries, self._latent(source)),
            self._deciding(),
            message,
            choice_update(decoder_choices(entries), now, decoder),
            seen,
        )


def _gone(source: str | None, begin: str) -> str:
    if source:
        return text("The latent {name} has been discarded; press Refresh and choose another one.", name=source)
    return text("There is no latent to decode yet. {sentence}", sentence=begin)


def build_comparison_panel(host: Host) -> ComparisonPanel:
    """Add the panel to the Blocks that is being built."""
    panel = ComparisonPanel(host)
    panel.build()
    return panel
