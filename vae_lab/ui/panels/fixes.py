"""Fix all, a part of the Library page: shows what would be done, does it, and undoes it."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from vae_lab.errors import HostError, VaeLabError
from vae_lab.host.base import Host
from vae_lab.service.service import service_of
from vae_lab.ui.compat import connect, html_update
from vae_lab.ui.panels.picks import pick_field
from vae_lab.ui.views import comparison as views
from vae_lab.ui.views import fixes as fix_views

__all__ = ["FixSection"]


class FixSection:
    """Layout and behaviour. What can be undone is stored, so it is also shown when the page is loaded again."""

    def __init__(self, host: Host) -> None:
        self.service = service_of(host)

    def build_button(self) -> None:
        """Add the button that shows what would be done; it is visible if a scan has found something to fix."""
        self.button = gr.Button(
            "Fix all…", visible=False, scale=0, min_width=140, elem_id="vae_lab_library_fix"
        )  # fmt: skip

    def build(self) -> None:
        """Add the section, and the field in which ``javascript/tab/fixes.mjs`` asks."""
        self.section = gr.HTML(visible=False, elem_id="vae_lab_library_fixes")
        with gr.Column(elem_id="vae_lab_fix_field"):  # gradio draws a frame around a field, a hidden one too
            self.asked = pick_field("vae_lab_fix_asked")
        self.is_open = gr.State(False)

    def wire(self, message: gr.HTML, *runs: Any) -> None:
        """Attach the handlers.

        Args:
            message: where results are reported.
            runs: events after which something else may have to be fixed.
        """
        shown = [self.button, self.section]
        for run in runs:
            connect(run.then, self.on_shown, [self.is_open], shown)
        connect(self.button.click, self.on_button, [self.is_open], [*shown, self.is_open, message])
        connect(self.asked.input, self.on_asked, [self.asked, self.is_open], [*shown, self.is_open, message])

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
        """*Use these VAEs* or *Undo all* was clicked."""
        try:
            wanted = json.loads(asked)
            action, checkpoints = wanted["action"], wanted["checkpoints"]
        except (ValueError, KeyError, TypeError, RecursionError):
            action, checkpoints = "", []
        if action == "apply" and isinstance(checkpoints, list):
            return self._do(False, lambda: fix_views.done(self.service.fixes.apply(checkpoints)), is_open)
        if action == "undo":
            return self._do(is_open, lambda: fix_views.undone(self.service.fixes.undo()), is_open)
        error = HostError("this page was loaded by another version of VAE Lab; reload it")
        return gr.update(), gr.update(), is_open, html_update(views.alert(error))

    def _do(self, opened: bool, work: Any, if_failed: bool = False) -> tuple[Any, ...]:
        """Updates for button, section, state and message."""
        try:
            message = html_update(work())
        except VaeLabError as error:
            opened, message = if_failed, html_update(views.alert(error))
        try:
            return (*self._show(opened), opened, message)
        except VaeLabError as error:
            return gr.update(), html_update(""), False, html_update(views.alert(error))

    def _show(self, is_open: bool) -> tuple[Any, ...]:
        fixes = self.service.fixes
        html = fix_views.plan(fixes.plan()) if is_open else fix_views.changed(fixes.changed())
        return gr.update(visible=is_open or self.service.scans.inventory().to_fix > 0), html_update(html)
