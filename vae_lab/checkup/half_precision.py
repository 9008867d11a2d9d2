"""Measures what a VAE gives in half precision, where its activations come near the limit of fp16.

Half precision is simulated: the VAE computes in fp32, and each weight, and each input and result of a layer, is rounded
to fp16 or bf16. GPUs do nearly the same, as they add up in fp32. CPUs without instructions for half precision take many
times as long, and torch 2.1 has no fp16 convolution for CPUs at all.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vae_lab.autoencoders import Autoencoder
from vae_lab.checkup.findings import INFORMATION, Evidence, Finding
from vae_lab.checkup.probe import Probe
from vae_lab.comparison.pixels import to_pixels
from vae_lab.latents.chart import chart_image, chart_latents

__all__ = ["HALF_PRECISION_LIMIT", "HalfReading", "half_precision_findings", "judge_half", "read_half", "rounded_copy"]

HALF_PRECISION_LIMIT = 65504.0
"""The largest number in fp16."""

_MEASURED = HALF_PRECISION_LIMIT / 4  # activations above which half precision is measured
_NEAR = HALF_PRECISION_LIMIT / 2  # activations above which other images may exceed the limit
_VISIBLE = 2.0  # mean CIEDE2000; below 1 is hardly visible

_IN_FP32 = "Start A1111 with --no-half-vae and Forge with --vae-in-fp32."
_IN_BF16 = (
    "A1111: start it with --no-half-vae, or leave its setting Automatically revert VAE to 32-bit floats on. "
    "Forge: do not start it with --vae-in-fp16, but with --vae-in-bf16 or --vae-in-fp32."
)
_IF_BLACK = "If images come out black, start A1111 with --no-half-vae, and Forge with --vae-in-bf16 or --vae-in-fp32."


@dataclass(frozen=True)
class HalfReading:
    """The chart in half precision. Each is None if that half of the VAE could not be measured.

    Attributes:
        decoder: fraction of NaN or infinite values in the decoded latents.
        encoder: the same for the encoded chart.
        decoder_delta_e: mean CIEDE2000 between the image and that of the decoder in fp32; None with NaN.
        encoder_delta_e: the same for the encoder, whose latents are decoded in fp32.
    """

    decoder: float | None = None
    encoder: float | None = None
    decoder_delta_e: float | None = None
    encoder_delta_e: float | None = None

    @property
    def measured(self) -> bool:
        """Whether at least one half was measured."""
        return self.decoder is not None or self.encoder is not None

    @property
    def differs(self) -> bool:
        """Whether finite images visibly differ from those in fp32."""
        return max(self.decoder_delta_e or 0.0, self.encoder_delta_e or 0.0) > _VISIBLE

    @property
    def works(self) -> bool:
        """Whether everything that was measured is finite and looks as in fp32."""
        return not self.decoder and not self.encoder and not self.differs

    def evidence(self, precision: str) -> list[Evidence]:
        """The numbers, for display."""
        rows = (
            (f"{precision}, decoder: NaN or infinite values", self.decoder, "%"),
            (f"{precision}, encoder: NaN or infinite values", self.encoder, "%"),
            (f"{precision}, decoder: difference from fp32", self.decoder_delta_e, "CIEDE2000"),
            (f"{precision}, encoder: difference from fp32", self.encoder_delta_e, "CIEDE2000"),
        )
        return [
            Evidence(name, 100.0 * value, unit, "0 %") if unit == "%" else Evidence(name, value, unit, "0")
            for name, value, unit in rows
            if value is not None
        ]


def half_precision_findings(autoencoder: Autoencoder, probe: Probe) -> tuple[Finding, ...]:
    """What half precision does to a VAE; nothing, without another decode, if its activations are far below the limit.

    Args:
        autoencoder: the one that was probed. One that is in half precision itself has no findings.
        probe: its measurements, with the largest activation.
    """
    largest = probe.largest_activation
    readings = [reading for reading in (probe.reference, probe.own) if reading is not None]
    if largest is None or largest <= _MEASURED or autoencoder.dtype != torch.float32:
        return ()
    if any(reading.finite < 1.0 for reading in readings):
        return ()  # not a matter of precision
    fp16 = read_half(autoencoder, probe, torch.float16)
    bf16 = None if fp16.works else read_half(autoencoder, probe, torch.bfloat16)
    finding = judge_half(largest, fp16, bf16)
    return (finding,) if finding else ()


def judge_half(largest: float, fp16: HalfReading, bf16: HalfReading | None) -> Finding | None:
    """The finding about half precision, or None if nothing is to be said.

    Args:
        largest: largest activation in fp32.
        fp16: measured in fp16.
        bf16: measured in bf16, if fp16 does not work.
    """
    evidence = (Evidence("largest activation", largest, "", "at most 65504 in half precision"), *fp16.evidence("fp16"))
    if bf16 is not None:
        fault = _fault(fp16)
        text = f"{fault} In bf16 and fp32 it works." if bf16.works else f"{fault} In fp32 it works."
        remedy = _IN_BF16 if bf16.works else _IN_FP32
        return Finding("fp16-overflow", INFORMATION, text, (*evidence, *bf16.evidence("bf16")), remedy)
    if fp16.measured and largest > _NEAR:
        text = f"Activations reach {largest:,.0f} of 65,504: it works in fp16 here, but may fail with other images."
        return Finding("fp16-overflow", INFORMATION, text, evidence, _IF_BLACK)
    if not fp16.measured and largest > HALF_PRECISION_LIMIT:
        text = "Activations exceed the limit of fp16, so images may come out black in fp16."
        return Finding("fp16-overflow", INFORMATION, text, evidence, _IF_BLACK)
    return None


def _fault(fp16: HalfReading) -> str:
    if fp16.decoder == 1.0:
        return "In fp16 every value is NaN: images come out black."
    if fp16.decoder:
        return "In fp16 some values are NaN: images come out black, at least in part."
    if fp16.encoder:
        return "In fp16 the encoder produces NaN: img2img, inpainting and hires fix fail, but not plain txt2img."
    return "In fp16 images visibly differ from those in fp32."


def read_half(autoencoder: Autoencoder, probe: Probe, dtype: torch.dtype) -> HalfReading:
    """Decode and encode the chart with values rounded to ``dtype``.

    Needs memory for another copy of the weights, unless they are in ``dtype`` in the file as well.

    Args:
        autoencoder: of a known family, in fp32; it is not changed.
        probe: its measurements; only what it has measured is measured here.
        dtype: ``torch.float16`` or ``torch.bfloat16``.
    """
    reference, own = probe.reference, probe.own
    like = reference or own
    if like is None:
        return HalfReading()
    rounded = rounded_copy(autoencoder, dtype)
    family = probe.family if reference is not None else None
    latents = autoencoder.encode(chart_image()) if family is None else chart_latents()[family.id]
    decoded = rounded.decode_unclamped(latents)
    decoder = _invalid(decoded)
    result = HalfReading(decoder, decoder_delta_e=None if decoder else _delta_e(like.image, decoded))
    if own is None:
        return result
    encoded = rounded.encode(chart_image())
    encoder = _invalid(encoded)
    difference = None if encoder else _delta_e(own.image, autoencoder.decode_unclamped(encoded))
    return replace(result, encoder=encoder, encoder_delta_e=difference)


def rounded_copy(autoencoder: Autoencoder, dtype: torch.dtype) -> Autoencoder:
    """A copy in fp32 that rounds its weights, and each input and result of its layers, to ``dtype``."""

    def rounded(value: Any) -> Any:
        return value.to(dtype).to(value.dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    def weight(value: nn.Parameter) -> nn.Parameter:
        new = rounded(value.detach())
        return value if torch.equal(new, value) else nn.Parameter(new, requires_grad=False)

    # ``deepcopy`` takes what its memo already has, so the weights are not copied in full first.
    module = copy.deepcopy(autoencoder.module, {id(value): weight(value) for value in autoencoder.module.parameters()})
    for layer in module.modules():
        layer.register_forward_pre_hook(lambda _layer, inputs: tuple(map(rounded, inputs)))
        layer.register_forward_hook(lambda _layer, _inputs, output: rounded(output))
    return replace(autoencoder, module=module)


def _invalid(values: Tensor) -> float:
    return 1.0 - float(torch.isfinite(values).double().mean())


def _delta_e(expected: np.ndarray, decoded: Tensor) -> float:
    """Mean CIEDE2000 between an image, uint8 [H,W,3], and a decoded one, [1,3,H,W]."""
    from skimage.color import deltaE_ciede2000, rgb2lab  # slow to import, which must not delay a generation

    return float(deltaE_ciede2000(rgb2lab(expected), rgb2lab(to_pixels(decoded)[0])).mean())
