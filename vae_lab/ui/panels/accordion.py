"""The accordion below the settings of txt2img and img2img."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from vae_lab.errors import VaeLabError
from vae_lab.host.base import Host
from vae_lab.host.choices import AUTOMATIC, BUILT_IN, ON_GREY
from vae_lab.host.guard import for_host
from vae_lab.host.plan import AS_IN_SETTINGS
from vae_lab.messages import use_language
from vae_lab.service.service import service_of
from vae_lab.ui.compat import build_for, choice_update, connect, html_update
from vae_lab.ui.panels.selection import decoder_choices
from vae_lab.ui.views import comparison as views

__all__ = ["Accordion", "build_accordion"]

_ON_GREY = (
    "off: do nothing. warn: show a warning under the image. redecode: decode the same latent again with a healthy VAE "
    "(no re-sampling)."
)


@dataclass(frozen=True)
class Accordion:
    """What the host's script needs from the accordion.

    Attributes:
        components: inputs of the script. Their order never changes, because API calls pass them by position: the VAE
            that decodes (a name, ``Built-in`` or ``Automatic``), the VAEs that also decode, and what to do if an image
            is grey (one of ``ON_GREY``, or ``As in Settings``).
        deciding: HTML line that names the VAE that decodes, and why.
        box: the accordion itself.
        not_here: HTML line, hidden if empty, for a VAE in pasted generation parameters that the user does not have.
    """

    components: tuple[gr.Dropdown, gr.Dropdown, gr.Dropdown]
    deciding: gr.HTML
    box: gr.Accordion
    not_here: gr.HTML

    def say_not_here(self, reason: str) -> Any:
        """An update of ``not_here``, for a sentence in the user's language, or ""."""
        return html_update(views.alert(reason) if reason else "")

    def open_for(self, reason: str) -> Any:
        """An update of ``box``, which must be open for the user to see the sentence."""
        return gr.update(open=True) if reason else gr.update()

    def leave(self) -> Any:
        """An update that changes nothing."""
        return gr.update()


def build_accordion(host: Host, tab: str) -> Accordion:
    """Add the accordion to the current Blocks. No side effects: hosts build it several times.

    Args:
        host: provides VAEs and decision.
        tab: ``txt2img`` or ``img2img``, part of the element ids.
    """
    entries = host.vaes()
    names = [entry.name for entry in entries]

    box = gr.Accordion(label="VAE Lab", open=False, elem_id=f"vae_lab_{tab}", elem_classes=["vae-lab"])
    with build_for(host), box:
        with gr.Row(elem_classes=["vae-lab-top"]):
            override = gr.Dropdown(
                decoder_choices(entries),
                value=AUTOMATIC,
                label="VAE for this generation",
                scale=2,
                elem_id=f"vae_lab_{tab}_override",
            )
            compare = gr.Dropdown(
                names, value=[], multiselect=True, label="Also decode with", scale=3,
                elem_id=f"vae_lab_{tab}_compare",
            )  # fmt: skip
            refresh = gr.Button("Refresh", size="sm", scale=0, min_width=90, elem_id=f"vae_lab_{tab}_refresh")
        on_grey = gr.Dropdown(
            [AS_IN_SETTINGS, *ON_GREY], value=AS_IN_SETTINGS, label="If the image comes out grey", info=_ON_GREY,
            elem_id=f"vae_lab_{tab}_on_grey",
        )  # fmt: skip
        # A callable, so that it is evaluated at every page load: the host's settings may have changed since.
        deciding = gr.HTML(_starting_line(host, override), elem_id=f"vae_lab_{tab}_deciding")
        not_here = gr.HTML(visible=False, elem_id=f"vae_lab_{tab}_not_here")
        listed = gr.State([decoder_choices(entries), names])  # current entries of this page's menus

    def on_refresh(choice: str | None, also: list[str] | None, listed: list[list[str]]) -> tuple[Any, ...]:
        host.listing(fresh=True)
        entries = host.vaes()
        choices, now = decoder_choices(entries), [entry.name for entry in entries]
        selected = choice if choice in choices else AUTOMATIC
        still = [name for name in also or () if name in now]
        menus = choice_update(choices, selected, choice, listed[0]), choice_update(now, still, also, listed[1])
        return (*menus, [choices, now])

    def on_choice(choice: str | None) -> str:
        return _line(host, choice)

    connect(override.change, on_choice, [override], [deciding])
    refreshed = connect(refresh.click, on_refresh, [override, compare, listed], [override, compare, listed])
    # Reads the menu again: the first handler may have taken a while.
    connect(refreshed.then, on_choice, [override], [deciding])
    connect(override.input, lambda: html_update(""), [], [not_here])
    return Accordion((override, compare, on_grey), deciding, box, not_here)


def _line(host: Host, choice: str | None) -> str:
    try:
        mark, decision = service_of(host).choices.active().mark, host.decision(choice or AUTOMATIC)
        return views.deciding(decision.reason, built_in_decodes=decision.vae == BUILT_IN, mark=mark)
    except VaeLabError as error:
        return views.alert(error)


def _starting_line(host: Host, override: gr.Dropdown) -> Callable[[], str]:
    # The host may have changed the dropdown's value after it was built, from its stored defaults.
    @for_host("naming the VAE that decodes", str)
    def line() -> str:
        with use_language(host.language):
            return _line(host, override.value if isinstance(override.value, str) else AUTOMATIC)

    return line
