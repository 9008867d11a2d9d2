"""The interface of an autoencoder architecture, and checks that all architectures share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn

from vae_lab.errors import BadShape, MissingKeys, NotAnAutoencoder

__all__ = ["Architecture", "Shapes", "check_shapes", "conv_channels", "shapes_of"]

_MAX_CHANNELS = 1 << 14  # published VAEs have up to 512

Shapes = Mapping[str, tuple[int, ...]]


class Architecture(ABC):
    """An autoencoder architecture, detected and configured by canonical names and shapes, never by file names."""

    name: str
    scales_latents: bool
    """Whether latents must be converted from model space to the VAE's own units before decoding."""

    @abstractmethod
    def detects(self, shapes: Shapes) -> bool:
        """Whether the tensors look like this architecture. No false negatives; ``build`` checks strictly."""

    @abstractmethod
    def build(self, shapes: Shapes, path: str) -> nn.Module:
        """A module on the meta device that matches ``shapes`` exactly.

        Raises:
            MissingKeys, BadShape, NotAnAutoencoder: names ``path`` and what does not match.
        """

    def check(self, shapes: Shapes, path: str) -> None:
        """Raise what ``build`` would, in less time.

        Raises:
            MissingKeys, BadShape, NotAnAutoencoder: as ``build`` does.
        """
        self.build(shapes, path)

    @abstractmethod
    def latent_channels(self, shapes: Shapes) -> int:
        """Channels of a latent."""

    @abstractmethod
    def image_channels(self, module: nn.Module) -> int:
        """Channels of an image: 3, or 4 with alpha."""

    @abstractmethod
    def downscale(self, module: nn.Module) -> int:
        """Image pixels per latent pixel, along one side."""

    @abstractmethod
    def encode(self, module: nn.Module, images: Tensor) -> Tensor:
        """[B,3,H,W] in 0..1 -> [B,C,h,w], in the VAE's own units if ``scales_latents``, else in model space."""

    def decode_in_strips(self, module: nn.Module, latents: Tensor) -> Tensor | None:  # noqa: ARG002
        """As ``decode`` for one latent, with little memory; None if not supported."""
        return None

    def bytes_to_decode(self, module: nn.Module, latents: Tensor) -> int:  # noqa: ARG002
        """Approximate memory of ``decode`` for one latent, without the weights; 0 if unknown."""
        return 0

    def bytes_to_encode(self, module: nn.Module, images: Tensor) -> int:  # noqa: ARG002
        """Approximate memory of ``encode`` for one image, without the weights; 0 if unknown."""
        return 0

    @abstractmethod
    def decode(self, module: nn.Module, latents: Tensor) -> Tensor:
        """[B,C,h,w], in units as for ``encode`` -> [B,3,H,W], about 0..1, not clamped."""


def conv_channels(shapes: Shapes, layer: str, path: str) -> tuple[int, int]:
    """Output and input channels of a 2-D convolution that defines a VAE's configuration.

    Raises:
        MissingKeys, BadShape: it does not exist, or is not a 2-D convolution.
    """
    name = f"{layer}.weight"
    if name not in shapes:
        raise MissingKeys(path, f"the VAE is incomplete: {name} is missing")
    shape = shapes[name]
    if len(shape) != 4 or not all(0 < length <= _MAX_CHANNELS for length in shape):
        raise BadShape(path, f"{name} has shape {list(shape)}, not that of a 2-D convolution")
    return shape[0], shape[1]


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of a module, by name."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def check_shapes(expected: Shapes, shapes: Shapes, path: str) -> None:
    """Compare the file's tensors with the expected ones, before anything is loaded.

    Raises:
        MissingKeys, BadShape, NotAnAutoencoder: with the first name and the number of others.
    """
    missing = sorted(expected.keys() - shapes.keys())
    if missing:
        raise MissingKeys(path, f"the VAE is incomplete: {_first(missing)} of {len(expected)} tensors are missing")
    wrong = sorted(name for name, shape in expected.items() if tuple(shapes[name]) != shape)
    if wrong:
        name = wrong[0]
        raise BadShape(
            path,
            f"{_first(wrong)} with a wrong shape: {name} is {list(shapes[name])}, "
            f"but the rest of the VAE needs {list(expected[name])}",
        )
    unknown = sorted(shapes.keys() - expected.keys())
    if unknown:
        raise NotAnAutoencoder(path, f"unknown VAE architecture: unexpected tensors {_first(unknown)}")


def _first(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
