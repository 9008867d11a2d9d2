"""One generation in the WebUI: the only object that may change the host.

A job lives exactly as long as the host's ``process_images_inner``. It is closed there, whatever happened, and therefore
before the host restores its own settings (``override_settings`` may reload a VAE, and must find its own weights).
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from modules import devices
from torch import Tensor

from vae_lab.errors import VaeLabError
from vae_lab.host.choices import BUILT_IN, OnGrey
from vae_lab.host.guard import guarded
from vae_lab.host.infotext import HASH_KEY, OVERRIDE_KEY, forget_override, keep_override
from vae_lab.latents.family import Family
from vae_lab.webui.loaded_vae import LoadedVae
from vae_lab.webui.own_choice import decode_method
from vae_lab.webui.patching import patch
from vae_lab.webui.weight_swap import VaeSwap

__all__ = ["Captured", "Job", "Refused", "Weights"]


class Refused(Exception):
    """A generation that was stopped before it encoded anything, because no other VAE may decode instead."""


log = logging.getLogger("vae_lab")


@dataclass(frozen=True)
class Weights:
    """A VAE's weights, for the host's module.

    Attributes:
        name: human-readable.
        path: the file they come from.
        digest: short fingerprint.
        loaded: whether the host has loaded this very file; its module has these weights while nothing overrides them.
        load: gives canonical names to tensors; raises VaeLabError.
    """

    name: str
    path: str
    digest: str
    loaded: bool
    load: Callable[[], dict[str, Tensor]]


@dataclass(frozen=True)
class Captured:
    """The latents of one batch just before decoding, and the host's state then: it may load another checkpoint later.

    Attributes:
        latents: [B,C,h,w] in model space, on the CPU.
        decoder: see :attr:`vae_lab.latents.generation.Generation.decoded_by`.
        family: of the loaded checkpoint; None if unknown.
        checkpoint: file of the loaded checkpoint, or "".
        tiling: whether the image is meant to tile.
    """

    latents: Tensor
    decoder: str
    family: Family | None
    checkpoint: str
    tiling: bool


class Job:
    """What VAE Lab does around one ``process_images``.

    Attributes:
        p: the host's processing object.
        vae: the host's VAE in memory.
        own_name: gives the name of the VAE that decodes if nothing overrides it.
        outer: the job inside which this one runs, if any.
        captured: iteration -> latents decoded last in it (with hires fix, the final ones); see :meth:`capture`.
        images: iteration -> number of its images, even if the latents have been discarded.
        compare: names of VAEs that should decode the images as well.
        on_grey: what to do if an image is grey.
        redecoded: whether the active override replaced a broken VAE.
        names_vae: whether it is inside another job and names a VAE in the host's way, which then decodes it.
        explicit: whether the VAE was chosen for this very generation.
        part: see :attr:`vae_lab.latents.generation.Generation.part`.
        group: see :attr:`vae_lab.latents.generation.Generation.group`.
        sees_decodes: whether a decode went through our hook, of whatever image.
        between_batches: whether its last batch is finished and no other has begun: what is decoded meanwhile is no
            image of this job.
    """

    def __init__(self, p: Any, vae: LoadedVae, own_name: Callable[[], str], outer: Job | None = None) -> None:
        self.p = p
        self.vae = vae
        self.own_name = own_name
        self.outer = outer
        self.captured: dict[int, Captured] = {}
        self.images: dict[int, int] = {}
        self.compare: tuple[str, ...] = ()
        self.on_grey: OnGrey = "off"
        self.redecoded = False
        self.explicit = False
        self.part = ""
        self.group = ""
        self.sees_decodes = False
        self.between_batches = False
        self._undo = ExitStack()
        self._swap: VaeSwap | None = None
        self._dtype: Any = None
        self._choose: Callable[[], Weights] | None = None
        self._used: Weights | None = None
        self._refused: VaeLabError | None = None
        self._patched = False
        self._named: tuple[Any, Any] | None = None
        self._reloading = 0
        self._natively: Sequence[Any] = ()
        self._gives_way = 0
        self.names_vae = False

    def begin(self) -> None:
        """To be called before anything else, of a job inside another one.

        It may share its dictionary of parameters with the outer one, whose image is not saved yet.
        """
        if self.outer is None:
            return
        self._undo.callback(keep_override(self.outer.p))
        self.names_vae = self.vae.named_by(self.p) is not None
        if self.names_vae:
            self._undo.callback(self.outer._resume_all)
            self.outer._give_way()

    def _give_way(self) -> None:
        """Give the host its own weights back, those of outer jobs included, until :meth:`_resume_all`."""
        self._gives_way += 1
        self._suspend()
        if self.outer is not None:
            self.outer._give_way()

    def _resume_all(self) -> None:
        if self.outer is not None:
            self.outer._resume_all()
        self._gives_way -= 1
        self._resume()

    @property
    def inherits(self) -> bool:
        """Whether an outer generation decides what decodes this one, unless a VAE is chosen for this very one."""
        outer = self.outer
        return self.names_vae or (outer is not None and (outer.explicit or outer.inherits))

    @property
    def _active(self) -> Weights | None:
        """What overrides the host's VAE now, also on behalf of an outer job."""
        return self._used or (self.outer._active if self.outer is not None else None)

    @property
    def overriding(self) -> str:
        """Name of the VAE that currently overrides the host's, or ""."""
        return self._active.name if self._active else ""

    @property
    def swapped(self) -> bool:
        """Whether this job or an outer one has replaced the weights in the host's module."""
        return self._swap is not None or (self.outer is not None and self.outer.swapped)

    def capture(self, iteration: int, captured: Captured, max_bytes: int) -> None:
        """Store the latents of an iteration, and discard the oldest ones over the limit (never the newest)."""
        self.images[iteration] = captured.latents.shape[0]
        self.captured.pop(iteration, None)
        self.captured[iteration] = captured
        while len(self.captured) > 1 and sum(map(_nbytes, self.captured.values())) > max_bytes:
            del self.captured[next(iter(self.captured))]

    def override(self, choose: Callable[[], Weights]) -> Callable[[], None]:
        """Have the host use other weights until the job is closed, or until the next override.

        The infotext names them as long as they are active.

        Args:
            choose: returns the weights for the checkpoint that is loaded at that moment; called again after the host
                has changed the checkpoint (refiner, hires checkpoint).

        Returns:
            A function that restores the previous override, or the host's own weights if there was none.

        Raises:
            VaeLabError: they cannot be used; everything is as before.
        """
        weights = choose()
        before = self._choose

        def back() -> None:
            self._suspend()
            self._choose = before
            self._resume()
            self.update_infotext()

        if not self._patched:
            self._patched = True
            self._natively = self.vae.chosen_natively()
            self._undo.callback(self._suspend)
            for owner, name, changes in self.vae.reloads():
                patch(owner, name, functools.partial(self._around_reload, changes), self._undo)
        self._suspend()
        self._choose = choose
        try:
            self._put(weights)
        except BaseException:
            back()
            raise
        self.update_infotext()
        return back

    def decoded_with(self, weights: Weights, latents: Tensor) -> Tensor:
        """[B,C,h,w] in model space -> [B,3,H,W], about 0..1, with other weights; then restores the current ones.

        Raises:
            VaeLabError: the weights do not fit.
        """
        with VaeSwap(self.vae.module()) as swap:
            swap.put(weights.load(), weights.path)
            return torch.cat([self.vae.decode(latent).cpu() for latent in latents.split(1)])

    def _put(self, weights: Weights) -> None:
        if not weights.loaded or self.swapped:
            state = weights.load()
            if self._swap is None:
                self._swap, self._dtype = VaeSwap(self.vae.module()), devices.dtype_vae
            try:
                self._swap.put(state, weights.path)
            except BaseException:
                self._suspend()
                raise
        self._used = weights

    def _suspend(self) -> None:
        """Give the host its own weights back."""
        self._used, self._refused = None, None
        if self._swap is None:
            return
        try:
            self._swap.restore()
        finally:
            # After NaN, the host changes the precision of all VAEs for the rest of the session.
            devices.dtype_vae = self._dtype
        self._swap = None

    def _resume(self) -> None:
        """Put the chosen weights in again. Does not update the infotext: see :meth:`update_infotext`.

        Not while somebody has chosen another VAE in the host meanwhile, as a generation inside this one may: that one
        is not always known to us, since other extensions bypass our hook.
        """
        if self._choose is None or self._gives_way or self.vae.chosen_natively() != self._natively:
            return
        try:
            self._put(self._choose())
        except VaeLabError as error:
            self._refused = error

    def _around_reload(
        self, changes: Callable[..., bool], original: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """The host must find its own weights in the module: it copies them, and keeps using them if a file has none.

        It calls some of these functions before every batch; that matters only if the checkpoint will change.
        """
        will_change = True
        with guarded("checking whether the checkpoint changes"):
            will_change = changes(*args, **kwargs)
        if not will_change:
            return original(*args, **kwargs)
        self._suspend()
        self._reloading += 1
        try:
            return original(*args, **kwargs)
        finally:
            self._reloading -= 1
            # These functions call one another; until the outermost returns, the module is still the host's.
            if not self._reloading:
                with guarded("choosing the VAE again after the checkpoint changed", self.p.comment):
                    self._resume()

    def update_infotext(self) -> None:
        """Name the active VAE in the infotext.

        To be called before each decode, not when the checkpoint changes: a nested generation may load another
        checkpoint, which is irrelevant for images that were decoded before.
        """
        refused, self._refused = self._refused, None
        if refused is not None:
            self.comment_refused(refused)
        if self._active is not None:
            self._announce(self._active)
        elif self._named is not None:
            self.retract()

    def comment_refused(self, error: VaeLabError) -> None:
        """Say below the image what was refused, and what decodes instead."""
        log.warning("VAE Lab, choosing the VAE: %s", error)
        instead = (self.outer and self.outer.overriding) or self.own_name()
        self.p.comment(f"VAE Lab: {error}. Decoded with {instead} instead.")

    def stop(self, error: VaeLabError) -> None:
        """Have the generation end with :class:`Refused`. The host swallows what its scripts' hooks raise."""

        def refuse(*_: Any, **__: Any) -> None:
            raise Refused(str(error)) from error

        patch(self.p, "init", refuse, self._undo)

    def _announce(self, weights: Weights) -> None:
        """Name the VAE that really decodes in the infotext; the host wrote its own keys before our hook."""
        p = self.p
        if decode_method() != "Full":
            return
        if self._named is None:
            self._named = getattr(p, "sd_vae_name", None), getattr(p, "sd_vae_hash", None)
        p.extra_generation_params[OVERRIDE_KEY] = weights.name
        if weights.digest:
            p.extra_generation_params[HASH_KEY] = weights.digest
        else:
            p.extra_generation_params.pop(HASH_KEY, None)
        p.sd_vae_name = None if weights.name == BUILT_IN else weights.path.replace("\\", "/").rsplit("/", 1)[-1]
        p.sd_vae_hash = None  # the host's may belong to another file; ours is computed from the weights

    def retract(self) -> None:
        """The host's own VAE decodes after all, or none: restore the infotext."""
        named, self._named = self._named, None
        if named is not None:
            self.p.sd_vae_name, self.p.sd_vae_hash = named
        forget_override(self.p)

    def close(self) -> None:
        """Undo everything, in reverse order. Can be called again after an error, for what is left."""
        self._choose = None
        try:
            self._undo.close()
        finally:
            self._suspend()


def _nbytes(captured: Captured) -> int:
    return captured.latents.numel() * captured.latents.element_size()
