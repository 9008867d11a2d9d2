"""Measures how a VAE reproduces the colour chart.

The VAE decodes the chart's reference latents (made with the family's TAESD), and encodes and decodes the chart itself.
The first measures only the decoder, and also works for a VAE in a host's memory; the second finds faults of the
encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from vae_lab.autoencoders import Autoencoder
from vae_lab.errors import UnknownChoice
from vae_lab.latents.chart import CHART_COLOURS, COLUMNS, PATCH, PHOTO_TOP, chart_image, chart_latents
from vae_lab.latents.family import Family

__all__ = ["Probe", "Reading", "probe", "read_chart"]

_CELL = 16  # of the photo, in pixels; coarser than any VAE's blur
_INNER = slice(PATCH // 4, -PATCH // 4)  # of a patch, without the border that every VAE blurs
_WHITE = [i for i, colour in enumerate(CHART_COLOURS) if colour == "#ffffff"]
_BLACK = [i for i, colour in enumerate(CHART_COLOURS) if colour == "#000000"]
_NEUTRAL = [i for i, colour in enumerate(CHART_COLOURS) if colour[1:3] == colour[3:5] == colour[5:7]]
_COLOURED = [i for i in range(len(CHART_COLOURS)) if i not in _NEUTRAL]


@dataclass(frozen=True)
class Reading:
    """Measurements of a decoded chart. Lightness and colour are CIELAB (D65), of values clipped to 0..1 unless raw.

    Attributes:
        image: uint8 [256,192,3].
        white, black: L* of the white and black patches; 100 and 0 are right.
        gain_l: slope of the patches' L* on the chart's; 1 is right, 0 is flat.
        gain_c: the same of a* and b*, through grey.
        photo_gain_l, photo_gain_c: the same for the photo, in cells of 16 px.
        chroma: the same for each coloured patch, upper quartile; unlike ``gain_c`` it tolerates some wrong hues.
        delta_e: CIEDE2000 of each of the 24 patches.
        cast: chroma (C*) of the mean of the neutral patches; 0 is right.
        noise: standard deviation of L* within the patches, averaged.
        stripes: the same for the patches' row or column means, whichever is larger; high for scan lines and seams.
        photo_gain_raw: slope of the photo's raw values (mean of the channels) on the chart's; 1 is right.
        finite: fraction of values that are neither NaN nor infinite.
    """

    image: np.ndarray
    white: float
    black: float
    gain_l: float
    gain_c: float
    photo_gain_l: float
    photo_gain_c: float
    chroma: float
    delta_e: tuple[float, ...]
    cast: float
    noise: float
    stripes: float
    photo_gain_raw: float
    finite: float

    @property
    def contrast(self) -> float:
        """L* of white minus L* of black; 100 is right."""
        return self.white - self.black

    @property
    def colour_retained(self) -> float:
        """Retained colour, the higher one of patches and photo: a loss shows in both, wrong colours only in one."""
        return max(self.chroma, self.photo_gain_c)

    @property
    def overall(self) -> float:
        """The mean of contrast, both slopes of lightness, and colour, each limited to 0..1."""
        shares = (self.contrast / 100.0, self.gain_l, self.photo_gain_l, self.colour_retained)
        return sum(min(max(value, 0.0), 1.0) for value in shares) / len(shares)

    @property
    def mean_delta_e(self) -> float:
        """CIEDE2000, mean over the patches."""
        return sum(self.delta_e) / len(self.delta_e)


@dataclass(frozen=True)
class Probe:
    """All measurements of a VAE.

    Attributes:
        family: the family of the reference latents, or None if there are none.
        reference: the decoded reference latents; None without a decoder or latents.
        own: the chart, encoded and decoded with the VAE; None unless it has both halves.
        largest_activation: largest absolute output of any layer, in the probe's precision; None if not measured.
    """

    family: Family | None
    reference: Reading | None
    own: Reading | None
    largest_activation: float | None = None


def probe(
    autoencoder: Autoencoder,
    *,
    decoded: Tensor | None = None,
    encoded: Tensor | None = None,
    watch_activations: bool = True,
) -> Probe:
    """Measure a VAE with the chart.

    Args:
        autoencoder: of a known family, in the precision to judge.
        decoded: the family's reference latents, if this VAE has already decoded them.
        encoded: the chart in the family's model space, if this VAE has already encoded it.
        watch_activations: whether to measure the largest activation, for the half-precision warning.

    Raises:
        FamilyMismatch: the family is unknown.
    """
    family = autoencoder.family
    latents = None if family is None else chart_latents().get(family.id)
    with _largest_output(autoencoder.module if watch_activations else None) as largest:
        if encoded is None:
            encoded = _tried(lambda: autoencoder.encode(chart_image()))
        own = None if encoded is None else _tried(lambda: autoencoder.decode_unclamped(encoded))
        if decoded is None and latents is not None:
            decoded = _tried(lambda: autoencoder.decode_unclamped(latents))
    return Probe(
        family=family if latents is not None else None,
        reference=None if decoded is None else read_chart(decoded),
        own=None if own is None else read_chart(own),
        largest_activation=largest() if watch_activations else None,
    )


def _tried(step: Callable[[], Tensor]) -> Tensor | None:
    try:
        return step()
    except UnknownChoice:  # a TAESD file has one half only
        return None


def read_chart(decoded: Tensor) -> Reading:
    """Measure one decoded chart.

    Args:
        decoded: [1,3,256,192], about 0..1, preferably not clamped.
    """
    raw = decoded.detach()[0].float().cpu().permute(1, 2, 0).numpy()
    finite = np.isfinite(raw)
    raw = np.nan_to_num(raw, nan=0.0, posinf=1.0, neginf=0.0)
    clipped = raw.clip(0.0, 1.0)
    whole = _lab(clipped)
    lab, photo = _patches(whole), _cells(whole)
    wanted = _wanted()
    means, wanted_means = lab.mean(axis=(1, 2)), wanted.means
    return Reading(
        image=(255 * clipped).astype(np.uint8),
        white=float(means[_WHITE, 0].mean()),
        black=float(means[_BLACK, 0].mean()),
        gain_l=_slope(means[:, 0], _centred(wanted_means[:, 0])),
        gain_c=_slope(means[:, 1:], wanted_means[:, 1:]),
        photo_gain_l=_slope(photo[:, 0], _centred(wanted.photo[:, 0])),
        photo_gain_c=_slope(photo[:, 1:], wanted.photo[:, 1:]),
        chroma=float(np.quantile(_colour_gains(means, wanted_means), 0.75)),
        delta_e=_delta_e(means, wanted_means),
        cast=float(np.hypot(*means[_NEUTRAL, 1:].mean(axis=0))),
        noise=float(lab[..., 0].std(axis=(1, 2)).mean()),
        stripes=_stripes(lab[..., 0]),
        photo_gain_raw=_slope(_cells(raw).mean(axis=1), _centred(wanted.photo_raw)),
        finite=float(finite.mean()),
    )


def _lab(rgb: np.ndarray) -> np.ndarray:
    from skimage.color import rgb2lab  # slow to import, which must not delay a generation

    return rgb2lab(rgb.astype(np.float64))


def _delta_e(found: np.ndarray, wanted: np.ndarray) -> tuple[float, ...]:
    from skimage.color import deltaE_ciede2000

    return tuple(map(float, deltaE_ciede2000(wanted, found)))


def _patches(image: np.ndarray) -> np.ndarray:
    """[256,192,C] -> the insides of the patches [24,16,16,C]."""
    rows = len(CHART_COLOURS) // COLUMNS
    tiles = image[: rows * PATCH].reshape(rows, PATCH, COLUMNS, PATCH, -1).swapaxes(1, 2)
    return tiles.reshape(len(CHART_COLOURS), PATCH, PATCH, -1)[:, _INNER, _INNER]


def _cells(image: np.ndarray) -> np.ndarray:
    """[256,192,C] -> means of the photo's cells, [72,C]."""
    photo = image[PHOTO_TOP:]
    rows, columns = photo.shape[0] // _CELL, photo.shape[1] // _CELL
    return photo.reshape(rows, _CELL, columns, _CELL, -1).mean(axis=(1, 3)).reshape(rows * columns, -1)


