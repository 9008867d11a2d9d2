"""Comparisons, checkups and scans for panel and API: one at a time, with progress and cancel; results are kept."""

from __future__ import annotations

import itertools
import secrets
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath

import numpy as np

from vae_lab.comparison import Comparison, Measured, contact_sheet, measure_comparison, png_bytes
from vae_lab.errors import HostError, UnknownChoice
from vae_lab.host.base import BUILT_IN, Host, VaeEntry
from vae_lab.host.infotext import names_vae, with_override
from vae_lab.images import LONGEST_SIDE, LoadedImage, prepared
from vae_lab.latents import Generation
from vae_lab.library import WORST_FIRST, FileRecord, Scan
from vae_lab.library.inventory import SORTS, Inventory, LibraryPage, Overview, ScanSummary
from vae_lab.service.round_trips import KeptRoundTrips, StoredRoundTrip
from vae_lab.service.sources import keep_image, keep_latents

__all__ = ["ComparisonService", "Running", "StoredComparison", "service_of"]

_MOST_KEPT = 8
_MOST_BYTES = 2**30
_BESIDE_LATENTS = 8 * 2**20  # of an uploaded file: names, generation parameters


@dataclass(frozen=True)
class StoredComparison:
    """A comparison whose images can be asked for by number.

    Attributes:
        id: unguessable, since who knows it may see the images.
        generation: what was decoded.
        comparison: the results.
        checkpoint: name of the checkpoint whose VAE was the built-in one.
        digests: name of a VAE -> short fingerprint of its weights, where known.
    """

    id: str
    generation: Generation
    comparison: Comparison
    checkpoint: str = ""
    digests: Mapping[str, str] = field(default_factory=dict)
    _packed: dict[int, bytes] = field(default_factory=dict, repr=False)

    @cached_property
    def measured(self) -> Measured:
        """The same in numbers. Worked out when first asked for: the images need not wait for it."""
        return measure_comparison(self.comparison)

    def numbers(self) -> list[range]:
        """For each result the numbers of its images; none where it was refused."""
        counts = [0 if result.images is None else len(result.images) for result in self.comparison]
        ends = list(itertools.accumulate(counts))
        return [range(end - count, end) for count, end in zip(counts, ends, strict=True)]

    def png(self, number: int) -> tuple[str, bytes]:
        """(name of the VAE, PNG with its infotext) of one image.

        Raises:
            UnknownChoice: there is no image of that number.
        """
        for result, numbers in zip(self.comparison, self.numbers(), strict=True):
            if number in numbers and result.images is not None:
                if number not in self._packed:
                    index = number - numbers.start
                    self._packed[number] = png_bytes(result.images[index], self.infotext(result.name, index))
                return result.name, self._packed[number]
        raise UnknownChoice(f"this comparison has no image {number}")

    def infotext(self, name: str, index: int) -> str:
        """Generation parameters of the ``index``-th latent's image, as decoded by the VAE ``name``; "" without any.

        What was sampled with this built-in VAE, and says so by naming none, stays word for word. Of latents from
        elsewhere it is not known whose VAE that was, so the checkpoint is named whose VAE decoded now.
        """
        known = self.generation.infotexts
        text = known[index] if index < len(known) else ""
        same = bool(self.checkpoint) and PurePath(self.generation.checkpoint).name == PurePath(self.checkpoint).name
        if not text or (name == BUILT_IN and same and not names_vae(text)):
            return text
        whose = self.checkpoint if name == BUILT_IN and not same else name
        return with_override(text, whose or name, self.digests.get(name, ""))

    def sheet(self) -> bytes:
        """All images side by side, with names, as PNG; its infotext is the first image's, as it was sampled."""
        sheet = contact_sheet(self.comparison, rows=[self.generation.title or self.generation.id])
        return png_bytes(np.asarray(sheet), next(iter(self.generation.infotexts), ""))

    def twins(self) -> dict[str, str]:
        """For each result whose images equal an earlier one's in every pixel: the name of that earlier one."""
        found: dict[str, str] = {}
        first: list[tuple[str, np.ndarray]] = []
        for result in self.comparison.decoded:
            images = result.images
            assert images is not None
            twin = next((name for name, other in first if np.array_equal(images, other)), None)
            if twin is None:
                first.append((result.name, images))
            else:
                found[result.name] = twin
        return found

    @property
    def nbytes(self) -> int:
        """Memory that images and packed images take."""
        raw = sum(result.images.nbytes for result in self.comparison.decoded if result.images is not None)
        return raw + sum(map(len, self._packed.values()))


