"""Checks a VAE's weights, independently of the file that they are from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from torch import Tensor

from vae_lab.autoencoders import Autoencoder, detect_family
from vae_lab.autoencoders.computing import flushing_denormals
from vae_lab.autoencoders.family_detection import has_half, supports_chart
from vae_lab.checkup.findings import BROKEN, HEALTHY, INFORMATION, NOT_CHECKED, Evidence, Finding, Verdict
from vae_lab.checkup.half_precision import half_precision_findings
from vae_lab.checkup.judge import decoder_findings, judge_probe
from vae_lab.checkup.latent_scale import judge_latents
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

CHECKUP_VERSION = 2
"""Raised when the chart, what is measured, or how it is judged changes."""

DECODED = "decoded"
"""Name of the chart from the decoded reference latents."""
ROUND_TRIP = "round trip"
"""Name of the chart after encoding and decoding."""

_ANOTHER_FILE = "Download the file again, or use another VAE."
_EMPTY = {"decoder": "All weights of the decoder are zero.", "encoder": "All weights of the encoder are zero."}
# Kinds that are known by their shape only: (architecture, latent channels, image pixels per latent pixel).
_KINDS = {
    ("AutoencoderKL", 32, 8): "The checkup cannot judge this kind of VAE: the VAE of Flux.2, with 32 latent channels.",
    ("AutoencoderKL", 4, 4): (
        "The checkup cannot judge this kind of VAE: "
        "the VAE of the Stable Diffusion x4 upscaler, with 4 image pixels per latent pixel."
    ),
    (
        "TAESD",
        16,
        8,
    ): "The checkup cannot judge this kind of VAE: a TAESD with 16 latent channels, as for SD3 and Flux.",
}
_OTHER_MODEL = "Use it with models of its own family, and choose a different VAE here."


@dataclass(frozen=True)
class Checkup:
    """The result of a checkup of a VAE's weights.

    Attributes:
        family_id: latent family, or "" if unknown.
        findings: all findings, including information.
        measured: the measurements of images, also of a healthy VAE; empty if no image was measured.
        charts: :data:`DECODED` and :data:`ROUND_TRIP`, if available, as PNG of 192 x 256 pixels.
    """

    family_id: str
    findings: tuple[Finding, ...]
    measured: tuple[Evidence, ...] = ()
    charts: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def family(self) -> Family | None:
        """The latent family, if known."""
        return FAMILIES.get(self.family_id)

    @property
    def verdict(self) -> Verdict:
        """The verdict from the findings."""
        return Verdict.of(self.findings)

    def to_json(self) -> dict[str, Any]:
        """Values for a cache; the charts stay bytes."""
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
    """The original chart as PNG of 192 x 256 pixels."""
    return png_bytes(to_pixels(chart_image())[0])


def check_weights(autoencoder: Autoencoder, hint: Family | None = None) -> Checkup:
    """Decode and encode the chart with a VAE, and judge the results.

    Args:
        autoencoder: in full precision; its ``family`` is ignored.
        hint: the family that the checkpoint suggests, if the VAE is in one.
    """
    with flushing_denormals(autoencoder) as careful:
        return _check_weights(careful, hint)


def _check_weights(autoencoder: Autoencoder, hint: Family | None) -> Checkup:
    if not supports_chart(autoencoder):
        return _not_judged(autoencoder)
    evidence = detect_family(autoencoder, hint)
    detected = evidence.family
    family = detected or _best_guess(evidence.by_decoder, autoencoder.latent_channels, hint)
    if family is None or not (evidence.by_decoder or autoencoder.architecture.scales_latents):
        return replace(_not_judged(autoencoder), family_id=detected.id if detected else "")
    autoencoder = autoencoder.with_family(family)
    measured = probe(
        autoencoder,
        decoded=evidence.decoded.get(family.id),
        encoded=evidence.encoded.get(family.id),
    )
    if measured.reference is None and measured.own is None:
        return replace(_not_judged(autoencoder), family_id=detected.id if detected else "")
    if hint is not None and detected is not None and hint.id != detected.id:
        # In its checkpoint, the decoder gets latents of the checkpoint's family.
        findings = (_wrong_family(detected, hint, evidence.by_decoder),)
    elif _only_reference_fails(measured):
        detected, finding = judge_latents(autoencoder, _scores(evidence.by_decoder))
        findings = (finding, *half_precision_findings(autoencoder, measured))
    else:
        findings = (*judge_probe(measured), *half_precision_findings(autoencoder, measured))
        if detected is None and not evidence.by_decoder:
            findings += (_uncertain_family(autoencoder.latent_channels),)
    return Checkup(detected.id if detected else "", findings, _numbers(measured), _charts(measured))


def check_decoder(decode: Callable[[Tensor], Tensor], family: Family) -> Checkup | None:
    """As :func:`check_weights` for only a decoder, such as the one in a host's memory.

    Args:
        decode: [1,C,h,w] in model space -> [1,3,H,W], about 0..1, not clamped.
        family: of the latents that the host decodes with it.

    Returns:
        None for a family without reference latents.
    """
    latents = chart_latents().get(family.id)
    if latents is None:
        return None
    measured = Probe(family, read_chart(decode(latents)), None)
    return Checkup(family.id, judge_probe(measured), _numbers(measured), _charts(measured))


def _best_guess(by_decoder: Mapping[str, float], channels: int, hint: Family | None) -> Family | None:
    """The family for judging if none was detected: a decoder of no known family is broken in any of them."""
    if hint is not None and hint.latent_channels == channels:
        return hint
    if by_decoder:
        return FAMILIES[max(by_decoder, key=lambda family: by_decoder[family])]
    return next((family for family in FAMILIES.values() if family.latent_channels == channels), None)


def _only_reference_fails(measured: Probe) -> bool:
    """Whether the VAE reproduces the chart from its own latents, but not from the family's usual ones."""
    if measured.reference is None or measured.own is None:
        return False
    own_findings = judge_probe(Probe(None, None, measured.own))
    return Verdict.of(own_findings).status == HEALTHY and bool(Verdict.of(decoder_findings(measured.reference)).faults)


