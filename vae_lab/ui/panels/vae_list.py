"""The list of VAEs to tick: boxes, and how ``javascript/tab/vae_list.mjs`` groups them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import gradio as gr

from vae_lab.host.base import VaeEntry
from vae_lab.latents.family import Family
from vae_lab.ui.compat import choice_update
from vae_lab.ui.panels.selection import fits, grouped, vae_choices
from vae_lab.ui.views.vae_list import groups_html

__all__ = ["VaeList", "list_update"]


class VaeList:
    """The component ``boxes`` holds the names that are ticked.

    Args:
        entries: all VAEs.
        ticked: names of those to tick.
        family: of the latents; None if any family will do.
    """

    def __init__(
        self, entries: Sequence[VaeEntry], ticked: Sequence[str], family: Family | None, *, label: str, elem_id: str
    ) -> None:
        in_order, groups = _arranged(entries, family)
        self.boxes = gr.CheckboxGroup(
            vae_choices(in_order), value=list(ticked), label=label, elem_id=elem_id, elem_classes=["vae-lab-vaes"]
        )
        self.boxes.do_not_save_to_config = True  # the WebUI would store today's list as the default of later starts
        self.groups = gr.HTML(groups, elem_id=f"{elem_id}_groups")
        self.outputs = [self.boxes, self.groups]


def list_update(
    entries: Sequence[VaeEntry], ticked: Sequence[str], shown: Any, family: Family | None
) -> tuple[Any, Any]:
    """New VAEs for a list's ``outputs``; for ``ticked`` and ``shown`` see :func:`choice_update`."""
    in_order, groups = _arranged(entries, family)
    return choice_update(vae_choices(in_order), list(ticked), shown), groups


def _arranged(entries: Sequence[VaeEntry], family: Family | None) -> tuple[list[VaeEntry], str]:
    """The VAEs in the order of the list, and their groups for the script."""
    groups = grouped(entries, family)
    in_order = list(chain.from_iterable(vae for group in groups for vae in group.vaes))
    misfits = [i for i, entry in enumerate(in_order) if not fits(entry, family)]
    return in_order, groups_html([(group.title, list(map(len, group.vaes))) for group in groups], misfits)