@dataclass(frozen=True)
class Running:
    """What is going on now: ``done`` of ``total`` steps, and what comes next."""

    busy: bool = False
    done: int = 0
    total: int = 0
    what: str = ""


class ComparisonService:
    """Runs comparisons, identifications, checkups and scans on one host. Safe to use from several threads."""

    def __init__(self, host: Host) -> None:
        self._host: Host = weakref.proxy(host)
        self._turn = threading.Lock()
        self._stop = threading.Event()
        self._running = Running()
        self._kept: OrderedDict[str, StoredComparison] = OrderedDict()
        self._kept_lock = threading.Lock()
        self._round_trips = KeptRoundTrips()
        self._inventory: Inventory | None = None
        self._listing = threading.Lock()

    @property
    def running(self) -> Running:
        """What is going on now, in whichever thread."""
        return self._running

    def compare(self, generation_id: str, vaes: Sequence[str]) -> StoredComparison:
        """Decode a kept generation with the built-in VAE and each of ``vaes``, and keep the result.

        Raises:
            HostError: something else is running.
            UnknownChoice: the generation is not kept any longer.
        """
        wanted = [name for name in dict.fromkeys(vaes) if name != BUILT_IN]
        generation = self._host.generations.get(generation_id)
        with self._one_at_a_time():
            self._host.listing(fresh=True)
            comparison = self._host.compare(generation_id, wanted, self._report, self._stop.is_set)
            checkpoint = self._host.built_in_of(generation)
            digests = {result.name: self._host.digest(result.name, generation) for result in comparison.decoded}
        stored = StoredComparison(secrets.token_urlsafe(18), generation, comparison, checkpoint, digests)
        self._keep(stored)
        return stored

    def round_trip(self, image: LoadedImage, vaes: Sequence[str], longest: int = LONGEST_SIDE) -> StoredRoundTrip:
        """Put an image through encode and decode of the built-in VAE and of each of ``vaes``, and keep what comes out.

        Args:
            image: what to put in.
            vaes: names of VAEs and checkpoints.
            longest: pixels of the longer side, above which the image is resampled.

        Raises:
            HostError: something else is running.
            MalformedFile: the image is too small.
        """
        fit = prepared(image.image, longest)
        with self._one_at_a_time():
            self._host.listing(fresh=True)
            checkpoint = self._host.current_checkpoint()
            trip = self._host.round_trip(fit.image, list(dict.fromkeys(vaes)), self._report, self._stop.is_set)
        stored = StoredRoundTrip(secrets.token_urlsafe(18), trip, checkpoint, fit.remarks)
        self._round_trips.add(stored)
        return stored

    def get_round_trip(self, round_trip_id: str) -> StoredRoundTrip:
        """Raises UnknownChoice: it never was, or had to make room for newer ones."""
        return self._round_trips.get(round_trip_id)

    def encode(self, image: LoadedImage, vae: str) -> tuple[Generation, tuple[str, ...]]:
        """Encode an image with a VAE, and keep the latent; also what was done to the image before.

        Raises:
            HostError: something else is running.
            VaeLabError: the VAE cannot be used, or the image is too small.
        """
        with self._one_at_a_time():
            self._host.listing(fresh=True)
            self._report(0, 1, f"{vae}, encoding")
            return keep_image(self._host, image, vae)

    @property
    def most_upload(self) -> int:
        """Bytes that a file of latents may have."""
        return self._host.generations.byte_limit + _BESIDE_LATENTS

    def add_latents(self, data: bytes, name: str) -> Generation:
        """Keep the latents of a file; see :func:`vae_lab.service.sources.keep_latents`."""
        return keep_latents(self._host, data, name)

    def identify(self) -> list[VaeEntry]:
        """Tell the family of every VAE.

        Raises:
            HostError: something else is running.
        """
        with self._one_at_a_time():
            self._host.listing(fresh=True)
            return self._host.identify(self._report, self._stop.is_set)

    def inspect(self, names: Sequence[str], *, fresh: bool = True) -> dict[str, FileRecord]:
        """Check VAEs and checkpoints, one after the other; after a cancel, only those that were reached.

        If the current checkpoint is among them and its VAE is not healthy, a healthy one is searched for as well.

        Args:
            names: of VAEs and checkpoints.
            fresh: list the host's files first; whoever took ``names`` from a fresh listing has done so.

        Raises:
            HostError: something else is running.
            UnknownChoice: there is none of one of the names; nothing was looked at.
        """
        wanted = list(dict.fromkeys(names))
        self._host.listing(fresh=fresh)
        for name in wanted:
            self._host.file_of(name)
        current = {BUILT_IN, self._host.current_checkpoint()}
        reports: dict[str, FileRecord] = {}
        with self._one_at_a_time():
            for i, name in enumerate(wanted):
                if self._stop.is_set():
                    break
                self._report(i, len(wanted), name)
                reports[name] = self._host.inspect(name)
            if any(reports[name].verdict.faults for name in current & reports.keys()) and not self._stop.is_set():
                self._host.recommendation(search=True, progress=self._report, cancelled=self._stop.is_set)
        return reports

    def scan(self) -> ScanSummary:
        """Check all files in the host's folders; after a cancel, the next scan resumes where this one ended.

        Raises:
            HostError: something else is running.
        """
        with self._one_at_a_time():
            started = time.perf_counter()
            self._report(0, 0, "looking for files")
            known = self.inventory(fresh=True)
            listing = self._host.listing()
            scan = Scan((), self._host.facts, listed=listing.files, progress=self._report, cancelled=self._stop.is_set)
            scanned = read = bytes_read = 0
            for record in scan.run():
                scanned += 1
                if not known.has(record):
                    read += 1
                    bytes_read += record.bytes_read
            found = Inventory(scan.records, listing)
            with self._listing:
                self._inventory = found
        complete = scan.complete or found.overview.files == 0
        return ScanSummary(found.overview, complete, scanned, read, bytes_read, time.perf_counter() - started)

    def inventory(self, *, fresh: bool = False) -> Inventory:
        """What scans have found of the host's files.

        Args:
            fresh: list the files again; else the last inventory is returned. Reads nothing of the files.
        """
        with self._listing:
            if self._inventory is None or fresh:
                self._inventory = Inventory.known(self._host.listing(fresh=fresh), self._host.facts)
            return self._inventory

    def library(
        self,
        filter: str = "",  # noqa: A002
        status: str = "",
        sort: str = "worst",
        page: int = 0,
        page_size: int = 50,
    ) -> LibraryPage:
        """Some rows of the table of all files; see :meth:`Inventory.page`.

        Raises:
            UnknownChoice: there is no such status or order.
        """
        if status not in ("", *WORST_FIRST):
            raise UnknownChoice(f"no status {status}; there are {', '.join(WORST_FIRST)}")
        if sort not in SORTS:
            raise UnknownChoice(f"no order {sort}; there are {', '.join(SORTS)}")
        return self.inventory().page(filter, status, sort, page, max(1, page_size))

    def overview(self) -> Overview:
        """All files in numbers."""
        return self.inventory().overview

    def cancel(self) -> bool:
        """Ask what is running to stop after its current step. False if nothing was running."""
        busy = self._running.busy
        if busy:
            self._stop.set()
        return busy

    @property
    def cancelling(self) -> bool:
        """Whether the last run was asked to stop."""
        return self._stop.is_set()

    def get(self, comparison_id: str) -> StoredComparison:
        """Raises UnknownChoice: it never was, or had to make room for newer ones."""
        with self._kept_lock:
            try:
                return self._kept[comparison_id]
            except KeyError:
                raise UnknownChoice("this comparison is no longer kept; compare again") from None

    def _keep(self, stored: StoredComparison) -> None:
        with self._kept_lock:
            self._kept[stored.id] = stored
            while len(self._kept) > 1 and self._too_much():
                self._kept.popitem(last=False)

    def _too_much(self) -> bool:
        return len(self._kept) > _MOST_KEPT or sum(kept.nbytes for kept in self._kept.values()) > _MOST_BYTES

    def _report(self, done: int, total: int, what: str) -> None:
        self._running = Running(True, done, total, what)

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        if not self._turn.acquire(blocking=False):
            raise HostError("VAE Lab is busy with another run; wait for it to end, or cancel it")
        try:
            self._stop.clear()
            self._running = Running(True, 0, 0, "waiting for the model")
            yield
        finally:
            self._running = Running()
            self._turn.release()


def _make_service_of() -> Callable[[Host], ComparisonService]:
    services: weakref.WeakKeyDictionary[Host, ComparisonService] = weakref.WeakKeyDictionary()
    lock = threading.Lock()

    def find(host: Host) -> ComparisonService:
        """The one service of ``host``: panel and API see the same runs and the same results."""
        with lock:
            if host not in services:
                services[host] = ComparisonService(host)
            return services[host]

    return find


service_of = _make_service_of()
