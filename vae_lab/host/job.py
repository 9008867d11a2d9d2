"""One generation in the WebUI: the only object that may change the host.

A job lives exactly as long as the host's ``process_images_inner``: it is closed there, whatever happened, and so
before the host restores its own settings (``override_settings`` may reload a VAE, and must find its own weights).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from modules import devices, sd_models, sd_vae, shared
from torch import Tensor

from vae_lab.host.a1111_vae import decode_as_host
from vae_lab.host.base import BUILT_IN
from vae_lab.host.infotext import HASH_KEY, OVERRIDE_KEY
from vae_lab.host.override import VaeSwap
from vae_lab.host.patching import guarded, patch

__all__ = ["Captured", "Job", "Weights", "announce"]


@dataclass(frozen=True)
class Weights:
    """A VAE's weights, ready for the host's module.

    Attributes:
        name: for people.
        path: the file they come from.
        digest: short fingerprint.
        state: canonical names to tensors; None if the host has these weights in already.
    """

    name: str
    path: str
    digest: str
    state: dict[str, Tensor] | None


@dataclass(frozen=True)
class Captured:
    """The latents of one batch, just before decoding: [B,C,h,w] in model space, on the CPU."""

    latents: Tensor
    decoder: str


class Job:
    """What VAE Lab does around one ``process_images``.

    Attributes:
        p: the host's processing object.
        captured: iteration -> latents that were decoded last in it (of hires fix, the final ones).
        compare: names of VAEs whose pictures are wanted too.
        on_grey: what to do when a picture comes out grey; see ``vae_lab.host.plan.ON_GREY``.
        overriding: name of the VAE that was put in, or "".
        redecoded: whether that VAE came in because the one before was broken.
    """

    def __init__(self, p: Any) -> None:
        self.p = p
        self.captured: dict[int, Captured] = {}
        self.compare: tuple[str, ...] = ()
        self.on_grey = "off"
        self.overriding = ""
        self.redecoded = False
        self._undo = ExitStack()
        self._swap: VaeSwap | None = None
        self._dtype: Any = None
        self._choose: Callable[[], Weights] | None = None
        self._refused: Callable[[], None] | None = None

    def override(self, choose: Callable[[], Weights], refused: Callable[[], None]) -> Weights:
        """Have the host use other weights from now until the job is closed, or until the next override.

        Args:
            choose: gives the weights for the checkpoint that the host has at that moment; asked again after the
                host has changed the checkpoint (refiner, hires checkpoint).
            refused: called if they cannot be used any longer after such a change.

        Raises:
            VaeLabError: they cannot be used; the host is as it was.
        """
        weights = choose()
        if self._choose is None:
            self._undo.callback(self._suspend)
            patch(sd_models, "reload_model_weights", self._around_model_reload, self._undo)
            patch(sd_vae, "reload_vae_weights", self._around_any_reload, self._undo)
        self._suspend()
        self._choose, self._refused = choose, refused
        self._put(weights)
        self.overriding = weights.name
        return weights

    def decoded_with(self, weights: Weights, latents: Tensor) -> Tensor:
        """[B,C,h,w] in model space -> [B,3,H,W], about 0..1, by other weights; the VAE in use comes back at once.

        Raises:
            VaeLabError: the weights do not fit.
        """
        with VaeSwap(shared.sd_model.first_stage_model) as swap:
            if weights.state is not None:
                swap.put(weights.state, weights.path)
            return torch.cat([decode_as_host(shared.sd_model, latent).cpu() for latent in latents.split(1)])

    def drop_override(self) -> None:
        """Give the host its own weights back, for the rest of the job."""
        self._suspend()
        self._choose = self._refused = None
        self.overriding = ""

    def _put(self, weights: Weights) -> None:
        if weights.state is None:
            return
        self._swap = VaeSwap(shared.sd_model.first_stage_model)
        self._dtype = devices.dtype_vae
        try:
            self._swap.put(weights.state, weights.path)
        except BaseException:
            self._suspend()
            raise

    def _suspend(self) -> None:
        """Give the host its own weights back."""
        swap, self._swap = self._swap, None
        if swap is not None:
            swap.restore()
            # A VAE that gives NaN makes the host change the precision of all VAEs for the rest of the session.
            devices.dtype_vae = self._dtype

    def _resume(self) -> None:
        if self._choose is None:
            return
        try:
            self._put(self._choose())
        except BaseException:
            if self._refused:
                self._refused()
            raise

    def _around_model_reload(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The host calls this before every batch; it matters only if the checkpoint will change."""
        changes = True
        with guarded("looking whether the checkpoint changes"):
            changes = _will_reload(*args, **kwargs)
        return self._around_any_reload(original, *args, **kwargs) if changes else original(*args, **kwargs)

    def _around_any_reload(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The host must find its own weights in the module: it copies them, and keeps them where a file has none."""
        self._suspend()
        try:
            return original(*args, **kwargs)
        finally:
            with guarded("choosing the VAE again after the checkpoint changed", self.p.comment):
                self._resume()

    def close(self) -> None:
        """Undo everything, in reverse order."""
        self._choose = None
        self._undo.close()


def announce(p: Any, weights: Weights) -> None:
    """Say in the infotext which VAE really decodes; the host's own keys were written before we were asked."""
    if shared.opts.sd_vae_decode_method != "Full":
        return
    p.extra_generation_params[OVERRIDE_KEY] = weights.name
    if weights.digest:
        p.extra_generation_params[HASH_KEY] = weights.digest
    p.sd_vae_name = None if weights.name == BUILT_IN else weights.path.replace("\\", "/").rsplit("/", 1)[-1]
    p.sd_vae_hash = None  # the host's can be another file's; ours is of the weights


def _will_reload(sd_model: Any = None, info: Any = None, forced_reload: bool = False) -> bool:
    """Whether ``sd_models.reload_model_weights`` would do anything, by its own rules."""
    model = sd_model or sd_models.model_data.sd_model
    if forced_reload or model is None or sd_models.check_fp8(model) != devices.fp8:
        return True
    return model.sd_model_checkpoint != (info or sd_models.select_checkpoint()).filename
