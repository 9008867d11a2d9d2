"""Extract and deduplicate, a part of the Library page: shows what would be done, does it, and undoes the links."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import gradio as gr

from vae_lab.errors import HostError, VaeLabError
from vae_lab.host.base import Host
from vae_lab.service.service import service_of
from vae_lab.ui.compat import connect, html_update
from vae_lab.ui.panels.picks import pick_field
from vae_lab.ui.views import comparison as views
from vae_lab.ui.views import vae_files as file_views

__all__ = ["VaeFileSection"]


class VaeFileSection:
    """Layout and behaviour. What can be undone is stored, so it is also shown when the page is loaded again."""

    def __init__(self, host: Host) -> None:
        self.service = service_of(host)

    def build_button(self) -> None:
        """Add the button that shows what would be done; it is visible once a scan has found something."""
        self.button = gr.Button(
            "Extract and deduplicate…", visible=False, scale=0, min_width=200, elem_id="vae_lab_library_vae_files_open"
        )

    def build(self) -> None:
        """Add the section, and the field in which ``javascript/tab/vae_files.mjs`` asks."""
        self.section = gr.HTML(visible=False, elem_id="vae_lab_library_vae_files")
        with gr.Column(elem_id="vae_lab_files_field"):  # gradio draws a frame around a field, a hidden one too
            self.asked = pick_field("vae_lab_files_asked")
        self.is_open = gr.State(False)

    def wire(self, message: gr.HTML, *runs: Any) -> Any:
        """Attach the handlers; returns the event after which files may have changed.

        Args:
            message: where results are reported.
            runs: events after which something else may be known.
        """
        shown = [self.button, self.section]
        for run in runs:
            connect(run.then, self.on_shown, [self.is_open], shown)
        connect(self.button.click, self.on_button, [self.is_open], [*shown, self.is_open, message])
        return connect(self.asked.input, self.on_asked, [self.asked, self.is_open], [*shown, self.is_open, message])

    # --- handlers --------------------------------------------------------------------------------------------

    def on_shown(self, is_open: bool) -> tuple[Any, ...]:
        """The page came into view, or a scan ended."""
        try:
            return self._show(is_open)
        except VaeLabError as error:
            return gr.update(), html_update(views.alert(error))

    def on_button(self, is_open: bool) -> tuple[Any, ...]:
        """Show what would be done, or hide that again."""
        return self._do(not is_open, lambda: "")

    def on_asked(self, asked: str, is_open: bool) -> tuple[Any, ...]:
        """One of the section's own buttons was clicked."""
        try:
            wanted = json.loads(asked)
            action, names = wanted["action"], wanted["names"]
        except (ValueError, KeyError, TypeError, RecursionError):
            action, names = "", None
        service = self.service
        actions: dict[str, Callable[[], str]] = {
            "extract": lambda: file_views.extracted(service.extracts.apply(names)),
            "dedupe": lambda: file_views.deduped(service.dedupe.apply(names)),
            "undo": lambda: file_views.undone(service.dedupe.undo()),
        }
        if not isinstance(names, list) or action not in actions:
            error = HostError("this page was loaded by another version of VAE Lab; reload it")
            return gr.update(), gr.update(), is_open, html_update(views.alert(error))
        return self._do(is_open, actions[action])

    def _do(self, opened: bool, work: Callable[[], str]) -> tuple[Any, ...]:
        """Updates for button, section, state and message."""
        try:
            message = html_update(work())
        except VaeLabError as error:
            message = html_update(views.alert(error))
        try:
            return (*self._show(opened), opened, message)
        except VaeLabError as error:
            return gr.update(), html_update(""), False, html_update(views.alert(error))

    def _show(self, is_open: bool) -> tuple[Any, ...]:
        html = self._plans() if is_open else file_views.replaced(self.service.dedupe.replaced())
        scanned = bool(self.service.scans.inventory().overview.counts)
        return gr.update(visible=is_open or scanned), html_update(html)

    def _plans(self) -> str:
        try:
            extractions = file_views.extractions(self.service.extracts.plan())
        except HostError as error:  # a host without a folder for VAEs
            extractions = views.alert(error)
        return extractions + file_views.copies(self.service.dedupe.plan(fresh=False))
