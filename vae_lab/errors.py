"""All errors that VAE Lab raises.

    VaeLabError
    ├── FileError                 a file cannot be used; has its path and the reason
    │   ├── UnreadableFile        missing, a folder, empty, truncated, of an unknown format
    │   ├── MalformedFile         a known format whose structure contradicts itself or exceeds a limit
    │   ├── NotFinished           a readable file that took more than its time
    │   ├── UnsafePickle          a pickle that needs more than tensors and plain containers
    │   └── NotAnAutoencoder      readable, but without a VAE of a known architecture
    │       ├── MissingVae        a checkpoint without any VAE tensors
    │       ├── OtherKind         an intact file of another kind; has the kind
    │       ├── MissingKeys       a VAE with tensors missing
    │       │   └── MixedNames    a VAE with some names of ldm and some of diffusers
    │       ├── BadShape          a VAE with inconsistent tensor shapes
    │       └── NotFinite         a VAE with NaN or infinite weights
    ├── FamilyMismatch            VAE and latents belong to different latent spaces
    ├── NotEnoughMemory           a task needs more memory than is free
    ├── UnknownChoice             there is no VAE, checkpoint or generation of this name
    ├── Cancelled                 the user cancelled an operation
    └── HostError                 the host is not in the required state

``str(error)`` is one line, suitable for display.
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
    "MixedNames",
    "NotAnAutoencoder",
    "NotEnoughMemory",
    "NotFinished",
    "NotFinite",
    "OtherKind",
    "UnknownChoice",
    "UnreadableFile",
    "UnsafePickle",
    "VaeLabError",
]


class VaeLabError(Exception):
    """Base of all errors of this package."""


class FileError(VaeLabError):
    """A file cannot be used. The message consists of ``path`` and ``reason``."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class UnreadableFile(FileError):
    """The file is missing, empty, truncated, or of an unknown format."""


class MalformedFile(FileError):
    """The file's own structure contradicts itself or exceeds a limit."""


class NotFinished(FileError):
    """The time limit for the file was reached. Nothing is known to be wrong with it."""


class UnsafePickle(FileError):
    """The file's pickle needs more than tensors and plain containers."""


class NotAnAutoencoder(FileError):
    """The file is readable, but has no VAE of a known architecture."""


class MissingVae(NotAnAutoencoder):
    """The file is a checkpoint without a VAE."""


class OtherKind(NotAnAutoencoder):
    """An intact file of another kind: ``kind`` is an id of ``state_dict.kinds``, ``shard`` or ``unknown-vae``."""

    def __init__(self, path: str, reason: str, kind: str) -> None:
        super().__init__(path, reason)
        self.kind = kind


class MissingKeys(NotAnAutoencoder):
    """Tensors of the VAE are missing."""


class MixedNames(MissingKeys):
    """Some of the VAE's tensors have names of ldm, others of diffusers: a conversion was not finished."""


class BadShape(NotAnAutoencoder):
    """Tensors of the VAE have inconsistent shapes."""


class NotFinite(NotAnAutoencoder):
    """Weights of the VAE are NaN or infinite."""


class FamilyMismatch(VaeLabError):
    """VAE and latents belong to different latent spaces, or the family is unknown."""


class NotEnoughMemory(VaeLabError):
    """A task was not started, because it needs more memory than is free."""


class UnknownChoice(VaeLabError):
    """There is no VAE, checkpoint or generation of this name."""


class Cancelled(VaeLabError):
    """The user cancelled an operation."""


class HostError(VaeLabError):
    """The host is not in the required state."""
