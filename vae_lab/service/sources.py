"""Latents from outside: uploaded files of latents, and images that a VAE encodes. They become stored generations."""

from __future__ import annotations

from dataclasses import replace

from vae_lab.checkup.findings import BROKEN
from vae_lab.errors import HostError
from vae_lab.host.base import Host
from vae_lab.host.choices import BUILT_IN
from vae_lab.host.infotext import decoded_by
from vae_lab.images import LoadedImage, prepared
from vae_lab.latents import Generation, read_latents
from vae_lab.library import FileRecord
from vae_lab.service.runs import Runs

__all__ = ["SourceService"]

_MAX_ENCODED_SIDE = 2048  # pixels; larger images are downscaled before they are encoded
_BESIDES_LATENTS = 8 * 2**20  # bytes of an uploaded file for names and generation parameters


class SourceService:
    """Adds generations to the store of a host."""

    def __init__(self, host: Host, runs: Runs) -> None:
        self._host = host
        self._runs = runs

    @property
    def max_upload(self) -> int:
        """Largest size of an uploaded file of latents, in bytes."""
        return self._host.generations.max_bytes + _BESIDES_LATENTS

    def add_latents(self, data: bytes, name: str) -> Generation:
        """Store the latents of a file that ``save_latents`` or a similar program wrote.

        Args:
            data: content of the file.
            name: name of the file.

        Raises:
            FileError, FamilyMismatch: it is another kind of file, or too large for the store.
        """
        generation = read_latents(data, name, self._host.generations.max_bytes)
        # Never open a path from an untrusted file. Its name counts if exactly one of the host's checkpoints has it.
        files = self._host.checkpoint_files().values()
        matching = [str(path) for path in files if path.name == generation.checkpoint]
        return self._store(replace(generation, checkpoint=matching[0] if len(matching) == 1 else ""))

    def encode(self, image: LoadedImage, vae: str) -> tuple[Generation, tuple[str, ...]]:
        """Encode an image with a VAE and store the latent; also returns what was done to the image first.

        Raises:
            HostError: another task is running.
            VaeLabError: the VAE cannot be used, or the image is too small.
        """
        with self._runs.one_at_a_time():
            self._host.listing(fresh=True)
            self._runs.report(0, 1, f"{vae}, encoding")
            fit = prepared(image.image, _MAX_ENCODED_SIDE)
            latent, family = self._host.encode(fit.image, vae)
            infotexts = (image.infotext,) if image.infotext else ()
            return self._store(Generation("", latent, family, image.name or "An image", infotexts)), fit.remarks

    def broken_decoder(self, infotext: str) -> tuple[str, FileRecord] | None:
        """The VAE that decoded an image, by name, with its record, if it is known to be broken. Reads no file.

        Args:
            infotext: generation parameters of the image.
        """
        model, vae = decoded_by(infotext)
        listing = self._host.listing()
        if vae and vae != BUILT_IN:
            files = {name: path for name, path in listing.vaes.items() if vae in (name, path.name, path.stem)}
        else:
            files = {name: path for name, path in listing.checkpoints.items() if model in (name, path.name, path.stem)}
        for name, path in files.items():
            record = self._host.file_cache.checked(str(path))
            if record is not None and record.status == BROKEN:
                return name, record
        return None

    def _store(self, generation: Generation) -> Generation:
        store = self._host.generations
        if generation.nbytes > store.max_bytes:
            raise HostError(f"these latents do not fit into the {store.max_bytes // 2**20} MB reserved for latents")
        stored = replace(generation, id=store.new_id())
        store.add(stored)
        return stored
