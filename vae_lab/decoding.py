"""Decode a latent with a VAE: precision, strips, out of memory."""

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

_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")  # as torch says it, on other devices

IN_STRIPS = "decoded in strips (low memory)"
"""How a result is told from one that was decoded as usual."""

Decode = Callable[[Tensor], Tensor]
"""[1,C,h,w] in model space -> [1,3,H,W], about 0..1. Best not cut to that, so that infinite values can be told."""


@dataclass(frozen=True)
class Decoder:
    """A VAE that is ready to decode.

    Attributes:
        whole: the usual way.
        in_strips: the same image in less memory; gives None where that cannot be.
        needs: about how many bytes of the system's memory ``whole`` takes for a latent; 0 if it is not known, or if it
            takes another kind of memory.
    """

    whole: Decode
    in_strips: Callable[[Tensor], Tensor | None] = lambda _: None
    needs: Callable[[Tensor], int] = lambda _: 0

    @classmethod
    def of(cls, autoencoder: Autoencoder) -> Decoder:
        """That of a VAE which is loaded."""
        needs = autoencoder.bytes_to_decode if autoencoder.device.type == "cpu" else lambda _: 0
        return cls(autoencoder.decode_unclamped, autoencoder.decode_in_strips, needs)

    def decode(self, latent: Tensor) -> tuple[Tensor, bool]:
        """[1,C,h,w] in model space -> [1,3,H,W] on the CPU, and whether that was in strips, since memory is short.

        Raises:
            MemoryError, torch.cuda.OutOfMemoryError: there is too little memory for either way.
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
            # What the decode held lives as long as the frames that its traceback leads to.
            failure = error.with_traceback(None)
        torch.cuda.empty_cache()
        image = self.in_strips(latent)
        if image is None:
            raise failure
        return image.float().cpu(), True


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory was too short, of a device or of the system: torch has a class of its own for CUDA's alone."""
    # torch.OutOfMemoryError is the same class, but torch 2.0 does not have that name.
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    words = str(error).lower()
    return isinstance(error, RuntimeError) and any(told in words for told in _NO_MEMORY)


def error_line(name: str, error: Exception) -> str:
    """What went wrong with the VAE ``name``, of an error that is none of ours."""
    kind = "out of memory" if is_out_of_memory(error) else type(error).__name__
    first = next(iter(str(error).splitlines()), "")
    return f"{name}: {kind}" + (f": {first}" if first else "")


@contextmanager
def decoder_of(path: str | os.PathLike[str], wanted: Family) -> Iterator[Decoder]:
    """Open the VAE in a file for a comparison of latents of the family ``wanted``.

    Raises:
        FileError: the file cannot be used.
        FamilyMismatch: the VAE belongs to another family.
    """
    with open_vae(path) as file:
        autoencoder = file.load()
    check_family(autoencoder.name, autoencoder.family, wanted)
    yield Decoder.of(autoencoder if autoencoder.family else autoencoder.with_family(wanted))


def check_family(name: str, found: Family | None, wanted: Family) -> None:
    """Raises FamilyMismatch: ``found`` is known and is not ``wanted``."""
    if found is not None and found.id != wanted.id:
        raise FamilyMismatch(f"{name} is a VAE for {found.title}, the latents are {wanted.title}")
