"""Check the VAE in the WebUI's memory: what the host itself decodes from the chart's latents."""

from __future__ import annotations

from modules import devices
from torch import Tensor

from vae_lab.checkup import Checkup, check_decoder, identity_key
from vae_lab.host.base import MemoryCheckup
from vae_lab.identity import memory_digest
from vae_lab.latents.family import Family
from vae_lab.webui.loaded_vae import LoadedVae

__all__ = ["MemoryCheckups"]


class MemoryCheckups:
    """Checkups of the loaded VAE, one for each set of weights and precision."""

    def __init__(self, vae: LoadedVae) -> None:
        self._vae = vae
        self._checkups: dict[str, tuple[Checkup, str]] = {}
        self._latest: MemoryCheckup | None = None

    def latest(self, checkpoint: str) -> MemoryCheckup | None:
        """The last checkup of the host's own choice, if it was for the file ``checkpoint`` and that is still loaded."""
        current = self._latest is not None and self._latest.checkpoint == self._vae.path() == checkpoint
        return self._latest if current else None

    def check(self, name: str, *, own: bool = True) -> MemoryCheckup | None:
        """Check the loaded VAE in the precision that the host uses; None if its family is unknown.

        The caller holds the host's queue.

        Args:
            name: of the VAE.
            own: whether it is the host's own choice, to be returned by :meth:`latest`.
        """
        family = self._vae.family()
        if family is None:
            return None
        key = identity_key(f"memory:{memory_digest(self._vae.tensors())}", family, str(devices.dtype_vae))
        checkup = self._checkups.get(key) or self._check_decoder(family)
        if checkup is None:
            return None
        self._checkups[key] = checkup
        result = MemoryCheckup(*checkup, name, self._vae.path())
        if own:
            self._latest = result
        return result

    def _check_decoder(self, family: Family) -> tuple[Checkup, str] | None:
        """The checkup, and the precision that the host finally decoded in."""
        precision = devices.dtype_vae

        def decode(latent: Tensor) -> Tensor:
            nonlocal precision
            image, precision = self._vae.decode_in(latent)
            return image

        checkup = check_decoder(decode, family)
        return (checkup, str(precision).removeprefix("torch.")) if checkup else None
