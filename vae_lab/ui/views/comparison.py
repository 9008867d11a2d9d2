"""The Compare page: from values to HTML. Imports neither gradio nor the host."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from markupsafe import Markup

from vae_lab.api.routes import image_url
from vae_lab.comparison import Decoded, png_bytes, to_pixels
from vae_lab.decoding import IN_STRIPS
from vae_lab.errors import VaeLabError
from vae_lab.host.base import VaeEntry
from vae_lab.host.choices import BUILT_IN, Reach
from vae_lab.latents import Generation
from vae_lab.messages import text, translated
from vae_lab.service.comparisons import StoredComparison
from vae_lab.ui.views.html import render

__all__ = [
    "PROGRESS", "SMALL", "alert", "built_in", "deciding", "empty", "guide", "identified", "latent_card", "message",
    "note", "outcome", "results", "summary", "token",
]  # fmt: skip

SMALL = 256
"""Images below this width are enlarged with hard pixels, so that no blur hides a difference."""

_MAX_PREVIEWS = 4

PROGRESS = render("comparison", "progress")
"""Filled and shown by ``javascript/tab/runs.mjs``."""


def message(sentence: str, *, undo_id: str | None = None, comparison: str | None = None) -> str:
    """A line that reports a result. ``data-run`` signals the end of a run to the script.

    Args:
        sentence: in the user's language.
        undo_id: adds an Undo button, which the scripts handle; None for no button.
        comparison: id of the comparison that it is about, which is shown next.
    """
    return render("comparison", "line", "note", "status", sentence, secrets.token_hex(8), undo_id, comparison)


def note(sentence: str, *, undo_id: str | None = None) -> str:
    """As :func:`message`, of a sentence in English."""
    return message(translated(sentence), undo_id=undo_id)


def alert(error: VaeLabError | str) -> str:
    """As :func:`note`, for an error."""
    return render("comparison", "line", "alert", "alert", translated(str(error)), secrets.token_hex(8))


def deciding(
    reason: str, asked: int = 0, *, built_in_decodes: bool = True, mark: str = "", reaches: Sequence[Reach] = ()
) -> str:
    """Which VAE decodes, and why; the script adds a badge if the built-in VAE is known to be broken.

    Args:
        reason: a sentence.
        asked: counts the host's answers, so that the script can distinguish a new line from the page's first one.
        built_in_decodes: the badge concerns the images that are decoded now.
        mark: of what is active, for the script to see when that changes; see :class:`ActiveVae`.
        reaches: how far a choice can reach, for the buttons below images.
    """
    return render("comparison", "deciding", reason, asked, built_in_decodes, mark, reaches)


def built_in(checkpoint: str, only: bool = False, asked: int = 0) -> str:
    """The VAE that every comparison includes.

    Args:
        checkpoint: name of the file that it is in, or "".
        only: there is no other VAE.
        asked: see :func:`deciding`.
    """
    return render("comparison", "built_in", BUILT_IN, checkpoint, only, asked)


def identified(entries: Sequence[VaeEntry]) -> str:
    """The result of an identification, in one line."""
    known = sum(entry.family is not None for entry in entries)
    unusable = sum(bool(entry.problem) for entry in entries)
    if unusable:
        return message(
            text(
                "Identified the family of {count} of {total} VAEs; {unusable} cannot be used.",
                count=known, total=len(entries), unusable=unusable,
            )
        )  # fmt: skip
    return message(text("Identified the family of {count} of {total} VAEs.", count=known, total=len(entries)))


def empty(what_to_do: str) -> str:
    """What a first-time user sees in place of results."""
    return render("comparison", "empty", what_to_do)


def guide() -> str:
    """Shown until there are images."""
    return render("comparison", "guide")


def latent_card(generation: Generation, below: str = "") -> str:
    """The latent as an estimate without a VAE, and where it comes from.

    Args:
        generation: whose latent.
        below: HTML to be shown below the facts.
    """
    batch, channels, height, width = generation.latents.shape
    previews, problem = [], ""
    try:
        images = to_pixels(generation.family.preview(generation.latents[:_MAX_PREVIEWS]))
        previews = [f"data:image/png;base64,{base64.b64encode(png_bytes(image)).decode()}" for image in images]
    except VaeLabError as error:
        problem = str(error)
    return render(
        "comparison", "latent_card", generation, width, height, channels, PurePath(generation.checkpoint).name,
        previews, batch if batch > _MAX_PREVIEWS else 0, problem, [text for text in generation.infotexts if text],
        Markup(below),  # noqa: S704  our own HTML
    )  # fmt: skip


def summary(stored: StoredComparison, *, replaced: bool = True) -> str:
    """The result of a comparison, in one line.

    Args:
        stored: the comparison.
        replaced: whether it is shown in place of the one before.
    """
    if not replaced:
        return message(text("The run was cancelled; you see the comparison before it."))
    comparison = stored.comparison
    done = len(comparison.decoded)
    seconds = sum(result.seconds for result in comparison)
    template = "{count} VAE decoded in {seconds} s." if done == 1 else "{count} VAEs decoded in {seconds} s."
    sentence = text(template, count=done, seconds=f"{seconds:.1f}")
    line = outcome(sentence, len(comparison.results) - done, comparison.cancelled)
    return message(line, comparison=stored.id if comparison.results else None)


def outcome(sentence: str, unusable: int, cancelled: bool) -> str:
    """What was done, between two possible problems; all in the user's language."""
    sentences = [text("The run was cancelled.")] if cancelled else []
    sentences.append(sentence)
    if unusable:
        template = "{count} VAE could not be used." if unusable == 1 else "{count} VAEs could not be used."
        sentences.append(text(template, count=unusable))
    return " ".join(sentences)


