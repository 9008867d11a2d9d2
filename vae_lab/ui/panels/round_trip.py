"""The panel that encodes and decodes an image with many VAEs, and shows the loss."""

from __future__ import annotations

import itertools
from typing import Any

import gradio as gr
from PIL import Image

from vae_lab.errors import VaeLabError
from vae_lab.host.base import Host
from vae_lab.images import LONGEST_SIDE, LoadedImage, infotext_of, read_image
from vae_lab.samples import sample_photos
from vae_lab.service.service import service_of
from vae_lab.ui.compat import connect, html_update, image_input
from vae_lab.ui.panels.selection import PageState, each_once, in_order, keep_chosen
from vae_lab.ui.panels.vae_list import VaeList, list_update
from vae_lab.ui.views import comparison as views
from vae_lab.ui.views import round_trip as round_trip_views

__all__ = ["RoundTripPanel", "build_round_trip_panel"]

_SIDES = {f"{side} pixels": side for side in (512, LONGEST_SIDE, 1536, 2048)}


class RoundTripPanel:
    """Layout and behaviour. Handlers return one update for each of their outputs."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.service = service_of(host)
        self._asked = itertools.count()

    # --- layout ----------------------------------------------------------------------------------------------

    def build(self) -> None:
        """Add the panel to the current Blocks."""
        entries = self.host.vaes()
        with (
            gr.Column(elem_id="vae_lab_roundtrip", elem_classes=["vae-lab"]),
            gr.Row(elem_classes=["vae-lab-columns"]),
        ):
            with gr.Column(scale=1, min_width=320, elem_classes=["vae-lab-choices"]):
                self.image = image_input(label="Image", height=280, elem_id="vae_lab_roundtrip_image")
                self.sample = gr.Button("Use a sample photo", size="sm", elem_id="vae_lab_roundtrip_sample")
                self.longest = gr.Dropdown(
                    list(_SIDES), value=f"{LONGEST_SIDE} pixels", label="Maximum side length",
                    elem_id="vae_lab_roundtrip_longest",
                )  # fmt: skip
                self.built_in = gr.HTML(self._built_in_line(), elem_id="vae_lab_roundtrip_built_in")
                ticked = keep_chosen(entries, None, (), None)
                self.list = VaeList(entries, ticked, None, label="VAEs", elem_id="vae_lab_roundtrip_vaes")
                self.vaes = self.list.boxes
                with gr.Row(elem_classes=["vae-lab-tools"]):
                    self.all = gr.Button("All", size="sm", min_width=60, elem_id="vae_lab_roundtrip_all")
                    self.none = gr.Button("None", size="sm", min_width=60, elem_id="vae_lab_roundtrip_none")
                    self.refresh = gr.Button("Refresh", size="sm", min_width=80, elem_id="vae_lab_roundtrip_refresh")
                self.run = gr.Button("Round trip", variant="primary", elem_id="vae_lab_roundtrip_run")
            with gr.Column(scale=4, min_width=480, elem_classes=["vae-lab-results"]):
                with gr.Row(elem_classes=["vae-lab-running"]):
                    gr.HTML(views.PROGRESS, elem_id="vae_lab_roundtrip_progress")
                    gr.Button(
                        "Cancel", variant="stop", size="sm", scale=0, min_width=100, elem_id="vae_lab_roundtrip_cancel"
                    )
                self.message = gr.HTML(elem_id="vae_lab_roundtrip_message")
                self.empty = gr.HTML(round_trip_views.begin(), elem_id="vae_lab_roundtrip_empty")
                self.results = gr.HTML(elem_id="vae_lab_roundtrip_results")
        self.longest.do_not_save_to_config = True  # the WebUI would store it as the default of later starts
        self._wire()

    def _wire(self) -> None:
        refreshed = [*self.list.outputs, self.built_in, self.message]
        connect(self.refresh.click, self.on_refresh, [self.vaes], refreshed)
        connect(self.all.click, self.on_all, [self.vaes], self.list.outputs)
        connect(self.sample.click, self.on_sample, [], [self.image])
        connect(self.none.click, self.on_none, [], [self.vaes])
        asked = [self.image, self.longest, self.vaes]
        connect(self.run.click, self.on_run, asked, [self.results, self.empty, self.message])
        # Cancel and the progress bar belong to javascript/tab/runs.mjs: they must work while a handler here blocks.

    def _built_in_line(self) -> str:
        return views.built_in(self.host.current_checkpoint(), not self.host.vaes(), next(self._asked))

    # --- handlers --------------------------------------------------------------------------------------------

    def on_refresh(self, ticked: list[str] | None) -> tuple[Any, ...]:
        """Show the VAEs that the host has now."""
        try:
            self.host.listing(fresh=True)
            entries = self.host.vaes()
            selected = keep_chosen(entries, None, ticked or (), PageState())
            return *list_update(entries, selected, ticked, None), self._built_in_line(), gr.update()
        except VaeLabError as error:
            return gr.update(), gr.update(), gr.update(), views.alert(error)

    def on_all(self, ticked: list[str] | None) -> tuple[Any, ...]:
        """Tick all usable VAEs of any family, because each encodes the image itself; each once."""
        entries = self.host.vaes()
        usable = each_once([entry for entry in entries if not entry.problem])
        return list_update(entries, [entry.name for entry in usable], ticked, None)

    def on_none(self) -> Any:
        """Tick none; the built-in VAE stays."""
        return gr.update(value=[])

    def on_sample(self) -> Any:
        """Put in a photo of the sample set, for users who have no image at hand."""
        return Image.open(next(iter(sample_photos().values()))).convert("RGBA")

    def on_run(self, image: Any, longest: str | None, ticked: list[str] | None) -> tuple[Any, ...]:
        """Encode, decode, and show the results."""
        if image is None:
            return (
                gr.update(),
                gr.update(),
                views.alert("There is no image yet: drop one into the field on the left, or press Use a sample photo."),
            )
        try:
            dropped = isinstance(image, Image.Image)
            loaded = LoadedImage(image, infotext=infotext_of(image)) if dropped else read_image(image)
            side = _SIDES.get(longest or "", LONGEST_SIDE)
            stored = self.service.round_trips.run(loaded, in_order(self.host.vaes(), ticked or ()), side)
        except VaeLabError as error:
            return gr.update(), gr.update(), views.alert(error)
        if not stored.trip.results:  # cancelled before the first result: keep what is shown
            return gr.update(), gr.update(), round_trip_views.summary(stored)
        found = self.service.hashes.find(loaded.infotext)
        return round_trip_views.results(stored), html_update(""), round_trip_views.summary(stored, found)


def build_round_trip_panel(host: Host) -> RoundTripPanel:
    """Add the panel to the current Blocks."""
    panel = RoundTripPanel(host)
    panel.build()
    return panel
