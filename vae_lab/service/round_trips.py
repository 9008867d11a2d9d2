"""Round trips whose images can be asked for, and the few of them that are kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np

from vae_lab.comparison import RoundTrip, RoundTripped, png_bytes, to_pixels
from vae_lab.comparison.round_trip import channel_images
from vae_lab.errors import UnknownChoice

__all__ = ["CHANNEL", "IMAGE", "LOSS", "ORIGINAL", "RGB", "KeptRoundTrips", "StoredRoundTrip"]

_MOST_KEPT = 4
_MOST_BYTES = 2**29

ORIGINAL = "original"
"""Kind of image: what was put in; of the whole round trip."""
IMAGE, LOSS, RGB, CHANNEL = "image", "loss", "rgb", "channel-"
"""Kinds of images of each VAE: what came out, the loss map, the latent by the linear map, and a channel of it
(its number is added).
"""


@dataclass(frozen=True)
class StoredRoundTrip:
    """A round trip whose images can be asked for by number and kind.

    Attributes:
        id: unguessable, since who knows it may see the images.
        trip: the results.
        checkpoint: name of the checkpoint whose VAE was the built-in one.
        remarks: what was done to the image before.
    """

    id: str
    trip: RoundTrip
    checkpoint: str = ""
    remarks: tuple[str, ...] = ()
    _packed: dict[tuple[int, str], bytes] = field(default_factory=dict, repr=False)

    def kinds(self, result: RoundTripped) -> list[str]:
        """The kinds of images that there are of a result."""
        if result.image is None or result.latent is None:
            return []
        rgb = [RGB] if result.family is not None and result.family.latent_rgb is not None else []
        return [IMAGE, LOSS, *rgb, *(f"{CHANNEL}{i}" for i in range(result.latent.shape[1]))]

    def png(self, number: int, kind: str) -> tuple[str, bytes]:
        """(name of the VAE, PNG) of one image.

        Args:
            number: of the result; of no matter for the original.
            kind: one of :meth:`kinds`, or ``original``.

        Raises:
            UnknownChoice: there is no such image.
        """
        if kind == ORIGINAL:
            return ORIGINAL, self._pack(-1, kind)
        if not 0 <= number < len(self.trip.results) or kind not in self.kinds(self.trip.results[number]):
            raise UnknownChoice(f"this round trip has no image {number}, {kind}")
        return self.trip.results[number].name, self._pack(number, kind)

    def _pack(self, number: int, kind: str) -> bytes:
        key = (number, kind)
        if key not in self._packed:
            pixels = self.trip.original if kind == ORIGINAL else _pixels(self.trip.results[number], kind)
            self._packed[key] = png_bytes(pixels)
        return self._packed[key]

    @property
    def nbytes(self) -> int:
        """Memory that images and packed images take."""
        raw = self.trip.original.nbytes + sum(map(len, self._packed.values()))
        for result in self.trip:
            if result.image is not None and result.loss is not None and result.latent is not None:
                raw += result.image.nbytes + result.loss.image.nbytes
                raw += result.latent.numel() * result.latent.element_size()
        return raw


def _pixels(result: RoundTripped, kind: str) -> np.ndarray:
    """uint8 [h,w,3] of an image that is there."""
    assert result.image is not None
    assert result.loss is not None
    assert result.latent is not None
    if kind == IMAGE:
        return result.image
    if kind == LOSS:
        return result.loss.image
    if kind == RGB and result.family is not None:
        return to_pixels(result.family.preview(result.latent))[0]
    return channel_images(result.latent)[int(kind.removeprefix(CHANNEL))][0]


class KeptRoundTrips:
    """The newest round trips, few enough to fit into memory. Safe to use from several threads."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, StoredRoundTrip] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, stored: StoredRoundTrip) -> None:
        """Keep ``stored``, and let go of the oldest ones over the limits (one is kept in any case)."""
        with self._lock:
            self._kept[stored.id] = stored
            while len(self._kept) > 1 and self._too_much():
                self._kept.popitem(last=False)

    def _too_much(self) -> bool:
        return len(self._kept) > _MOST_KEPT or sum(kept.nbytes for kept in self._kept.values()) > _MOST_BYTES

    def get(self, round_trip_id: str) -> StoredRoundTrip:
        """Raises UnknownChoice: it never was, or had to make room for newer ones."""
        with self._lock:
            try:
                return self._kept[round_trip_id]
            except KeyError:
                raise UnknownChoice("this round trip is no longer kept; make it again") from None
