"""Comparisons: many VAEs decode one stored latent; the results stay available for pages and API."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
        running: whether more results are to come, in a comparison of the same id.
    """

    id: str
    generation: Generation
    comparison: Comparison
    checkpoint: str = ""
    digests: Mapping[str, str] = field(default_factory=dict)
    running: bool = False
    _pngs: dict[int, bytes] = field(default_factory=dict, repr=False)
    _measured: dict[str, Measured] = field(default_factory=dict, repr=False)

    @property
    def measured(self) -> Measured:
        """As :meth:`measured_against`, with the default reference."""
        return self.measured_against("")

    def measured_against(self, reference: str) -> Measured:
        """The images in numbers, compared with those of a VAE. Computed on first use, for the images not to wait.

        Args:
            reference: name of the VAE; see :func:`measure_comparison`.
        """
        if reference not in self._measured:
            self._measured[reference] = measure_comparison(self.comparison, reference)
        return self._measured[reference]

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
    """Runs comparisons on a host and stores the newest ones.

    Attributes:
        shown: the comparison to show on a page that is opened now: the one that runs, as far as it is, else the last
            one. One that was cancelled does not take the place of a finished one.
    """

    def __init__(self, host: Host, runs: Runs) -> None:
        self._host = host
        self._runs = runs
        missing = "this comparison is no longer stored; compare again"
        self._stored: BoundedStore[StoredComparison] = BoundedStore(_MAX_BYTES, _MAX_COMPARISONS, missing)
        self.shown: StoredComparison | None = None

    def compare(self, generation_id: str, vaes: Sequence[str]) -> StoredComparison:
        """Decode a stored generation with the built-in VAE and with each of ``vaes``.

        Raises:
            HostError: another task is running.
            UnknownChoice: the generation is no longer stored.
        """
        others = [name for name in dict.fromkeys(vaes) if name != BUILT_IN]
        generation = self._host.generations.get(generation_id)
        with self._runs.one_at_a_time():
            before, is_shown = self.shown, False
            try:
                self._host.listing(fresh=True)
                stored = self._run(generation, others)
                is_shown = before is None or not stored.comparison.cancelled
            finally:  # also after an error
                if not is_shown:
                    self.shown = before
        return stored

    def _run(self, generation: Generation, others: Sequence[str]) -> StoredComparison:
        comparison_id = secrets.token_urlsafe(18)
        pngs: dict[int, bytes] = {}

        def store(comparison: Comparison, *, running: bool = True) -> StoredComparison:
            checkpoint = self._host.built_in_of(generation)
            digests = {result.name: self._host.digest(result.name, generation) for result in comparison.decoded}
            stored = StoredComparison(comparison_id, generation, comparison, checkpoint, digests, running, pngs)
            self._stored.add(stored)
            if comparison.results:
                self.shown = stored
            self._runs.has_results(len(comparison.results))
            return stored

        whole = self._host.compare(generation.id, others, self._runs.report, self._runs.cancelled, store)
        self._host.note_used(result.name for result in whole.decoded)
        return store(whole, running=False)

    def get(self, comparison_id: str) -> StoredComparison:
        """Raises UnknownChoice: it was never stored, or was discarded."""
        return self._stored.get(comparison_id)
