"""Fix all, a part of the Library page: shows what would be done, chooses VAEs or bakes them in, and undoes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vae_lab.ui.panels.plan_section import PlanSection
from vae_lab.ui.views import fixes as fix_views

__all__ = ["FixSection"]


class FixSection(PlanSection):
    """``javascript/tab/fixes.mjs`` asks. The button is visible if a scan has found something to fix."""

    label = "Fix all…"
    min_width = 140
    button_id = "vae_lab_library_fix"
    section_id = "vae_lab_library_fixes"
    field = "vae_lab_fix"

    def _plan(self, is_open: bool) -> tuple[str, bool]:
        fixes, bakes = self.service.fixes, self.service.bake_all
        if is_open:
            html = fix_views.plan(fixes.plan(), bakes.plan(fresh=False))
        else:
            html = fix_views.changed(fixes.changed()) + fix_views.written(bakes.written())
        return html, self.service.scans.inventory().to_fix > 0

    def _action(self, wanted: Any) -> tuple[Callable[[], str], bool]:
        action, checkpoints = wanted["action"], wanted["checkpoints"]
        if action == "apply" and isinstance(checkpoints, list):
            return lambda: fix_views.done(self.service.fixes.apply(checkpoints)), True
        if action == "bake" and isinstance(checkpoints, list):
            return lambda: fix_views.baked(self.service.bake_all.apply(checkpoints)), True
        if action == "undo":
            return lambda: fix_views.undone(self.service.fixes.undo()), False
        if action == "remove":
            return lambda: fix_views.removed(self.service.bake_all.undo()), False
        raise KeyError(action)
