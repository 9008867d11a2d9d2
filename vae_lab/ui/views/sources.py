"""The kept generations as small images, and what is said of those that come from outside. All of it is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from vae_lab.api.addresses import latents_url, thumbnail_url
from vae_lab.latents import Generation
from vae_lab.ui.views.comparison import note

__all__ = ["added", "save_link", "thumbnails"]

_MOST = 24  # newest first; the menu has all


def thumbnails(generations: Sequence[Generation]) -> str:
    """A row of buttons; ``javascript/vae_lab.js`` marks the chosen one and hears of clicks."""
    if not generations:
        return ""
    buttons = "".join(_thumbnail(generation) for generation in generations[:_MOST])
    hidden = len(generations) - _MOST
    more = f'<p class="vae-lab-quiet">{hidden} older ones are in the menu alone.</p>' if hidden > 0 else ""
    return f'<div class="vae-lab-thumbnails" role="group" aria-label="Kept latents, newest first">{buttons}</div>{more}'


def _thumbnail(generation: Generation) -> str:
    words = escape(f"{generation.label} · {generation.family.title}")
    batch = len(generation.latents)
    count = f"<span>×{batch}</span>" if batch > 1 else ""
    if generation.family.latent_rgb is None:
        image = f"<b>{escape(generation.family.title)}</b>"
    else:
        image = f'<img src="{escape(thumbnail_url(generation))}" alt="" loading="lazy">'
    return (
        f'<button type="button" class="vae-lab-thumbnail" data-pick="{escape(generation.id)}" aria-pressed="false"'
        f' tabindex="-1" title="{words}" aria-label="{words}">{image}{count}</button>'
    )


def save_link(generation: Generation) -> str:
    """Takes the latent home, with its generation parameters."""
    url = escape(latents_url(generation))
    title = "As .safetensors, to be loaded again"
    return f'<a class="vae-lab-save-latent" href="{url}" download title="{title}">Save latent</a>'


def added(generation: Generation, how: str, remarks: Sequence[str] = ()) -> str:
    """That a latent is kept now."""
    texts = [text for text in generation.infotexts if text]
    with_text = ", with its generation parameters" if texts else ""
    done = f" The image was {' and '.join(remarks)}." if remarks else ""
    return note(f"{generation.title}: {how} as {generation.family.title}{with_text}.{done}")
