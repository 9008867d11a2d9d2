"""The stored generations as thumbnails, and the result of adding a latent from outside."""

from __future__ import annotations

from collections.abc import Sequence

from vae_lab.api.addresses import latents_url, thumbnail_url
from vae_lab.latents import Generation
from vae_lab.messages import text
from vae_lab.ui.views.comparison import message
from vae_lab.ui.views.html import render

__all__ = ["encoded", "loaded", "save_link", "thumbnails"]

_MAX_THUMBNAILS = 24  # newest first; the menu has all


def thumbnails(generations: Sequence[Generation]) -> str:
    """A row of buttons; "" without generations."""
    if not generations:
        return ""
    shown = [
        (generation, "" if generation.family.latent_rgb is None else thumbnail_url(generation))
        for generation in generations[:_MAX_THUMBNAILS]
    ]
    return render("sources", "thumbnails", shown, len(generations) - _MAX_THUMBNAILS)


def save_link(generation: Generation) -> str:
    """Downloads the latent with its generation parameters."""
    return render("sources", "save_link", latents_url(generation))


def loaded(generation: Generation, file: str) -> str:
    """A latent was loaded from a file of that name."""
    family = generation.family.title
    return _added(
        generation, text("{name}: loaded from {file} as {family}.", name=generation.title, file=file, family=family)
    )


def encoded(generation: Generation, vae: str, remarks: Sequence[str] = ()) -> str:
    """An image was encoded; ``remarks``: what was done to it before."""
    template = "{name}: encoded by {vae} and stored as {family}."
    sentence = text(template, name=generation.title, vae=vae, family=generation.family.title)
    return _added(generation, sentence, *(text("The image was {reason}.", reason=remark) for remark in remarks))


def _added(generation: Generation, *sentences: str) -> str:
    parameters = [text("Its generation parameters are included.")] if any(generation.infotexts) else []
    return message(" ".join([*sentences, *parameters]))
