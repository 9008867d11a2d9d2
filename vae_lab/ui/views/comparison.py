"""Pieces of HTML. No gradio, and nothing of the host: from values to text; everything from outside is escaped."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from html import escape
from pathlib import PurePath

from vae_lab.api.routes import image_url
from vae_lab.comparison import Decoded, png_bytes, to_pixels
from vae_lab.decoding import IN_STRIPS
from vae_lab.errors import VaeLabError
from vae_lab.host.base import BUILT_IN, VaeEntry
from vae_lab.latents import Generation
from vae_lab.service.comparisons import StoredComparison

__all__ = [
    "PROGRESS", "alert", "breakable", "built_in", "deciding", "empty", "identified", "latent_card", "note", "results",
    "summary",
]  # fmt: skip

_MOST_PREVIEWS = 4
_LATER = ' loading="lazy"'  # of a batch the light table shows one at a time; the others come when they are shown
_SMALL = 256  # images below this width are enlarged with hard pixels, so that no blur hides a difference

PROGRESS = (
    '<div class="vae-lab-progress" role="progressbar" aria-label="VAE Lab" aria-valuemin="0" aria-valuemax="1"'
    ' aria-valuenow="0"><div class="vae-lab-bar"></div><span class="vae-lab-step"></span></div>'
)
"""Filled and shown by ``javascript/vae_lab.js``."""


def note(text: str, *, undo_id: str | None = None) -> str:
    """A line that tells how something went. ``data-run`` tells the script that a run has ended.

    Args:
        text: the line.
        undo_id: adds an Undo button, which ``javascript/vae_lab.js`` handles; None for no button.
    """
    undo = undo_id and f' <button type="button" class="vae-lab-link" data-undo="{escape(undo_id)}">Undo</button>'
    return f'<p class="vae-lab-note" role="status"{_mark()}>{escape(text)}{undo or ""}</p>'


def alert(error: VaeLabError | str) -> str:
    """As :func:`note`, for what went wrong."""
    return f'<p class="vae-lab-alert" role="alert"{_mark()}>{escape(str(error))}</p>'


def _mark() -> str:
    return f' data-run="{secrets.token_hex(8)}"'


def deciding(reason: str, asked: int = 0, *, built_in_decodes: bool = True) -> str:
    """Which VAE decodes, and why; the script adds a badge if the built-in VAE is known to be no good.

    Args:
        reason: a sentence.
        asked: how often the host has been asked, by which a script tells a fresh line from the page's first one.
        built_in_decodes: the badge concerns what comes out now.
    """
    label = '<span class="vae-lab-quiet">Decodes now</span>'
    unused = "" if built_in_decodes else " data-unused"
    badge = f'<button type="button" class="vae-lab-current-badge"{unused}></button>'
    return f'<p class="vae-lab-deciding" data-asked="{asked}">{label} {escape(reason)} {badge}</p>'


def built_in(checkpoint: str, alone: bool = False) -> str:
    """The VAE that every comparison has.

    Args:
        checkpoint: name of the file that it is in, or "".
        alone: there is no other VAE.
    """
    of = f" of {breakable(checkpoint)}" if checkpoint else ""
    rest = "is the only VAE there is: the folders for VAEs are empty" if alone else "is always included"
    return f'<p class="vae-lab-fixed">{BUILT_IN}{of} <span class="vae-lab-quiet">{rest}</span></p>'


def identified(entries: Sequence[VaeEntry]) -> str:
    """How an identification went, in one line."""
    told = sum(entry.family is not None for entry in entries)
    bad = sum(bool(entry.problem) for entry in entries)
    unusable = f", {bad} cannot be used" if bad else ""
    return note(f"The family of {told} of {len(entries)} VAEs is known{unusable}.")


def empty(what_to_do: str) -> str:
    """What a first-time user sees in place of results."""
    return (
        f'<div class="vae-lab-empty"><h3>No latent to decode yet</h3><p>{escape(what_to_do)}</p>'
        "<p>Or drop an image into “From an image” and press Encode.</p></div>"
    )


def guide() -> str:
    """What stands where the images will be, until there are any."""
    steps = (
        ("Choose a latent.", "The last generations are kept. Load one from a file, or make one of an image."),
        ("Tick VAEs.", "The built-in one is always decoded as well."),
        ("Press Compare.", "Each VAE decodes the same latent; nothing is sampled again."),
        ("Look, then choose.", "Slider, blink, difference map, numbers; below each image, what to do with its VAE."),
    )
    items = "".join(f"<li><b>{what}</b> <span>{more}</span></li>" for what, more in steps)
    return f'<div class="vae-lab-guide"><h3>Which VAE should I use?</h3><ol>{items}</ol></div>'


def latent_card(generation: Generation, below: str = "") -> str:
    """The latent without any VAE, and how it came about.

    Args:
        generation: whose latent.
        below: HTML to be shown below the facts.
    """
    _, channels, height, width = generation.latents.shape
    facts = [f"{generation.family.title} latent, {channels} channels, {width} x {height}"]
    if generation.checkpoint:
        facts.append(f"of {PurePath(generation.checkpoint).name}")
    lines = "<br>".join(map(escape, facts))
    texts = [text for text in generation.infotexts if text]
    infotext = ""
    if texts:
        body = "".join(f"<pre>{escape(text)}</pre>" for text in texts)
        infotext = f"<details><summary>Generation parameters</summary>{body}</details>"
    return (
        f'<div class="vae-lab-latent" data-latent="{escape(generation.id)}">{_previews(generation)}'
        f'<div class="vae-lab-facts">'
        f'<p class="vae-lab-name">{escape(generation.title or "No prompt")}</p>'
        f'<p class="vae-lab-quiet">{lines}</p>{below}</div></div>{infotext}'
    )


def _previews(generation: Generation) -> str:
    batch = len(generation.latents)
    try:
        previews = to_pixels(generation.family.preview(generation.latents[:_MOST_PREVIEWS]))
    except VaeLabError as error:
        return f'<p class="vae-lab-quiet">{escape(str(error))}</p>'
    addresses = [f"data:image/png;base64,{base64.b64encode(png_bytes(p)).decode()}" for p in previews]
    images = "".join(f'<img src="{a}" alt="Estimate of latent {i + 1}">' for i, a in enumerate(addresses))
    more = f", first {_MOST_PREVIEWS} of {batch}" if batch > _MOST_PREVIEWS else ""
    caption = f"Estimate without a VAE{more}"
    return (
        f'<div class="vae-lab-previews"><div class="vae-lab-estimates" data-count="{len(addresses)}">{images}</div>'
        f'<p class="vae-lab-quiet">{escape(caption)}</p></div>'
    )


def summary(stored: StoredComparison) -> str:
    """How a comparison went, in one line."""
    comparison = stored.comparison
    done, refused = len(comparison.decoded), len(comparison.results) - len(comparison.decoded)
    seconds = sum(result.seconds for result in comparison)
    parts = [f"{done} VAE{'s' * (done != 1)} decoded in {seconds:.1f} s"]
    if refused:
        parts.append(f"{refused} refused")
    if comparison.cancelled:
        parts.insert(0, "cancelled")
    text = ", ".join(parts)
    return note(text[0].upper() + text[1:] + ".")


def results(stored: StoredComparison) -> str:
    """A grid of figures: the images of each VAE, or the reason why there are none."""
    twins = stored.twins()
    figures = [
        _figure(stored, result, list(numbers), twins.get(result.name, ""))
        for result, numbers in zip(stored.comparison, stored.numbers(), strict=True)
    ]
    # What a choice made below an image is for.
    of = f' data-checkpoint="{escape(stored.checkpoint)}"' if stored.checkpoint else ""
    return f'<div class="vae-lab-grid"{of}>{"".join(figures)}</div>'


def _figure(stored: StoredComparison, result: Decoded, numbers: Sequence[int], twin: str) -> str:
    if result.images is None:
        return _refused(stored, result)
    height, width = result.images.shape[1:3]
    kind = ' class="vae-lab-small"' if width < _SMALL else ""
    images = "".join(
        f'<a href="{escape(url)}" target="_blank" title="Open in full size"><img{kind} src="{escape(url)}"'
        f' width="{width}" height="{height}" alt="{escape(result.name)}, image {i + 1}"{_LATER if i else ""}></a>'
        for i, url in enumerate(image_url(stored, number) for number in numbers)
    )
    facts = [result.family.title if result.family else "family unknown", f"{result.seconds:.2f} s"]
    if result.in_strips:
        facts.append(IN_STRIPS)
    warnings = [] if result.finite else ["The result has NaN or infinite values; they are shown black."]
    remarks = [f"Equal to {twin} in every pixel."] if twin else []
    return _framed("vae-lab-decoded", stored, result, images, facts, warnings, remarks)


def _refused(stored: StoredComparison, result: Decoded) -> str:
    shown = next(iter(stored.comparison.decoded), None)
    latents = stored.generation.latents
    width, height = (latents.shape[3], latents.shape[2])
    if shown is not None and shown.images is not None:
        height, width = shown.images.shape[1:3]
    card = f'<div class="vae-lab-reason" style="aspect-ratio: {width} / {height}"><p>{escape(result.error)}</p></div>'
    facts = [result.family.title, "not used"] if result.family else ["not used"]
    return _framed("vae-lab-refused", stored, result, card, facts, (), ())


def _framed(
    kind: str,
    stored: StoredComparison,
    result: Decoded,
    body: str,
    facts: Sequence[str],
    warnings: Sequence[str],
    remarks: Sequence[str],
) -> str:
    of = _source(stored.checkpoint) if _has_source(stored, result) else ""
    lines = "".join(f'<span class="vae-lab-warning">{escape(w)}</span>' for w in warnings)
    lines += "".join(f'<span class="vae-lab-remark">{escape(r)}</span>' for r in remarks)
    return (
        f'<figure class="{kind}" data-vae="{escape(result.name)}"><figcaption>'
        f'<span class="vae-lab-name">{breakable(result.name)}</span>{of}'
        f'<span class="vae-lab-quiet">{escape(" · ".join(facts))}</span>{lines}'
        f'</figcaption><div class="vae-lab-images">{body}</div></figure>'
    )


def _source(checkpoint: str) -> str:
    """The checkpoint that a built-in VAE is of; the script adds a badge if it is known to be no good."""
    badge = f'<button type="button" class="vae-lab-current-badge" data-checkpoint="{escape(checkpoint)}"></button>'
    return f'<span class="vae-lab-quiet">of {breakable(checkpoint)}</span> {badge}'


def _has_source(stored: StoredComparison, result: Decoded) -> bool:
    return result.name == BUILT_IN and bool(stored.checkpoint)


def breakable(name: str) -> str:
    """A file name that may wrap where a reader would break it, and is never cut."""
    text = escape(name)
    for sign in "/_-.":
        text = text.replace(sign, f"{sign}<wbr>")
    return text
