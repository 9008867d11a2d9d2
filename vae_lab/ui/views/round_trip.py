"""The Round trip page: images, loss maps and latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from torch import equal

from vae_lab.api.addresses import round_trip_url
from vae_lab.comparison import RoundTripped
from vae_lab.comparison.measures import EXPLANATIONS
from vae_lab.comparison.round_trip import LOSS_COLOURS, LOSS_SCALE, channel_images, loss_colour
from vae_lab.decoding import IN_STRIPS
from vae_lab.host.choices import BUILT_IN
from vae_lab.messages import text
from vae_lab.service.hashes import FoundVae
from vae_lab.service.round_trips import CHANNEL, IMAGE, LOSS, ORIGINAL, RGB, StoredRoundTrip
from vae_lab.ui.views.comparison import SMALL, message, outcome
from vae_lab.ui.views.html import render
from vae_lab.ui.views.sources import vae_found
from vae_lab.ui.views.tables import Number, Row, measure_column, table, time_column

__all__ = ["begin", "results", "summary"]

# CIEDE2000 -> how visible it is.
_STEPS = (
    (0.0, "0", "identical"),
    (2.0, "2", "barely visible side by side"),
    (5.0, "5", "clearly visible"),
    (10.0, "10", "a different shade"),
    (LOSS_SCALE, f"{LOSS_SCALE:.0f} and above", "a different colour"),
)

_LOSSES = ("psnr", "ssim", "delta_e")
_TIMES = (
    ("encode", "Encode", "Encoding time, without loading the VAE."),
    ("decode", "Decode", "Decoding time, without loading the VAE."),
)


def begin() -> str:
    """What a first-time user sees in place of results."""
    return render("round_trip", "begin")


def summary(stored: StoredRoundTrip, found: FoundVae | None = None) -> str:
    """The result of a round trip, in one line; ``found``: the VAE that the image's generation parameters name."""
    trip = stored.trip
    done = sum(result.image is not None for result in trip)
    seconds = sum(result.encode_seconds + result.decode_seconds for result in trip)
    template = "{count} VAE, round trip in {seconds} s." if done == 1 else "{count} VAEs, round trip in {seconds} s."
    sentence = text(template, count=done, seconds=f"{seconds:.1f}")
    remarks = [text("The image was {reason}.", reason=remark) for remark in stored.remarks]
    return message(" ".join([outcome(sentence, len(trip.results) - done, trip.cancelled), *remarks, *vae_found(found)]))


# --- what is shown -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Figure:
    """One image with its caption.

    Attributes:
        vae: its name; ``Original`` for the input image.
        width, height: of the image, or of the place where it would be.
        url: of the image.
        alt: describes it.
        facts: in English, empty ones are left out.
        loss: the VAE's losses in one line.
        reference: this is the original.
        finite: the VAE produced no NaN or infinite values.
        error: why there is no image.
    """

    vae: str
    width: int
    height: int
    url: str = ""
    alt: str = ""
    facts: Sequence[str] = ()
    loss: str = ""
    reference: bool = False
    finite: bool = True
    error: str = ""

    @property
    def small(self) -> bool:
        return self.width < SMALL


@dataclass(frozen=True)
class _LatentImage:
    """A latent as RGB, or one of its channels."""

    kind: str
    url: str
    alt: str
    caption: Sequence[str]


@dataclass(frozen=True)
class _LatentRow:
    """One latent, with all VAEs whose encoders produced it."""

    names: Sequence[str]
    width: int
    height: int
    facts: Sequence[str]
    images: Sequence[_LatentImage]

    @property
    def small(self) -> bool:
        return self.width < SMALL


def results(stored: StoredRoundTrip) -> str:
    """The images, the loss maps below them in the same columns, and the latents."""
    numbered = list(enumerate(stored.trip))
    done = [(number, result) for number, result in numbered if result.image is not None]
    original = _original(stored)
    return render(
        "round_trip",
        "results",
        images=[original, *(_decoded(stored, number, result) for number, result in numbered)],
        losses=[original, *(_loss(stored, number, result) for number, result in done)],
        latents=[_latent(stored, *latent) for latent in _distinct_latents(done)],
        ramp=list(map(_css, LOSS_COLOURS)),
        steps=[(_css(loss_colour(value)), shown, meaning) for value, shown, meaning in _STEPS],
        table=Markup(_numbers(stored, [result for _, result in done])),  # noqa: S704  rendered by a template
        checkpoint=stored.checkpoint,
    )


