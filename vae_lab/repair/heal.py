"""Repairs a grey merge with the statistics of its parents. An experiment, see docs/heal.md.

Averaging unrelated weights shrinks the activations, layer after layer, until the image is grey. ``heal`` brings each
channel's mean and standard deviation back to the mean of the parents', as in REPAIR (arXiv 2211.08403), on the colour
chart. The correction of a layer is a factor and an offset per channel, which its weight and bias absorb, so the result
is a VAE of the same structure. The last layers can then be fitted by least squares to what the main parent makes of
the chart.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from vae_lab.autoencoders import Autoencoder, VaeFile
from vae_lab.autoencoders.kl import AutoencoderKL
from vae_lab.autoencoders.layers import Conv2d, GroupNorm
from vae_lab.errors import FamilyMismatch
from vae_lab.formats import WeightFile
from vae_lab.latents.chart import chart_image, chart_latents
from vae_lab.progress import Progress
from vae_lab.repair.writing import Entry, write_tensors
from vae_lab.samples import load_sample_latents, sample_photos

__all__ = [
    "PhotoDecodes", "PhotoTest", "Reference", "compare_on_photos", "decode_photos", "heal", "reference",
    "refit_last_layers", "stored_dtype", "write_healed",
]  # fmt: skip

_MAX_GAIN = 100.0  # of a channel that is nearly constant on the chart
_MIN_SHARE = 0.05  # of the main parent's deviation: an added difference can ask for less than nothing
_RIDGE = 0.3  # of the features' variance; keeps a fitted layer near what it was
_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_METADATA = {"format": "pt", "vae_lab": "a merge repaired by vae-lab heal, an experiment"}
_CROP = 16  # of the photos' latents, along one side
_CHART_PHOTO = "astronaut"  # part of the chart, so no test
_FITTED = 16384  # pixels of the chart, chosen at random: every second one would miss what upsampling does

_Statistics = Mapping[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Reference:
    """What a healthy VAE does on the chart.

    Attributes:
        statistics: layer -> mean and standard deviation of each channel of its output, [C] each.
        decoded: of the chart's reference latents, [1,3,256,192] in -1..1, not clamped; None without a decoder.
        encoded: the chart, [1,C,32,24] in the VAE's own units; None without an encoder.
    """

    statistics: _Statistics
    decoded: Tensor | None
    encoded: Tensor | None


def reference(parent: Autoencoder) -> Reference:
    """Measure a parent.

    Raises:
        FamilyMismatch: no reference latents exist for its family, or it is no AutoencoderKL.
    """
    statistics: dict[str, tuple[Tensor, Tensor]] = {}

    def note(name: str, output: Tensor) -> None:
        statistics[name] = _moments(output)

    with _on_outputs(_module(parent), note):
        encoded, decoded = _run(parent)
    return Reference(statistics, decoded, encoded)


def heal(merged: Autoencoder, parents: Sequence[tuple[Reference, float]], *, refit: bool = True) -> None:
    """Repair a merge, in place.

    Args:
        merged: in fp32; of the same structure as its parents.
        parents: with their weights in the merge, the largest one first.
        refit: whether to fit the last layers too, to what the first parent makes of the chart.

    Raises:
        FamilyMismatch: no reference latents exist for its family, or it is no AutoencoderKL.
    """
    module = _module(merged)
    layers = dict(module.named_modules())
    changes: dict[str, tuple[Tensor, Tensor]] = {}

    def correct(name: str, output: Tensor) -> Tensor:
        mean, deviation = _moments(output)
        wanted_mean, wanted_deviation = _wanted(name, parents)
        factor = (wanted_deviation / deviation.clamp_min(1e-12)).clamp(max=_MAX_GAIN)
        changes[name] = factor, wanted_mean - factor * mean
        # Later layers must see what they will get.
        return (output.double() * _by_channel(factor) + _by_channel(changes[name][1])).to(output.dtype)

    with _on_outputs(module, correct):
        _run(merged)
    for name, (factor, offset) in changes.items():
        _absorb(layers[name], factor, offset)
    if refit:
        refit_last_layers(merged, parents[0][0])


@torch.no_grad()
def refit_last_layers(merged: Autoencoder, target: Reference) -> None:
    """Fit the last layers of decoder and encoder, in place, to what another VAE makes of the chart.

    Raises:
        FamilyMismatch: no reference latents exist for its family, or it is no AutoencoderKL.
    """
    module = _module(merged)
    if module.encoder is not None:
        _absorb_quant_conv(module)
    inputs: dict[str, Tensor] = {}
    halves = {name: half for name, half in (("decoder", module.decoder), ("encoder", module.encoder)) if half}

    def note(name: str, _layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        inputs[name] = given[0]

    hooks = [half.conv_out.register_forward_pre_hook(partial(note, name)) for name, half in halves.items()]
    try:
        encoded, decoded = _run(merged)
    finally:
        for hook in hooks:
            hook.remove()
    for name, found, wanted in (("decoder", decoded, target.decoded), ("encoder", encoded, target.encoded)):
        if found is not None and wanted is not None:
            _refit(halves[name].conv_out, inputs[name], wanted - found)


def _absorb_quant_conv(module: AutoencoderKL) -> None:
    """Compute the mean latent in the encoder's ``conv_out``; ``quant_conv`` passes it on."""
    quant, last = module.quant_conv, module.encoder.conv_out if module.encoder else None
    if not isinstance(quant, Conv2d) or last is None:
        return
    assert quant.bias is not None
    assert last.bias is not None
    matrix = quant.weight[:, :, 0, 0].double()
    last.weight.copy_(torch.einsum("oi,ickl->ockl", matrix, last.weight.double()))
    last.bias.copy_(matrix @ last.bias.double() + quant.bias.double())
    quant.weight.copy_(torch.eye(len(matrix))[:, :, None, None])
    quant.bias.zero_()


