"""The accordion of the Extras tab."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from vae_lab.host.base import Host
from vae_lab.host.choices import AUTOMATIC
from vae_lab.ui.compat import build_for, choice_update, connect
from vae_lab.ui.panels.selection import decoder_choices

__all__ = ["build_extras"]

_ID = "vae_lab_extras"
_ENCODE = "Automatic: the VAE in use, or if that is known to be broken, the recommended one."
_DECODE = "Automatic: the VAE that encodes. The size of the image and its transparency stay as they are."


def build_extras(host: Host, input_accordion: Callable[..., Any] | None) -> dict[str, Any]:
    """Add the accordion to the current Blocks. No side effects: hosts build it several times.

    Args:
        host: provides the VAEs.
        input_accordion: the host's accordion with a value, which is True while it is open; None if it has none.

    Returns:
        The inputs of the host's script: ``enabled``, ``encode`` and ``decode``.
    """
    label = "VAE round trip"
    with build_for(host):
        if input_accordion is not None:
            with input_accordion(False, label=label, elem_id=_ID) as enabled:
                encode, decode = _menus(host)
        else:
            with gr.Accordion(label, open=False, elem_id=_ID):
                enabled = gr.Checkbox(False, label="Enable", elem_id=f"{_ID}_enabled")
                encode, decode = _menus(host)
    return {"enabled": enabled, "encode": encode, "decode": decode}


def _menus(host: Host) -> tuple[gr.Dropdown, gr.Dropdown]:
    choices = decoder_choices(host.vaes())
    with gr.Column(elem_classes=["vae-lab"]), gr.Row(elem_classes=["vae-lab-top"]):
        encode, decode = (
            gr.Dropdown(choices, value=AUTOMATIC, label=label, info=info, scale=2, elem_id=f"{_ID}_{name}")
            for name, label, info in (("encode", "Encode with", _ENCODE), ("decode", "Decode with", _DECODE))
        )
        refresh = gr.Button("Refresh", size="sm", scale=0, min_width=90, elem_id=f"{_ID}_refresh")
    listed = gr.State(choices)  # current entries of this page's menus

    def on_refresh(encoder: str | None, decoder: str | None, listed: list[str]) -> tuple[Any, ...]:
        host.listing(fresh=True)
        now = decoder_choices(host.vaes())
        kept = (value if value in now else AUTOMATIC for value in (encoder, decoder))
        menus = (
            choice_update(now, value, shown, listed) for value, shown in zip(kept, (encoder, decoder), strict=True)
        )
        return (*menus, now)

    connect(refresh.click, on_refresh, [encode, decode, listed], [encode, decode, listed])
    return encode, decode
