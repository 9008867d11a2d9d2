"""The round trip's pieces of HTML: images, loss maps and latents. Everything from outside is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from torch import equal

from vae_lab.api.addresses import round_trip_url
from vae_lab.comparison import RoundTripped
from vae_lab.comparison.measures import EXPLANATIONS
from vae_lab.comparison.round_trip import LOSS_COLOURS, LOSS_SCALE, channel_images, loss_colour
from vae_lab.decoding import IN_STRIPS
from vae_lab.host.base import BUILT_IN
from vae_lab.service.round_trips import CHANNEL, IMAGE, LOSS, ORIGINAL, RGB, StoredRoundTrip
from vae_lab.ui.views.comparison import breakable, note
from vae_lab.ui.views.tables import column, name_column, number_cell, tabular, vae_row

__all__ = ["BEGIN", "results", "summary"]

_SMALL = 256  # images below this width are enlarged with hard pixels, so that no blur hides a difference

BEGIN = (
    '<div class="vae-lab-empty"><h3>No image yet</h3><p>Drop one on the left and press Round trip: it goes through '
    "each VAE's encoder and decoder, and you see what is lost on the way.</p></div>"
)
"""What a first-time user sees in place of results."""

# CIEDE2000, and what it looks like.
_STEPS = (
    (0.0, "0", "equal"),
    (2.0, "2", "just visible side by side"),
    (5.0, "5", "plainly visible"),
    (10.0, "10", "another shade"),
    (LOSS_SCALE, f"{LOSS_SCALE:.0f} and above", "another colour"),
)

_HINT = "Point at a heading to read what it means, press it to sort. The smaller the loss, the higher PSNR and SSIM."
_LOSSES = ("psnr", "ssim", "delta_e")
_TIMES = (
    ("encode", "Encode", "Time for encoding alone, without loading the VAE."),
    ("decode", "Decode", "Time for decoding alone, without loading the VAE."),
)


def summary(stored: StoredRoundTrip) -> str:
    """How it went, in one line."""
    trip = stored.trip
    done = sum(result.image is not None for result in trip)
    refused = len(trip.results) - done
    seconds = sum(result.encode_seconds + result.decode_seconds for result in trip)
    parts = [f"{done} VAE{'s' * (done != 1)} there and back in {seconds:.1f} s"]
    if refused:
        parts.append(f"{refused} refused")
    if trip.cancelled:
        parts.insert(0, "cancelled")
    text = ", ".join(parts)
    remarks = f" The image was {' and '.join(stored.remarks)}." if stored.remarks else ""
    return note(f"{text[0].upper()}{text[1:]}.{remarks}")


def results(stored: StoredRoundTrip) -> str:
    """The images, the loss maps below them in the same columns, and the latents."""
    numbered = list(enumerate(stored.trip))
    images = [_original(stored), *(_decoded(stored, number, result) for number, result in numbered)]
    done = [(number, result) for number, result in numbered if result.image is not None]
    parts = [_section("images", "Images", "", images, "vae-lab-grid", stored.checkpoint)]
    if done:
        parts.append(_numbers(stored, [result for _, result in done]))
        losses = [_original(stored), *(_loss(stored, number, result) for number, result in done)]
        parts.append(_section("losses", "Loss maps", _legend(), losses, "vae-lab-grid vae-lab-losses"))
        latents = [_latent(stored, *alike) for alike in _alike(done)]
        said = (
            "What the encoder made of the image: as RGB by the family's linear map, without a VAE, and channel by "
            "channel, each from its lowest value (black) to its highest (white)."
        )
        words = f'<p class="vae-lab-quiet">{escape(said)}</p>'
        parts.append(_section("latents", "The latent itself", words, latents, "vae-lab-latents"))
    return f'<div class="vae-lab-roundtrip">{"".join(parts)}</div>'


def _numbers(stored: StoredRoundTrip, done: Sequence[RoundTripped]) -> str:
    """The losses as a table."""
    losses = [(key, EXPLANATIONS[key]) for key in _LOSSES]
    columns = [
        *((key, known.title, known.unit, known.text.format(reference="the original")) for key, known in losses),
        *((key, title, "s", text) for key, title, text in _TIMES),
    ]
    head = name_column(stored.id) + "".join(column(stored.id, *each) for each in columns)
    return tabular(_HINT, "", head, "".join(_numbers_row(result, i) for i, result in enumerate(done)))


def _numbers_row(result: RoundTripped, order: int) -> str:
    assert result.loss is not None
    losses = "".join(number_cell(getattr(result.loss, key), EXPLANATIONS[key].digits) for key in _LOSSES)
    times = "".join(number_cell(seconds, 2) for seconds in (result.encode_seconds, result.decode_seconds))
    return vae_row(order, result.name, losses + times)


def _section(name: str, title: str, words: str, cells: Sequence[str], kind: str, checkpoint: str = "") -> str:
    of = f' data-checkpoint="{escape(checkpoint)}"' if checkpoint else ""  # what a choice made below an image is for
    return (
        f'<section id="vae_lab_roundtrip_{name}"><h3>{escape(title)}</h3>{words}<div class="{kind}"{of}>'
        f"{''.join(cells)}</div></section>"
    )


def _original(stored: StoredRoundTrip) -> str:
    height, width = stored.trip.original.shape[:2]
    image = _image(stored, 0, ORIGINAL, width, height, "The original")
    return _figure("vae-lab-decoded", "Original", "Original", [f"{width} x {height}"], image)


def _decoded(stored: StoredRoundTrip, number: int, result: RoundTripped) -> str:
    height, width = stored.trip.original.shape[:2]
    family = result.family.title if result.family else ""
    of = f"of {stored.checkpoint}" if result.name == BUILT_IN and stored.checkpoint else ""
    if result.loss is None:
        body = (
            f'<div class="vae-lab-reason" style="aspect-ratio: {width} / {height}"><p>{escape(result.error)}</p></div>'
        )
        return _figure("vae-lab-refused", result.name, result.name, [of, family, "not used"], body)
    seconds = f"encode {result.encode_seconds:.2f} s, decode {result.decode_seconds:.2f} s"
    warnings = () if result.finite else ("The result has NaN or infinite values; they are shown black.",)
    body = _image(stored, number, IMAGE, width, height, f"{result.name}, after the round trip")
    facts = [of, family, seconds, IN_STRIPS if result.in_strips else ""]
    return _figure("vae-lab-decoded", result.name, result.name, facts, body, str(result.loss), warnings)


def _loss(stored: StoredRoundTrip, number: int, result: RoundTripped) -> str:
    height, width = stored.trip.original.shape[:2]
    mean = f"ΔE {result.loss.delta_e:.2f} on average" if result.loss else ""
    body = _image(stored, number, LOSS, width, height, f"{result.name}, loss map")
    return _figure("vae-lab-decoded", result.name, result.name, [mean], body)


def _legend() -> str:
    colours = ", ".join(map(_css, LOSS_COLOURS))
    steps = "".join(
        f'<li><i style="background: {_css(loss_colour(value))}"></i><b>{words}</b> {escape(meaning)}</li>'
        for value, words, meaning in _STEPS
    )
    return (
        '<p class="vae-lab-quiet">How far each pixel is from the original (CIEDE2000, ΔE), on one scale for all VAEs: '
        'the brighter, the farther.</p><div class="vae-lab-legend"><div class="vae-lab-ramp" style="background: '
        f'linear-gradient(to right, {colours})"></div><ul>{steps}</ul></div>'
    )


def _css(colour: tuple[int, int, int]) -> str:
    return "rgb({} {} {})".format(*colour)


def _alike(done: Sequence[tuple[int, RoundTripped]]) -> list[tuple[int, RoundTripped, list[str]]]:
    """Each latent once, with the names of all VAEs that gave it: fine-tunes often share their encoder."""
    found: list[tuple[int, RoundTripped, list[str]]] = []
    for number, result in done:
        assert result.latent is not None
        same = next((row for row in found if row[1].latent is not None and equal(row[1].latent, result.latent)), None)
        if same is None or same[1].family != result.family:
            found.append((number, result, [result.name]))
        else:
            same[2].append(result.name)
    return found


def _latent(stored: StoredRoundTrip, number: int, result: RoundTripped, names: Sequence[str]) -> str:
    assert result.latent is not None
    _, channels, height, width = result.latent.shape
    kinds = stored.kinds(result)
    cells = []
    if RGB in kinds:
        cells.append(_small(stored, number, RGB, (width, height), f"{result.name}, latent as RGB", ("RGB",)))
    for i, (_, low, high) in enumerate(channel_images(result.latent)):
        words = (f"Channel {i + 1}", f"{low:.2f} to {high:.2f}")
        cells.append(
            _small(stored, number, f"{CHANNEL}{i}", (width, height), f"{result.name}, latent, channel {i + 1}", words)
        )
    facts = f"{result.family.title if result.family else ''} · {channels} channels, {width} x {height}"
    facts += " · these encode alike" if len(names) > 1 else ""
    missing = "" if RGB in kinds else " · no linear map to RGB is known for this family"
    return (
        f'<div class="vae-lab-latent-row" data-vae="{escape(result.name)}"><p><span class="vae-lab-name">'
        f'{", ".join(map(breakable, names))}</span> <span class="vae-lab-quiet">{escape(facts + missing)}</span></p>'
        f'<div class="vae-lab-channels">{"".join(cells)}</div></div>'
    )


def _small(
    stored: StoredRoundTrip, number: int, kind: str, size: tuple[int, int], alt: str, words: Sequence[str]
) -> str:
    image = _image(stored, number, kind, *size, alt)
    caption = "".join(f"<span>{escape(part)}</span>" for part in words)
    return f'<figure data-kind="{escape(kind)}">{image}<figcaption>{caption}</figcaption></figure>'


def _image(stored: StoredRoundTrip, number: int, kind: str, width: int, height: int, alt: str) -> str:
    url = escape(round_trip_url(stored, number, kind))
    small = ' class="vae-lab-small"' if width < _SMALL else ""
    return (
        f'<a href="{url}" target="_blank" title="Open in full size"><img{small} src="{url}" width="{width}"'
        f' height="{height}" alt="{escape(alt)}"></a>'
    )


def _figure(
    kind: str,
    vae: str,
    name: str,
    facts: Sequence[str],
    body: str,
    numbers: str = "",
    warnings: Sequence[str] = (),
) -> str:
    lines = f'<span class="vae-lab-loss">{escape(numbers)}</span>' if numbers else ""
    lines += "".join(f'<span class="vae-lab-quiet">{breakable(fact)}</span>' for fact in facts if fact)
    lines += "".join(f'<span class="vae-lab-warning">{escape(warning)}</span>' for warning in warnings)
    reference = " data-reference" if vae == "Original" else ""  # no VAE, and what the others are held against
    return (
        f'<figure class="{kind}" data-vae="{escape(vae)}"{reference}><figcaption>'
        f'<span class="vae-lab-name">{breakable(name)}</span>{lines}</figcaption>'
        f'<div class="vae-lab-images">{body}</div></figure>'
    )
