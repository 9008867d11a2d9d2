"""Derives findings about a VAE from measurements.

The thresholds for a VAE are here, those for an image in :mod:`vae_lab.checkup.watch`. docs/checkup.md shows how they
were chosen.

They follow from how every faithful VAE reproduces the chart: white stays white, black stays black, midtones keep their
contrast, and colours their saturation. A VAE that adds contrast or saturation, as those for anime do, is not faithful
but harmless. So only losses count, unless the excess is extreme.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from vae_lab.checkup.findings import BROKEN, INFORMATION, SUSPECT, Evidence, Finding, Severity
from vae_lab.checkup.probe import Probe, Reading

__all__ = ["decoder_findings", "judge_probe"]

_Limits = tuple[float, float]


class _Loss(NamedTuple):
    """Thresholds for one number of which too little is a loss, and its range over healthy VAEs.

    ``suspect`` is where a loss becomes visible: 14 % less colour, or 13 % less contrast, make a mean
    CIEDE2000 of 2. A smaller loss is information if no healthy VAE has it.
    """

    broken: float
    suspect: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class _Lines:
    """Thresholds for one decoded chart; those without a range are (broken, suspect).

    Attributes:
        contrast: minimum L* of white minus black.
        gain: minimum slope of lightness over the patches.
        photo: minimum slope of lightness in the photo.
        colour: minimum of the retained colour.
        overall: minimum of the mean of these four, for an image where each is slightly low.
        too_much: maximum slope of lightness in the photo.
        too_much_raw: the same, before clipping to 0..1, which scaled weights cannot hide.
    """

    contrast: _Loss
    gain: _Loss
    photo: _Loss
    colour: _Loss
    overall: _Loss
    too_much: _Limits
    too_much_raw: _Limits


# Reference latents, decoded:
_DECODER = _Lines(
    contrast=_Loss(80.0, 88.0, 91.0, 100.0),
    gain=_Loss(0.78, 0.86, 0.92, 1.13),
    photo=_Loss(0.75, 0.88, 0.95, 1.20),
    colour=_Loss(0.75, 0.86, 0.99, 2.19),
    overall=_Loss(0.90, 0.91, 0.97, 1.00),
    too_much=(1.45, 1.25),
    too_much_raw=(1.8, 1.6),
)
# The chart, encoded and decoded. The encoder adds a small loss and makes photos harder:
_OWN = _Lines(
    contrast=_Loss(80.0, 88.0, 92.0, 100.0),
    gain=_Loss(0.75, 0.85, 0.92, 1.17),
    photo=_Loss(0.70, 0.80, 0.95, 1.43),
    colour=_Loss(0.75, 0.85, 0.93, 2.20),
    overall=_Loss(0.90, 0.93, 0.96, 1.00),
    too_much=(1.7, 1.55),
    too_much_raw=(2.2, 1.9),
)

# Of contrast or colour; a greater loss is visible next to the original: a mean CIEDE2000 of 1.
_SEEN_NEXT_TO_IT = 0.93

_NO_IMAGE = (5.0, 0.1)  # contrast and gain below which there is no image
# (broken above, suspect above)
_DELTA_E = (18.0, 15.0)  # mean CIEDE2000
_CAST = (20.0, 12.0)  # C* of neutral patches
_NOISE = (10.0, 5.0)  # L* within patches
_STRIPES = (6.0, 3.0)  # L* of means of rows or columns

_OTHER_VAE = "Choose a healthy VAE of the same family for this checkpoint."
_GREY_REMEDY = "Choose an external VAE of the same family; it replaces the built-in one."


def judge_probe(probe: Probe) -> tuple[Finding, ...]:
    """All findings about a probe, except those about half precision; see :mod:`vae_lab.checkup.half_precision`."""
    findings = list(decoder_findings(probe.reference)) if probe.reference else []
    if probe.own and not any(finding.severity == BROKEN for finding in findings):
        findings += _own_findings(probe.own, combined=probe.reference is None)
    return tuple(findings)


def decoder_findings(reading: Reading) -> Iterator[Finding]:
    """Findings about the decoder, from the decoded reference latents."""
    dead = _no_image(reading)
    if dead:
        yield dead
        return
    severity = _loss(reading, _DECODER)
    if severity == INFORMATION:
        text = "Images are slightly paler than with the healthy VAEs that were measured; this is hardly visible."
        yield Finding("pale", INFORMATION, text, _loss_evidence(reading, _DECODER))
    elif severity:
        text = (
            "Images are grey and washed out: decoding loses contrast and colour."
            if severity == BROKEN
            else "Images are slightly paler than they should be."
        )
        yield Finding("grey", severity, text, _loss_evidence(reading, _DECODER), _GREY_REMEDY)
    yield from _wrong_colours(reading, _DECODER, severity in (BROKEN, SUSPECT))
    yield from _texture(reading)


def _own_findings(reading: Reading, *, combined: bool) -> Iterator[Finding]:
    """Findings about encoder and decoder together. ``combined``: the decoder was not measured separately."""
    dead = _no_image(reading)
    severity, evidence = _loss(reading, _OWN), _loss_evidence(reading, _OWN)
    if dead and (combined or reading.finite < 1.0):
        yield dead
    elif severity == INFORMATION:
        text = (
            "Encoding and decoding loses slightly more than with the healthy VAEs that were measured; "
            "this is hardly visible."
        )
        yield Finding("pale", INFORMATION, text, evidence)
    elif severity and combined:
        yield Finding("grey", severity, "The chart is grey after encoding and decoding.", evidence, _GREY_REMEDY)
    elif severity:
        text = (
            "The encoder is damaged: encoding loses most contrast and colour. "
            "This affects img2img, inpainting and hires fix, but not plain txt2img."
            if severity == BROKEN
            else "The encoder is damaged: encoding loses some contrast and colour. "
            "This affects img2img, inpainting and hires fix, but not plain txt2img."
        )
        yield Finding("encoder-broken", severity, text, evidence, _OTHER_VAE)
    if combined and not dead:
        yield from _wrong_colours(reading, _OWN, severity in (BROKEN, SUSPECT))
        yield from _texture(reading)


def _no_image(reading: Reading) -> Finding | None:
    if reading.finite < 1.0:
        evidence = (Evidence("NaN or infinite values", 100.0 * (1.0 - reading.finite), "%", "0 %"),)
        text = "The VAE produces NaN or infinite values: images come out black."
        remedy = "Choose another VAE. An SDXL VAE may need --no-half-vae in A1111, or --vae-in-bf16 in Forge."
        return Finding("nan", BROKEN, text, evidence, remedy)
    if reading.contrast < _NO_IMAGE[0] and reading.gain_l < _NO_IMAGE[1]:
        level = (reading.white + reading.black) / 2
        evidence = (*_levels(reading), Evidence("mean lightness", level, "L*"))
        if level < 2.0:
            return Finding("black", BROKEN, "Every image is black.", evidence, _GREY_REMEDY)
        if reading.noise > _NOISE[0]:
            noise = Evidence("unevenness of flat patches", reading.noise, "L*", "0")
            text = "The image is only noise."
            return Finding("noisy-or-patterned", BROKEN, text, (*evidence, noise), _GREY_REMEDY)
        return Finding("flat", BROKEN, "The image is a single flat colour.", evidence, _GREY_REMEDY)
    return None


def _losses(reading: Reading, lines: _Lines) -> tuple[tuple[float, _Loss], ...]:
    return (
        (reading.contrast, lines.contrast),
        (reading.gain_l, lines.gain),
        (reading.photo_gain_l, lines.photo),
        (reading.colour_retained, lines.colour),
        (reading.overall, lines.overall),
    )


def _loss(reading: Reading, lines: _Lines) -> Severity | None:
    """How bad a loss of contrast or colour is; information if it is only more than healthy VAEs have, else None."""
    measured = _losses(reading, lines)
    severity = _worst([_under(value, (limits.broken, limits.suspect)) for value, limits in measured])
    pale = any(value < min(limits.lowest, _SEEN_NEXT_TO_IT) for value, limits in measured[1:])
    return severity or (INFORMATION if pale else None)


def _loss_evidence(reading: Reading, lines: _Lines) -> tuple[Evidence, ...]:
    """All numbers of a loss, each with its threshold and the range of healthy VAEs."""
    _, patches, photo, colour, overall = (
        f"1, at least {limits.suspect:g}; healthy VAEs {limits.lowest:g} to {limits.highest:g}"
        for _, limits in _losses(reading, lines)
    )
    return (
        *_levels(reading),
        Evidence("contrast retained", reading.gain_l, "", patches),
        Evidence("contrast retained in a photo", reading.photo_gain_l, "", photo),
        Evidence("colour retained", reading.colour_retained, "", colour),
        Evidence("overall", reading.overall, "", overall),
        Evidence("colour error", reading.mean_delta_e, "CIEDE2000", "0"),
    )


def _levels(reading: Reading) -> tuple[Evidence, Evidence]:
    return Evidence("white", reading.white, "L*", "100"), Evidence("black", reading.black, "L*", "0")


def _under(value: float, limits: _Limits) -> Severity | None:
    broken, suspect = limits
    return BROKEN if value < broken else SUSPECT if value < suspect else None


def _over(value: float, limits: _Limits) -> Severity | None:
    broken, suspect = limits
    return BROKEN if value > broken else SUSPECT if value > suspect else None


def _worst(severities: list[Severity | None]) -> Severity | None:
    return BROKEN if BROKEN in severities else SUSPECT if SUSPECT in severities else None


def _wrong_colours(reading: Reading, lines: _Lines, explained: bool) -> Iterator[Finding]:
    """Casts, exaggeration and wrong hues. ``explained``: a loss already explains a large colour error."""
    exaggerated = _worst(
        [_over(reading.photo_gain_l, lines.too_much), _over(reading.photo_gain_raw, lines.too_much_raw)]
    )
    if exaggerated:
        evidence = (
            Evidence("contrast in a photo", reading.photo_gain_l, "", f"1, at most {lines.too_much[1]:g}"),
            Evidence("the same, before clipping", reading.photo_gain_raw, "", f"1, at most {lines.too_much_raw[1]:g}"),
        )
        text = "Contrast and saturation are so exaggerated that highlights and shadows clip."
        yield Finding("colour-cast", exaggerated, text, evidence, _OTHER_VAE)
        return
    severity = _worst([_over(reading.cast, _CAST), None if explained else _over(reading.mean_delta_e, _DELTA_E)])
    if severity:
        evidence = (
            Evidence("colour cast of neutral greys", reading.cast, "C*", "0"),
            Evidence("colour error", reading.mean_delta_e, "CIEDE2000", "0"),
        )
        yield Finding("colour-cast", severity, "Colours are wrong.", evidence, _OTHER_VAE)


def _texture(reading: Reading) -> Iterator[Finding]:
    severity = _worst([_over(reading.noise, _NOISE), _over(reading.stripes, _STRIPES)])
    if severity:
        evidence = (
            Evidence("noise in flat patches", reading.noise, "L*", f"at most {_NOISE[1]:g}"),
            Evidence("stripes in flat patches", reading.stripes, "L*", f"at most {_STRIPES[1]:g}"),
        )
        yield Finding("noisy-or-patterned", severity, "Flat areas are noisy or striped.", evidence, _OTHER_VAE)
