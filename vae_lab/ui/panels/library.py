"""The panel of all files: a scan, and its results in a table with filter, sort order and pages."""

from __future__ import annotations

from typing import Any

import gradio as gr

from vae_lab.errors import VaeLabError
from vae_lab.host.base import Host
from vae_lab.service.service import service_of
from vae_lab.ui.compat import connect, follow, html_update
from vae_lab.ui.panels.fixes import FixSection
from vae_lab.ui.panels.vae_files import VaeFileSection
from vae_lab.ui.views import comparison as views
from vae_lab.ui.views import library as library_views

__all__ = ["PAGE_SIZE", "LibraryPanel", "build_library_panel"]

PAGE_SIZE = 50


class LibraryPanel:
    """Layout and behaviour. Handlers return one update for each of their outputs."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.service = service_of(host)
        self.fixes = FixSection(host)
        self.vae_files = VaeFileSection(host)

    # --- layout ----------------------------------------------------------------------------------------------

    def build(self) -> None:
        """Add the panel to the current Blocks."""
        with gr.Column(elem_id="vae_lab_library", elem_classes=["vae-lab"]):
            with gr.Row(elem_classes=["vae-lab-library-head"]):
                self.overview = gr.HTML(elem_id="vae_lab_library_overview")
                self.scan = gr.Button("Scan", variant="primary", scale=0, min_width=140, elem_id="vae_lab_library_scan")
                self.fixes.build_button()
                self.vae_files.build_button()
                self.refresh = gr.Button("Refresh", scale=0, min_width=100, elem_id="vae_lab_library_refresh")
            with gr.Row(elem_classes=["vae-lab-running"]):
                gr.HTML(views.PROGRESS, elem_id="vae_lab_library_progress")
                gr.Button("Cancel", variant="stop", size="sm", scale=0, min_width=100, elem_id="vae_lab_library_cancel")
            self.message = gr.HTML(elem_id="vae_lab_library_message")
            self.fixes.build()
            self.vae_files.build()
            self._build_table()
        # The WebUI would store today's filter as the default of later starts.
        for asked in (self.filter, self.status, self.sort, self.jump):
            asked.do_not_save_to_config = True
        self._wire()

    def _build_table(self) -> None:
        with gr.Row(elem_classes=["vae-lab-top"]):
            self.filter = gr.Textbox(
                label="Search", placeholder="name, family, published name, finding or hash", scale=4, min_width=240,
                max_lines=1, elem_id="vae_lab_library_filter",
            )  # fmt: skip
            statuses, orders = list(library_views.STATUSES), list(library_views.ORDERS)
            self.status = gr.Dropdown(
                statuses, value=statuses[0], label="Status", scale=1, min_width=180, elem_id="vae_lab_library_status"
            )
            self.sort = gr.Dropdown(
                orders, value=orders[0], label="Sort by", scale=1, min_width=180, elem_id="vae_lab_library_sort"
            )
        self.table = gr.HTML(visible=False, elem_id="vae_lab_library_table")
        with gr.Row(elem_classes=["vae-lab-pager"]):
            self.previous = gr.Button(
                "Previous", size="sm", scale=0, min_width=100, visible=False, elem_id="vae_lab_library_previous"
            )
            self.position = gr.HTML(elem_id="vae_lab_library_position")
            self.next = gr.Button(
                "Next", size="sm", scale=0, min_width=100, visible=False, elem_id="vae_lab_library_next"
            )
            self.jump = gr.Number(
                value=1, precision=0, label="Go to page", scale=0, min_width=170, visible=False,
                elem_id="vae_lab_library_jump",
            )  # fmt: skip
            self.downloads = gr.HTML(elem_id="vae_lab_library_downloads")
        self.page = gr.State(0)

    def _wire(self) -> None:
        asked = [self.filter, self.status, self.sort]
        shown = [
            *(self.overview, self.table, self.position, self.previous, self.next, self.jump, self.downloads),
            *(self.page, self.message),
        ]
        refreshed = connect(self.refresh.click, self.on_refresh, [*asked, self.page], shown)
        scanned = connect(self.scan.click, self.on_scan, asked, shown)
        for section in (self.fixes, self.vae_files):
            changed = section.wire(self.message, refreshed, scanned)
            connect(changed.then, self.on_refresh, [*asked, self.page], shown)
        connect(self.previous.click, self.on_previous, [*asked, self.page], shown)
        connect(self.next.click, self.on_next, [*asked, self.page], shown)
        follow([self.jump.input], self.on_jump, [self.jump], asked, outputs=shown)
        # ``change``, because gradio 4 drops an ``input`` event while an earlier one is being handled.
        follow([self.filter.change, self.status.input, self.sort.input], self.on_asked, asked, outputs=shown)
        # Cancel and the progress bar belong to javascript/tab/runs.mjs: they must work while a handler here blocks.

    # --- handlers --------------------------------------------------------------------------------------------

    def on_refresh(self, text: str | None, status: str | None, sort: str | None, page: int | None) -> tuple[Any, ...]:
        """List the files again, and show what is known about them."""
        return self._show(text, status, sort, page or 0, fresh=True)

    def on_asked(self, text: str | None, status: str | None, sort: str | None) -> tuple[Any, ...]:
        """The filter or sort order changed: show the first page."""
        return self._show(text, status, sort, 0)

    def on_previous(self, text: str | None, status: str | None, sort: str | None, page: int | None) -> tuple[Any, ...]:
        """Show the previous page."""
        return self._show(text, status, sort, (page or 0) - 1)

    def on_next(self, text: str | None, status: str | None, sort: str | None, page: int | None) -> tuple[Any, ...]:
        """Show the next page."""
        return self._show(text, status, sort, (page or 0) + 1)

    def on_jump(self, number: float | None, text: str | None, status: str | None, sort: str | None) -> tuple[Any, ...]:
        """Show the page of that number, from 1; the nearest one if there is none."""
        return self._show(text, status, sort, int(number or 1) - 1, typed=number)

    def on_scan(self, text: str | None, status: str | None, sort: str | None) -> tuple[Any, ...]:
        """Scan all files, and show the first page."""
        try:
            message = library_views.scanned(self.service.scan())
        except VaeLabError as error:
            message = views.alert(error)
        return (*self._show(text, status, sort, 0)[:-1], html_update(message))

    def _show(
        self, text: str | None, status: str | None, sort: str | None, page: int, *, fresh: bool = False,
        typed: float | None = None,
    ) -> tuple[Any, ...]:  # fmt: skip
        """Updates for everything; ``typed`` is what the field for the page shows."""
        try:
            found = self.service.scans.inventory(fresh=fresh).overview
            shown = self.service.scans.vaes(
                text or "",
                library_views.STATUSES.get(status or "", ""),
                library_views.ORDERS.get(sort or "", "worst"),
                page,
                PAGE_SIZE,
            )
        except VaeLabError as error:
            return (*[gr.update()] * 8, html_update(views.alert(error)))
        several = shown.pages > 1
        return (
            library_views.overview(found),
            html_update(library_views.table(shown, found)),
            library_views.position(shown),
            gr.update(visible=several, interactive=shown.page > 0),
            gr.update(visible=several, interactive=shown.page + 1 < shown.pages),
            # A number that the user types is not written again.
            gr.update(visible=several, **({"value": shown.page + 1} if shown.page + 1 != typed else {})),
            library_views.downloads(found),
            shown.page,
            gr.update(),
        )


def build_library_panel(host: Host) -> LibraryPanel:
    """Add the panel to the current Blocks."""
    panel = LibraryPanel(host)
    panel.build()
    return panel