def _refit(layer: Conv2d, features: Tensor, missing: Tensor) -> None:
    """Change the first output channels of a 3x3 layer so that ``missing``, [1,O,H,W], is added, as nearly as it can."""
    chosen = torch.randperm(features[0, 0].numel(), generator=torch.Generator().manual_seed(0))[:_FITTED]
    rows = F.unfold(features, 3, padding=1)[0, :, chosen].T.double()
    error = missing[0].flatten(1)[:, chosen].T.double()
    centre, offset = rows.mean(0), error.mean(0)
    change = _ridge(rows - centre, error - offset)
    channels = missing.shape[1]
    assert layer.bias is not None
    layer.weight[:channels] += change.T.reshape_as(layer.weight[:channels]).to(layer.weight.dtype)
    layer.bias[:channels] += (offset - centre @ change).to(layer.bias.dtype)


def _ridge(rows: Tensor, wanted: Tensor) -> Tensor:
    """Least squares with a penalty on the solution: [N,K], [N,O] -> [K,O]."""
    count, features = rows.shape
    penalty = _RIDGE * rows.square().sum() / features
    if count < features:  # the same solution from the smaller matrix
        return rows.T @ torch.linalg.solve(rows @ rows.T + penalty * torch.eye(count).double(), wanted)
    return torch.linalg.solve(rows.T @ rows + penalty * torch.eye(features).double(), rows.T @ wanted)


@dataclass(frozen=True)
class PhotoTest:
    """How far a repaired VAE is from its main parent, on photos that it was not fitted to; PSNR in dB.

    Attributes:
        decoded: its decode of the photos' latents, against the parent's.
        decoded_by_parent: the parent's decode, against the photos.
        round_trip: the photos encoded and decoded by it, against the parent's round trip; None without an encoder.
        round_trip_by_parent: the parent's round trip, against the photos; None without an encoder.
    """

    decoded: float
    decoded_by_parent: float
    round_trip: float | None
    round_trip_by_parent: float | None

    @property
    def passed(self) -> bool:
        """Whether what is still wrong is less than what the parent itself gets wrong."""
        ways = (self.decoded, self.decoded_by_parent), (self.round_trip, self.round_trip_by_parent)
        return all(found is None or wanted is None or found > wanted for found, wanted in ways)


@dataclass(frozen=True)
class PhotoDecodes:
    """Parts of the sample photos, and what a VAE makes of them; [N,3,128,128] in 0..1 each.

    Attributes:
        photos: without the one in the chart.
        decoded: of the photos' reference latents.
        round_trip: the photos, encoded and decoded; None without an encoder.
    """

    photos: Tensor
    decoded: Tensor
    round_trip: Tensor | None


def decode_photos(vae: Autoencoder) -> PhotoDecodes:
    """Decode the sample photos.

    Raises:
        FamilyMismatch: no sample photos are available for its family, or it is no AutoencoderKL.
        UnknownChoice: it has no decoder.
    """
    _latents(vae)
    found = load_sample_latents(vae.family.id if vae.family else "")
    names = [name for name in found if name != _CHART_PHOTO]
    latents = torch.cat([_middle(found[name], _CROP) for name in names])
    photos = torch.cat([_middle(_photo(sample_photos()[name]), 8 * _CROP) for name in names])
    decoded = torch.cat([vae.decode(latent) for latent in latents.split(1)])
    if _module(vae).encoder is None:
        return PhotoDecodes(photos, decoded, None)
    return PhotoDecodes(photos, decoded, torch.cat([vae.decode(vae.encode(photo)) for photo in photos.split(1)]))


def compare_on_photos(repaired: PhotoDecodes, parent: PhotoDecodes) -> PhotoTest:
    """Compare a repaired VAE with its main parent."""
    tested = PhotoTest(_psnr(repaired.decoded, parent.decoded), _psnr(parent.decoded, parent.photos), None, None)
    if repaired.round_trip is None or parent.round_trip is None:
        return tested
    return replace(
        tested,
        round_trip=_psnr(repaired.round_trip, parent.round_trip),
        round_trip_by_parent=_psnr(parent.round_trip, parent.photos),
    )