@dataclass(frozen=True)
class _Wanted:
    """The chart itself: CIELAB of the patches [24,3] and of the photo's cells [72,3], and the cells' values [72]."""

    means: np.ndarray
    photo: np.ndarray
    photo_raw: np.ndarray


@lru_cache(maxsize=1)
def _wanted() -> _Wanted:
    raw = chart_image()[0].permute(1, 2, 0).numpy()
    lab = _lab(raw)
    return _Wanted(_patches(lab).mean(axis=(1, 2)), _cells(lab), _cells(raw).mean(axis=1))


def _centred(values: np.ndarray) -> np.ndarray:
    return values - values.mean()


def _colour_gains(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """For each coloured patch, the slope of its a* and b* on the chart's."""
    found, wanted = found[_COLOURED, 1:], wanted[_COLOURED, 1:]
    return (found * wanted).sum(axis=1) / np.square(wanted).sum(axis=1)


def _slope(found: np.ndarray, wanted: np.ndarray) -> float:
    return float((found * wanted).sum() / np.square(wanted).sum())


def _stripes(lightness: np.ndarray) -> float:
    """For patches [N,16,16]: the deviation of row or column means from a straight line."""
    steps = np.arange(lightness.shape[1])
    left = []
    for axis in (1, 2):
        profile = lightness.mean(axis=axis)
        line = np.polynomial.polynomial.polyfit(steps, profile.T, 1)
        fitted = np.polynomial.polynomial.polyval(steps, line)
        left.append(float((profile - fitted).std(axis=1).mean()))
    return max(left)


@contextmanager
def _largest_output(module: nn.Module | None) -> Iterator[Callable[[], float]]:
    """Yields a function that returns the largest absolute output of any layer so far; infinite for NaN."""
    largest: list[Tensor] = []

    def note(_layer: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            largest.append(torch.stack(torch.aminmax(output.detach())).abs().max().float())

    layers = [] if module is None else [layer for layer in module.modules() if not list(layer.children())]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        yield lambda: float(torch.nan_to_num(torch.stack(largest), nan=float("inf")).max()) if largest else 0.0
    finally:
        for hook in hooks:
            hook.remove()
