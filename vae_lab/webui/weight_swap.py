"""Replace the weights of the host's VAE in place, and restore them bit-exactly.

In place, because everything that the host and other extensions have attached to the module (moves between
devices under ``--medvram``, circular padding for tiling, hypertile, tiled VAE) must stay attached.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from vae_lab.errors import BadShape, MissingKeys
from vae_lab.state_dict import VAE_PARTS

__all__ = ["VaeSwap", "check_fits", "check_shapes_fit"]

log = logging.getLogger("vae_lab")


def _vae_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The module's own tensors (not copies), without leftovers such as a loss."""
    return {name: tensor for name, tensor in module.state_dict().items() if name.startswith(VAE_PARTS)}


def check_fits(module: nn.Module, state: Mapping[str, Tensor], path: str) -> None:
    """As :func:`check_shapes_fit`, for weights."""
    check_shapes_fit(module, {name: tuple(tensor.shape) for name, tensor in state.items()}, path)


def check_shapes_fit(module: nn.Module, shapes: Mapping[str, tuple[int, ...]], path: str) -> None:
    """Compare names and shapes with the host's VAE, before anything is changed.

    Raises:
        MissingKeys, BadShape: the weights do not fit the VAE that the host has loaded.
    """
    targets = _vae_tensors(module)
    odd = sorted(targets.keys() ^ shapes.keys())
    if odd:
        differ = f"they differ in {len(odd)} tensors, {odd[0]} among them"
        raise MissingKeys(path, f"does not fit the loaded checkpoint's VAE: {differ}")
    for name, target in targets.items():
        if tuple(target.shape) != shapes[name]:
            raise BadShape(
                path,
                f"does not fit the loaded checkpoint's VAE: {name} is {list(shapes[name])}, "
                f"the checkpoint has {list(target.shape)}",
            )


def _writing(module: nn.Module) -> AbstractContextManager[None]:
    """Forge loads models in inference mode; such tensors can only be written to in that mode."""
    inference = any(tensor.is_inference() for tensor in module.state_dict().values())
    return torch.inference_mode() if inference else torch.no_grad()


class VaeSwap:
    """A module whose weights may be replaced until :meth:`restore`. A context manager.

    The original weights are copied to the CPU before the first replacement.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._original: dict[str, Tensor] = {}

    def __enter__(self) -> VaeSwap:
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()

    @property
    def swapped(self) -> bool:
        """Whether the weights are replaced."""
        return bool(self._original)

    def keep(self) -> None:
        """Save the current weights for :meth:`restore`, whatever others do to the module until then."""
        with _writing(self.module):
            self._keep(_vae_tensors(self.module))

    def _keep(self, targets: Mapping[str, Tensor]) -> None:
        if not self._original:
            self._original = {name: target.detach().to("cpu", copy=True) for name, target in targets.items()}

    def put(self, state: Mapping[str, Tensor], path: str) -> None:
        """Replace the weights with ``state``, converted to the module's precision.

        Raises:
            MissingKeys, BadShape: it does not fit; nothing was changed.
        """
        check_fits(self.module, state, path)
        with _writing(self.module):
            targets = _vae_tensors(self.module)
            self._keep(targets)
            for name, target in targets.items():
                target.copy_(state[name])

    def restore(self) -> None:
        """Put the original weights back, in their original precision. Does nothing if they were not replaced.

        Raises:
            RuntimeError: the device is out of memory, so not all could be put back; can be called again.
        """
        if not self._original:
            return
        try:
            with _writing(self.module):
                self._restore_or_make_room(self._original)
        except (RuntimeError, MemoryError):
            log.exception(
                "VAE Lab could not put the WebUI's own VAE back; its weights are now mixed: reload the checkpoint"
            )
            raise
        self._original = {}

    def _restore_or_make_room(self, original: Mapping[str, Tensor]) -> None:
        try:
            self._restore(original)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            self._restore(original)

    def _restore(self, original: Mapping[str, Tensor]) -> None:
        # The host changes the precision of a VAE that produced NaN, but that was the fault of the other weights.
        precision = next(iter(original.values())).dtype
        if next(iter(_vae_tensors(self.module).values())).dtype != precision:
            self.module.to(precision)
        for name, target in self.module.named_parameters():
            # In a module of mixed precision, some tensors differ from the first.
            if name in original and target.dtype != original[name].dtype:
                target.data = target.data.to(original[name].dtype)
        for name, target in _vae_tensors(self.module).items():
            target.copy_(original[name])
