"""A generation: latents just before decoding, and their metadata."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field

from torch import Tensor

from vae_lab.latents.family import Family

__all__ = ["Generation"]


@dataclass(frozen=True)
class Generation:
    """Latents as they were just before decoding.

    Attributes:
        id: unique within its store.
        latents: [B,C,h,w] in model space, on the CPU.
        family: their latent space.
        title: for display.
        infotexts: generation parameters of each image; may be empty.
        checkpoint: file of the checkpoint that sampled them, or "".
        decoded_by: what decoded them in the host, such as ``Full`` or ``TAESD``, or "".
        tiling: whether the image is a seamless tile, so that convolutions wrap around.
        part: what part of an image it is, such as ``tile of SD upscale``; "" for an image of its own.
        group: the same for an image and its parts, or for the parts of one image; "" if it is not known to have any.
        created: seconds since the epoch.
    """

    id: str
    latents: Tensor
    family: Family
    title: str = ""
    infotexts: tuple[str, ...] = ()
    checkpoint: str = ""
    decoded_by: str = ""
    tiling: bool = False
    part: str = ""
    group: str = ""
    created: float = field(default_factory=time.time)

    @property
    def nbytes(self) -> int:
        """Memory of the latents and texts."""
        return self.latents.numel() * self.latents.element_size() + sum(
            map(sys.getsizeof, (self.title, *self.infotexts))
        )

    @property
    def label(self) -> str:
        """One line for a list: time, prompt, size, and what part of an image it is."""
        batch, _, height, width = self.latents.shape
        size = f"{width * 8}x{height * 8}" + (f" x {batch}" if batch > 1 else "")
        made = time.strftime("%H:%M:%S", time.localtime(self.created))
        return " · ".join(filter(None, (made, self.title or "no prompt", size, self.part)))