def _not_judged(autoencoder: Autoencoder) -> Checkup:
    """A VAE that cannot be put through the chart. Even so, it is broken if its weights are all zero."""
    empty = next((half for half in _EMPTY if _is_zero(autoencoder, half)), None)
    if empty:
        return Checkup("", (Finding("all-zero", BROKEN, _EMPTY[empty], (), _ANOTHER_FILE),))
    kind = (autoencoder.architecture.name, autoencoder.latent_channels, autoencoder.downscale)
    text = _KINDS.get(kind) or (
        f"The checkup cannot judge this kind of VAE: {autoencoder.architecture.name} with "
        f"{autoencoder.latent_channels} latent channels and {autoencoder.downscale} image pixels per latent pixel."
    )
    if has_half(autoencoder, "encoder") and not has_half(autoencoder, "decoder"):
        text = "Without its decoder, the checkup cannot judge this VAE: no image comes out of an encoder."
    return Checkup("", (Finding("not-checked", NOT_CHECKED, text),))


def _is_zero(autoencoder: Autoencoder, half: str) -> bool:
    weights = [tensor for name, tensor in autoencoder.module.named_parameters() if half in name.partition(".")[0]]
    return bool(weights) and not any(bool(tensor.count_nonzero()) for tensor in weights)


def _uncertain_family(channels: int) -> Finding:
    text = f"{channels} latent channels, family not certain: its latents are neither spread like SD3's nor like Flux's."
    return Finding("family-uncertain", INFORMATION, text, (), "Use it with the models that it was made for.")


def _scores(by_decoder: Mapping[str, float]) -> tuple[Evidence, ...]:
    return tuple(
        Evidence(f"correct colours as {FAMILIES[family].title}", score, "", "1") for family, score in by_decoder.items()
    )


def _wrong_family(vae: Family, checkpoint: Family, by_decoder: Mapping[str, float]) -> Finding:
    text = f"The VAE is for {vae.title} models, but the checkpoint is {checkpoint.title}: colours are wrong."
    return Finding("wrong-family", BROKEN, text, _scores(by_decoder), _OTHER_MODEL)


def _numbers(measured: Probe) -> tuple[Evidence, ...]:
    numbers = []
    for reading, way in ((measured.reference, "decoder only"), (measured.own, "encoder and decoder")):
        if reading is not None:
            numbers += _reading_numbers(reading, way)
    if measured.largest_activation is not None:
        numbers.append(
            Evidence("largest activation", measured.largest_activation, "", "at most 65504 in half precision")
        )
    return tuple(numbers)


def _reading_numbers(reading: Reading, way: str) -> list[Evidence]:
    rows = (
        ("white", reading.white, "L*", "100"),
        ("black", reading.black, "L*", "0"),
        ("contrast retained", reading.gain_l, "", "1"),
        ("contrast retained in a photo", reading.photo_gain_l, "", "1"),
        ("colour retained", reading.colour_retained, "", "1"),
        ("colour retained, including hue", reading.gain_c, "", "1"),
        ("colour error", reading.mean_delta_e, "CIEDE2000", "0"),
        ("colour cast of neutral greys", reading.cast, "C*", "0"),
        ("noise in flat patches", reading.noise, "L*", "0"),
        ("stripes in flat patches", reading.stripes, "L*", "0"),
        ("overall", reading.overall, "", "1"),
        ("contrast in a photo, before clipping", reading.photo_gain_raw, "", "1"),
    )
    return [Evidence(f"{way}: {name}", value, unit, expected) for name, value, unit, expected in rows]


def _charts(measured: Probe) -> dict[str, bytes]:
    readings = {DECODED: measured.reference, ROUND_TRIP: measured.own}
    return {name: png_bytes(reading.image) for name, reading in readings.items() if reading is not None}
