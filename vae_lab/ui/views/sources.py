"""The stored generations as thumbnails, and the result of adding a latent from outside."""

from __future__ import annotations

from collections.abc import Sequence

from vae_lab.api.addresses import latents_url, thumbnail_url
from vae_lab.latents import Generation
from vae_lab.library import FileRecord
from vae_lab.messages import text
from vae_lab.service.hashes import FoundVae
from vae_lab.text import listed
from vae_lab.ui.views.comparison import alert, message
from vae_lab.ui.views.html import render

__all__ = ["encoded", "encoder_note", "loaded", "save_link", "thumbnails", "vae_found", "without_parts"]

_DECODED_BY = (
    "This image was decoded by the broken VAE of {vae} ({title}). That is in its pixels, and no VAE takes it out: "
    "generate the image again with a healthy one."
)
_MAX_THUMBNAILS = 24  # newest first; the menu has all


def thumbnails(generations: Sequence[Generation]) -> str:
    """A row of buttons, one for each image; "" without generations.

    Args:
        generations: newest first.
    """
    if not generations:
        return ""
    images = without_parts(generations)[:_MAX_THUMBNAILS]
    shown = [
        (generation, "" if generation.family.latent_rgb is None else thumbnail_url(generation)) for generation in images
    ]
    return render("sources", "thumbnails", shown, len(generations) - len(shown))


def without_parts(generations: Sequence[Generation]) -> list[Generation]:
    """Images of their own; of a group of parts without one, the first."""
    whole = {generation.group for generation in generations if not generation.part}
    shown: list[Generation] = []
    for generation in generations:
        if not generation.part or generation.group not in whole:
            shown.append(generation)
            whole.add(generation.group)
    return shown


def save_link(generation: Generation) -> str:
    """Downloads the latent with its generation parameters."""
    return render("sources", "save_link", latents_url(generation))


def loaded(generation: Generation, file: str, found: FoundVae | None = None) -> str:
    """A latent was loaded from a file of that name; ``found``: the VAE that its generation parameters name."""
    family = generation.family.title
    sentence = text("{name}: loaded from {file} as {family}.", name=generation.title, file=file, family=family)
    return _added(generation, found, sentence)


def encoded(
    generation: Generation,
    vae: str,
    remarks: Sequence[str] = (),
    found: FoundVae | None = None,
    broken: tuple[str, FileRecord] | None = None,
) -> str:
    """An image was encoded.

    Args:
        generation: its latent.
        vae: name of the VAE that encoded it.
        remarks: what was done to the image before.
        found: as in :func:`loaded`.
        broken: the VAE that had decoded the image, if it is a broken one.
    """
    template = "{name}: encoded by {vae} and stored as {family}."
    sentence = text(template, name=generation.title, vae=vae, family=generation.family.title)
    said = [text("The image was {reason}.", reason=remark) for remark in remarks]
    if broken is not None:
        said.append(text(_DECODED_BY, vae=broken[0], title=broken[1].verdict.faults[0].title))
    return _added(generation, found, sentence, *said)


def encoder_note(vae: str, record: FileRecord | None) -> str:
    """A warning about a VAE that does not encode well, or "".

    Args:
        vae: its name.
        record: what is known about it.
    """
    if record is None or not record.verdict.faults:
        return ""
    title = record.verdict.faults[0].title
    return alert(
        text(
            "{vae} is {status} ({title}): choose a healthy VAE to encode with.",
            vae=vae,
            status=record.status,
            title=title,
        )
    )


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