def _photo(path: Path) -> Tensor:
    """[1,3,H,W] in 0..1."""
    with Image.open(path) as file:
        return torch.from_numpy(np.array(file.convert("RGB"))).permute(2, 0, 1)[None] / 255.0


def _middle(images: Tensor, side: int) -> Tensor:
    top, left = ((length - side) // 2 for length in images.shape[-2:])
    return images[..., top : top + side, left : left + side]


def _psnr(images: Tensor, wanted: Tensor) -> float:
    """Mean over images, in dB."""
    error = (images - wanted).square().mean((1, 2, 3)).clamp_min(1e-10)
    return float((-10 * error.log10()).mean())


def stored_dtype(file: VaeFile) -> torch.dtype:
    """The dtype to store a repaired VAE in: that of the file, but at least 16 bits."""
    return file.dtype if file.dtype in _DTYPES else torch.float16


def write_healed(
    file: VaeFile, healed: Autoencoder, out: str | os.PathLike[str], *, progress: Progress | None = None
) -> None:
    """Write a repaired VAE with ldm names, in the precision of ``stored_dtype``.

    Raises:
        UnreadableFile: ``out`` exists, is no .safetensors file, or cannot be written.
    """
    state, dtype = healed.module.state_dict(), stored_dtype(file)
    tensors = {name: Entry.of(tuple(value.shape), dtype, value.contiguous) for name, value in state.items()}

    def is_right(written: WeightFile) -> bool:
        return VaeFile(written).layout.names.keys() == state.keys()

    write_tensors(tensors, _METADATA, Path(out), is_right, progress, None)


def _module(autoencoder: Autoencoder) -> AutoencoderKL:
    if not isinstance(autoencoder.module, AutoencoderKL):
        raise FamilyMismatch(f"{autoencoder.name} is a {autoencoder.architecture.name}, which cannot be repaired")
    config = autoencoder.module.config
    if config.z_channels != config.latent_channels:
        raise FamilyMismatch(f"{autoencoder.name} has an unusual structure, which cannot be repaired")
    return autoencoder.module


def _latents(autoencoder: Autoencoder) -> Tensor:
    family = autoencoder.family
    if family is None or family.id not in chart_latents():
        raise FamilyMismatch(f"{autoencoder.name}: only VAEs for SD1 and SDXL latents can be repaired")
    return family.to_vae_space(chart_latents()[family.id])


@torch.no_grad()
def _run(autoencoder: Autoencoder) -> tuple[Tensor | None, Tensor | None]:
    """The chart encoded, and its reference latents decoded."""
    module, latents = _module(autoencoder), _latents(autoencoder)
    encoded = module.encode(chart_image() * 2.0 - 1.0) if module.encoder is not None else None
    return encoded, module.decode(latents) if module.decoder is not None else None


@contextmanager
def _on_outputs(module: nn.Module, function: Callable[[str, Tensor], Tensor | None]) -> Iterator[None]:
    """Call ``function`` with the name and output of each layer that has weights; what it returns replaces it."""

    def call(name: str, _layer: nn.Module, _inputs: object, output: Tensor) -> Tensor | None:
        return function(name, output)

    hooks = [
        layer.register_forward_hook(partial(call, name))
        for name, layer in module.named_modules()
        if isinstance(layer, (Conv2d, GroupNorm))
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _moments(output: Tensor) -> tuple[Tensor, Tensor]:
    """[1,C,H,W] -> mean and standard deviation, [C] each, fp64."""
    values = output.detach().double()
    return values.mean((0, 2, 3)), values.std((0, 2, 3))


def _wanted(name: str, parents: Sequence[tuple[Reference, float]]) -> tuple[Tensor, Tensor]:
    """The parents' mean and standard deviation, interpolated."""
    total = sum(weight for _, weight in parents)
    means, deviations = ([weight / total * one.statistics[name][i] for one, weight in parents] for i in (0, 1))
    least = _MIN_SHARE * parents[0][0].statistics[name][1]
    return torch.stack(means).sum(0), torch.maximum(torch.stack(deviations).sum(0), least)


def _by_channel(values: Tensor) -> Tensor:
    return values[None, :, None, None]


@torch.no_grad()
def _absorb(layer: nn.Module, factor: Tensor, offset: Tensor) -> None:
    """Make a layer give its output times ``factor`` plus ``offset``."""
    assert isinstance(layer, (Conv2d, GroupNorm))
    assert layer.bias is not None
    layer.weight.mul_(factor.to(layer.weight.dtype).reshape(-1, *[1] * (layer.weight.ndim - 1)))
    layer.bias.copy_(layer.bias.double() * factor + offset)
