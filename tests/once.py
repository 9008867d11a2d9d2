"""Checkups and images are computed once per test run for each set of weights.

A checkup decodes a colour chart twice, which takes two CPU seconds even with the small sample VAEs, and many tests meet
the same few VAEs under other names, in other containers and folders. What is remembered here depends on its arguments
only, so within a run the first result is good for every later call. The first call always computes.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vae_lab import autoencoders, checkup
from vae_lab.autoencoders import Autoencoder
from vae_lab.autoencoders.kl import KLArchitecture
from vae_lab.latents.family import Family


def _digest(what: str, tensors: Mapping[str, Tensor]) -> str:
    """Of names, dtypes, shapes and values."""
    digest = hashlib.sha1(what.encode(), usedforsecurity=False)  # the fastest here
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {tensor.stride()}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _key(autoencoder: Autoencoder, hint: Family | None) -> str:
    """What a checkup depends on: architecture and weights, and the hint."""
    what = f"{autoencoder.architecture.name} {autoencoder.dtype} {hint and hint.id}"
    return _digest(what, autoencoder.module.state_dict())


def _once(function: Callable[..., Any], folder: Path) -> Callable[..., Any]:
    """``function``, computed once per weights and hint, for all workers."""
    results: dict[str, Any] = {}
    folder.mkdir(exist_ok=True)

    @wraps(function)
    def remembered(autoencoder: Autoencoder, hint: Family | None = None) -> Any:
        key = _key(autoencoder, hint)
        file = folder / f"{key}.pickle"
        if key not in results and file.exists():
            results[key] = pickle.loads(file.read_bytes())
        if key not in results:
            results[key] = function(autoencoder, hint)
            part = file.with_name(f"{file.name}.{os.getpid()}")
            part.write_bytes(pickle.dumps(results[key]))
            part.replace(file)
        return results[key]

    return remembered


@pytest.fixture(scope="session", autouse=True)
def each_checkup_once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[None]:
    """Put the remembering functions in the place of the real ones, wherever they have been imported."""
    base = tmp_path_factory.getbasetemp()
    folder = base if worker_id == "master" else base.parent
    with pytest.MonkeyPatch.context() as patched:
        for function in (autoencoders.detect_family, checkup.check_weights):
            replacement = _once(function, folder / function.__name__)
            for module in [module for name, module in sys.modules.items() if name.partition(".")[0] == "vae_lab"]:
                for name, value in list(vars(module).items()):
                    if value is function:
                        patched.setattr(module, name, replacement)
        yield


@pytest.fixture(scope="session", autouse=True)
def each_image_once() -> Iterator[None]:
    """Encode and decode with a KL VAE once for each set of weights and each input: for tests of what is shown of it."""
    results: dict[str, Tensor] = {}

    def remembering(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
        @wraps(method)
        def remembered(self: KLArchitecture, module: nn.Module, given: Tensor) -> Tensor:
            if any(layer._forward_hooks or layer._forward_pre_hooks for layer in module.modules()):
                return method(self, module, given)  # someone wants to see it at work
            paddings = {layer.padding_mode for layer in module.modules() if isinstance(layer, nn.Conv2d)}
            what = f"{method.__name__} {module.training} {sorted(paddings)}"
            key = _digest(what, module.state_dict() | {"given": given})
            if key not in results:
                results[key] = method(self, module, given)
            return results[key].clone()

        return remembered

    with pytest.MonkeyPatch.context() as patched:
        for name in ("encode", "decode"):
            patched.setattr(KLArchitecture, name, remembering(getattr(KLArchitecture, name)))
        yield
