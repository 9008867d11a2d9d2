"""Exchange the weights of the host's VAE for others, and put its own back.

Tensors are exchanged, never written to: each parameter stays the same object with everything that the host and other
extensions have attached to the module (moves between devices under ``--medvram``, circular padding for tiling,
hypertile, tiled VAE), and its ``data`` is another tensor for a while. So the host's own weights cannot change, and an
exchange costs milliseconds.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from vae_lab.errors import BadShape, MissingKeys
from vae_lab.state_dict import VAE_PARTS

__all__ = ["VaeSwap", "check_fits", "check_shapes_fit", "converted"]

log = logging.getLogger("vae_lab")


def _vae_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The module's own parameters and buffers, without leftovers such as a loss."""
    return {name: tensor for name, tensor in module.state_dict(keep_vars=True).items() if name.startswith(VAE_PARTS)}


def converted(module: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state`` in the precision and memory layout of the module's tensors, on the CPU: ready for many exchanges.

    Tensors that are so already, and those of other names, are returned as they are.
    """
    targets = _vae_tensors(module)
    with torch.no_grad():
        return {
            name: _like(targets[name], tensor, tensor.device) if name in targets else tensor
            for name, tensor in state.items()
        }


def _like(target: Tensor, tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` in the precision and memory layout of ``target``; itself if it is so already."""
    if tensor.shape != target.shape:
        return tensor  # it does not fit, which is for check_fits to say
    same = (tensor.device, tensor.dtype, tensor.stride()) == (device, target.dtype, target.stride())
    return tensor if same else torch.empty_like(target, device=device, requires_grad=False).copy_(tensor)


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
    """A module whose weights may be exchanged until :meth:`restore`. A context manager."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._original: dict[str, Tensor] = {}
        self._lent: dict[str, Tensor] = {}  # the caller's; shared with the module's parameters
        self._versions: dict[str, int] = {}

    def __enter__(self) -> VaeSwap:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.restore()
        finally:
            self.restore()  # does nothing, unless there was an error

    @property
    def swapped(self) -> bool:
        """Whether the weights are exchanged."""
        return bool(self._original)

    def keep(self) -> None:
        """Remember the current weights for :meth:`restore`, whatever precision the module is given until then."""
        self._keep(_vae_tensors(self.module))

    def _keep(self, targets: Mapping[str, Tensor]) -> None:
        if not self._original:
            self._original = {name: target.data for name, target in targets.items()}

    def put(self, state: dict[str, Tensor], path: str) -> None:
        """Exchange the weights for ``state``, converted to the module's precision where it differs.

        Tensors that need no conversion are used as they are. Should anyone write to the module's weights before
        :meth:`restore`, then ``state`` is emptied, for it is no longer what the file has.

        Raises:
            MissingKeys, BadShape: it does not fit; nothing was changed.
        """
        self._check_lent()
        check_fits(self.module, state, path)
        with _writing(self.module):
            targets = _vae_tensors(self.module)
            new = {name: self._usable(target, state[name]) for name, target in targets.items()}
            self._keep(targets)
            for name, target in targets.items():
                target.data = new[name]
            self._lent = state
            self._versions = {name: targets[name]._version for name in new if new[name] is state[name]}

    @staticmethod
    def _usable(target: Tensor, tensor: Tensor) -> Tensor:
        like = _like(target, tensor, target.device)
        # What is written to a parameter made in inference mode, as Forge's are, leaves no trace: see _check_lent.
        return like.clone() if like is tensor and target.is_inference() else like

    def _check_lent(self) -> None:
        """Empty what was lent if anyone has written to it through the module."""
        if self._versions:
            targets = _vae_tensors(self.module)
            if any(targets[name]._version != version for name, version in self._versions.items()):
                self._lent.clear()
        self._lent, self._versions = {}, {}

    def restore(self) -> None:
        """Put the original weights back, in their original precision. Does nothing if they were not exchanged.

        Raises:
            RuntimeError: the device is out of memory, and the host has moved the VAE meanwhile; can be called again.
        """
        if not self._original:
            return
        try:
            with _writing(self.module):
                self._check_lent()
                self._restore_or_make_room(self._original)
        except (RuntimeError, MemoryError):
            log.exception(
                "VAE Lab could not put the WebUI's own VAE back, another one is still in memory: reload the checkpoint"
            )
            raise
        self._original = {}

    def _restore_or_make_room(self, original: Mapping[str, Tensor]) -> None:
        try:
            self._restore(original)
        except (RuntimeError, MemoryError):  # devices other than CUDA have no class of their own for too little memory
            torch.cuda.empty_cache()
            self._restore(original)

    def _restore(self, original: Mapping[str, Tensor]) -> None:
        # The host changes the precision of a VAE that produced NaN, but that was the fault of the other weights.
        targets, precision = _vae_tensors(self.module), next(iter(original.values())).dtype
        if next(iter(targets.values())).dtype != precision:
            self.module.to(precision)  # the host asks the module itself for its precision
            targets = _vae_tensors(self.module)
        moved = {name: tensor.to(targets[name].device) for name, tensor in original.items()}
        for name, tensor in moved.items():
            targets[name].data = tensor
