"""From measurements to findings. All thresholds stand here; docs/checkup.md shows what they were chosen on.

They rest on what every faithful VAE does to the chart: white stays white, black stays black, middle tones keep their
distance, colours keep their strength. A VAE that adds contrast or colour, as those for anime do, is not faithful but
does no harm, so only losses count, until the excess is absurd.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vae_lab.checkup.findings import BROKEN, INFORMATION, SUSPECT, Evidence, Finding, Severity
from vae_lab.checkup.probe import Probe, Reading

__all__ = ["HALF_PRECISION_LIMIT", "decoder_findings", "judge_probe"]

HALF_PRECISION_LIMIT = 65504.0
"""The largest number in fp16."""

_Limits = tuple[float, float]


@dataclass(frozen=True)
class _Lines:
    """Where a chart that went one way is suspect, and where broken.

    Attributes:
        contrast: broken and suspect below: L* of white less black.
        gain: the same of the slope of lightness over the patches.
        photo: the same in the photo.
        colour: the same of what is kept of colour.
        overall: the same of the mean of these four: where all are a little low, the image is paler than each says.
        too_much: broken and suspect above: slope of lightness in the photo.
        too_much_raw: the same before values are cut to 0..1, which is what scaled weights cannot hide.
    """

    contrast: _Limits
    gain: _Limits
    photo: _Limits
    colour: _Limits
    overall: _Limits
    too_much: _Limits
    too_much_raw: _Limits


# The decoder alone, from reference latents:
_DECODER = _Lines((80.0, 90.0), (0.78, 0.88), (0.75, 0.90), (0.75, 0.90), (0.90, 0.95), (1.45, 1.25), (1.8, 1.6))
# Through the VAE's own encoder as well, which loses a little of its own, and makes photos harder:
_OWN = _Lines((80.0, 88.0), (0.75, 0.85), (0.70, 0.80), (0.75, 0.85), (0.90, 0.95), (1.7, 1.55), (2.2, 1.9))

_DEAD = (5.0, 0.1)  # contrast and gain below which there is no image at all
# (broken above, suspect above)
_DELTA_E = (18.0, 15.0)  # mean CIEDE2000
_CAST = (20.0, 12.0)  # C* of neutral patches
_NOISE = (10.0, 5.0)  # L* within patches
_STRIPES = (6.0, 3.0)  # L* of means of rows or columns

_OTHER_VAE = "Choose a healthy VAE of the same family for this checkpoint."
_GREY_REMEDY = "Choose an external VAE of the same family: the built-in one then has no effect."


def judge_probe(probe: Probe) -> tuple[Finding, ...]:
    """All that the chart says against a VAE, and for information whether it needs more than half precision."""
    findings = list(decoder_findings(probe.reference)) if probe.reference else []
    if probe.own and not any(finding.severity == BROKEN for finding in findings):
        findings += _own_findings(probe.own, alone=probe.reference is None)
    largest = probe.largest_activation
    if largest is not None and largest > HALF_PRECISION_LIMIT and not any(f.code == "nan" for f in findings):
        findings.append(_overflow(largest))
    return tuple(findings)


def decoder_findings(reading: Reading) -> Iterator[Finding]:
    """What the reference latents, decoded, say about the decoder."""
    dead = _no_image(reading)
    if dead:
        yield dead
        return
    loss = _loss(reading, _DECODER)
    if loss:
        severity, evidence = loss
        text = (
            "Images come out grey and washed out: contrast and colours are lost on the way from latent to image."
            if severity == BROKEN
            else "Images come out a little paler than they should."
        )
        yield Finding("grey", severity, text, evidence, _GREY_REMEDY)
    yield from _wrong_colours(reading, _DECODER, loss is not None)
    yield from _texture(reading)


def _own_findings(reading: Reading, *, alone: bool) -> Iterator[Finding]:
    """What the way through encoder and decoder adds. ``alone``: nothing is known of the decoder by itself."""
    dead = _no_image(reading)
    loss = _loss(reading, _OWN)
    if dead and (alone or reading.finite < 1.0):
        yield dead
    elif dead or loss:
        severity, evidence = loss or (BROKEN, dead.evidence if dead else ())
        if alone:
            yield Finding(
                "grey", severity, "A chart that is encoded and decoded comes back grey.", evidence, _GREY_REMEDY
            )
        else:
            much = "lose most of their" if severity == BROKEN else "lose some"
            text = (
                f"The encoder is damaged: images that go in {much} contrast and colour. "
                "img2img, inpainting and hires fix suffer; plain txt2img does not."
            )
            yield Finding("encoder-broken", severity, text, evidence, _OTHER_VAE)
    if alone and not dead:
        yield from _wrong_colours(reading, _OWN, loss is not None)
        yield from _texture(reading)


def _no_image(reading: Reading) -> Finding | None:
    if reading.finite < 1.0:
        evidence = (Evidence("values that are not numbers", 100.0 * (1.0 - reading.finite), "%", "0 %"),)
        text = "The VAE computes values that are not numbers (NaN or infinite): images come out black."
        remedy = "Choose another VAE; if it is one of SDXL, start the WebUI with --no-half-vae."
        return Finding("nan", BROKEN, text, evidence, remedy)
    if reading.contrast < _DEAD[0] and reading.gain_l < _DEAD[1]:
        level = (reading.white + reading.black) / 2
        evidence = (*_levels(reading), Evidence("lightness everywhere", level, "L*"))
        if level < 2.0:
            return Finding("black", BROKEN, "Every image comes out black.", evidence, _GREY_REMEDY)
        if reading.noise > _NOISE[0]:
            noise = Evidence("unevenness of flat patches", reading.noise, "L*", "0")
            text = "Nothing of the image is left but noise."
            return Finding("noisy-or-patterned", BROKEN, text, (*evidence, noise), _GREY_REMEDY)
        return Finding("flat", BROKEN, "Nothing of the image is left: one flat tone.", evidence, _GREY_REMEDY)
    return None


def _loss(reading: Reading, lines: _Lines) -> tuple[Severity, tuple[Evidence, ...]] | None:
    """The worst of what is lost, with all numbers; None if nothing is."""
    measured = (
        (reading.contrast, lines.contrast),
        (reading.gain_l, lines.gain),
        (reading.photo_gain_l, lines.photo),
        (reading.colour_kept, lines.colour),
        (reading.overall, lines.overall),
    )
    severity = _worst([_under(value, limits) for value, limits in measured])
    if severity is None:
        return None
    wanted = [f"1, at least {suspect:g}" for _, (_, suspect) in measured]
    evidence = (
        *_levels(reading),
        Evidence("contrast kept", reading.gain_l, "", wanted[1]),
        Evidence("contrast kept in a photo", reading.photo_gain_l, "", wanted[2]),
        Evidence("colour kept", reading.colour_kept, "", wanted[3]),
        Evidence("kept in all", reading.overall, "", wanted[4]),
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
    """Casts, exaggeration and wrong hues; ``explained``: a loss explains a large colour error already."""
    exaggerated = _worst(
        [_over(reading.photo_gain_l, lines.too_much), _over(reading.photo_gain_raw, lines.too_much_raw)]
    )
    if exaggerated:
        evidence = (
            Evidence("contrast in a photo", reading.photo_gain_l, "", f"1, at most {lines.too_much[1]:g}"),
            Evidence(
                "the same before cutting off", reading.photo_gain_raw, "", f"1, at most {lines.too_much_raw[1]:g}"
            ),
        )
        text = "Contrast and colours are exaggerated so far that lights and shadows burn out."
        yield Finding("colour-cast", exaggerated, text, evidence, _OTHER_VAE)
        return
    severity = _worst([_over(reading.cast, _CAST), None if explained else _over(reading.mean_delta_e, _DELTA_E)])
    if severity:
        evidence = (
            Evidence("colour of neutral greys", reading.cast, "C*", "0"),
            Evidence("colour error", reading.mean_delta_e, "CIEDE2000", "0"),
        )
        yield Finding("colour-cast", severity, "Colours come out wrong.", evidence, _OTHER_VAE)


def _texture(reading: Reading) -> Iterator[Finding]:
    severity = _worst([_over(reading.noise, _NOISE), _over(reading.stripes, _STRIPES)])
    if severity:
        evidence = (
            Evidence("unevenness of flat patches", reading.noise, "L*", f"at most {_NOISE[1]:g}"),
            Evidence("stripes in flat patches", reading.stripes, "L*", f"at most {_STRIPES[1]:g}"),
        )
        yield Finding("noisy-or-patterned", severity, "Flat areas come out noisy or striped.", evidence, _OTHER_VAE)


def _overflow(largest: float) -> Finding:
    evidence = (Evidence("largest activation", largest, "", f"half precision ends at {HALF_PRECISION_LIMIT:.0f}"),)
    text = "In half precision this VAE can give black images; in full precision or bfloat16 it is fine."
    remedy = "If images come out black, start the WebUI with --no-half-vae, or use a VAE made for half precision."
    return Finding("fp16-overflow", INFORMATION, text, evidence, remedy)
