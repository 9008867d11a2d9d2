"""Opens files with a VAE, and loads it as an autoencoder that encodes and decodes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from vae_lab.autoencoders.base import Architecture, Shapes
from vae_lab.autoencoders.family_detection import detect_family
from vae_lab.autoencoders.kl import KLArchitecture
from vae_lab.autoencoders.taesd import TaesdArchitecture
from vae_lab.errors import FamilyMismatch, MalformedFile, NotAnAutoencoder
from vae_lab.formats import WeightFile, file_name, open_weights
from vae_lab.formats.dtypes import itemsize
from vae_lab.latents.family import Family, get_family
from vae_lab.state_dict import Layout, canonical_shape, explain, find_vae, read_tensors
from vae_lab.text import quoted, sized
from vae_lab.time_limit import TimeLimit

__all__ = ["ARCHITECTURES", "Autoencoder", "VaeFile", "load_autoencoder", "open_vae"]

# Tensors of a .ckpt can share bytes, or repeat them. Those of a trained VAE do not; small ones cost little.
_MAX_SHARING = 4
_MAX_UNBACKED = 16 * 2**20  # bytes

ARCHITECTURES: tuple[Architecture, ...] = (KLArchitecture(), TaesdArchitecture())


def _directly(work: Callable[[], Tensor]) -> Tensor:
    return work()


@dataclass(frozen=True)
class Autoencoder:
    """A VAE in memory.

    Attributes:
        name: for display; the file's name.
        path: the file, or its URL without secrets; "" if there is none.
        architecture: its architecture.
        module: the network with its weights.
        family: its latent space, or None if unknown.
        latent_channels: channels of a latent.
        run: computes what it is given; see :func:`vae_lab.autoencoders.computing.flushing_denormals`.
    """

    name: str
    path: str
    architecture: Architecture
    module: nn.Module
    family: Family | None
    latent_channels: int
    run: Callable[[Callable[[], Tensor]], Tensor] = field(default=_directly, repr=False, compare=False)

    @property
    def downscale(self) -> int:
        """Image pixels per latent pixel, along one side."""
        return self.architecture.downscale(self.module)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which it computes."""
        return next(self.module.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """The device on which it computes."""
        return next(self.module.parameters()).device

    def with_family(self, family: str | Family | None) -> Autoencoder:
        """The same weights, treated as belonging to ``family``."""
        return replace(self, family=None if family is None else get_family(family))

    def to(self, *, dtype: torch.dtype | None = None, device: str | torch.device | None = None) -> Autoencoder:
        """Move the weights in place, as ``nn.Module.to`` does."""
        self.module.to(dtype=dtype, device=device)
        return self

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """[B,3,H,W] in 0..1 -> mean latents [B,C,h,w] in model space, fp32.

        H and W must be multiples of :attr:`downscale`.

        Raises:
            FamilyMismatch: the family, and so the scaling, is unknown.
        """
        images = images.to(self.device, self.dtype)
        latents = self.run(lambda: self.architecture.encode(self.module, images)).float()
        return self._known_family().to_model_space(latents) if self.architecture.scales_latents else latents

    def decode(self, latents: Tensor) -> Tensor:
        """[B,C,h,w] in model space -> [B,3,H,W] in 0..1, fp32.

        Raises:
            FamilyMismatch: the family is unknown, or the latents have a different number of channels.
        """
        return self.decode_unclamped(latents).clamp(0.0, 1.0)

    @torch.no_grad()
    def decode_unclamped(self, latents: Tensor) -> Tensor:
        """As :meth:`decode`, without clamping to 0..1; NaN stays NaN."""
        latents = self._in_own_units(latents)
        return self.run(lambda: self.architecture.decode(self.module, latents)).float()

    def _in_own_units(self, latents: Tensor) -> Tensor:
        if latents.ndim != 4 or latents.shape[1] != self.latent_channels:
            raise FamilyMismatch(
                f"{self.name} decodes latents of shape [B,{self.latent_channels},h,w], not {list(latents.shape)}"
            )
        if self.architecture.scales_latents:
            latents = self._known_family().to_vae_space(latents)
        return latents.to(self.device, self.dtype)

    @torch.no_grad()
    def decode_in_strips(self, latents: Tensor) -> Tensor | None:
        """As :meth:`decode_unclamped` for one latent, with little memory; None if not supported."""
        return self.architecture.decode_in_strips(self.module, self._in_own_units(latents))

    def bytes_to_decode(self, latents: Tensor) -> int:
        """Approximate memory for decoding one latent, without the weights; 0 if unknown."""
        return self.architecture.bytes_to_decode(self.module, latents)

    def bytes_to_encode(self, images: Tensor) -> int:
        """Approximate memory for encoding one image, without the weights; 0 if unknown."""
        return self.architecture.bytes_to_encode(self.module, images)

    def _known_family(self) -> Family:
        if self.family is None:
            raise FamilyMismatch(f"{self.name}: its latent family could not be determined from its weights; pass one")
        return self.family


class VaeFile:
    """An open file with a VAE. Its structure is checked, its weights are not read yet. A context manager.

    Attributes:
        weights: the open file.
        layout: where the VAE is in the file.
        shapes: canonical name -> canonical shape.
        architecture: the VAE's architecture.
    """

    def __init__(self, weights: WeightFile) -> None:
        self.weights = weights
        self.path = weights.path
        layout = None
        try:
            layout = find_vae(weights.tensors, weights.path)
            self._check(layout)
        except NotAnAutoencoder as error:
            reason = explain(error, weights.tensors, weights.path, layout)
            if reason is error:
                raise
            raise reason from error

    def _check(self, layout: Layout) -> None:
        """Structure errors come before any weight is read."""
        weights = self.weights
        self.layout = layout
        claimed = sum(weights.tensors[source].nbytes for source in layout.names.values())
        if claimed > max(_MAX_SHARING * weights.size, _MAX_UNBACKED):
            raise MalformedFile(
                self.path, f"the VAE claims {sized(claimed)}, but the whole file has {sized(weights.size)}"
            )
        odd = next((name for name in layout.names.values() if weights.tensors[name].dtype.is_complex), None)
        if odd is not None:
            raise NotAnAutoencoder(self.path, f"unknown VAE architecture: {quoted(odd)} has complex numbers")
        self.shapes: Shapes = {
            name: canonical_shape(name, weights.tensors[source].shape) for name, source in layout.names.items()
        }
        architecture = next((known for known in ARCHITECTURES if known.detects(self.shapes)), None)
        if architecture is None:
            raise NotAnAutoencoder(self.path, "unknown VAE architecture")
        self.architecture = architecture
        architecture.check(self.shapes, self.path)

    def __enter__(self) -> VaeFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.weights.close()

    @cached_property
    def dtype(self) -> torch.dtype:
        """The dtype of most stored tensors; of two that are as frequent, the one with more bits."""
        dtypes = Counter(self.weights.tensors[source].dtype for source in self.layout.names.values())
        return max(dtypes, key=lambda dtype: (dtypes[dtype], itemsize(dtype)))

    @property
    def latent_channels(self) -> int:
        """Channels of a latent."""
        return self.architecture.latent_channels(self.shapes)

    @cached_property
    def downscale(self) -> int:
        """Image pixels per latent pixel, along one side."""
        return self.architecture.downscale(self.architecture.build(self.shapes, self.path))

    @property
    def half(self) -> Literal["", "encoder", "decoder"]:
        """``encoder`` or ``decoder`` if the file has only that half of a VAE, else ""."""
        parts = {name.partition(".")[0] for name in self.shapes}
        if not any("decoder" in part for part in parts):
            return "encoder"
        return "" if any("encoder" in part for part in parts) else "decoder"

    def state_dict(self, *, check_finite: bool = True) -> dict[str, Tensor]:
        """The weights in canonical form, in the file's own dtype.

        Raises:
            NotFinite: a weight is NaN or infinite (only with ``check_finite``).
        """
        return read_tensors(self.weights, self.layout, check_finite=check_finite)

    def load(
        self,
        *,
        family: str | Family | None = None,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        state: dict[str, Tensor] | None = None,
    ) -> Autoencoder:
        """Read the weights, or use ``state`` if :meth:`state_dict` has read them already.

        Without ``family``, it is detected from the way the weights decode a colour chart.
        """
        loaded = self.assemble(self.state_dict() if state is None else state, dtype=dtype, device=device)
        return loaded.with_family(family if family is not None else self.detect_family(loaded))

    def assemble(
        self, state: dict[str, Tensor], *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
    ) -> Autoencoder:
        """Build an autoencoder from the result of :meth:`state_dict`, or from one half of it, without a family."""
        module = self.architecture.build({name: self.shapes[name] for name in state}, self.path)
        # Not load_state_dict(assign=True), because torch 2.0 has no assign.
        for name, tensor in state.items():
            _set_parameter(module, name, tensor.to(device, dtype))
        module.eval()
        return Autoencoder(
            name=file_name(self.path),
            path=self.path,
            architecture=self.architecture,
            module=module,
            family=None,
            latent_channels=self.latent_channels,
        )

    @property
    def family_hint(self) -> Family | None:
        """The family that the rest of a checkpoint suggests."""
        hint = self.layout.family_hint
        return None if hint is None else get_family(hint)

    def detect_family(self, loaded: Autoencoder) -> Family | None:
        """The latent family of these weights; if they do not show it, that of the rest of the checkpoint."""
        return self.family_or_hint(detect_family(loaded, self.family_hint).family)

    def family_or_hint(self, family: Family | None) -> Family | None:
        """``family`` from the weights, else the family of the rest of the checkpoint if its latents have that shape."""
        hint = self.family_hint
        if family is not None or hint is None or hint.latent_channels != self.latent_channels:
            return family
        # The x4 upscaler has SD's text encoder and 4 latent channels, but a VAE of its own.
        return hint if self.downscale == 8 else None


def _set_parameter(module: nn.Module, name: str, value: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(owner), leaf, nn.Parameter(value, requires_grad=False))


def open_vae(path: str | os.PathLike[str], time: TimeLimit | None = None) -> VaeFile:
    """Open a VAE or a checkpoint and check the VAE's structure. Only reads the header.

    Args:
        path: path or URL.
        time: the limit for this and all later reads.

    Raises:
        FileError: one line naming the file and the reason; see :mod:`vae_lab.errors`.
    """
    with ExitStack() as undo:
        weights = open_weights(path, time=time)
        undo.callback(weights.close)
        vae = VaeFile(weights)
        undo.pop_all()
    return vae


def load_autoencoder(
    path: str | os.PathLike[str],
    *,
    family: str | Family | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> Autoencoder:
    """Load a VAE from a VAE file or a checkpoint.

    Args:
        path: path or URL of a .safetensors, .ckpt or .pt file in any known layout. Of a checkpoint, only the VAE's
            bytes are read.
        family: the latent space; by default, it is detected from the weights.
        dtype: in which it computes.
        device: on which it computes.

    Raises:
        FileError: the file cannot be used; one line naming the file and the reason.
    """
    with open_vae(path) as file:
        return file.load(family=family, dtype=dtype, device=device)
