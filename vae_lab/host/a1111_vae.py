"""The VAE module in the WebUI's memory: decode with it as the WebUI does, and with other weights in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from modules import devices, sd_hijack, sd_models, shared
from torch import Tensor

from vae_lab.comparison.compare import Decode
from vae_lab.errors import HostError
from vae_lab.host.override import VaeSwap
from vae_lab.host.patching import guarded
from vae_lab.latents import Generation
from vae_lab.state_dict import VAE_PARTS

__all__ = ["Bench", "decode_as_host", "vae_tensors"]


class Bench:
    """The host's own VAE module, with one VAE's weights after the other, decoding as the host does."""

    def __init__(self, generation: Generation, undo: ExitStack) -> None:
        self._model = sd_models.model_data.sd_model
        self._swap = undo.enter_context(VaeSwap(self._model.first_stage_model))
        # The preview thread decodes whatever this holds, with the weights that happen to be in.
        shared.state.current_latent = None
        with guarded("setting up tiling"):
            sd_hijack.model_hijack.apply_circular(generation.tiling)

    @contextmanager
    def with_weights(self, state: dict[str, Tensor], path: str) -> Iterator[Decode]:
        self._swap.put(state, path)
        yield lambda latent: decode_as_host(self._model, latent)


@torch.no_grad()
def decode_as_host(model: Any, latent: Tensor) -> Tensor:
    """[1,C,h,w] in model space -> [1,3,H,W], about 0..1, by the VAE that ``model`` holds.

    As ``modules/sd_samplers_common.py``: ``decode_first_stage``, without its stand-ins for a full decode.
    """
    try:
        with devices.without_autocast():
            sample = latent.to(devices.device, devices.dtype_vae).to(model.first_stage_model.dtype)
            image = model.decode_first_stage(sample)
    except (RuntimeError, MemoryError):
        raise  # of torch; the comparison tells these, out of memory among them
    except Exception as error:  # the host boundary: other extensions patch the decoder too
        raise HostError(f"the WebUI could not decode: {type(error).__name__}: {error}") from error
    return (image.float() + 1.0) / 2.0


def vae_tensors(model: Any) -> dict[str, Tensor]:
    """The VAE's own tensors that ``model`` holds (not copies), by canonical name."""
    state = model.first_stage_model.state_dict()
    return {name: tensor for name, tensor in state.items() if name.startswith(VAE_PARTS)}
