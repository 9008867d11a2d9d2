"""Computes with untrusted weights: without the cost of denormal numbers, and so that it can be stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from vae_lab.autoencoders.autoencoder import Autoencoder
from vae_lab.errors import Cancelled

__all__ = ["Check", "before_each_layer", "flushing_denormals"]

Check = Callable[[], None]
"""Called between two steps; raises what ends the work."""


@contextmanager
def before_each_layer(module: nn.Module, check: Check) -> Iterator[None]:
    """Call ``check`` before each layer of a module, and of copies that are made meanwhile."""
    layers = [layer for layer in module.modules() if not list(layer.children())]
    hooks = [layer.register_forward_pre_hook(lambda *_: check()) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def flushing_denormals(autoencoder: Autoencoder) -> Iterator[Autoencoder]:
    """The same VAE, computing in a thread of its own where numbers below 1e-38 are zero.

    Processors can take a hundred times as long for such denormal numbers, of which a healthy VAE has none. How they are
    treated is set per thread, and passed on to the threads that torch starts from it. Neither the caller's thread nor
    the host's are changed: numpy, for one, remembers what it finds there.

    If the caller is interrupted, the thread stops at the next layer. Does nothing for a VAE on a GPU, whose module the
    host may be using.
    """
    if autoencoder.device.type != "cpu":
        yield autoencoder
        return
    stopped = threading.Event()

    def check() -> None:
        if stopped.is_set():
            raise Cancelled("cancelled")

    flush = partial(torch.set_flush_denormal, True)  # does nothing where the processor cannot
    with before_each_layer(autoencoder.module, check), ThreadPoolExecutor(1, "vae-lab-compute", flush) as pool:

        def run(work: Callable[[], Tensor]) -> Tensor:
            try:
                result = pool.submit(torch.no_grad()(work))
            except RuntimeError as error:  # the interpreter is exiting, and starts nothing any more
                raise Cancelled("cancelled") from error
            try:
                return result.result()
            except (KeyboardInterrupt, SystemExit):
                stopped.set()
                raise

        yield replace(autoencoder, run=run)
