"""Latents that come from outside: files of latents, and images that a VAE encodes. They become kept generations."""

from __future__ import annotations

from dataclasses import replace

from vae_lab.errors import HostError
from vae_lab.host.base import Host
from vae_lab.images import LoadedImage, prepared
from vae_lab.latents import Generation, read_latents

__all__ = ["LONGEST_ENCODED", "keep_image", "keep_latents"]

LONGEST_ENCODED = 2048
"""Pixels of the longer side of an image that is encoded; larger ones are resampled."""


def keep_latents(host: Host, data: bytes, name: str) -> Generation:
    """Keep the latents of a file that ``save_latents`` or its like has written.

    Args:
        host: whose store they go to.
        data: the file.
        name: its name.

    Raises:
        FileError, FamilyMismatch: it is something else, or too large for the store.
    """
    found = read_latents(data, name, host.generations.byte_limit)
    # A path that a stranger wrote is never opened: of a checkpoint the name counts, if it is one of the host's.
    named = [str(path) for path in host.checkpoint_files().values() if path.name == found.checkpoint]
    return _kept(host, replace(found, checkpoint=named[0] if len(named) == 1 else ""))


def keep_image(host: Host, image: LoadedImage, vae: str) -> tuple[Generation, tuple[str, ...]]:
    """Encode an image with a VAE, and keep the latent; also what was done to the image before.

    Raises:
        VaeLabError: the VAE cannot be used, or the image is too small.
    """
    fit = prepared(image.image, LONGEST_ENCODED)
    latent, family = host.encode(fit.image, vae)
    infotexts = (image.infotext,) if image.infotext else ()
    return _kept(host, Generation("", latent, family, image.name or "An image", infotexts)), fit.remarks


def _kept(host: Host, generation: Generation) -> Generation:
    store = host.generations
    if generation.nbytes > store.byte_limit:
        raise HostError(f"these latents do not fit into the {store.byte_limit // 2**20} MB that latents may take")
    named = replace(generation, id=store.new_id())
    store.add(named)
    return named
