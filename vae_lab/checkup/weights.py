"""The checkup of a VAE's weights: everything that does not depend on the file that they came in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from vae_lab.autoencoders import Autoencoder, detect_family
from vae_lab.autoencoders.family_detection import can_take_the_chart
from vae_lab.checkup.findings import BROKEN, HEALTHY, Evidence, Finding, Verdict
from vae_lab.checkup.judge import decoder_findings, judge_probe
from vae_lab.checkup.probe import Probe, Reading, probe, read_chart
from vae_lab.comparison.pixels import png_bytes, to_pixels
from vae_lab.latents.chart import chart_image, chart_latents
from vae_lab.latents.family import FAMILIES, Family

__all__ = [
    "CHECKUP_VERSION",
    "DECODED",
    "ROUND_TRIP",
    "Checkup",
    "chart_png",
    "check_decoder",
    "check_weights",
    "identity_key",
]

CHECKUP_VERSION = 1
"""Raised when the chart, what is measured, or how it is judged changes."""

DECODED = "decoded"
"""Chart: the reference latents through the decoder."""
ROUND_TRIP = "round trip"
"""Chart: the chart through encoder and decoder."""

_OTHER_MODEL = "Use it with models of its own family, and choose another VAE here."


@dataclass(frozen=True)
class Checkup:
    """What the weights of a VAE are like.

    Attributes:
        family_id: latent family, or "" if the weights do not tell.
        findings: what was found, information included.
        measured: the numbers behind the verdict, also of a healthy VAE.
        charts: :data:`DECODED` and :data:`ROUND_TRIP`, where they were made: PNG of 192 x 256 pixels.
    """

    family_id: str
    findings: tuple[Finding, ...]
    measured: tuple[Evidence, ...] = ()
    charts: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def family(self) -> Family | None:
        """The latent family, where the weights tell."""
        return FAMILIES.get(self.family_id)

    @property
    def verdict(self) -> Verdict:
        """What the findings add up to."""
        return Verdict.of(self.findings)

    def to_json(self) -> dict[str, Any]:
        """Everything but the charts, in plain values."""
        return {
            "family_id": self.family_id,
            "findings": [finding.to_json() for finding in self.findings],
            "measured": [asdict(evidence) for evidence in self.measured],
        }

    @classmethod
    def from_json(cls, stored: Any) -> Checkup:
        """What :meth:`to_json` gave; without charts.

        Raises:
            ValueError: it has another shape.
        """
        try:
            family_id = stored["family_id"]
            findings = tuple(map(Finding.from_json, stored["findings"]))
            measured = tuple(map(Evidence.from_json, stored["measured"]))
        except (KeyError, TypeError) as error:
            raise ValueError("not a checkup") from error
        if family_id not in ("", *FAMILIES):
            raise ValueError("not a checkup")
        return cls(family_id, findings, measured)


def identity_key(digest: str, hint: Family | None, precision: str = "fp32") -> str:
    """Key of a checkup: the fingerprint of the weights, the family that they are judged by, and the precision."""
    return f"{CHECKUP_VERSION}:{digest}:{hint.id if hint else ''}:{precision}"


def chart_png() -> bytes:
    """The chart as it goes in: PNG of 192 x 256 pixels."""
    return png_bytes(to_pixels(chart_image())[0])


def check_weights(autoencoder: Autoencoder, hint: Family | None = None) -> Checkup:
    """Put the chart through a VAE and judge what comes out.

    Args:
        autoencoder: in full precision; its ``family`` is not looked at, the weights are.
        hint: what the checkpoint around it says about the family, if it is in one.
    """
    if not can_take_the_chart(autoencoder):
        return Checkup("", ())
    evidence = detect_family(autoencoder, hint)
    found = evidence.family
    family = found or _best_guess(evidence.by_decoder, autoencoder.latent_channels, hint)
    if family is None:
        return Checkup("", ())
    measured = probe(
        autoencoder.with_family(family),
        decoded=evidence.decoded.get(family.id),
        encoded=evidence.encoded.get(family.id),
    )
    if hint is not None and found is not None and hint.id != found.id:
        # In the model around it, its decoder gets the latents of that model.
        findings = (_wrong_family(found, hint, evidence.by_decoder),)
    elif found is None and _speaks_another_language(measured):
        findings = (_unknown_family(evidence.by_decoder),)
    else:
        findings = judge_probe(measured)
    return Checkup(found.id if found else "", findings, _numbers(measured), _charts(measured))


def check_decoder(decode: Callable[[Tensor], Tensor], family: Family) -> Checkup | None:
    """As :func:`check_weights`, by the decoder alone, such as one that a host holds in memory.

    Args:
        decode: [1,C,h,w] in model space -> [1,3,H,W], about 0..1, not clamped.
        family: whose latents the host gives it.

    Returns:
        None for a family without reference latents.
    """
    latents = chart_latents().get(family.id)
    if latents is None:
        return None
    measured = Probe(family, read_chart(decode(latents)), None)
    return Checkup(family.id, judge_probe(measured), _numbers(measured), _charts(measured))


def _best_guess(by_decoder: Mapping[str, float], channels: int, hint: Family | None) -> Family | None:
    """The family to judge by when the weights do not tell: a decoder of no family is broken in each of them."""
    if hint is not None and hint.latent_channels == channels:
        return hint
    if by_decoder:
        return FAMILIES[max(by_decoder, key=lambda family: by_decoder[family])]
    return next((family for family in FAMILIES.values() if family.latent_channels == channels), None)


def _speaks_another_language(measured: Probe) -> bool:
    """Its own encoder and decoder understand each other, but no latents of a known family."""
    if measured.reference is None or measured.own is None:
        return False
    alone = judge_probe(Probe(None, None, measured.own))
    return Verdict.of(alone).status == HEALTHY and bool(Verdict.of(decoder_findings(measured.reference)).faults)


def _scores(by_decoder: Mapping[str, float]) -> tuple[Evidence, ...]:
    return tuple(
        Evidence(f"colours in the right places, as {FAMILIES[family].title}", score, "", "1")
        for family, score in by_decoder.items()
    )


def _wrong_family(found: Family, wanted: Family, by_decoder: Mapping[str, float]) -> Finding:
    text = f"The VAE belongs to {found.title} models, the checkpoint is {wanted.title}: colours come out wrong."
    return Finding("wrong-family", BROKEN, text, _scores(by_decoder), _OTHER_MODEL)


def _unknown_family(by_decoder: Mapping[str, float]) -> Finding:
    known = " or ".join(FAMILIES[family].title for family in by_decoder)
    text = f"The VAE is sound in itself, but does not understand latents of {known}."
    return Finding("wrong-family", BROKEN, text, _scores(by_decoder), _OTHER_MODEL)


def _numbers(measured: Probe) -> tuple[Evidence, ...]:
    numbers = []
    for reading, way in ((measured.reference, "decoder alone"), (measured.own, "encoder and decoder")):
        if reading is not None:
            numbers += _reading_numbers(reading, way)
    if measured.largest_activation is not None:
        numbers.append(Evidence("largest activation", measured.largest_activation, "", "half precision ends at 65504"))
    return tuple(numbers)


def _reading_numbers(reading: Reading, way: str) -> list[Evidence]:
    rows = (
        ("white", reading.white, "L*", "100"),
        ("black", reading.black, "L*", "0"),
        ("contrast kept", reading.gain_l, "", "1"),
        ("contrast kept in a photo", reading.photo_gain_l, "", "1"),
        ("colour kept", reading.colour_kept, "", "1"),
        ("colour kept, hues included", reading.gain_c, "", "1"),
        ("colour error", reading.mean_delta_e, "CIEDE2000", "0"),
        ("colour of neutral greys", reading.cast, "C*", "0"),
        ("unevenness of flat patches", reading.noise, "L*", "0"),
        ("stripes in flat patches", reading.stripes, "L*", "0"),
        ("kept in all", reading.overall, "", "1"),
        ("contrast in a photo, before cutting off", reading.photo_gain_raw, "", "1"),
    )
    return [Evidence(f"{way}: {name}", value, unit, wanted) for name, value, unit, wanted in rows]


def _charts(measured: Probe) -> dict[str, bytes]:
    readings = {DECODED: measured.reference, ROUND_TRIP: measured.own}
    return {name: png_bytes(reading.image) for name, reading in readings.items() if reading is not None}
