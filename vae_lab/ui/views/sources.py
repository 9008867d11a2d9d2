"""The stored generations as thumbnails, and the result of adding a latent from outside."""

from __future__ import annotations

from collections.abc import Sequence

from vae_lab.api.addresses import latents_url, thumbnail_url
from vae_lab.latents import Generation
from vae_lab.messages import text
from vae_lab.service.hashes import FoundVae
from vae_lab.text import listed
from vae_lab.ui.views.comparison import message
from vae_lab.ui.views.html import render

__all__ = ["encoded", "loaded", "save_link", "thumbnails", "vae_found"]

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


def loaded(generation: Generation, file: str, found: FoundVae | None = None) -> str:
    """A latent was loaded from a file of that name; ``found``: the VAE that its generation parameters name."""
    family = generation.family.title
    sentence = text("{name}: loaded from {file} as {family}.", name=generation.title, file=file, family=family)
    return _added(generation, found, sentence)


def encoded(generation: Generation, vae: str, remarks: Sequence[str] = (), found: FoundVae | None = None) -> str:
    """An image was encoded; ``remarks``: what was done to it before; ``found``: as in :func:`loaded`."""
    template = "{name}: encoded by {vae} and stored as {family}."
    sentence = text(template, name=generation.title, vae=vae, family=generation.family.title)
    return _added(generation, found, sentence, *(text("The image was {reason}.", reason=remark) for remark in remarks))


def vae_found(found: FoundVae | None) -> list[str]:
    """Whether the user has the VAE that an image's generation parameters name by its hash, in sentences."""
    if found is None:
        return []
    digest, sentences = found.digest, []
    if found.names:
        sentences = [text("VAE hash {digest}: you have this VAE as {names}.", digest=digest, names=listed(found.names))]
    elif found.known:
        template = "VAE hash {digest}: no VAE here has this hash; it is {name} according to the catalogue."
        sentences = [text(template, digest=digest, name=found.known)]
    else:
        sentences = [text("VAE hash {digest}: no VAE here has this hash.", digest=digest)]
    if found.misnamed:
        template = "Your {name} has another hash: the WebUI may have written the hash of a VAE that it loaded before."
        sentences.append(text(template, name=found.misnamed))
    if found.unhashed and not found.names:
        template = "Files without a hash: {count}. Press Scan on the Library page to compute it."
        sentences.append(text(template, count=found.unhashed))
    return sentences


def _added(generation: Generation, found: FoundVae | None, *sentences: str) -> str:
    parameters = [text("Its generation parameters are included.")] if any(generation.infotexts) else []
    return message(" ".join([*sentences, *parameters, *vae_found(found)]))
