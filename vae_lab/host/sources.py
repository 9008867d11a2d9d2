"""Latents that come from outside: files of latents, and pictures that a VAE encodes. They become kept generations."""

from __future__ import annotations

from dataclasses import replace

from vae_lab.errors import HostError
from vae_lab.host.base import Host
from vae_lab.latents import Generation, read_latents
from vae_lab.pictures import Picture, prepared

__all__ = ["LONGEST_ENCODED", "keep_latents", "keep_picture"]

LONGEST_ENCODED = 2048
"""Pixels of the longer side of a picture that is encoded; larger ones are resampled."""


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


def keep_picture(host: Host, picture: Picture, vae: str) -> tuple[Generation, tuple[str, ...]]:
    """Encode a picture with a VAE, and keep the latent; also what was done to the picture before.

    Raises:
        VaeLabError: the VAE cannot be used, or the picture is too small.
    """
    fit = prepared(picture.image, LONGEST_ENCODED)
    latent, family = host.encode(fit.image, vae)
    infotexts = (picture.infotext,) if picture.infotext else ()
    return _kept(host, Generation("", latent, family, picture.name or "A picture", infotexts)), fit.remarks


def _kept(host: Host, generation: Generation) -> Generation:
    store = host.generations
    if generation.nbytes > store.byte_limit:
        raise HostError(f"these latents do not fit into the {store.byte_limit // 2**20} MB that latents may take")
    named = replace(generation, id=store.new_id())
    store.add(named)
    return named
