"""The panel that decodes one stored latent with many VAEs and shows the images side by side."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from vae_lab.checkup.findings import MISSING
from vae_lab.errors import VaeLabError
from vae_lab.host.base import Host, VaeEntry
from vae_lab.host.choices import AUTOMATIC, BUILT_IN, Reach
from vae_lab.images import read_image
from vae_lab.latents import Generation, read_limited
from vae_lab.latents.family import Family
from vae_lab.library import FileRecord
from vae_lab.messages import text
from vae_lab.service.hashes import FoundVae
from vae_lab.service.service import service_of
from vae_lab.ui.compat import choice_update, connect, follow, html_update, uploaded
from vae_lab.ui.panels.comparison_results import ComparisonResults
from vae_lab.ui.panels.picks import Pick, pick_field
from vae_lab.ui.panels.selection import (
    PageState,
    decoder_choices,
    each_once,
    encoder_choices,
    find_latent,
    fits,
    follow_newest,
    in_order,
    keep_chosen,
    latent_choice,
    saved_choice,
)
from vae_lab.ui.panels.vae_list import VaeList, list_update
from vae_lab.ui.views import comparison as views
from vae_lab.ui.views import sources as source_views

__all__ = ["ComparisonPanel", "build_comparison_panel"]


@dataclass(frozen=True)
class _View:
    """Everything that the panel shows, except results and messages."""

    generations: list[Generation]
    chosen: Generation | None
    entries: list[VaeEntry]
    ticked: list[str]
    decoder: str
    encoder: str

    @property
    def state(self) -> PageState:
        return PageState(
            newest=self.generations[0].id if self.generations else "",
            family=self.chosen.family.id if self.chosen else "",
            decoder=self.decoder,
            encoder=self.encoder,
        )


class ComparisonPanel:
    """Layout and behaviour. Handlers return one update for each of their outputs."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.service = service_of(host)
        self.results = ComparisonResults(host)
        self._asked = itertools.count()

    # --- layout ----------------------------------------------------------------------------------------------

    def build(self) -> None:
        """Add the panel to the current Blocks."""
        view = self._view(None, (), None)
        with gr.Column(elem_id="vae_lab_panel", elem_classes=["vae-lab"]):
            self.deciding = gr.HTML(self._deciding(), elem_id="vae_lab_deciding")
            with gr.Row(elem_classes=["vae-lab-columns"]):
                with gr.Column(scale=1, min_width=320, elem_classes=["vae-lab-choices"]):
                    self._build_source(view)
                    self._build_vaes(view)
                    self._build_choice(view)
                with gr.Column(scale=4, min_width=480, elem_classes=["vae-lab-results"]):
                    with gr.Row(elem_classes=["vae-lab-go"]):
                        # Next to the choices, not below them: visible however long the list of VAEs is.
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
                    self.results.build()
            self.state = gr.State(None)
        self._stay_out_of_ui_config()
        self._wire()

    def _build_source(self, view: _View) -> None:
        self.checkpoint = gr.Dropdown(
            self._checkpoints(),
            value=self._checkpoint(),
            label="Checkpoint",
            visible=self.host.chooses_checkpoint,
            elem_id="vae_lab_checkpoint",
        )
        self.source = gr.Dropdown(
            list(map(latent_choice, view.generations)), value=latent_choice(view.chosen) if view.chosen else None,
            label="Latent", elem_id="vae_lab_source",
        )  # fmt: skip
        self.picked = pick_field()
        thumbnails, card = source_views.thumbnails(view.generations), self._card(view.chosen)
        self.thumbnails = gr.HTML(thumbnails, visible=bool(thumbnails), elem_id="vae_lab_thumbnails")
        self.latent = gr.HTML(card, visible=bool(card), elem_id="vae_lab_latent")
        with gr.Row(elem_classes=["vae-lab-tools"]):
            self.refresh = gr.Button("Refresh", size="sm", min_width=80, elem_id="vae_lab_refresh")
            self.load = gr.UploadButton(
                "Load latent", size="sm", min_width=100, file_types=[".safetensors"], elem_id="vae_lab_load"
            )
        with gr.Accordion("From an image", open=not view.generations, elem_id="vae_lab_from_image") as self.from_image:
            self.image = gr.File(label="PNG, JPEG, WebP …", height=100, elem_id="vae_lab_image")
            self.encoder = gr.Dropdown(
                self._encoders(view.entries), value=view.encoder, label="Encode with", elem_id="vae_lab_encoder"
            )
            self.encoder_note = gr.HTML(visible=False, elem_id="vae_lab_encoder_note")
            self.encode = gr.Button("Encode", size="sm", elem_id="vae_lab_encode")
        self.encoder.do_not_save_to_config = True  # see _stay_out_of_ui_config

    def _build_vaes(self, view: _View) -> None:
        self.built_in = gr.HTML(self._built_in_line(view.entries, view.chosen), elem_id="vae_lab_built_in")
        family = view.chosen.family if view.chosen else None
        self.list = VaeList(view.entries, view.ticked, family, label="VAEs to compare", elem_id="vae_lab_vaes")
        self.vaes = self.list.boxes
        with gr.Row(elem_classes=["vae-lab-tools"]):
            self.all = gr.Button("All", size="sm", min_width=60, elem_id="vae_lab_all")
            self.none = gr.Button("None", size="sm", min_width=60, elem_id="vae_lab_none")
            self.identify = gr.Button("Identify all", size="sm", min_width=100, elem_id="vae_lab_identify")

    def _build_choice(self, view: _View) -> None:
        with gr.Column(elem_classes=["vae-lab-choice"]):
            self.decoder = gr.Dropdown(
                decoder_choices(view.entries), value=view.decoder, label="VAE to use from now on",
                elem_id="vae_lab_decoder",
            )  # fmt: skip
            with gr.Row(elem_classes=["vae-lab-tools"]):
                self.for_checkpoint = gr.Button(
                    "Use for this checkpoint", size="sm", min_width=160, elem_id="vae_lab_use_for_checkpoint"
                )
                self.always = gr.Button(
                    "Use always",
                    size="sm",
                    min_width=90,
                    elem_id="vae_lab_use_always",
                    visible=self.host.choices_reach_all,
                )

    def _stay_out_of_ui_config(self) -> None:
        # The WebUI would store today's lists as the defaults of later starts.
        for component in (self.checkpoint, self.decoder, self.source):
            component.do_not_save_to_config = True

    def _wire(self) -> None:
        shown = [
            *(self.source, self.thumbnails, *self.list.outputs, self.latent, self.empty, self.built_in),
            *(self.decoder, self.encoder, self.checkpoint),
            *(self.from_image, self.deciding, self.state, self.message),
        ]
        inputs = [self.source, self.vaes, self.decoder, self.encoder, self.checkpoint, self.state]
        refreshed = connect(self.refresh.click, self.on_refresh, inputs, shown)
        connect(self.load.upload, self.on_load, [self.load, *inputs], shown)
        connect(self.encode.click, self.on_encode, [self.image, *inputs], shown)
        follow([self.encoder.input], self.on_encoder, [self.encoder], outputs=[self.encoder_note, self.encoder])
        chosen = [self.latent, *self.list.outputs, self.state, self.built_in]
        follow([self.source.input], self.on_source, [self.source], [self.vaes, self.state], chosen)
        follow(
            [self.picked.input],
            self.on_picked,
            [self.picked],
            [self.vaes, self.state],
            [self.source, *chosen, self.message],
        )
        connect(self.all.click, self.on_all, [self.source, self.vaes], self.list.outputs)
        connect(self.none.click, self.on_none, [], [self.vaes])
        # What is ticked during a run stays ticked: the second handler reads the boxes after the run.
        identified = connect(self.identify.click, self.on_identify, [], [self.message])
        connect(identified.then, self.on_identified, [self.source, self.vaes], self.list.outputs)
        self._wire_results(refreshed)
        decided = [self.deciding, self.message, self.decoder, self.state]
        choosing = [self.decoder, self.state]
        connect(self.for_checkpoint.click, self.on_use_for_checkpoint, choosing, decided)
        connect(self.always.click, self.on_use_always, choosing, decided)
        if self.host.chooses_checkpoint:
            known = [self.decoder, self.source, self.state]
            follow([self.checkpoint.input], self.on_checkpoint, [self.checkpoint], known, [self.built_in, *decided])
        # Cancel and the progress bar belong to javascript/tab/runs.mjs: they must work while a handler here blocks.
        # So do Undo and the choices below images: they use the routes, and press Refresh.

    def _wire_results(self, refreshed: Any) -> None:
        compared = connect(self.compare.click, self.on_compare, [self.source, self.vaes], [self.message])
        connect(compared.then, self.on_compared, [self.source, self.vaes], self.list.outputs)
        self.results.follow(compared, refreshed)

    # --- content ---------------------------------------------------------------------------------------------

    def _view(self, source: str | None, ticked: Sequence[str], state: PageState | None) -> _View:
        generations = self.host.generations.newest_first()
        chosen = follow_newest(generations, source, state)
        entries = self.host.vaes()
        still = keep_chosen(entries, chosen.family if chosen else None, ticked, state)
        decoder, encoder = saved_choice(self.host.decision(), entries), self._best_encoder(entries)
        return _View(generations, chosen, entries, still, decoder, encoder)

    def _record(self, vae: str) -> FileRecord | None:
        """What is known about a VAE by its checkup; reads nothing."""
        files = {**self.host.checkpoint_files(), **self.host.vae_files()}
        path = files.get(self.host.current_checkpoint() if vae == BUILT_IN else vae)
        return self.host.file_cache.checked(str(path)) if path else None

    def _encoders(self, entries: Sequence[VaeEntry]) -> list[str]:
        record = self._record(BUILT_IN)
        return encoder_choices(entries, built_in=record is None or record.status != MISSING)

    def _best_encoder(self, entries: Sequence[VaeEntry]) -> str:
        """The built-in VAE unless it is known to have faults, else the one to recommend."""
        record = self._record(BUILT_IN)
        found = self.host.recommendation() if record is not None and record.verdict.faults else None
        return found.name if found else next(iter(self._encoders(entries)), BUILT_IN)

    def _checkpoints(self) -> list[str]:
        """For the menu; none where the host has its own."""
        return self.host.checkpoints() if self.host.chooses_checkpoint else []

    def _checkpoint(self) -> str | None:
        """What the menu shows; gradio 4 takes no value that is not in the menu."""
        return self.host.current_checkpoint() or None if self.host.chooses_checkpoint else None

    def _deciding(self) -> str:
        try:
            active = self.service.choices.active()
            built_in = active.decision.vae == BUILT_IN
            reaches: tuple[Reach, ...] = ("checkpoint", "always") if self.host.choices_reach_all else ("checkpoint",)
            return views.deciding(
                active.decision.reason, next(self._asked), built_in_decodes=built_in, mark=active.mark, reaches=reaches
            )
        except VaeLabError as error:
            return views.alert(error)

    def _built_in_line(self, entries: Sequence[VaeEntry], latent: Generation | None) -> str:
        of = self.host.built_in_of(latent) if latent else self.host.current_checkpoint()
        return views.built_in(of, only=not entries)

    def _card(self, generation: Generation | None) -> str:
        return views.latent_card(generation, source_views.save_link(generation)) if generation else ""

    def _latent(self, source: str | None) -> Generation | None:
        return find_latent(self.host.generations.newest_first(), source)

    def _family(self, source: str | None) -> Family | None:
        latent = self._latent(source)
        return latent.family if latent else None

    # --- handlers --------------------------------------------------------------------------------------------

    def on_refresh(self, *inputs: Any) -> tuple[Any, ...]:
        """Show what the host has now."""
        try:
            problems = self.host.refresh()
            return self._shown(inputs[0], views.alert(" · ".join(problems)) if problems else "", *inputs)
        except VaeLabError as error:
            return self._failed(error)

    def on_load(self, file: Any, *inputs: Any) -> tuple[Any, ...]:
        """Add a file of latents, and select it."""
        try:
            path, sources = Path(uploaded(file)), self.service.sources
            generation = sources.add_latents(read_limited(path, sources.max_upload), path.name)
            message = source_views.loaded(generation, path.name, self._vae_of(generation))
            return self._shown(latent_choice(generation), message, *inputs)
        except VaeLabError as error:
            return self._failed(error)

    def on_encode(self, file: Any, *inputs: Any) -> tuple[Any, ...]:
        """Encode an image with the selected VAE, add the latent, and select it."""
        if file is None:
            return self._failed("There is no image yet; drop one into the field above the button.")
        vae, sources = inputs[3] or BUILT_IN, self.service.sources
        try:
            image = read_image(uploaded(file))
            generation, remarks = sources.encode(image, vae)
            broken = sources.broken_decoder(image.infotext)
            message = source_views.encoded(generation, vae, remarks, self._vae_of(generation), broken)
            return self._shown(latent_choice(generation), message, *inputs)
        except VaeLabError as error:
            return self._failed(error)

    def on_encoder(self, vae: str | None) -> tuple[Any, ...]:
        """Another VAE was selected to encode with."""
        note = source_views.encoder_note(vae or "", self._record(vae) if vae else None)
        return html_update(note), gr.update()  # two, since gradio 4 takes a single answer in a tuple for a value

    def _vae_of(self, generation: Generation) -> FoundVae | None:
        return self.service.hashes.find(generation.infotexts[0]) if generation.infotexts else None

    def _failed(self, error: VaeLabError | str) -> tuple[Any, ...]:
        return (*[gr.update()] * 13, views.alert(error))

    def _shown(
        self, latent: str | None, message: str, source: str | None, ticked: list[str], decoder: str, encoder: str,
        checkpoint: str | None, state: PageState | None,
    ) -> tuple[Any, ...]:  # fmt: skip
        """Updates for everything, with the latent listed as ``latent`` selected."""
        view = self._view(latent, ticked or (), state)
        latents = list(map(latent_choice, view.generations))
        decoders, encoders = decoder_choices(view.entries), self._encoders(view.entries)
        chosen = encoder if state and encoder in encoders and encoder != state.encoder else view.encoder
        # A selection that is not saved yet stays; otherwise the menu follows what is saved.
        pending = decoder if state and decoder in decoders and decoder != state.decoder else view.decoder
        return (
            choice_update(latents, latent_choice(view.chosen) if view.chosen else None, source),
            html_update(source_views.thumbnails(view.generations)),
            *list_update(view.entries, view.ticked, ticked, view.chosen.family if view.chosen else None),
            html_update(self._card(view.chosen)),
            html_update("" if view.generations else views.empty(self.host.how_to_begin)),
            self._built_in_line(view.entries, view.chosen),
            choice_update(decoders, pending, decoder),
            choice_update(encoders, chosen, encoder),
            choice_update(self._checkpoints(), self._checkpoint(), checkpoint),
            # Only when the page has just been opened; later, the user opens and closes it.
            gr.update(open=not view.generations) if state is None else gr.update(),
            self._deciding(),
            view.state,
            message or gr.update(),
        )

    def on_picked(self, picked: str, ticked: list[str], state: PageState | None) -> tuple[Any, ...]:
        """A thumbnail was clicked."""
        unchanged = (*[gr.update()] * 4, state, gr.update())
        try:
            pick = Pick.read(picked)
        except VaeLabError as error:
            return *unchanged, views.alert(error)
        if pick.kind != "latent":
            return *unchanged, gr.update()
        chosen = next((stored for stored in self.host.generations.newest_first() if stored.id == pick.name), None)
        if chosen is None:
            return *unchanged, views.alert(_gone(pick.name, self.host.how_to_begin))
        shown = self.on_source(latent_choice(chosen), ticked, state)
        return gr.update(value=latent_choice(chosen)), *shown, gr.update()

    def on_source(self, source: str | None, ticked: list[str], state: PageState | None) -> tuple[Any, ...]:
        """Another latent was selected: show its card, and VAEs of its family."""
        chosen = self._latent(source)
        if chosen is None:
            return gr.update(), gr.update(), gr.update(), state, gr.update()
        entries = self.host.vaes()
        still = keep_chosen(entries, chosen.family, ticked or (), state)
        state = state or PageState()
        # For another family always send the ticks: ``ticked`` may be older than an answer that changed them.
        before = ticked if state.family == chosen.family.id else None
        listed = list_update(entries, still, before, chosen.family)
        shown = replace(state, family=chosen.family.id)
        return html_update(self._card(chosen)), *listed, shown, self._built_in_line(entries, chosen)

    def on_all(self, source: str | None, ticked: list[str]) -> tuple[Any, ...]:
        """Tick all that fit the latent, of files with the same weights one."""
        entries, family = self.host.vaes(), self._family(source)
        fitting = each_once([entry for entry in entries if fits(entry, family)])
        return list_update(entries, [entry.name for entry in fitting], ticked, family)

    def on_none(self) -> Any:
        """Tick none; the built-in VAE stays."""
        return gr.update(value=[])

    def on_identify(self) -> str:
        """Determine the family of every VAE."""
        try:
            return views.identified(self.service.checkups.identify())
        except VaeLabError as error:
            return views.alert(error)

    def on_identified(self, source: str | None, ticked: list[str]) -> tuple[Any, ...]:
        """List the families, and untick VAEs of another one."""
        entries, family = self.host.vaes(), self._family(source)
        still = [entry.name for entry in entries if fits(entry, family) and entry.name in (ticked or ())]
        return list_update(entries, still, ticked, family)

    def on_compare(self, source: str | None, ticked: list[str]) -> str:
        """Decode; of the newest latent if the page lists none yet."""
        latent = self._latent(source) if source else next(iter(self.host.generations.newest_first()), None)
        if latent is None:
            return views.alert(_gone(source, self.host.how_to_begin))
        try:
            stored = self.service.comparisons.compare(latent.id, in_order(self.host.vaes(), ticked or ()))
        except VaeLabError as error:
            return views.alert(error)
        shown = self.service.comparisons.shown
        return views.summary(stored, replaced=shown is None or shown.id == stored.id)

    def on_compared(self, source: str | None, ticked: list[str]) -> tuple[Any, ...]:
        """Decoding may have determined more families: list them, and keep what is ticked."""
        entries = self.host.vaes()
        still = [entry.name for entry in entries if entry.name in (ticked or ())]
        return list_update(entries, still, ticked, self._family(source))

    def on_use_for_checkpoint(self, vae: str, state: PageState | None) -> tuple[Any, ...]:
        """Use the selected VAE for the current checkpoint from now on."""
        return self._use("checkpoint", vae, state)

    def on_use_always(self, vae: str, state: PageState | None) -> tuple[Any, ...]:
        """Use the selected VAE for every checkpoint from now on."""
        return self._use("always", vae, state)

    def _use(self, reach: Reach, vae: str | None, state: PageState | None) -> tuple[Any, ...]:
        chosen = vae or AUTOMATIC
        try:
            result = self.service.choices.choose(reach, chosen)
        except VaeLabError as error:
            return self._deciding(), views.alert(error), gr.update(), state
        # The menu shows what was just chosen, even if another choice takes precedence.
        seen = replace(state or PageState(), decoder=chosen)
        return self._deciding(), views.note(result.message, undo_id=result.undo_id), gr.update(value=chosen), seen

    def on_checkpoint(self, name: str, decoder: str, source: str | None, state: PageState | None) -> tuple[Any, ...]:
        """Another checkpoint was selected, where the host leaves that to us."""
        try:
            not_saved = self.host.select_checkpoint(name)
            message = views.note(not_saved) if not_saved else ""
        except VaeLabError as error:
            message = views.alert(error)
        entries = self.host.vaes()
        now = saved_choice(self.host.decision(), entries)
        seen = replace(state or PageState(), decoder=now)
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
    """Add the panel to the current Blocks."""
    panel = ComparisonPanel(host)
    panel.build()
    return panel
