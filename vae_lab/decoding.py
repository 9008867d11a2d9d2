"""Decodes latents, in strips if memory is low."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from vae_lab.autoencoders import Autoencoder, open_vae
from vae_lab.errors import FamilyMismatch
from vae_lab.latents.family import Family
from vae_lab.memory import SHARE, free_memory

__all__ = ["IN_STRIPS", "Decode", "Decoder", "check_family", "decoder_of", "error_line", "is_out_of_memory"]

_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")  # torch's errors for other devices

IN_STRIPS = "decoded in strips (low memory)"
"""Shown with an image that was decoded in strips."""

Decode = Callable[[Tensor], Tensor]
"""[1,C,h,w] in model space -> [1,3,H,W], about 0..1, preferably not clamped, so that infinite values show."""


@dataclass(frozen=True)
class Decoder:
    """A VAE that is ready to decode.

    Attributes:
        whole: decodes normally.
        in_strips: decodes to the same image with less memory; returns None if not supported.
        needs: approximate bytes of the system's memory that ``whole`` takes for a latent; 0 if unknown, or on a GPU.
    """

    whole: Decode
    in_strips: Callable[[Tensor], Tensor | None] = lambda _: None
    needs: Callable[[Tensor], int] = lambda _: 0

    @classmethod
    def of(cls, autoencoder: Autoencoder) -> Decoder:
        """A decoder for a loaded VAE."""
        needs = autoencoder.bytes_to_decode if autoencoder.device.type == "cpu" else lambda _: 0
        return cls(autoencoder.decode_unclamped, autoencoder.decode_in_strips, needs)

    def decode(self, latent: Tensor) -> tuple[Tensor, bool]:
        """[1,C,h,w] in model space -> [1,3,H,W] on the CPU, and whether it was decoded in strips due to low memory.

        Raises:
            MemoryError, torch.cuda.OutOfMemoryError: not enough memory either way.
        """
        if self.needs(latent) > SHARE * free_memory():
            image = self.in_strips(latent)
            if image is not None:
                return image.float().cpu(), True
        try:
            return self.whole(latent).float().cpu(), False
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            # The traceback's frames would keep the decode's tensors alive.
            failure = error.with_traceback(None)
        torch.cuda.empty_cache()
        image = self.in_strips(latent)
        if image is None:
            raise failure
        return image.float().cpu(), True


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device or the system ran out of memory. torch only has its own exception class for CUDA."""
    # Not torch.OutOfMemoryError, a newer name of the class, because torch 2.0 does not have it.
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    message = str(error).lower()
    return isinstance(error, RuntimeError) and any(phrase in message for phrase in _NO_MEMORY)


def error_line(name: str, error: Exception) -> str:
    """One line about an error, other than a VaeLabError, with the VAE ``name``."""
    kind = "out of memory" if is_out_of_memory(error) else type(error).__name__
    first = next(iter(str(error).splitlines()), "")
    return f"{name}: {kind}" + (f": {first}" if first else "")


@contextmanager
def decoder_of(path: str | os.PathLike[str], family: Family) -> Iterator[Decoder]:
    """Open the VAE in a file to decode latents of ``family``.

    Raises:
        FileError: the file cannot be used.
        FamilyMismatch: the VAE belongs to another family.
    """
    with open_vae(path) as file:
        autoencoder = file.load()
    check_family(autoencoder.name, autoencoder.family, family)
    yield Decoder.of(autoencoder.with_family(family))


def check_family(name: str, vae_family: Family | None, latents_family: Family) -> None:
    """Raises FamilyMismatch if the VAE's family is known and differs from that of the latents."""
    if vae_family is not None and vae_family.id != latents_family.id:
        raise FamilyMismatch(f"{name} is a VAE for {vae_family.title}, but the latents are {latents_family.title}")
