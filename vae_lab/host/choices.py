"""Who decides which VAE decodes: the choices, where they come from, and the one order of precedence.

The pages, the API, the X/Y/Z plot's axis and a generation's job all ask :func:`resolve`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import PurePath
from typing import Literal, NamedTuple, get_args

from vae_lab.errors import UnknownChoice

__all__ = [
    "AUTOMATIC", "BUILT_IN", "ON_BROKEN", "ON_GREY", "Choice", "Decision", "OnBroken", "OnGrey", "Reach", "Source",
    "StandingChoices", "resolve", "unknown_vae",
]  # fmt: skip

AUTOMATIC = "Automatic"
"""Choice: VAE Lab changes nothing, the host decides."""

BUILT_IN = "Built-in"
"""Choice: the VAE inside the checkpoint's file."""

Source = Literal["generation", "always", "checkpoint", "host"]
"""Who decides, highest precedence first."""

Reach = Literal["checkpoint", "always"]
"""How long a saved choice holds: for one checkpoint, or for every checkpoint."""

OnGrey = Literal["off", "warn", "redecode"]
"""What to do if an image is grey."""

ON_GREY: tuple[OnGrey, ...] = get_args(OnGrey)
"""All values of :data:`OnGrey`."""

OnBroken = Literal["off", "ask", "fix"]
"""What to do when a checkpoint is loaded whose own VAE is broken or missing: nothing, say so and offer a remedy, or
choose the recommended VAE for it."""

ON_BROKEN: tuple[OnBroken, ...] = get_args(OnBroken)
"""All values of :data:`OnBroken`."""


class StandingChoices(NamedTuple):
    """What the user has saved in VAE Lab: names of VAEs, ``Built-in`` or ``Automatic``.

    Attributes:
        always: for every checkpoint.
        checkpoint: for the checkpoint in use; ``Automatic`` where the host itself applies that preference.
    """

    always: str = AUTOMATIC
    checkpoint: str = AUTOMATIC


class Choice(NamedTuple):
    """The choice that takes precedence.

    Attributes:
        vae: name of a VAE, or ``Built-in``; ``Automatic`` if the host decides.
        source: where the choice comes from.
    """

    vae: str
    source: Source


@dataclass(frozen=True)
class Decision:
    """Which VAE decodes, and who decided that.

    Attributes:
        vae: name of the VAE, or ``Built-in``.
        source: who decided.
        reason: one sentence for the user.
        path: its file; for the built-in VAE, the checkpoint's. "" if unknown.
    """

    vae: str
    source: Source
    reason: str
    path: str = ""


def unknown_vae(name: str, names: Iterable[str], where: str = "") -> UnknownChoice:
    """The error for a VAE that is not among ``names``, with those that may be meant.

    Args:
        name: what was asked for; a file name may be that of several VAEs in different folders.
        names: all there are.
        where: the folder that was searched, if known.
    """
    known, wanted = list(names), PurePath(name.casefold())
    files = {each: PurePath(each.casefold()) for each in known}
    close = get_close_matches(wanted.stem, [file.stem for file in files.values()], n=3, cutoff=0.75)
    same = [each for each, file in files.items() if wanted.name in (file.name, file.stem)]
    alike = same or [each for each, file in files.items() if file.stem in close]
    if alike:
        return UnknownChoice(f"no VAE named {name}; did you mean {' or '.join(alike)}?")
    found = ", ".join(known) or "none"
    if where:
        return UnknownChoice(f"no VAE named {name}; looked in {where}, found {found}")
    return UnknownChoice(f"no VAE named {name}; available: {found}")


def resolve(standing: StandingChoices, generation: str = AUTOMATIC, axis: str | None = None) -> Choice:
    """The order of precedence: X/Y/Z axis > this generation > always > this checkpoint > the host.

    Args:
        standing: what is saved.
        generation: what the accordion or the API chose for one generation.
        axis: what the X/Y/Z plot chose for it; None if the plot does not vary the VAE.
    """
    in_order: tuple[tuple[Source, str], ...] = (
        ("generation", axis or generation),
        ("always", standing.always),
        ("checkpoint", standing.checkpoint),
    )
    chosen = (Choice(vae, source) for source, vae in in_order if vae != AUTOMATIC)
    return next(chosen, Choice(AUTOMATIC, "host"))