@dataclass(frozen=True)
class _Figure:
    """One VAE's images, or the reason why there are none.

    Attributes:
        vae: its name.
        urls: of its images.
        width, height: of an image, or of the place where it would be.
        facts: family and time, in English.
        checkpoint: the file that a built-in VAE is in, or "".
        twin: another VAE with the same pixels, or "".
        finite: the decoder produced no NaN or infinite values.
        error: why there are no images.
    """

    vae: str
    urls: Sequence[str]
    width: int
    height: int
    facts: Sequence[str]
    checkpoint: str
    twin: str = ""
    finite: bool = True
    error: str = ""

    @property
    def small(self) -> bool:
        return self.width < SMALL


def results(stored: StoredComparison) -> str:
    """A grid of figures: the images of each VAE, or the reason why there are none."""
    twins = stored.twins()
    figures = [
        _figure(stored, result, list(numbers), twins.get(result.name, ""))
        for result, numbers in zip(stored.comparison, stored.numbers(), strict=True)
    ]
    return render("comparison", "results", figures, stored.checkpoint, token(stored))


def token(stored: StoredComparison) -> str:
    """Differs between comparisons, and between the states of one that is running."""
    return f"{stored.id}:{len(stored.comparison.results)}" if stored.running else stored.id


def _figure(stored: StoredComparison, result: Decoded, numbers: Sequence[int], twin: str) -> _Figure:
    checkpoint = stored.checkpoint if result.name == BUILT_IN else ""
    if result.images is None:
        height, width = _place(stored)
        facts = [result.family.title, "not used"] if result.family else ["not used"]
        return _Figure(result.name, (), width, height, facts, checkpoint, error=result.error)
    height, width = result.images.shape[1:3]
    facts = [result.family.title if result.family else "family unknown", f"{result.seconds:.2f} s"]
    if result.in_strips:
        facts.append(IN_STRIPS)
    urls = [image_url(stored, number) for number in numbers]
    return _Figure(result.name, urls, width, height, facts, checkpoint, twin, result.finite)


def _place(stored: StoredComparison) -> tuple[int, int]:
    """Height and width of the images next to one that is missing; without any, the latent's."""
    shown = next(iter(stored.comparison.decoded), None)
    if shown is not None and shown.images is not None:
        height, width = shown.images.shape[1:3]
        return height, width
    _, _, height, width = stored.generation.latents.shape
    return height, width
