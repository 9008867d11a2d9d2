"""An axis of the WebUI's X/Y/Z plot that varies the VAE, with the accordion's choices, on every host with the plot.

The WebUI's own axis *VAE* knows VAEs only by file name, and does nothing in Forge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from modules import scripts

from vae_lab.host.base import Host
from vae_lab.host.choices import AUTOMATIC, BUILT_IN
from vae_lab.host.guard import for_host, guarded

__all__ = ["LABEL", "add_axis", "chosen_by_axis"]

LABEL = "[VAE Lab] VAE"
_CHOICE = "vae_lab_axis"  # attribute of the host's processing object; a cell of the plot is a copy of it


def chosen_by_axis(p: Any) -> str | None:
    """The VAE that the plot chose for this generation; None if it does not vary the VAE."""
    return getattr(p, _CHOICE, None)


def add_axis(host: Host, undo: ExitStack) -> None:
    """Add the axis if the host has the plot. To be called when scripts are loaded, but before the page is built."""
    with guarded("adding an axis to the X/Y/Z plot"):
        plots = [data.module for data in scripts.scripts_data if data.script_class.__module__ == "xyz_grid.py"]
        for plot in dict.fromkeys(plots):
            axis = plot.AxisOption(
                LABEL, str, _apply, confirm=_confirm_of(host), choices=_choices_of(host), **_format(plot)
            )
            plot.axis_options.append(axis)
            undo.callback(_remove, plot.axis_options, axis)


def _remove(options: list[Any], axis: Any) -> None:
    options[:] = [option for option in options if option is not axis]


def _format(plot: Any) -> dict[str, Any]:
    """The plot's own way to write a value; where it has none, the axis has its default."""
    return {"format_value": plot.format_value} if hasattr(plot, "format_value") else {}


@for_host("choosing a VAE for the X/Y/Z plot")
def _apply(p: Any, name: str, _names: Sequence[str]) -> None:
    setattr(p, _CHOICE, name)


def _choices_of(host: Host) -> Callable[[], list[str]]:
    @for_host("listing VAEs for the X/Y/Z plot", lambda: [AUTOMATIC, BUILT_IN])
    def choices() -> list[str]:
        return [AUTOMATIC, BUILT_IN, *host.listing(fresh=True).vaes]

    return choices


def _confirm_of(host: Host) -> Callable[..., None]:
    @for_host("checking the VAEs of the X/Y/Z plot", str)
    def unknown(names: Sequence[str]) -> str:
        choices = [AUTOMATIC, BUILT_IN, *host.listing(fresh=True).vaes]
        wrong = next((name for name in names if name not in choices), None)
        return "" if wrong is None else f"{LABEL}: no VAE named {wrong}; available: {', '.join(choices)}"

    def confirm(_p: Any, names: Sequence[str]) -> None:
        wrong = unknown(names)
        if wrong:
            raise RuntimeError(wrong)  # the plot reports it

    return confirm
