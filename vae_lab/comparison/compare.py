"""Decodes one latent with several VAEs, one after another."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from vae_lab.autoencoders import Autoencoder
from vae_lab.comparison.pixels import to_pixels
from vae_lab.decoding import Decoder, check_family, error_line, is_out_of_memory
from vae_lab.errors import Cancelled, FamilyMismatch, VaeLabError
from vae_lab.latents.family import Family, get_family
from vae_lab.progress import Progress

__all__ = ["Candidate", "Comparison", "Decoded", "OnResult", "compare", "compare_candidates"]

log = logging.getLogger("vae_lab")


@dataclass(frozen=True)
class Candidate:
    """A VAE to compare.

    Attributes:
        name: for display, unique within a comparison.
        open: returns a context manager that yields the decoder and restores everything afterwards. It raises a
            VaeLabError if the VAE cannot be used.
        family: its family, if known before opening.
        weights: equal for candidates with equal weights, of which only the first decodes; "" if unknown.
    """

    name: str
    open: Callable[[], AbstractContextManager[Decoder]]
    family: Family | None = None
    weights: str = ""


@dataclass(frozen=True)
class Decoded:
    """The images of one VAE, or the reason why there are none.

    Attributes:
        name: the candidate's.
        images: uint8 [B,H,W,3], or None.
        seconds: decoding time, without loading.
        error: one line, or "".
        family: the VAE's family, if known.
        finite: False if the decoder's output had NaN or infinite values.
        in_strips: True if the latents were decoded in strips due to low memory.
    """

    name: str
    images: np.ndarray | None = None
    seconds: float = 0.0
    error: str = ""
    family: Family | None = None
    finite: bool = True
    in_strips: bool = False


@dataclass(frozen=True)
class Comparison:
    """The results of a comparison, in the order of the candidates."""

    family: Family
    results: tuple[Decoded, ...] = ()
    cancelled: bool = False

    def __iter__(self) -> Iterator[Decoded]:
        return iter(self.results)

    def __getitem__(self, name: str) -> Decoded:
        return next(result for result in self.results if result.name == name)

    @property
    def decoded(self) -> tuple[Decoded, ...]:
        """The results with images."""
        return tuple(result for result in self.results if result.images is not None)


OnResult = Callable[[Comparison], object]
"""Receives the results so far."""


@dataclass
class _Progress:
    """Counts decodes, reports them to the caller, and raises Cancelled."""

    total: int
    report: Progress | None
    cancelled: Callable[[], bool] | None
    done: int = field(default=0)

    def before(self, what: str) -> None:
        """Report, or raise Cancelled."""
        if self.cancelled and self.cancelled():
            raise Cancelled("cancelled")
        self._report(what)

    def reached(self, done: int, what: str) -> None:
        self.done = done
        self._report(what)

    def _report(self, what: str) -> None:
        if self.report:
            self.report(self.done, self.total, what)


def compare(
    latents: Tensor,
    autoencoders: Mapping[str, Autoencoder] | Sequence[Autoencoder],
    *,
    family: str | Family | None = None,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Comparison:
    """Decode ``latents`` ([B,C,h,w], model space) with each of ``autoencoders``.

    Args:
        latents: model space, as sampled.
        autoencoders: loaded VAEs; a mapping names them.
        family: of the latents; by default, that of the first autoencoder with a known family.
        progress: called before and after every decode.
        cancelled: called before every decode.

    The result for a VAE of another family has an error instead of images.

    Raises:
        FamilyMismatch: the family of the latents is unknown.
    """
    named = autoencoders.items() if isinstance(autoencoders, Mapping) else [(a.name, a) for a in autoencoders]
    pairs = list(named)
    family = family if family is not None else next((a.family for _, a in pairs if a.family), None)
    if family is None:
        raise FamilyMismatch("the latents' family could not be determined from these VAEs; pass one")
    candidates = [Candidate(name, lambda a=vae: nullcontext(Decoder.of(a)), vae.family) for name, vae in pairs]
    return compare_candidates(latents, candidates, get_family(family), progress=progress, cancelled=cancelled)


def compare_candidates(
    latents: Tensor,
    candidates: Iterable[Candidate],
    family: Family,
    *,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
    on_result: OnResult | None = None,
) -> Comparison:
    """As :func:`compare`, with VAEs that are opened one at a time, so that only one is in memory.

    ``on_result`` is called after each of them with the results so far.
    """
    candidates = list(candidates)
    steps = _Progress(len(candidates) * latents.shape[0], progress, cancelled)
    results: list[Decoded] = []
    decoded: dict[str, Decoded] = {}
    try:
        for number, candidate in enumerate(candidates, start=1):
            steps.before(candidate.name)
            same = decoded.get(candidate.weights)
            result = replace(same, name=candidate.name) if same else _decode_with(candidate, latents, family, steps)
            results.append(result)
            if candidate.weights and result.images is not None:
                decoded[candidate.weights] = result
            steps.reached(number * latents.shape[0], candidate.name)  # also after an error
            if on_result:
                on_result(Comparison(family, tuple(results)))
    except Cancelled:
        return Comparison(family, tuple(results), cancelled=True)
    return Comparison(family, tuple(results))


def _decode_with(candidate: Candidate, latents: Tensor, family: Family, steps: _Progress) -> Decoded:
    try:
        check_family(candidate.name, candidate.family, family)
        with candidate.open() as decoder:
            images, seconds, in_strips = [], 0.0, False
            for latent in latents.split(1):
                steps.before(candidate.name)
                start = time.perf_counter()
                image, low_memory = decoder.decode(latent)
                images.append(image)
                in_strips |= low_memory
                seconds += time.perf_counter() - start
                steps.done += 1
        batch = torch.cat(images)
        pixels, finite = to_pixels(batch), bool(torch.isfinite(batch).all())
    except Cancelled:
        raise
    except VaeLabError as error:
        return Decoded(candidate.name, error=str(error), family=candidate.family)
    # An error of torch or the disk must not lose the other VAEs' images.
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            log.exception("VAE Lab: decoding with %s failed", candidate.name)
        return Decoded(candidate.name, error=error_line(candidate.name, error), family=candidate.family)
    return Decoded(candidate.name, pixels, seconds, "", candidate.family or family, finite, in_strips)
