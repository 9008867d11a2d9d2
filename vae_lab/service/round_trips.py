"""Round trips: an image through encode and decode of many VAEs; the results stay available for pages and API."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from vae_lab.bounded_store import BoundedStore
from vae_lab.comparison import RoundTrip, RoundTripped, png_bytes, to_pixels
from vae_lab.comparison.round_trip import channel_images
from vae_lab.errors import UnknownChoice
from vae_lab.host.base import Host
from vae_lab.images import LONGEST_SIDE, LoadedImage, prepared
from vae_lab.service.runs import Runs

__all__ = ["CHANNEL", "IMAGE", "LOSS", "ORIGINAL", "RGB", "RoundTripService", "StoredRoundTrip"]

_MAX_ROUND_TRIPS = 4
_MAX_BYTES = 2**29

ORIGINAL = "original"
"""Kind of image: the input of the whole round trip."""
IMAGE, LOSS, RGB, CHANNEL = "image", "loss", "rgb", "channel-"
"""Kinds of images of each VAE: the output, the loss map, the latent by the linear map, and one latent channel
(followed by its number).
"""


@dataclass(frozen=True)
class StoredRoundTrip:
    """A round trip, with its images by number and kind.

    Attributes:
        id: unguessable, because anyone who knows it can see the images.
        trip: the results.
        checkpoint: name of the checkpoint whose VAE was the built-in one.
        remarks: what was done to the image before encoding.
    """

    id: str
    trip: RoundTrip
    checkpoint: str = ""
    remarks: tuple[str, ...] = ()
    _pngs: dict[tuple[int, str], bytes] = field(default_factory=dict, repr=False)

    def kinds(self, result: RoundTripped) -> list[str]:
        """The kinds of images that a result has."""
        if result.image is None or result.latent is None:
            return []
        rgb = [RGB] if result.family is not None and result.family.latent_rgb is not None else []
        return [IMAGE, LOSS, *rgb, *(f"{CHANNEL}{i}" for i in range(result.latent.shape[1]))]

    def png(self, number: int, kind: str) -> tuple[str, bytes]:
        """(name of the VAE, PNG) of one image.

        Args:
            number: of the result; ignored for the original.
            kind: one of :meth:`kinds`, or ``original``.

        Raises:
            UnknownChoice: the round trip has no such image.
        """
        if kind == ORIGINAL:
            return ORIGINAL, self._png(-1, kind)
        if not 0 <= number < len(self.trip.results) or kind not in self.kinds(self.trip.results[number]):
            raise UnknownChoice(f"this round trip has no image {number}, {kind}")
        return self.trip.results[number].name, self._png(number, kind)

    def _png(self, number: int, kind: str) -> bytes:
        key = (number, kind)
        if key not in self._pngs:
            pixels = self.trip.original if kind == ORIGINAL else _pixels(self.trip.results[number], kind)
            self._pngs[key] = png_bytes(pixels)
        return self._pngs[key]

    @property
    def nbytes(self) -> int:
        """Memory for the images and their PNGs, in bytes."""
        raw = self.trip.original.nbytes + sum(map(len, self._pngs.values()))
        for result in self.trip:
            if result.image is not None and result.loss is not None and result.latent is not None:
                raw += result.image.nbytes + result.loss.image.nbytes
                raw += result.latent.numel() * result.latent.element_size()
        return raw


def _pixels(result: RoundTripped, kind: str) -> np.ndarray:
    """uint8 [h,w,3] of one image of a result that has images."""
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


class RoundTripService:
    """Runs round trips on a host and stores the newest ones."""

    def __init__(self, host: Host, runs: Runs) -> None:
        self._host = host
        self._runs = runs
        missing = "this round trip is no longer stored; run it again"
        self._stored: BoundedStore[StoredRoundTrip] = BoundedStore(_MAX_BYTES, _MAX_ROUND_TRIPS, missing)

    def run(
        self, image: LoadedImage | Callable[[], LoadedImage], vaes: Sequence[str], max_side: int = LONGEST_SIDE
    ) -> StoredRoundTrip:
        """Encode and decode an image with the built-in VAE and with each of ``vaes``.

        Args:
            image: the input, or what reads it; that is called only if nothing else is running.
            vaes: names of VAEs and checkpoints.
            max_side: the image is downscaled if its longer side exceeds this many pixels.

        Raises:
            HostError: another task is running.
            MalformedFile: the image is too small, or what ``image`` raises.
        """
        with self._runs.one_at_a_time():
            loaded = image() if callable(image) else image
            fit = prepared(loaded.image, max_side)
            self._host.listing(fresh=True)
            checkpoint = self._host.current_checkpoint()
            names = list(dict.fromkeys(vaes))
            trip = self._host.round_trip(fit.image, names, self._runs.report, self._runs.cancelled)
        self._host.note_used(result.name for result in trip if result.image is not None)
        stored = StoredRoundTrip(secrets.token_urlsafe(18), trip, checkpoint, fit.remarks)
        self._stored.add(stored)
        return stored

    def get(self, round_trip_id: str) -> StoredRoundTrip:
        """Raises UnknownChoice: it was never stored, or was discarded."""
        return self._stored.get(round_trip_id)
