"""reForge and Forge Classic as hosts: as the WebUI, except that a wrapper decodes.

They load models and VAEs by the WebUI's functions, so every choice is made as there. But reForge may keep an external
VAE after *SD VAE* is *Automatic* again, and reports that it has none. So we only say that the built-in VAE decodes
after a look at the weights in memory.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from modules.call_queue import queue_lock
from torch import Tensor

from vae_lab.autoencoders import open_vae
from vae_lab.errors import VaeLabError
from vae_lab.host.choices import BUILT_IN, Decision
from vae_lab.identity import fingerprint, memory_digest
from vae_lab.state_dict import read_tensors
from vae_lab.webui.a1111 import A1111Host
from vae_lab.webui.loaded_vae import LoadedVae
from vae_lab.webui.wrapped_vae import WrappedVae

__all__ = ["LdmPatchedHost"]

_COMPARED = ("decoder.conv_in.weight", "decoder.conv_out.weight")
_SHARE_EQUAL = 0.9  # of values, rounded to bf16; conversions on the way into memory change the last bit of a few
_UNKNOWN = "a VAE of unknown origin"


class _Seen(NamedTuple):
    """What was in memory; ``kept`` is another VAE than the checkpoint's own, or ""."""

    checkpoint: str
    digest: str
    kept: str


class LdmPatchedHost(A1111Host):
    """The WebUI's lists, settings and choices, with a VAE in a wrapper."""

    name = "reForge or Forge Classic"
    vae_precision_flag = "--vae-in-bf16 or --vae-in-fp32"

    def __init__(self) -> None:
        super().__init__()
        self._seen: _Seen | None = None

    @staticmethod
    def _loaded_vae() -> LoadedVae:
        return WrappedVae()

    def host_decision(self) -> Decision:
        decision = super().host_decision()
        if decision.vae != BUILT_IN or self.vae.model() is None:
            return decision
        kept = self._kept(self.vae.path())
        if not kept:
            return decision
        reason = (
            f"{kept}: still in memory, although no external VAE is chosen. Choose Built-in in VAE Lab to use the "
            "checkpoint's own."
        )
        return Decision(kept, "host", reason, str(self._listed(kept) or ""))

    def _kept(self, checkpoint: str) -> str:
        """The VAE that decodes instead of the checkpoint's own, or "".

        During a generation, when an override may be in memory, this is what was seen before it.
        """
        if queue_lock.acquire(blocking=False):
            try:
                self._look(checkpoint)
            finally:
                queue_lock.release()
        return self._seen.kept if self._seen is not None and self._seen.checkpoint == checkpoint else ""

    def _look(self, checkpoint: str) -> None:
        state = self.vae.tensors()
        digest = memory_digest(state)
        if self._seen is None or self._seen[:2] != (checkpoint, digest):
            self._seen = _Seen(checkpoint, digest, "" if _is_own(state, checkpoint) else self._owner(state))

    def _owner(self, state: dict[str, Tensor]) -> str:
        digest = fingerprint(state)
        known = {name: self.file_cache.known(str(path)) for name, path in self.vae_files().items()}
        return next((name for name, facts in known.items() if facts and facts.fingerprint == digest), _UNKNOWN)


def _is_own(state: dict[str, Tensor], checkpoint: str) -> bool:
    """Whether these are the weights of the checkpoint's built-in VAE, as far as can be said; True if it has none."""
    try:
        with open_vae(checkpoint) as file:
            compared = [name for name in _COMPARED if name in file.layout.names and name in state]
            own = read_tensors(file.weights, file.layout, compared, check_finite=False)
    except VaeLabError:
        return True
    return all(_are_equal(state[name], tensor) for name, tensor in own.items())


def _are_equal(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    equal = one.detach().cpu().to(torch.bfloat16) == other.to(torch.bfloat16)
    return float(equal.float().mean()) >= _SHARE_EQUAL
