"""What stays selected when lists change: the user's selections, checked against what the host has now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vae_lab.host.base import VaeEntry
from vae_lab.host.choices import AUTOMATIC, BUILT_IN, Decision
from vae_lab.latents import Generation
from vae_lab.latents.family import FAMILIES, Family
from vae_lab.messages import translated

__all__ = [
    "PageState", "VaeGroup", "decoder_choices", "each_once", "encoder_choices", "find_latent", "fits", "follow_newest",
    "grouped", "in_order", "keep_chosen", "latent_choice", "saved_choice", "vae_choices",
]  # fmt: skip

_MAX_PRESELECTED = 8
_FEW = 4
_SHORT = 8  # VAEs; a list that is not longer has no groups and no search

_RECENT = "Recently used"
_NOT_IDENTIFIED = "Not identified yet"
_UNUSABLE = "Cannot be used"


@dataclass(frozen=True)
class PageState:
    """What one browser page showed last.

    Attributes:
        newest: id of the newest generation at that time, or "".
        family: id of the selected latent's family, or "".
        decoder: the saved choice of what decodes.
        encoder: the VAE that was proposed to encode with.
    """

    newest: str = ""
    family: str = ""
    decoder: str = AUTOMATIC
    encoder: str = BUILT_IN


def saved_choice(decision: Decision, entries: Sequence[VaeEntry]) -> str:
    """What the user has chosen to decode from now on, by its name in the list; ``Automatic`` if the host decides."""
    if decision.source not in ("always", "checkpoint"):
        return AUTOMATIC
    # The host may know the file by another name than the list.
    return next((entry.name for entry in entries if entry.path == decision.path), decision.vae)


def follow_newest(generations: Sequence[Generation], chosen: str | None, state: PageState | None) -> Generation | None:
    """The generation to show.

    An older one that the user selected stays selected; the newest one is replaced by one that is newer still.

    Args:
        generations: all stored ones, newest first.
        chosen: current value of the menu, see :func:`latent_choice`.
        state: None when the page has just been opened.
    """
    selected = find_latent(generations, chosen)
    if selected is None or state is None or selected.id == state.newest:
        return generations[0] if generations else None
    return selected


def find_latent(generations: Sequence[Generation], chosen: str | None) -> Generation | None:
    """The generation listed as ``chosen``; None if it is no longer stored."""
    return next((stored for stored in generations if latent_choice(stored) == chosen), None)


def latent_choice(generation: Generation) -> str:
    """The menu entry of a generation, unique within its store.

    It is also the value of the entry: gradio 3 shows the value in place of the label after an update.
    """
    return f"{generation.label} · {generation.family.title} · {generation.id}"


@dataclass(frozen=True)
class VaeGroup:
    """VAEs that are listed together.

    Attributes:
        title: of the group, in English; "" for none.
        vaes: the files of each VAE; those with the same weights are one.
    """

    title: str
    vaes: list[list[VaeEntry]]


def grouped(entries: Sequence[VaeEntry], family: Family | None) -> list[VaeGroup]:
    """All VAEs in groups: those used last, then by family, as far as that is known; the family of the latents first."""
    first = [_RECENT, *([family.title] if family else [])]
    order = [*first, *(each.title for each in FAMILIES.values()), _NOT_IDENTIFIED, _UNUSABLE]
    groups: dict[str, list[list[VaeEntry]]] = {title: [] for title in order}
    vaes: dict[str, list[VaeEntry]] = {}
    for entry in entries:
        vaes.setdefault(entry.weights or entry.name, []).append(entry)
    if len(entries) <= _SHORT:
        return [VaeGroup("", list(vaes.values()))] if vaes else []
    for files in vaes.values():
        files.sort(key=lambda entry: not entry.recent)
        groups[_title(files[0])].append(files)
    return [VaeGroup(title, found) for title, found in groups.items() if found]


def _title(entry: VaeEntry) -> str:
    if entry.problem:
        return _UNUSABLE
    if entry.recent:
        return _RECENT
    return entry.family.title if entry.family else _NOT_IDENTIFIED


def each_once(entries: Sequence[VaeEntry]) -> list[VaeEntry]:
    """Of files with the same weights only the first."""
    first: dict[str, VaeEntry] = {}
    for entry in entries:
        first.setdefault(entry.weights or entry.name, entry)
    return list(first.values())


def fits(entry: VaeEntry, family: Family | None) -> bool:
    """Whether ``entry`` may decode latents of ``family``, as far as is known."""
    return not entry.problem and (entry.family is None or family is None or entry.family.id == family.id)


def keep_chosen(
    entries: Sequence[VaeEntry], family: Family | None, chosen: Sequence[str], state: PageState | None
) -> list[str]:
    """Names of the VAEs to tick.

    The user's selection, as far as it still exists and fits. Some that fit if the page has just been opened, or if a
    latent of another family leaves none.
    """
    fitting = [entry for entry in entries if fits(entry, family)]
    still = [entry.name for entry in fitting if entry.name in chosen]
    if state is not None and (still or state.family == (family.id if family else "")):
        return still
    ticked = _preselected(fitting)
    return [entry.name for entry in fitting if entry in ticked]


def _preselected(fitting: Sequence[VaeEntry]) -> Sequence[VaeEntry]:
    """Each once, if they can be compared at a glance; of more, a few that were used last, or are known to fit."""
    different = each_once(sorted(fitting, key=lambda entry: (not entry.recent, entry.family is None)))
    return different if len(different) <= _MAX_PRESELECTED else different[:_FEW]


def in_order(entries: Sequence[VaeEntry], chosen: Sequence[str]) -> list[str]:
    """``chosen`` in the order of the list; names that are no longer listed come last."""
    known = [entry.name for entry in entries if entry.name in chosen]
    return known + [name for name in chosen if name not in known]


def vae_choices(entries: Sequence[VaeEntry]) -> list[tuple[str, str]]:
    """(label, name) of each."""
    return [(_label(entry), entry.name) for entry in entries]


def _label(entry: VaeEntry) -> str:
    return f"{entry.name} · {translated(entry.problem)}" if entry.problem else entry.label


def decoder_choices(entries: Sequence[VaeEntry]) -> list[str]:
    """Everything that can be chosen to decode the next images."""
    return [AUTOMATIC, BUILT_IN, *(entry.name for entry in entries)]


def encoder_choices(entries: Sequence[VaeEntry], *, built_in: bool) -> list[str]:
    """Everything that can encode an image; ``built_in``: whether the checkpoint has a VAE."""
    return [*([BUILT_IN] if built_in else []), *(entry.name for entry in entries)]