def _numbers(stored: StoredRoundTrip, done: Sequence[RoundTripped]) -> str:
    """The losses as a table."""
    original = text("the original")
    columns = [*(measure_column(key, original) for key in _LOSSES), *(time_column(*time) for time in _TIMES)]
    hint = text("Hover over a heading for an explanation; click to sort. Higher PSNR and SSIM mean a smaller loss.")
    return table(stored.id, hint, columns, list(map(_row, done)))


def _row(result: RoundTripped) -> Row:
    losses = [Number(getattr(result.loss, key), EXPLANATIONS[key].digits) for key in _LOSSES]
    return Row(result.name, [*losses, Number(result.encode_seconds, 2), Number(result.decode_seconds, 2)])


def _original(stored: StoredRoundTrip) -> _Figure:
    height, width = stored.trip.original.shape[:2]
    url = round_trip_url(stored, 0, ORIGINAL)
    return _Figure("Original", width, height, url, text("The original"), [f"{width} x {height}"], reference=True)


def _decoded(stored: StoredRoundTrip, number: int, result: RoundTripped) -> _Figure:
    height, width = stored.trip.original.shape[:2]
    family = result.family.title if result.family else ""
    built_in = result.name == BUILT_IN and stored.checkpoint
    of = text("of {checkpoint}", checkpoint=stored.checkpoint) if built_in else ""
    if result.loss is None:
        return _Figure(result.name, width, height, facts=[of, family, "not used"], error=result.error)
    times = text(
        "encode {encode} s, decode {decode} s",
        encode=f"{result.encode_seconds:.2f}", decode=f"{result.decode_seconds:.2f}",
    )  # fmt: skip
    return _Figure(
        result.name, width, height, round_trip_url(stored, number, IMAGE),
        text("{vae}, after the round trip", vae=result.name),
        [of, family, times, IN_STRIPS if result.in_strips else ""], str(result.loss), finite=result.finite,
    )  # fmt: skip


def _loss(stored: StoredRoundTrip, number: int, result: RoundTripped) -> _Figure:
    height, width = stored.trip.original.shape[:2]
    mean = text("mean ΔE {value}", value=f"{result.loss.delta_e:.2f}") if result.loss else ""
    url, alt = round_trip_url(stored, number, LOSS), text("{vae}, loss map", vae=result.name)
    return _Figure(result.name, width, height, url, alt, [mean])


def _css(colour: tuple[int, int, int]) -> str:
    return "rgb({} {} {})".format(*colour)


def _distinct_latents(done: Sequence[tuple[int, RoundTripped]]) -> list[tuple[int, RoundTripped, list[str]]]:
    """Each latent once, with the names of all VAEs that produced it: fine-tunes often share their encoder."""
    distinct: list[tuple[int, RoundTripped, list[str]]] = []
    for number, result in done:
        assert result.latent is not None
        same = next(
            (row for row in distinct if row[1].latent is not None and equal(row[1].latent, result.latent)), None
        )
        if same is None or same[1].family != result.family:
            distinct.append((number, result, [result.name]))
        else:
            same[2].append(result.name)
    return distinct


def _latent(stored: StoredRoundTrip, number: int, result: RoundTripped, names: Sequence[str]) -> _LatentRow:
    assert result.latent is not None
    _, channels, height, width = result.latent.shape
    rgb = RGB in stored.kinds(result)
    images = []
    if rgb:
        url, alt = round_trip_url(stored, number, RGB), text("{vae}, latent as RGB", vae=result.name)
        images.append(_LatentImage(RGB, url, alt, ("RGB",)))
    for i, (_, low, high) in enumerate(channel_images(result.latent)):
        kind, channel = f"{CHANNEL}{i}", i + 1
        span = text("{low} to {high}", low=f"{low:.2f}", high=f"{high:.2f}")
        alt = text("{vae}, latent, channel {number}", vae=result.name, number=channel)
        caption = (text("Channel {number}", number=channel), span)
        images.append(_LatentImage(kind, round_trip_url(stored, number, kind), alt, caption))
    size = text("{channels} channels, {size}", channels=channels, size=f"{width} x {height}")
    facts = [result.family.title if result.family else text("family unknown"), size]
    if len(names) > 1:
        facts.append(text("identical latents"))
    if not rgb:
        facts.append(text("no linear conversion to RGB is known for this family"))
    return _LatentRow(names, width, height, facts, images)
