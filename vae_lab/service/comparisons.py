"""Comparisons: many VAEs decode one stored latent; the results stay available for pages and API."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath

import numpy as np

from vae_lab.bounded_store import BoundedStore
from vae_lab.comparison import Comparison, Measured, contact_sheet, measure_comparison, png_bytes
from vae_lab.errors import UnknownChoice
from vae_lab.host.base import Host
from vae_lab.host.choices import BUILT_IN
from vae_lab.host.infotext import names_vae, with_override
from vae_lab.latents import Generation
from vae_lab.service.runs import Runs

__all__ = ["ComparisonService", "StoredComparison"]

_MAX_COMPARISONS = 8
_MAX_BYTES = 2**30


@dataclass(frozen=True)
class StoredComparison:
    """A comparison, with its images by number.

    Attributes:
        id: unguessable, because anyone who knows it can see the images.
        generation: the latents.
        comparison: the results.
        checkpoint: name of the checkpoint whose VAE was the built-in one.
        digests: name of a VAE -> short fingerprint of its weights, where known.
    """

    id: str
    generation: Generation
    comparison: Comparison
    checkpoint: str = ""
    digests: Mapping[str, str] = field(default_factory=dict)
    _pngs: dict[int, bytes] = field(default_factory=dict, repr=False)

    @cached_property
    def measured(self) -> Measured:
        """The images in numbers. Computed on first use, so that the images do not wait for it."""
        return measure_comparison(self.comparison)

    def numbers(self) -> list[range]:
        """For each result, the numbers of its images; an empty range if it has none."""
        counts = [0 if result.images is None else len(result.images) for result in self.comparison]
        ends = list(itertools.accumulate(counts))
        return [range(end - count, end) for count, end in zip(counts, ends, strict=True)]

    def png(self, number: int) -> tuple[str, bytes]:
        """(name of the VAE, PNG with its infotext) of one image.

        Raises:
            UnknownChoice: no image has that number.
        """
        for result, numbers in zip(self.comparison, self.numbers(), strict=True):
            if number in numbers and result.images is not None:
                if number not in self._pngs:
                    index = number - numbers.start
                    self._pngs[number] = png_bytes(result.images[index], self.infotext(result.name, index))
                return result.name, self._pngs[number]
        raise UnknownChoice(f"this comparison has no image {number}")

    def infotext(self, name: str, index: int) -> str:
        """Generation parameters for the ``index``-th image of the VAE ``name``; "" if the latent has none.

        The built-in VAE of the checkpoint that sampled the latent needs no mention, so the text stays as it is. For
        a latent from elsewhere, the checkpoint whose built-in VAE decoded it is named.
        """
        texts = self.generation.infotexts
        text = texts[index] if index < len(texts) else ""
        same = bool(self.checkpoint) and PurePath(self.generation.checkpoint).name == PurePath(self.checkpoint).name
        if not text or (name == BUILT_IN and same and not names_vae(text)):
            return text
        decoder = self.checkpoint if name == BUILT_IN and not same else name
        return with_override(text, decoder or name, self.digests.get(name, ""))

    def sheet(self) -> bytes:
        """All images side by side with names, as PNG, with the generation parameters of the first latent."""
        sheet = contact_sheet(self.comparison, rows=[self.generation.title or self.generation.id])
        return png_bytes(np.asarray(sheet), next(iter(self.generation.infotexts), ""))

    def twins(self) -> dict[str, str]:
        """Results whose images equal those of an earlier result in every pixel: name -> name of the earlier one."""
        twins: dict[str, str] = {}
        different: list[tuple[str, np.ndarray]] = []
        for result in self.comparison.decoded:
            images = result.images
            assert images is not None
            twin = next((name for name, other in different if np.array_equal(images, other)), None)
            if twin is None:
                different.append((result.name, images))
            else:
                twins[result.name] = twin
        return twins

    @property
    def nbytes(self) -> int:
        """Memory for the images and their PNGs, in bytes."""
        raw = sum(result.images.nbytes for result in self.comparison.decoded if result.images is not None)
        return raw + sum(map(len, self._pngs.values()))


class ComparisonService:
    """Runs comparisons on a host and stores the newest ones."""

    def __init__(self, host: Host, runs: Runs) -> None:
        self._host = host
        self._runs = runs
        missing = "this comparison is no longer stored; compare again"
        self._stored: BoundedStore[StoredComparison] = BoundedStore(_MAX_BYTES, _MAX_COMPARISONS, missing)

    def compare(self, generation_id: str, vaes: Sequence[str]) -> StoredComparison:
        """Decode a stored generation with the built-in VAE and with each of ``vaes``.

        Raises:
            HostError: another task is running.
            UnknownChoice: the generation is no longer stored.
        """
        others = [name for name in dict.fromkeys(vaes) if name != BUILT_IN]
        generation = self._host.generations.get(generation_id)
        with self._runs.one_at_a_time():
            self._host.listing(fresh=True)
            comparison = self._host.compare(generation_id, others, self._runs.report, self._runs.cancelled)
            checkpoint = self._host.built_in_of(generation)
            digests = {result.name: self._host.digest(result.name, generation) for result in comparison.decoded}
        stored = StoredComparison(secrets.token_urlsafe(18), generation, comparison, checkpoint, digests)
        self._stored.add(stored)
        return stored

    def get(self, comparison_id: str) -> StoredComparison:
        """Raises UnknownChoice: it was never stored, or was discarded."""
        return self._stored.get(comparison_id)
