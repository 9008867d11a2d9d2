"""The VAE of Forge and its relatives: in a wrapper that decodes with it and moves it between devices.

Forge and Forge Neo (package ``backend``), reForge and Forge Classic (package ``ldm_patched``) have a model's parts in
``forge_objects``. The model encodes and decodes by its own methods, whatever is in the wrapper.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from modules import devices, sd_models
from torch import Tensor, nn

from vae_lab.latents.family import FAMILIES, Family
from vae_lab.webui.loaded_vae import LoadedVae, host_decodes
from vae_lab.webui.parts import has

__all__ = ["WrappedVae", "is_wrapped"]

_PACKAGE = "modules_forge"


def is_wrapped() -> bool:
    """Whether this WebUI wraps its VAE, although it loads models as the WebUI does: reForge, Forge Classic."""
    return has("modules.sd", package="ldm_patched") and has("forge_loader.load_model_for_a1111", package=_PACKAGE)


class WrappedVae(LoadedVae):
    """Where such a host has the loaded checkpoint's VAE, and how it decodes with it."""

    place = "sd_model.forge_objects.vae.first_stage_model"
    tiling_switches = ((_PACKAGE, "utils.apply_circular_forge"), (_PACKAGE, "forge_util.apply_circular_forge"))

    def model(self) -> Any:
        """As :meth:`LoadedVae.model`; None for a model that nothing was loaded for yet."""
        model = sd_models.model_data.sd_model
        return model if getattr(model, "forge_objects", None) is not None else None

    def family(self) -> Family | None:
        """By the factor with which the host scales latents: it has no flag for every kind of model."""
        model = self.model()
        if model is None:
            return None
        channels, scale = getattr(model.forge_objects.vae, "latent_channels", None), _scaling_factor(model)
        for family in FAMILIES.values():
            if family.latent_channels == channels and math.isclose(family.scaling_factor, scale, rel_tol=1e-3):
                return family
        return None

    def module(self) -> nn.Module:
        return self.model().forge_objects.vae.first_stage_model

    def decode_in(self, latent: Tensor) -> tuple[Tensor, torch.dtype]:
        with host_decodes():
            image = self.model().decode_first_stage(latent.to(devices.device))
        return (image.float() + 1.0) / 2.0, getattr(self.model().forge_objects.vae, "vae_dtype", devices.dtype_vae)

    def set_tiling(self, tiling: bool) -> None:
        """As the host does for each generation, where it can."""
        _, apply_circular = self._tiling_switch()
        if apply_circular is not None:
            apply_circular(self.model(), tiling)

    def decode_in_strips(self, latent: Tensor, family: Family) -> Tensor | None:  # noqa: ARG002
        """None: the host's own decode has already tried tiles when memory was low."""
        return None


def _scaling_factor(model: Any) -> float:
    """By which the model multiplies latents; NaN if unknown. Each relative of Forge has it elsewhere."""
    module = model.forge_objects.vae.first_stage_model
    unet = getattr(getattr(model.forge_objects, "unet", None), "model", None)
    for owner, name in (
        (module, "scaling_factor"),
        (getattr(module, "latent_format", None), "scale_factor"),
        (getattr(getattr(unet, "model_config", None), "latent_format", None), "scale_factor"),
    ):
        factor = getattr(owner, name, None)
        if factor is not None:
            return float(factor)
    return math.nan
