"""Clicks in our HTML that a panel must handle, such as on a row of a table.

``javascript/tab/picks.mjs`` writes them into one hidden text field, as JSON; each panel listens for its own kind.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal, cast, get_args

import gradio as gr

from vae_lab.errors import HostError

__all__ = ["Pick", "pick_field"]

Kind = Literal["file", "latent"]


@dataclass(frozen=True)
class Pick:
    """What the user clicked.

    Attributes:
        kind: ``file``: a row of the checkup's table; ``latent``: a thumbnail.
        name: name of the file, or id of the generation.
    """

    kind: Kind
    name: str

    @classmethod
    def read(cls, text: str) -> Pick:
        """Raises HostError: the script is of another version."""
        try:
            values = json.loads(text)
            kind, name = values["kind"], values["name"]
        except (ValueError, KeyError, TypeError, RecursionError):
            kind, name = None, None
        if kind not in get_args(Kind) or not isinstance(name, str):
            raise HostError("this page was loaded by another version of VAE Lab; reload it")
        return cls(cast(Kind, kind), name)


def pick_field(elem_id: str = "vae_lab_picked") -> gr.Textbox:
    """A hidden field. ``style.css`` hides it, because gradio does not render invisible components."""
    field = gr.Textbox(label="Picked", elem_id=elem_id)
    field.do_not_save_to_config = True  # else the WebUI stores it as a default
    return field
