"""The VAE module in the WebUI's memory: decode with it as the WebUI does, and with other weights in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from modules import devices, sd_hijack, sd_models, shared
from torch import Tensor

from vae_lab.autoencoders.kl.strips import bytes_to_decode, decode_in_strips
from vae_lab.comparison.compare import Decoder
from vae_lab.errors import HostError
from vae_lab.families import Family
from vae_lab.host.override import VaeSwap
from vae_lab.host.patching import guarded
from vae_lab.latents import Generation
from vae_lab.state_dict import VAE_PARTS

__all__ = ["Bench", "decode_as_host", "vae_tensors"]


class Bench:
    """The host's own VAE module, with one VAE's weights after the other, decoding as the host does."""

    def __init__(self, generation: Generation, undo: ExitStack) -> None:
        self._model = sd_models.model_data.sd_model
        self._family = generation.family
        self._swap = undo.enter_context(VaeSwap(self._model.first_stage_model))
        # The preview thread decodes whatever this holds, with the weights that happen to be in.
        shared.state.current_latent = None
        with guarded("setting up tiling"):
            sd_hijack.model_hijack.apply_circular(generation.tiling)

    @contextmanager
    def with_weights(self, state: dict[str, Tensor], path: str) -> Iterator[Decoder]:
        self._swap.put(state, path)
        yield Decoder(
            whole=lambda latent: decode_as_host(self._model, latent),
            in_strips=lambda latent: decode_in_strips_as_host(self._model, latent, self._family),
            needs=lambda latent: bytes_to_decode(self._model.first_stage_model, latent) if _on_cpu() else 0,
        )


@torch.no_grad()
def decode_as_host(model: Any, latent: Tensor) -> Tensor:
    """[1,C,h,w] in model space -> [1,3,H,W], about 0..1, by the VAE that ``model`` holds.

    As ``modules/sd_samplers_common.py``: ``decode_first_stage``, without its stand-ins for a full decode.
    """
    with _decoding():
        sample = latent.to(devices.device, devices.dtype_vae).to(model.first_stage_model.dtype)
        image = model.decode_first_stage(sample)
    return (image.float() + 1.0) / 2.0


@torch.no_grad()
def decode_in_strips_as_host(model: Any, latent: Tensor, family: Family) -> Tensor:
    """As :func:`decode_as_host`, to the same picture in little memory.

    The host's own hooks, which move the VAE to the device under ``--medvram``, are those of its whole decode: this is
    for when that was tried.
    """
    with _decoding():
        image = decode_in_strips(model.first_stage_model, family.to_vae_space(latent))
    return (image.float() + 1.0) / 2.0


@contextmanager
def _decoding() -> Iterator[None]:
    try:
        with devices.without_autocast():
            yield
    except (RuntimeError, MemoryError):
        raise  # of torch; the comparison tells these, out of memory among them
    except Exception as error:  # the host boundary: other extensions patch the decoder too
        raise HostError(f"the WebUI could not decode: {type(error).__name__}: {error}") from error


def _on_cpu() -> bool:
    return torch.device(devices.device).type == "cpu"


def vae_tensors(model: Any) -> dict[str, Tensor]:
    """The VAE's own tensors that ``model`` holds (not copies), by canonical name."""
    state = model.first_stage_model.state_dict()
    return {name: tensor for name, tensor in state.items() if name.startswith(VAE_PARTS)}
