"""The VAE module in the WebUI's memory: decode with it as the WebUI does, also with other weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from modules import devices, sd_models, sd_vae, shared
from torch import Tensor, nn

from vae_lab.autoencoders.kl.strips import bytes_to_decode, decode_in_strips
from vae_lab.decoding import Decoder
from vae_lab.errors import HostError
from vae_lab.host.choices import AUTOMATIC
from vae_lab.host.guard import guarded
from vae_lab.latents import Generation
from vae_lab.latents.family import FAMILIES, Family
from vae_lab.state_dict import VAE_PARTS
from vae_lab.webui.parts import part
from vae_lab.webui.weight_swap import VaeSwap

__all__ = ["Bench", "LoadedVae", "Reload", "host_decodes"]


class Reload(NamedTuple):
    """A function of the host that may put another VAE into memory.

    Attributes:
        owner: whose attribute it is.
        name: of the attribute.
        changes: called with the same arguments; whether this call would do anything.
    """

    owner: Any
    name: str
    changes: Callable[..., bool]


class LoadedVae:
    """Where the WebUI has the loaded checkpoint's model and its VAE, and how it decodes with it."""

    place = "sd_model.first_stage_model"
    """Where the host has the VAE's module, for bug reports."""

    tiling_switches: Sequence[tuple[str, str]] = (("modules", "sd_hijack.model_hijack.apply_circular"),)
    """Package and name of functions of the host that make it decode images that tile; the first that exists is used."""

    def own_settings(self) -> Sequence[str]:
        """The host's settings that choose its VAE; a generation may name another value of one for itself."""
        return ("sd_vae",)

    def chosen_natively(self) -> Sequence[Any]:
        """Values of the settings that are read whenever the host loads a VAE."""
        return (getattr(shared.opts, "sd_vae", None),)

    def named_by(self, p: Any) -> tuple[str, ...] | None:
        """File names of the VAE that a generation names for itself in the host's way; None if it says nothing.

        ``None`` among them is the built-in one; () leaves it to the host.
        """
        settings = getattr(p, "override_settings", None) or {}
        named = next((settings[setting] for setting in self.own_settings() if setting in settings), None)
        if named is None:
            return None
        values = named if isinstance(named, list | tuple) else [named]
        return tuple(Path(str(value)).name for value in values if value != AUTOMATIC)

    def about(self) -> dict[str, str]:
        """What was found: name -> value, for bug reports."""
        facts = {"VAE in memory": f"{self.place}, none loaded", "Tiling": self._tiling_switch()[0] or "no switch found"}
        if self.model() is None:
            return facts
        module, family = self.module(), self.family()
        facts["VAE in memory"] = f"{self.place}, {type(module).__module__}.{type(module).__qualname__}"
        facts["Model"] = type(self.model()).__name__
        facts["Latents"] = f"{family.title}, factor {family.scaling_factor}" if family else "of an unknown family"
        after_nan = self._against_nan()
        facts["Decodes in"] = f"{devices.dtype_vae} on {devices.device}; after NaN in {after_nan or 'the same'}"
        return facts

    def _tiling_switch(self) -> tuple[str, Callable[..., None] | None]:
        """Name of the host's switch, and the switch; "" and None without one."""
        for package, name in self.tiling_switches:
            switch = part(name, package=package)
            if switch is not None:
                return f"{package}.{name}", switch
        return "", None

    def model(self) -> Any:
        """The model of the loaded checkpoint; None if none is loaded. Loads nothing."""
        return sd_models.model_data.sd_model

    def path(self) -> str:
        """File of the loaded checkpoint, or ""."""
        model = self.model()
        return model.sd_checkpoint_info.filename if model is not None else ""

    def family(self) -> Family | None:
        """Latent family of the loaded checkpoint."""
        model = self.model()
        if model is None:
            return None
        if getattr(model, "is_sdxl", False):
            return FAMILIES["sdxl"]
        return FAMILIES["sd3" if getattr(model, "is_sd3", False) else "sd1"]

    def module(self) -> nn.Module:
        """The VAE's module, of a model that is loaded."""
        return self.model().first_stage_model

    def tensors(self) -> dict[str, Tensor]:
        """The VAE's own tensors (not copies), by canonical name."""
        return {name: tensor for name, tensor in self.module().state_dict().items() if name.startswith(VAE_PARTS)}

    def precision(self) -> tuple[torch.dtype, ...]:
        """Of each of the VAE's tensors: some hosts keep norms in fp32."""
        return tuple(tensor.dtype for tensor in self.tensors().values())

    def reloads(self) -> Sequence[Reload]:
        """Functions during which the host must find its own weights."""
        return (
            Reload(sd_models, "reload_model_weights", _will_reload),
            Reload(sd_vae, "reload_vae_weights", lambda *_, **__: True),
        )

    def decode(self, latent: Tensor) -> Tensor:
        """[1,C,h,w] in model space -> [1,3,H,W], about 0..1, decoded as the host does."""
        return self.decode_in(latent)[0]

    def decode_in(self, latent: Tensor) -> tuple[Tensor, torch.dtype]:
        """As :meth:`decode`, with the precision used: after NaN, the host switches to another one.

        As ``modules/processing.py: decode_latent_batch``, but the module is restored afterwards.
        """
        image = self._decode(latent)
        before, precision = devices.dtype_vae, self._against_nan()
        try:
            devices.test_for_nans(image[0], "vae")
        except devices.NansException:
            if precision is None:
                return image, before
        else:
            return image, before
        with VaeSwap(self.module()) as swap:
            swap.keep()
            devices.dtype_vae = precision
            try:
                self.module().to(precision)
                return self._decode(latent), precision
            finally:
                devices.dtype_vae = before

    @staticmethod
    def _against_nan() -> torch.dtype | None:
        """The precision in which the host decodes again after NaN; None if it does not."""
        precision = None
        if getattr(shared.opts, "auto_vae_precision_bfloat16", False):
            precision = torch.bfloat16
        elif getattr(shared.opts, "auto_vae_precision", False):
            precision = torch.float32
        return precision if precision != devices.dtype_vae else None

    @torch.no_grad()
    def _decode(self, latent: Tensor) -> Tensor:
        """As ``modules/sd_samplers_common.py: decode_first_stage``, without its approximations."""
        model = self.model()
        with host_decodes():
            sample = latent.to(devices.device, devices.dtype_vae).to(model.first_stage_model.dtype)
            image = model.decode_first_stage(sample)
        return (image.float() + 1.0) / 2.0

    @torch.no_grad()
    def decode_in_strips(self, latent: Tensor, family: Family) -> Tensor | None:
        """As :meth:`decode`, to the same image with little memory, and in another precision after NaN.

        None if this is not possible.

        Only after a normal decode was tried: the host's hooks that move the VAE to the device under ``--medvram``
        belong to that.
        """
        image, precision = self._decode_in_strips(latent, family), self._against_nan()
        if precision is None or bool(torch.isfinite(image).all()):
            return image
        with VaeSwap(self.module()) as swap:
            swap.keep()
            self.module().to(precision)
            return self._decode_in_strips(latent, family)

    def _decode_in_strips(self, latent: Tensor, family: Family) -> Tensor:
        with host_decodes():
            image = decode_in_strips(self.module(), family.to_vae_space(latent))
        return (image.float() + 1.0) / 2.0

    def set_tiling(self, tiling: bool) -> None:
        """Have it decode images that tile, or not."""
        _, apply_circular = self._tiling_switch()
        if apply_circular is not None:
            apply_circular(tiling)


