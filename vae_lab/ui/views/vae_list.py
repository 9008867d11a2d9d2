"""Groups of the list of VAEs, for ``javascript/tab/vae_list.mjs``."""

from __future__ import annotations

import json
from collections.abc import Sequence

from vae_lab.messages import translated
from vae_lab.ui.views.html import render

__all__ = ["groups_html"]


def groups_html(groups: Sequence[tuple[str, Sequence[int]]], misfits: Sequence[int]) -> str:
    """Not visible.

    Args:
        groups: title in English, and the number of files of each VAE, in the order of the list.
        misfits: places of VAEs in the list that do not fit the latents.
    """
    named = [{"title": translated(title), "sizes": sizes} for title, sizes in groups]
    return render("vae_list", "groups", json.dumps({"groups": named, "misfits": misfits}))
