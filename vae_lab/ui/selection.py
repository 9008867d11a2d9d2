"""What stays chosen when lists change: the user's choices, checked against what the host has now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vae_lab.families import Family
from vae_lab.host.base import AUTOMATIC, BUILT_IN, VaeEntry
from vae_lab.latents import Generation

__all__ = [
    "Memory", "decoder_choices", "encoder_choices", "find_latent", "fits", "follow_newest", "in_order", "keep_chosen",
    "latent_choice", "vae_choices",
]  # fmt: skip

_MOST_PRESELECTED = 8


@dataclass(frozen=True)
class Memory:
    """What one browser page showed last.

    Attributes:
        newest: id of the newest generation then, or "".
        family: id of the chosen latent's family, or "".
    """

    newest: str = ""
    family: str = ""


def follow_newest(generations: Sequence[Generation], chosen: str | None, memory: Memory | None) -> Generation | None:
    """The generation to show, out of those that are kept, newest first.

    An older one that the user chose stays; who looked at the newest one sees the newest one now.

    Args:
        generations: all that are kept.
        chosen: the list's present value, see :func:`latent_choice`.
        memory: None when the page has just been opened.
    """
    found = find_latent(generations, chosen)
    if found is None or memory is None or found.id == memory.newest:
        return generations[0] if generations else None
    return found


def find_latent(generations: Sequence[Generation], chosen: str | None) -> Generation | None:
    """The generation that is listed as ``chosen``; None if it is not kept any longer."""
    return next((kept for kept in generations if latent_choice(kept) == chosen), None)


def latent_choice(generation: Generation) -> str:
    """How a generation is listed, unlike any other of its store.

    It is also the value of the choice: gradio 3 shows the value in place of the label after an update.
    """
    return f"{generation.label} · {generation.family.title} · {generation.id}"


def fits(entry: VaeEntry, family: Family | None) -> bool:
    """Whether nothing is known that speaks against ``entry`` for latents of ``family``."""
    return not entry.problem and (entry.family is None or family is None or entry.family.id == family.id)


def keep_chosen(
    entries: Sequence[VaeEntry], family: Family | None, chosen: Sequence[str], memory: Memory | None
) -> list[str]:
    """Names of the VAEs to have ticked.

    The user's own where they are there and fit; the first ones that fit when the page has just been opened, and where
    a latent of another family leaves none.
    """
    fitting = [entry.name for entry in entries if fits(entry, family)]
    kept = [name for name in fitting if name in chosen]
    anew = memory is None or (memory.family != (family.id if family else "") and not kept)
    return fitting[:_MOST_PRESELECTED] if anew else kept


def in_order(entries: Sequence[VaeEntry], chosen: Sequence[str]) -> list[str]:
    """``chosen`` in the list's order, not in that of the clicks; names that have vanished come last."""
    known = [entry.name for entry in entries if entry.name in chosen]
    return known + [name for name in chosen if name not in known]


def vae_choices(entries: Sequence[VaeEntry]) -> list[tuple[str, str]]:
    """(label, name) of each."""
    return [(entry.label, entry.name) for entry in entries]


def decoder_choices(entries: Sequence[VaeEntry]) -> list[str]:
    """All that may be chosen to decode the next pictures."""
    return [AUTOMATIC, BUILT_IN, *(entry.name for entry in entries)]


def encoder_choices(entries: Sequence[VaeEntry]) -> list[str]:
    """All that may encode a picture."""
    return [BUILT_IN, *(entry.name for entry in entries)]
