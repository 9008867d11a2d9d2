"""Faults injected into a comparison and a round trip of the stand-alone app."""

from __future__ import annotations

import importlib
import logging
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from tests.unit.makers import F8, kl_module
from tests.unit.webui.faults import FACTOR, FIRST, LATENTS, SEEDS, THIRD, Fault, Injection, Outcome, Step
from vae_lab.comparison.pixels import to_pixels
from vae_lab.host.choices import BUILT_IN
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.latents import Generation, get_family

NAMES = (BUILT_IN, FIRST, THIRD)
STEPS = {
    "Stand-alone: comparison": [
        Step("list the checkpoints", lambda m: m.host, "checkpoint_files"),
        Step("identify the second VAE", lambda m: m.host.file_cache, "identify", 2),
        Step("open its file", lambda m: m.standalone, "open_vae", 2),
        Step("read its weights", lambda m: m.autoencoder.VaeFile, "state_dict", 2),
        Step("build it", lambda m: m.autoencoder.VaeFile, "assemble", 2),
        Step("decode with it", lambda m: m.autoencoder.Autoencoder, "decode_unclamped", 2),
        Step("make pixels of its image", lambda m: m.compare, "to_pixels", 2),
        Step("show the results so far", lambda m: m, "on_result", 2),
        Step("decode with the third", lambda m: m.autoencoder.Autoencoder, "decode_unclamped", 3),
    ],
    "Stand-alone: round trip": [
        Step("identify the second VAE", lambda m: m.host.file_cache, "identify", 2),
        Step("open its file", lambda m: m.round_trip, "open_vae", 2),
        Step("read its weights", lambda m: m.autoencoder.VaeFile, "state_dict", 2),
        Step("encode with it", lambda m: m.autoencoder.Autoencoder, "encode", 2),
        Step("decode with it", lambda m: m.autoencoder.Autoencoder, "decode_unclamped", 2),
        Step("measure the loss", lambda m: m.round_trip, "measure", 2),
    ],
}


_OUTSIDE = ("checkpoint_files", "on_result")
"""Functions whose errors are those of the whole comparison, and not of one VAE."""


class StandaloneBed:
    """The stand-alone host with one latent, for one comparison or round trip after another."""

    def __init__(self, folder: Path) -> None:
        self.host = StandaloneHost(Folders.of_models(folder / "models", folder / "data"))
        self.host.select_checkpoint("one.safetensors")
        names = ("autoencoders.autoencoder", "comparison.compare", "comparison.round_trip", "host.standalone")
        modules = {name.rpartition(".")[2]: importlib.import_module(f"vae_lab.{name}") for name in names}
        self.parts = SimpleNamespace(host=self.host, on_result=lambda _: None, **modules)
        self.host.generations.add(Generation("g", LATENTS.clone(), get_family("sd1")))
        with torch.no_grad():
            decoded = [
                kl_module(F8, SEEDS[name]).decode(LATENTS / FACTOR) for name in ("one.safetensors", FIRST, THIRD)
            ]
        self.images = [to_pixels((image + 1) / 2)[0].astype(int) for image in decoded]
        self._cancelled = False
        self._modules: weakref.WeakSet[Any] = weakref.WeakSet()

    def run(self, group: str, step: Step | None, fault: Fault | None) -> Outcome | None:
        """Compare or make a round trip with the fault; None if it cannot happen in this step.

        Raises:
            AssertionError: a VAE without a fault has no image or a wrong one, or something is left behind.
        """
        if fault == "skip":  # there is only Cancel
            return None
        self._cancelled = False
        injection = Injection(step, fault, {"interrupt": self._cancel, "switch": self._switch})
        with self._following(), injection.active(self.parts):
            outcome = self._compare(injection) if "comparison" in group else self._round_trip(injection)
        assert injection.fired == (step is not None), "the step was not reached"
        assert not self.host._busy.locked()
        assert not self._modules, "a VAE"
        self.host.select_checkpoint("one.safetensors")
        return outcome if injection.applies else None

    def renew(self) -> None:
        """Begin again after a failure."""
        self.host.select_checkpoint("one.safetensors")

    def _cancel(self) -> None:
        self._cancelled = True

    def _switch(self) -> None:
        self.host.select_checkpoint("two.safetensors")

    @contextmanager
    def _following(self) -> Iterator[None]:
        """Follow every VAE that is loaded; its family is not detected, which would decode too."""
        file = self.parts.autoencoder.VaeFile
        assemble, detect_family, self._modules = file.assemble, file.detect_family, weakref.WeakSet()

        def assembled(*args: Any, **kwargs: Any) -> Any:
            loaded = assemble(*args, **kwargs)
            self._modules.add(loaded.module)
            return loaded

        file.assemble, file.detect_family = assembled, lambda *_: None
        try:
            yield
        finally:
            file.assemble, file.detect_family = assemble, detect_family

    def _compare(self, injection: Injection) -> Outcome:
        def compare() -> Any:
            return self.host.compare("g", NAMES[1:], None, lambda: self._cancelled, self.parts.on_result)

        return self._outcome(injection, compare, decodes=True)

    def _round_trip(self, injection: Injection) -> Outcome:
        image = torch.full((1, 3, 16, 16), 128 / 255)
        return self._outcome(
            injection, lambda: self.host.round_trip(image, NAMES[1:], None, lambda: self._cancelled), decodes=False
        )

    def _outcome(self, injection: Injection, work: Callable[[], Any], *, decodes: bool) -> Outcome:
        fault, step = injection.fault, injection.step
        try:
            results = list(work())
        except BaseException as error:
            # What is no error of a file, of torch or of memory is a fault of ours: the page reports it.
            if fault not in ("stop", "error") and step and step.name not in _OUTSIDE:
                raise
            return Outcome(None, type(error).__name__)
        assert fault == "interrupt" or len(results) == len(NAMES)
        for result, image in zip(results, self.images, strict=False):
            assert not result.error or fault not in ("interrupt", "switch"), result.error
            other = result.name == BUILT_IN and fault == "switch"  # that of either checkpoint
            if decodes and not result.error and result.finite and not other:
                assert abs(result.images[0].astype(int) - image).max() <= 1, result.name
        images = [result.name if result.finite else "NaN" for result in results if not result.error]
        return Outcome(tuple(images), "", tuple(result.error for result in results if result.error), True)


@contextmanager
def standalone_bed(folder: Path) -> Iterator[StandaloneBed]:
    """The stand-alone host over these models; nothing is logged, for records keep the tensors in a traceback."""
    logging.disable()
    try:
        yield StandaloneBed(folder)
    finally:
        logging.disable(logging.NOTSET)
