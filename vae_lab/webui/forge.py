"""Forge (lllyasviel/stable-diffusion-webui-forge) as a host: the WebUI's, but for where the VAE is and who chooses it.

What an extension finds there is the WebUI's in name only: ``sd_vae`` and ``sd_models.reload_model_weights`` do nothing,
``first_stage_model`` of the model is None, and the VAE is chosen in the menu *VAE / Text Encoder*, as a list of files.

Weights are swapped in place here, too, since one module is shared by everything that encodes or decodes: Forge keeps
three sets of objects for a model (as loaded, with LoRAs, in use), goes from one to the other during a generation, and
all three have the same VAE. On a GPU its memory manager moves that module as a whole, or layer by layer where memory is
short, and makes new parameters of what is in it at that moment; the file is not read again, and a copy of weights is
kept for LoRAs alone, of which a VAE has none. So a swap holds on to no tensor of the module, but asks for them by name
each time it writes, wherever they are by then. It writes between decodes, whose images have arrived on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from modules import devices, sd_models, shared
from torch import Tensor, nn

from vae_lab.autoencoders import open_vae
from vae_lab.errors import HostError, VaeLabError
from vae_lab.host.base import Host
from vae_lab.host.choices import AUTOMATIC, BUILT_IN, Decision, Reach, StandingChoices
from vae_lab.latents.family import FAMILIES, Family
from vae_lab.webui.a1111 import A1111Host
from vae_lab.webui.job import Weights
from vae_lab.webui.loaded_vae import LoadedVae, Reload, host_decodes
from vae_lab.webui.preferences import read_preference, write_preference

__all__ = ["ForgeHost", "is_forge"]

_MENU = "Forge's menu VAE / Text Encoder"


def is_forge() -> bool:
    """Whether the WebUI that loads us is Forge; reForge and Forge Classic load models as the WebUI does."""
    return hasattr(sd_models, "forge_model_reload")


class LoadedForgeVae(LoadedVae):
    """Where Forge holds its VAE. Nothing is loaded before the first image."""

    def model(self) -> Any:
        model = sd_models.model_data.sd_model
        return model if getattr(model, "forge_objects", None) is not None else None

    def family(self) -> Family | None:
        """By the numbers that Forge scales latents with: it has more kinds of models than flags for them."""
        model = self.model()
        if model is None:
            return None
        channels, module = model.forge_objects.vae.latent_channels, self.module()
        for family in FAMILIES.values():
            same_scale = math.isclose(family.scaling_factor, module.scaling_factor, rel_tol=1e-3)
            if same_scale and family.latent_channels == channels:
                return family
        return None

    def module(self) -> nn.Module:
        return self.model().forge_objects.vae.first_stage_model

    def reloads(self) -> Sequence[Reload]:
        return (Reload(sd_models, "forge_model_reload", _will_load),)

    def decode_in(self, latent: Tensor) -> tuple[Tensor, torch.dtype]:
        with host_decodes():
            image = self.model().decode_first_stage(latent.to(devices.device))
        return (image.float() + 1.0) / 2.0, devices.dtype_vae

    def decode_in_strips(self, latent: Tensor, family: Family) -> Tensor | None:  # noqa: ARG002
        """None: where memory is short, Forge's own decode has gone over the latent in tiles already."""
        return None


class ForgeHost(A1111Host):
    """Reads Forge's lists and settings, and decodes with Forge's own VAE module."""

    name = "Forge"
    preference_key = "vae_lab_vae"

    @staticmethod
    def _loaded_vae() -> LoadedVae:
        return LoadedForgeVae()

    # --- the checkpoint: the chosen one, which Forge loads when an image is wanted ----------------------------

    def current_checkpoint(self) -> str:
        info = _chosen()
        return info.name if info is not None else ""

    def checkpoint_path(self) -> str:
        info = _chosen()
        return info.filename if info is not None else ""

    def checkpoint_family(self) -> Family | None:
        loaded = self.vae.family() if self.checkpoint_path() == self.vae.path() else None
        return loaded or Host.checkpoint_family(self)

    # --- who decides -------------------------------------------------------------------------------------------

    def standing_choices(self) -> StandingChoices:
        return super().standing_choices()._replace(checkpoint=self._preference(self.checkpoint_path()))

    def standing_choices_when_loaded(self) -> StandingChoices:
        return super().standing_choices()._replace(checkpoint=self._preference(self.vae.path()))

    def chosen(self, reach: Reach) -> str:
        return Host.chosen(self, reach)

    def _preference(self, checkpoint: str) -> str:
        """Ours. Forge's own, on the checkpoint's card, is for the moment when that card is clicked on, and no later."""
        return read_preference(checkpoint, self.preference_key) if checkpoint else AUTOMATIC

    def host_decision(self) -> Decision:
        checkpoint = self.checkpoint_path()
        if not checkpoint:
            return Decision(BUILT_IN, "host", "No checkpoint is chosen yet.")
        path = self._chosen_module()
        if not path:
            return Decision(BUILT_IN, "host", f"{BUILT_IN}: no VAE is selected in {_MENU}.", checkpoint)
        name = self._name_of(path)
        return Decision(name, "host", f"{name}: selected in {_MENU}.", path)

    def _chosen_module(self) -> str:
        """File of the VAE that is chosen in Forge's menu, or "". Of several, Forge uses the last one."""
        chosen = getattr(shared.opts, "forge_additional_modules", None) or ()
        return next((path for path in reversed(chosen) if self._is_vae(path)), "")

    def _is_vae(self, path: str) -> bool:
        """Whether a file from the menu is a VAE: text encoders are chosen there as well."""
        facts = self.facts.known(path)
        if facts is not None:
            return not facts.problem
        try:
            with open_vae(path):
                return True
        except VaeLabError:
            return False

    def _save_preference(self, checkpoint: str, vae: str) -> None:
        """Nothing to load: the next generation asks for it."""
        write_preference(checkpoint, self.preference_key, vae)

    # --- the checkup -------------------------------------------------------------------------------------------

    def preferred_vaes(self) -> Mapping[str, str]:
        preferred = dict(super().preferred_vaes())
        decision = self.host_decision()
        if decision.vae in self.vae_files():
            preferred.setdefault(decision.vae, _MENU)
        return preferred

    def used_instead(self) -> str:
        decision = self.host_decision()
        if decision.vae == BUILT_IN:
            return f"Forge does not load it. Choose a VAE in {_MENU}; then VAE Lab can put others in its place."
        return self.decision().reason

    # --- weights -----------------------------------------------------------------------------------------------

    def weights(self, choice: str) -> Weights:
        if self.vae.family() is None:
            raise HostError("the model that Forge has loaded has latents of a family that VAE Lab does not know")
        return super().weights(choice)


def _chosen() -> Any:
    """What Forge knows of the checkpoint that the next image is made with; None without one."""
    chosen = sd_models.model_data.forge_loading_parameters.get("checkpoint_info")
    return chosen or sd_models.get_closet_checkpoint_match(shared.opts.sd_model_checkpoint or "")


def _will_load() -> bool:
    """Whether ``sd_models.forge_model_reload`` would do anything, by its own rule."""
    return sd_models.model_data.forge_hash != str(sd_models.model_data.forge_loading_parameters)
