"""Every error that VAE Lab raises on purpose.

    VaeLabError
    ├── FileError                 one file cannot be used; names the file and the reason
    │   ├── UnreadableFile        missing, a directory, empty, vanished, truncated, not a known format
    │   ├── MalformedFile         a known format whose structure contradicts itself or exceeds a limit
    │   ├── UnsafePickle          a pickle that asks for more than tensors and plain containers
    │   └── NotAnAutoencoder      readable, but there is no VAE of a known architecture in it
    │       ├── MissingVae        a checkpoint without any VAE tensors
    │       ├── MissingKeys       a VAE with tensors missing
    │       ├── BadShape          a VAE whose tensors contradict each other
    │       └── NotFinite         a VAE with NaN or infinite weights
    ├── FamilyMismatch            the VAE belongs to another latent space than the latents
    ├── NotEnoughMemory           a task would take more memory than is free
    ├── UnknownChoice             a VAE, checkpoint or generation of that name is not there
    ├── Cancelled                 the user stopped a long operation
    └── HostError                 the host is not in the state that an operation needs

``str(error)`` is one line, fit to be shown to a user as it is.
"""

from __future__ import annotations

__all__ = [
    "BadShape",
    "Cancelled",
    "FamilyMismatch",
    "FileError",
    "HostError",
    "MalformedFile",
    "MissingKeys",
    "MissingVae",
    "NotAnAutoencoder",
    "NotEnoughMemory",
    "NotFinite",
    "UnknownChoice",
    "UnreadableFile",
    "UnsafePickle",
    "VaeLabError",
]


class VaeLabError(Exception):
    """Base of all errors of this package."""


class FileError(VaeLabError):
    """A file cannot be used. ``path`` and ``reason`` make up the message."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class UnreadableFile(FileError):
    """The file is missing, empty, truncated, or of no known format."""


class MalformedFile(FileError):
    """The file's own structure contradicts itself or exceeds a limit."""


class UnsafePickle(FileError):
    """The file's pickle asks for more than tensors and plain containers."""


class NotAnAutoencoder(FileError):
    """The file was read, but holds no VAE of a known architecture."""


class MissingVae(NotAnAutoencoder):
    """The file is a checkpoint without VAE tensors."""


class MissingKeys(NotAnAutoencoder):
    """Tensors of the VAE are missing."""


class BadShape(NotAnAutoencoder):
    """Tensors of the VAE have shapes that do not fit together."""


class NotFinite(NotAnAutoencoder):
    """Weights of the VAE are NaN or infinite."""


class FamilyMismatch(VaeLabError):
    """A VAE was asked to work in a latent space that is not its own."""


class NotEnoughMemory(VaeLabError):
    """A task would take more memory than is free, and was not begun."""


class UnknownChoice(VaeLabError):
    """Something was asked for by a name that is not there."""


class Cancelled(VaeLabError):
    """The user stopped a long operation."""


class HostError(VaeLabError):
    """The host is not in the state that an operation needs."""