class Bench:
    """The host's own VAE module, decoding as the host does with the weights of one VAE after another."""

    def __init__(self, vae: LoadedVae, generation: Generation, undo: ExitStack) -> None:
        self._vae = vae
        self._family = generation.family
        self._swap = undo.enter_context(VaeSwap(vae.module()))
        # Otherwise the preview thread would decode it with whatever weights are in.
        shared.state.current_latent = None
        with guarded("setting up tiling"):
            vae.set_tiling(generation.tiling)

    @contextmanager
    def with_weights(self, state: dict[str, Tensor], path: str) -> Iterator[Decoder]:
        self._swap.put(state, path)
        yield Decoder(
            whole=self._vae.decode,
            in_strips=lambda latent: self._vae.decode_in_strips(latent, self._family),
            needs=lambda latent: bytes_to_decode(self._vae.module(), latent) if _on_cpu() else 0,
        )


@contextmanager
def host_decodes() -> Iterator[None]:
    """The host boundary of a decode: in the host's precision, with errors of known types."""
    try:
        with devices.without_autocast():
            yield
    except (RuntimeError, MemoryError):
        raise  # from torch, such as out of memory; the comparison reports these
    except Exception as error:  # other extensions patch the decoder too
        raise HostError(f"the WebUI could not decode: {type(error).__name__}: {error}") from error


def _on_cpu() -> bool:
    return torch.device(devices.device).type == "cpu"


def _will_reload(sd_model: Any = None, info: Any = None, forced_reload: bool = False) -> bool:
    """Whether ``sd_models.reload_model_weights`` would do anything, by its own rules."""
    model = sd_model or sd_models.model_data.sd_model
    if forced_reload or model is None or _will_change_fp8(model):
        return True
    return model.sd_model_checkpoint != (info or sd_models.select_checkpoint()).filename


def _will_change_fp8(model: Any) -> bool:
    """Whether the model is stored in fp8 and the settings say otherwise, or the reverse; not in WebUIs without fp8."""
    check_fp8 = part("sd_models.check_fp8")
    return check_fp8 is not None and check_fp8(model) != part("devices.fp8")
