"""What stays chosen when lists change: the user's choices, checked against what the host has now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vae_lab.errors import HostError
from vae_lab.host.base import AUTOMATIC, BUILT_IN, Decision, Host, VaeEntry
from vae_lab.latents import Generation
from vae_lab.latents.family import Family
from vae_lab.messages import translated

__all__ = [
    "Choice", "Memory", "choose_to_stay", "chosen_to_stay", "decoder_choices", "encoder_choices", "find_latent",
    "fits", "follow_newest", "in_order", "keep_chosen", "latent_choice", "vae_choices",
]  # fmt: skip

_MOST_PRESELECTED = 8


class Choice(NamedTuple):
    """A VAE that decodes from now on.

    Attributes:
        reach: ``always``, or ``checkpoint`` for one checkpoint.
        vae: as it is listed.
        checkpoint: the one in use when it was chosen.
    """

    reach: str
    vae: str
    checkpoint: str


@dataclass(frozen=True)
class Memory:
    """What one browser page showed last.

    Attributes:
        newest: id of the newest generation then, or "".
        family: id of the chosen latent's family, or "".
        decoder: what was chosen to decode, to stay.
        back: what Undo would choose again.
    """

    newest: str = ""
    family: str = ""
    decoder: str = AUTOMATIC
    back: Choice | None = None


def chosen_to_stay(decision: Decision, entries: Sequence[VaeEntry]) -> str:
    """What the user has chosen to decode from now on, as it is listed; ``Automatic`` if the host decides."""
    if decision.source not in ("always", "checkpoint"):
        return AUTOMATIC
    # The host may know a file by less than the name that it has here.
    return next((entry.name for entry in entries if entry.path == decision.path), decision.vae)


def choose_to_stay(host: Host, choice: Choice | None) -> tuple[str, Choice | None]:
    """Have a VAE decode from now on.

    Args:
        host: who decodes.
        choice: None, of a page that was opened anew, chooses nothing.

    Returns:
        What to tell the user; and what takes it back, or None if nothing changed.

    Raises:
        VaeLabError: it cannot be chosen, with the reason.
    """
    if choice is None:
        raise HostError("there is nothing to undo")
    reach, vae, checkpoint = choice
    if reach == "checkpoint" and checkpoint != host.current_checkpoint():
        raise HostError("the checkpoint has changed since; press Refresh")
    before = host.chosen(reach)
    said = host.use_always(vae) if reach == "always" else host.use_for_checkpoint(vae)
    return said, Choice(reach, before, checkpoint) if before != vae else None


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
    return [(_label(entry), entry.name) for entry in entries]


def _label(entry: VaeEntry) -> str:
    return f"{entry.name} · {translated(entry.problem)}" if entry.problem else entry.label


def decoder_choices(entries: Sequence[VaeEntry]) -> list[str]:
    """All that may be chosen to decode the next images."""
    return [AUTOMATIC, BUILT_IN, *(entry.name for entry in entries)]


def encoder_choices(entries: Sequence[VaeEntry]) -> list[str]:
    """All that may encode an image."""
    return [BUILT_IN, *(entry.name for entry in entries)]
