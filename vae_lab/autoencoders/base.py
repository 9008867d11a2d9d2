"""What every autoencoder architecture offers, and the checks they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn

from vae_lab.errors import BadShape, MissingKeys, NotAnAutoencoder

__all__ = ["Architecture", "Shapes", "check_shapes", "conv_channels", "shapes_of"]

_MOST_CHANNELS = 1 << 14  # published VAEs have 512 at most

Shapes = Mapping[str, tuple[int, ...]]


class Architecture(ABC):
    """One kind of autoencoder. Everything is read from canonical names and shapes, never from a file's name."""

    name: str
    scales_latents: bool
    """Whether latents must be taken from model space to the VAE's own units before decoding."""

    @abstractmethod
    def detects(self, shapes: Shapes) -> bool:
        """Whether the tensors are of this architecture. No false negatives; ``build`` does the strict check."""

    @abstractmethod
    def build(self, shapes: Shapes, path: str) -> nn.Module:
        """A module without weights (on the meta device) that fits ``shapes`` exactly.

        Raises:
            MissingKeys, BadShape, NotAnAutoencoder: naming ``path`` and what does not fit.
        """

    def check(self, shapes: Shapes, path: str) -> None:
        """Whether ``build`` would succeed, for less.

        Raises:
            MissingKeys, BadShape, NotAnAutoencoder: as ``build`` does.
        """
        self.build(shapes, path)

    @abstractmethod
    def latent_channels(self, shapes: Shapes) -> int:
        """Channels of a latent."""

    @abstractmethod
    def image_channels(self, module: nn.Module) -> int:
        """Channels of an image: 3, except where there is alpha too."""

    @abstractmethod
    def downscale(self, module: nn.Module) -> int:
        """Image pixels per latent pixel, along one side."""

    @abstractmethod
    def encode(self, module: nn.Module, images: Tensor) -> Tensor:
        """[B,3,H,W] in 0..1 -> [B,C,h,w] in the units that ``scales_latents`` tells."""

    def decode_in_strips(self, module: nn.Module, latents: Tensor) -> Tensor | None:  # noqa: ARG002
        """As ``decode``, of one latent, to the same image in little memory; None where that cannot be."""
        return None

    def bytes_to_decode(self, module: nn.Module, latents: Tensor) -> int:  # noqa: ARG002
        """About how much memory ``decode`` takes for one latent, beside the weights; 0 where it is not known."""
        return 0

    def bytes_to_encode(self, module: nn.Module, images: Tensor) -> int:  # noqa: ARG002
        """About how much memory ``encode`` takes for one image, beside the weights; 0 where it is not known."""
        return 0

    @abstractmethod
    def decode(self, module: nn.Module, latents: Tensor) -> Tensor:
        """[B,C,h,w] in the units that ``scales_latents`` tells -> [B,3,H,W], about 0..1, not clamped."""


def conv_channels(shapes: Shapes, layer: str, path: str) -> tuple[int, int]:
    """Output and input channels of a 2-D convolution that defines a VAE's configuration.

    Raises:
        MissingKeys, BadShape: it is not there, or no such convolution.
    """
    name = f"{layer}.weight"
    if name not in shapes:
        raise MissingKeys(path, f"the VAE is incomplete: {name} is missing")
    shape = shapes[name]
    if len(shape) != 4 or not all(0 < length <= _MOST_CHANNELS for length in shape):
        raise BadShape(path, f"{name} has shape {list(shape)}, not that of a 2-D convolution")
    return shape[0], shape[1]


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Name -> shape of all tensors of a module."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def check_shapes(expected: Shapes, shapes: Shapes, path: str) -> None:
    """Hold the file's tensors against those that are needed, before anything is loaded.

    Raises:
        MissingKeys, BadShape, NotAnAutoencoder: with the first names and how many there are.
    """
    missing = sorted(expected.keys() - shapes.keys())
    if missing:
        raise MissingKeys(path, f"the VAE is incomplete: {_first(missing)} of {len(expected)} tensors are missing")
    wrong = sorted(name for name, shape in expected.items() if tuple(shapes[name]) != shape)
    if wrong:
        name = wrong[0]
        raise BadShape(
            path,
            f"{_first(wrong)} of the wrong shape: {name} is {list(shapes[name])}, "
            f"the rest of the VAE needs {list(expected[name])}",
        )
    unknown = sorted(shapes.keys() - expected.keys())
    if unknown:
        raise NotAnAutoencoder(path, f"not a known kind of VAE: {_first(unknown)} have no place in it")


def _first(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
