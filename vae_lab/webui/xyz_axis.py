"""An axis of the WebUI's X/Y/Z plot that varies the VAE, with the accordion's choices, on every host with the plot.

The WebUI's own axis *VAE* knows VAEs only by file name, and does nothing in Forge.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from modules import scripts

from vae_lab.host.base import Host
from vae_lab.host.choices import AUTOMATIC, BUILT_IN
from vae_lab.host.guard import guarded

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
                LABEL, str, _apply, format_value=plot.format_value, confirm=_confirm_of(host), choices=_choices_of(host)
            )
            plot.axis_options.append(axis)
            undo.callback(_remove, plot.axis_options, axis)


def _remove(options: list[Any], axis: Any) -> None:
    options[:] = [option for option in options if option is not axis]


def _apply(p: Any, name: str, _names: Sequence[str]) -> None:
    setattr(p, _CHOICE, name)


def _choices_of(host: Host) -> Any:
    return lambda: [AUTOMATIC, BUILT_IN, *host.listing(fresh=True).vaes]


def _confirm_of(host: Host) -> Any:
    def confirm(_p: Any, names: Sequence[str]) -> None:
        choices = _choices_of(host)()
        for name in names:
            if name not in choices:
                raise RuntimeError(f"{LABEL}: no VAE named {name}; available: {', '.join(choices)}")

    return confirm
