"""Extract and deduplicate, a part of the Library page: shows what would be done, does it, and undoes the links."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vae_lab.errors import HostError
from vae_lab.ui.panels.plan_section import PlanSection
from vae_lab.ui.views import comparison as views
from vae_lab.ui.views import vae_files as file_views

__all__ = ["VaeFileSection"]


class VaeFileSection(PlanSection):
    """``javascript/tab/vae_files.mjs`` asks. The button is visible once a scan has found something."""

    label = "Extract and deduplicate…"
    min_width = 200
    button_id = "vae_lab_library_vae_files_open"
    section_id = "vae_lab_library_vae_files"
    field = "vae_lab_files"

    def _plan(self, is_open: bool) -> tuple[str, bool]:
        html = self._plans() if is_open else file_views.replaced(self.service.dedupe.replaced())
        return html, bool(self.service.scans.inventory().overview.counts)

    def _plans(self) -> str:
        try:
            extractions = file_views.extractions(self.service.extracts.plan())
        except HostError as error:  # a host without a folder for VAEs
            extractions = views.alert(error)
        return extractions + file_views.copies(self.service.dedupe.plan(fresh=False))

    def _action(self, wanted: Any) -> tuple[Callable[[], str], bool]:
        names, service = wanted["names"], self.service
        if not isinstance(names, list):
            raise TypeError(names)
        actions: dict[str, Callable[[], str]] = {
            "extract": lambda: file_views.extracted(service.extracts.apply(names)),
            "dedupe": lambda: file_views.deduped(service.dedupe.apply(names)),
            "undo": lambda: file_views.undone(service.dedupe.undo()),
        }
        return actions[wanted["action"]], False
