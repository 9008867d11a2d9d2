"""A part of the Library page with a plan: a button shows what would be done, buttons in it do it and undo it."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import gradio as gr

from vae_lab.errors import HostError, VaeLabError
from vae_lab.host.base import Host
from vae_lab.service.service import service_of
from vae_lab.ui.compat import connect, html_update
from vae_lab.ui.panels.picks import pick_field
from vae_lab.ui.views import comparison as views

__all__ = ["PlanSection"]


class PlanSection(ABC):
    """Layout and behaviour. What can be undone is stored, so it is also shown when the page is loaded again."""

    label: str
    """Words on the button."""
    min_width: int
    """Of the button, in pixels."""
    button_id: str
    section_id: str
    field: str
    """Beginning of the ids of the field in which the section's script asks, and of the column around it."""

    def __init__(self, host: Host) -> None:
        self.service = service_of(host)

    def build_button(self) -> None:
        """Add the button that shows what would be done; it is visible once a scan has found something."""
        how = {"visible": False, "scale": 0, "min_width": self.min_width, "elem_id": self.button_id}
        self.button = gr.Button(self.label, **how)

    def build(self) -> None:
        """Add the section, and the field in which its script asks."""
        self.section = gr.HTML(visible=False, elem_id=self.section_id)
        with gr.Column(elem_id=f"{self.field}_field"):  # gradio draws a frame around a field, a hidden one too
            self.asked = pick_field(f"{self.field}_asked")
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

    @abstractmethod
    def _plan(self, is_open: bool) -> tuple[str, bool]:
        """HTML of the section, and whether the button is visible even if the section is closed."""

    @abstractmethod
    def _action(self, wanted: Any) -> tuple[Callable[[], str], bool]:
        """What was asked for, which returns a message, and whether the section closes when it is done.

        Raises:
            KeyError, TypeError: the page is of another version.
        """

    # --- handlers --------------------------------------------------------------------------------------------

    def on_shown(self, is_open: bool) -> tuple[Any, ...]:
        """The page came into view, or a scan ended."""
        try:
            return self._show(is_open)
        except VaeLabError as error:
            return gr.update(), html_update(views.alert(error))

    def on_button(self, is_open: bool) -> tuple[Any, ...]:
        """Show what would be done, or hide that again."""
        return self._do(not is_open, lambda: "", not is_open)

    def on_asked(self, asked: str, is_open: bool) -> tuple[Any, ...]:
        """One of the section's own buttons was clicked."""
        try:
            work, closes = self._action(json.loads(asked))
        except (ValueError, KeyError, TypeError, RecursionError):
            error = HostError("this page was loaded by another version of VAE Lab; reload it")
            return gr.update(), gr.update(), is_open, html_update(views.alert(error))
        return self._do(is_open and not closes, work, is_open)

    def _do(self, opened: bool, work: Callable[[], str], if_failed: bool) -> tuple[Any, ...]:
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
        html, is_useful = self._plan(is_open)
        return gr.update(visible=is_open or is_useful), html_update(html)
