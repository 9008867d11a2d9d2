"""Encodes and decodes an image with several VAEs, one after another, and measures the loss."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vae_lab.autoencoders import Autoencoder, open_vae
from vae_lab.comparison.compare import Decoded
from vae_lab.comparison.measures import measure
from vae_lab.comparison.pixels import to_pixels
from vae_lab.decoding import Decoder, error_line, is_out_of_memory
from vae_lab.errors import Cancelled, FamilyMismatch, NotEnoughMemory, VaeLabError
from vae_lab.latents.family import Family
from vae_lab.memory import SHARE, free_memory
from vae_lab.progress import Progress

__all__ = [
    "LOSS_COLOURS",
    "LOSS_IN_WORDS",
    "LOSS_SCALE",
    "Coder",
    "Loss",
    "RoundTrip",
    "RoundTripped",
    "as_decoded",
    "channel_images",
    "check_encodes",
    "coder_of",
    "loss_between",
    "loss_colour",
    "round_trip",
]

log = logging.getLogger("vae_lab")

LOSS_SCALE = 20.0
"""CIEDE2000 of the brightest colour in loss maps; the same for all maps, so that they can be compared."""

# From dark to bright through purple, red and yellow, with evenly rising lightness.
LOSS_COLOURS = (
    (0, 0, 0), (28, 14, 66), (74, 12, 107), (120, 28, 109), (165, 44, 96), (207, 68, 70), (237, 105, 37),
    (251, 155, 6), (247, 209, 61), (252, 255, 164),
)  # fmt: skip
"""sRGB at equal steps from 0 to :data:`LOSS_SCALE`."""

LOSS_IN_WORDS = f"loss maps: CIEDE2000 (ΔE) from black, 0, to bright yellow, {LOSS_SCALE:.0f} or more"

_ROWS = 128  # processed at a time, because CIEDE2000 needs dozens of arrays of its input's size


@dataclass(frozen=True)
class Coder:
    """A VAE for a round trip.

    Attributes:
        name: for display, unique within a round trip.
        open: returns a context manager that yields the VAE and releases it afterwards. It raises a VaeLabError if
            the VAE cannot be used.
    """

    name: str
    open: Callable[[], AbstractContextManager[Autoencoder]]


@dataclass(frozen=True)
class Loss:
    """The difference between an image and the original, both in 8 bits.

    Attributes:
        psnr: peak signal-to-noise ratio in dB, over all channels; infinite for equal images.
        ssim: structural similarity as in :class:`Measures`, 1 for equal images; None of images below 11 px.
        delta_e: CIEDE2000, mean over all pixels; 0 for equal images.
        image: uint8 [H,W,3], CIEDE2000 of each pixel in :data:`LOSS_COLOURS`.
    """

    psnr: float
    ssim: float | None
    delta_e: float
    image: np.ndarray

    def __str__(self) -> str:
        psnr = f"{self.psnr:.1f} dB" if math.isfinite(self.psnr) else "infinite"
        ssim = f" · SSIM {self.ssim:.3f}" if self.ssim is not None else ""
        return f"PSNR {psnr}{ssim} · ΔE {self.delta_e:.2f}"

    def to_json(self) -> dict[str, float | None]:
        """The values. JSON has no infinity, so ``psnr`` of equal images is None."""
        psnr = round(self.psnr, 3) if math.isfinite(self.psnr) else None
        return {
            "psnr": psnr,
            "ssim": None if self.ssim is None else round(self.ssim, 5),
            "delta_e": round(self.delta_e, 4),
        }


@dataclass(frozen=True)
class RoundTripped:
    """The result of one VAE, or the reason why there is none.

    Attributes:
        name: the VAE's.
        latent: [1,C,h,w] in model space, fp32, or None.
        image: uint8 [H,W,3], or None.
        loss: relative to the original, or None.
        encode_seconds, decode_seconds: without loading.
        error: one line, or "".
        family: the VAE's, if known.
        finite: False if the latent or the decoded image had NaN or infinite values.
        in_strips: True if the latent was decoded in strips due to low memory.
    """

    name: str
    latent: Tensor | None = None
    image: np.ndarray | None = None
    loss: Loss | None = None
    encode_seconds: float = 0.0
    decode_seconds: float = 0.0
    error: str = ""
    family: Family | None = None
    finite: bool = True
    in_strips: bool = False


@dataclass(frozen=True)
class RoundTrip:
    """The results in the order of the VAEs, and the original image, uint8 [H,W,3]."""

    original: np.ndarray
    results: tuple[RoundTripped, ...] = ()
    cancelled: bool = False

    def __iter__(self) -> Iterator[RoundTripped]:
        return iter(self.results)

    def __getitem__(self, name: str) -> RoundTripped:
        return next(result for result in self.results if result.name == name)


def round_trip(
    image: Tensor,
    coders: Iterable[Coder],
    *,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> RoundTrip:
    """Encode and decode ``image`` with each VAE; only one is in memory at a time.

    Args:
        image: [1,3,H,W] in 0..1, whole steps of 1/255; H and W are multiples of 8.
        coders: the VAEs.
        progress: called before and after every encode and decode.
        cancelled: called before every encode and decode; finished results are returned.
    """
    coders = list(coders)
    results: list[RoundTripped] = []
    original = (image[0].permute(1, 2, 0) * 255.0).round().to(torch.uint8).numpy()

    def before(step: int, name: str, what: str) -> None:
        if cancelled and cancelled():
            raise Cancelled("cancelled")
        if progress:
            progress(step, 2 * len(coders), f"{name}, {what}")

    try:
        for number, coder in enumerate(coders):
            results.append(_encode_and_decode(coder, image, original, 2 * number, before))
    except Cancelled:
        return RoundTrip(original, tuple(results), cancelled=True)
    if progress:
        progress(2 * len(coders), 2 * len(coders), "")
    return RoundTrip(original, tuple(results))


def _encode_and_decode(
    coder: Coder, image: Tensor, original: np.ndarray, step: int, before: Callable[[int, str, str], None]
) -> RoundTripped:
    family: Family | None = None
    try:
        before(step, coder.name, "encoding")
        with coder.open() as vae:
            family = vae.family
            check_encodes(vae, image)
            start = time.perf_counter()
            latent = vae.encode(image).float().cpu()
            encoded = time.perf_counter()
            before(step + 1, coder.name, "decoding")
            decode_start = time.perf_counter()
            decoded, in_strips = Decoder.of(vae).decode(latent)
            decode_seconds = time.perf_counter() - decode_start
        pixels = to_pixels(decoded)[0]
        loss = loss_between(original, pixels)
    except Cancelled:
        raise
    except VaeLabError as error:
        return RoundTripped(coder.name, error=str(error), family=family)
    # An error of torch or the disk must not lose the other VAEs' images.
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            log.exception("VAE Lab: round trip with %s failed", coder.name)
        return RoundTripped(coder.name, error=error_line(coder.name, error), family=family)
    finite = bool(torch.isfinite(latent).all() and torch.isfinite(decoded).all())
    return RoundTripped(
        coder.name, latent, pixels, loss, encoded - start, decode_seconds, "", family, finite, in_strips
    )


def check_encodes(vae: Autoencoder, image: Tensor) -> None:
    """Check that an image ([1,3,H,W]) can be encoded.

    Raises:
        FamilyMismatch: the VAE does not support this image size.
        NotEnoughMemory: on the CPU, where the system would kill a process that uses too much.
    """
    step, (height, width) = vae.downscale, image.shape[-2:]
    if height % step or width % step:
        raise FamilyMismatch(f"{vae.name} needs images whose sides are multiples of {step}")
    if vae.device.type != "cpu":
        return
    needed, free = vae.bytes_to_encode(image), free_memory()
    if needed > SHARE * free:
        raise NotEnoughMemory(
            f"{vae.name}: encoding {width} x {height} pixels needs about {needed / 2**30:.1f} GiB of memory, but only "
            f"{free / 2**30:.1f} GiB are free; use a smaller image"
        )


@contextmanager
def coder_of(
    path: str | os.PathLike[str],
    *,
    family: Family | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Iterator[Autoencoder]:
    """Open the VAE in a file for a round trip.

    Args:
        path: a VAE or a checkpoint.
        family: if known; by default, it is detected from the weights.
        device: on which it computes.
        dtype: in which it computes.

    Raises:
        FileError: the file cannot be used.
    """
    with open_vae(path) as file:
        vae = file.load(family=family, device=device, dtype=dtype)
    yield vae


# --- loss ------------------------------------------------------------------------------------------------------------


def loss_between(original: np.ndarray, image: np.ndarray) -> Loss:
    """The difference between two images, uint8 [H,W,3] of the same size."""
    measures = measure(image[None], original[None])
    delta = _delta_e(original, image)
    return Loss(
        psnr=measures.psnr if measures.psnr is not None else math.inf,
        ssim=measures.ssim,
        delta_e=float(delta.mean(dtype=np.float64)),
        image=_colourise(delta),
    )


def _delta_e(original: np.ndarray, image: np.ndarray) -> np.ndarray:
    """CIEDE2000 per pixel, [H,W]."""
    from skimage.color import deltaE_ciede2000, rgb2lab

    def lab(pixels: np.ndarray) -> np.ndarray:
        return rgb2lab(pixels.astype(np.float32) / np.float32(255.0))

    strips = [
        deltaE_ciede2000(lab(original[top : top + _ROWS]), lab(image[top : top + _ROWS]))
        for top in range(0, len(original), _ROWS)
    ]
    return np.concatenate(strips)


def _colourise(delta: np.ndarray) -> np.ndarray:
    """[H,W] -> uint8 [H,W,3]."""
    stops = np.linspace(0.0, LOSS_SCALE, len(LOSS_COLOURS))
    channels = np.asarray(LOSS_COLOURS, dtype=np.float64).T
    return np.stack([np.interp(delta, stops, channel).round().astype(np.uint8) for channel in channels], axis=2)


def loss_colour(delta_e: float) -> tuple[int, int, int]:
    """The sRGB colour of a CIEDE2000 value in loss maps."""
    red, green, blue = _colourise(np.array([[delta_e]]))[0, 0]
    return int(red), int(green), int(blue)


def channel_images(latent: Tensor) -> list[tuple[np.ndarray, float, float]]:
    """Each channel of [1,C,h,w] as a grey image, uint8 [h,w,3], with the values of black and white."""
    images = []
    for channel in torch.nan_to_num(latent[0].float()):
        low, high = float(channel.min()), float(channel.max())
        grey = ((channel - low) / (high - low or 1.0) * 255.0).round().to(torch.uint8).numpy()
        images.append((np.repeat(grey[:, :, None], 3, axis=2), low, high))
    return images


def as_decoded(trip: RoundTrip, original: str = "Original") -> tuple[Decoded, ...]:
    """The columns of a contact sheet: the original, then each VAE's image and loss map."""
    black = np.zeros_like(trip.original)
    results = [Decoded(original, np.stack([trip.original, black]))]
    for result in trip:
        images = None
        if result.image is not None and result.loss is not None:
            images = np.stack([result.image, result.loss.image])
        seconds = result.encode_seconds + result.decode_seconds
        state = (result.error, result.family, result.finite, result.in_strips)
        results.append(Decoded(result.name, images, seconds, *state))
    return tuple(results)
