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

from vae_lab.checkup.findings import BROKEN, SUSPECT, Evidence, Finding, Severity
from vae_lab.checkup.probe import Probe, Reading

__all__ = ["decoder_findings", "judge_probe"]

_Limits = tuple[float, float]


@dataclass(frozen=True)
class _Lines:
    """Thresholds for one decoded chart, each as (broken, suspect).

    Attributes:
        contrast: minimum L* of white minus black.
        gain: minimum slope of lightness over the patches.
        photo: minimum slope of lightness in the photo.
        colour: minimum of the retained colour.
        overall: minimum of the mean of these four, for an image where each is slightly low.
        too_much: maximum slope of lightness in the photo.
        too_much_raw: the same, before clipping to 0..1, which scaled weights cannot hide.
    """

    contrast: _Limits
    gain: _Limits
    photo: _Limits
    colour: _Limits
    overall: _Limits
    too_much: _Limits
    too_much_raw: _Limits


# Reference latents, decoded:
_DECODER = _Lines((80.0, 90.0), (0.78, 0.88), (0.75, 0.90), (0.75, 0.90), (0.90, 0.95), (1.45, 1.25), (1.8, 1.6))
# The chart, encoded and decoded. The encoder adds a small loss and makes photos harder:
_OWN = _Lines((80.0, 88.0), (0.75, 0.85), (0.70, 0.80), (0.75, 0.85), (0.90, 0.95), (1.7, 1.55), (2.2, 1.9))

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
    loss = _loss(reading, _DECODER)
    if loss:
        severity, evidence = loss
        text = (
            "Images are grey and washed out: decoding loses contrast and colour."
            if severity == BROKEN
            else "Images are slightly paler than they should be."
        )
        yield Finding("grey", severity, text, evidence, _GREY_REMEDY)
    yield from _wrong_colours(reading, _DECODER, loss is not None)
    yield from _texture(reading)


def _own_findings(reading: Reading, *, combined: bool) -> Iterator[Finding]:
    """Findings about encoder and decoder together. ``combined``: the decoder was not measured separately."""
    dead = _no_image(reading)
    loss = _loss(reading, _OWN)
    if dead and (combined or reading.finite < 1.0):
        yield dead
    elif dead or loss:
        severity, evidence = loss or (BROKEN, dead.evidence if dead else ())
        if combined:
            yield Finding("grey", severity, "The chart is grey after encoding and decoding.", evidence, _GREY_REMEDY)
        else:
            text = (
                "The encoder is damaged: encoding loses most contrast and colour. "
                "This affects img2img, inpainting and hires fix, but not plain txt2img."
                if severity == BROKEN
                else "The encoder is damaged: encoding loses some contrast and colour. "
                "This affects img2img, inpainting and hires fix, but not plain txt2img."
            )
            yield Finding("encoder-broken", severity, text, evidence, _OTHER_VAE)
    if combined and not dead:
        yield from _wrong_colours(reading, _OWN, loss is not None)
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


def _loss(reading: Reading, lines: _Lines) -> tuple[Severity, tuple[Evidence, ...]] | None:
    """The severity of a loss of contrast or colour, with all numbers; None if there is no loss."""
    measured = (
        (reading.contrast, lines.contrast),
        (reading.gain_l, lines.gain),
        (reading.photo_gain_l, lines.photo),
        (reading.colour_retained, lines.colour),
        (reading.overall, lines.overall),
    )
    severity = _worst([_under(value, limits) for value, limits in measured])
    if severity is None:
        return None
    expected = [f"1, at least {suspect:g}" for _, (_, suspect) in measured]
    evidence = (
        *_levels(reading),
        Evidence("contrast retained", reading.gain_l, "", expected[1]),
        Evidence("contrast retained in a photo", reading.photo_gain_l, "", expected[2]),
        Evidence("colour retained", reading.colour_retained, "", expected[3]),
        Evidence("overall", reading.overall, "", expected[4]),
        Evidence("colour error", reading.mean_delta_e, "CIEDE2000", "0"),
    )
    return severity, evidence


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
