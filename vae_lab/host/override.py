"""Put other weights into the host's VAE, in place, and take them out again bit-exactly.

In place, because everything that the host and other extensions have attached to the module (moves between
devices under ``--medvram``, circular padding for tiling, hypertile, tiled VAE) must stay attached.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vae_lab.errors import BadShape, MissingKeys
from vae_lab.state_dict import VAE_PARTS

__all__ = ["VaeSwap", "check_fits"]


def _vae_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The module's own tensors (not copies), without such leftovers as a loss."""
    return {name: tensor for name, tensor in module.state_dict().items() if name.startswith(VAE_PARTS)}


def check_fits(module: nn.Module, state: Mapping[str, Tensor], path: str) -> None:
    """Hold names and shapes against the host's VAE before anything is touched.

    Raises:
        MissingKeys, BadShape: the weights do not fit the VAE that the host has loaded.
    """
    targets = _vae_tensors(module)
    odd = sorted(targets.keys() ^ state.keys())
    if odd:
        differ = f"they differ in {len(odd)} tensors, {odd[0]} among them"
        raise MissingKeys(path, f"does not fit the loaded checkpoint's VAE: {differ}")
    for name, target in targets.items():
        if tuple(target.shape) != tuple(state[name].shape):
            raise BadShape(
                path,
                f"does not fit the loaded checkpoint's VAE: {name} is {list(state[name].shape)}, "
                f"the checkpoint has {list(target.shape)}",
            )


class VaeSwap:
    """A module whose weights may be replaced until :meth:`restore`. A context manager.

    The original weights are copied to the CPU when the first others are put in.
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
        """Whether other weights are in."""
        return bool(self._original)

    @torch.no_grad()
    def put(self, state: Mapping[str, Tensor], path: str) -> None:
        """Put ``state`` in, converted to the module's precision.

        Raises:
            MissingKeys, BadShape: it does not fit; nothing was touched.
        """
        check_fits(self.module, state, path)
        targets = _vae_tensors(self.module)
        if not self._original:
            self._original = {name: target.detach().to("cpu", copy=True) for name, target in targets.items()}
        for name, target in targets.items():
            target.copy_(state[name])

    @torch.no_grad()
    def restore(self) -> None:
        """Put the original weights back, in their original precision. Does nothing if nothing was put in."""
        original, self._original = self._original, {}
        if not original:
            return
        # The host changes the precision of a VAE that gave NaN; that was the other weights' fault.
        precision = next(iter(original.values())).dtype
        if next(iter(_vae_tensors(self.module).values())).dtype != precision:
            self.module.to(precision)
        for name, target in self.module.named_parameters():
            # Of a module in mixed precision, some tensors are not in that of the first.
            if name in original and target.dtype != original[name].dtype:
                target.data = target.data.to(original[name].dtype)
        for name, target in _vae_tensors(self.module).items():
            target.copy_(original[name])
