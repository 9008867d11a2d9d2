"""Forge (lllyasviel/stable-diffusion-webui-forge) as a host: as the WebUI, except where the VAE is and who selects it.

Forge has the WebUI's functions in name only: ``sd_vae`` and ``sd_models.reload_model_weights`` do nothing,
``first_stage_model`` of the model is None, and the VAE is selected in the menu *VAE / Text Encoder*, a list of files.

The tensors of the module are exchanged here as well, because one module is shared by everything that encodes or
decodes: Forge has three sets of objects for a model (as loaded, with LoRAs, in use), switches between them during a
generation, and all three have the same VAE. On a GPU its memory manager moves that module as a whole, or layer by layer
if memory is low, and creates new parameters from its current content; it does not read the file again, and copies
weights only for LoRAs, which a VAE does not have. So parameters are looked up by name for each exchange, wherever they
are. Weights are exchanged between decodes, when the images are on the CPU already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modules import sd_models, shared

from vae_lab.autoencoders import open_vae
from vae_lab.errors import HostError, VaeLabError
from vae_lab.host.base import Host
from vae_lab.host.checkpoint_choices import CheckpointChoices, JsonChoices
from vae_lab.host.choices import AUTOMATIC, BUILT_IN, Decision, Reach, StandingChoices
from vae_lab.host.guard import guarded
from vae_lab.host.preferences import read_preference, write_preference
from vae_lab.latents.family import Family
from vae_lab.webui.a1111 import A1111Host
from vae_lab.webui.job import Weights
from vae_lab.webui.loaded_vae import LoadedVae, Reload
from vae_lab.webui.parts import has, part
from vae_lab.webui.wrapped_vae import WrappedVae

__all__ = ["ForgeHost", "is_forge"]

_MENU = "Forge's menu VAE / Text Encoder"


def is_forge() -> bool:
    """Whether the WebUI that loads us is Forge; reForge and Forge Classic load models as the WebUI does."""
    return hasattr(sd_models, "forge_model_reload")


class LoadedForgeVae(WrappedVae):
    """Where Forge has its VAE. Nothing is loaded before the first image."""

    def own_settings(self) -> Sequence[str]:
        """Forge ignores ``sd_vae``, which Forge Neo understands."""
        return ("forge_additional_modules", *(["sd_vae"] if has("processing._overridden_modules") else []))

    def chosen_natively(self) -> Sequence[Any]:
        """Nothing: the menu may change during a generation, for hires fix."""
        return ()

    def reloads(self) -> Sequence[Reload]:
        return (Reload(sd_models, "forge_model_reload", _will_load),)


class ForgeHost(A1111Host):
    """Reads Forge's lists and settings, and decodes with Forge's own VAE module."""

    name = "Forge"
    preference_key = "vae_lab_vae"

    @property
    def vae_precision_flag(self) -> str:  # type: ignore[override]
        """Forge Neo has renamed its flags."""
        renamed = has("args.args.fp32_vae", package="backend")
        return "--bf16-vae or --fp32-vae" if renamed else "--vae-in-bf16 or --vae-in-fp32"

    @staticmethod
    def _loaded_vae() -> LoadedVae:
        return LoadedForgeVae()

    def refresh_vaes(self) -> None:
        """Forge's menu of VAEs has a list of its own."""
        super().refresh_vaes()
        with guarded("refreshing the menu of VAEs"):
            refresh = part("main_entry.refresh_models", package="modules_forge")
            if refresh is not None:
                refresh()

    # --- the checkpoint: the selected one, which Forge loads for the next image -------------------------------

    def current_checkpoint(self) -> str:
        info = _selected()
        return info.name if info is not None else ""

    def checkpoint_path(self) -> str:
        info = _selected()
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

    def checkpoint_choices(self) -> CheckpointChoices:
        """Under our own key, by our own names: VAE Lab applies them when the next image is decoded."""
        return JsonChoices(
            self.preference_key,
            self.checkpoint_files,
            self.vae_files,
            lambda vae: vae,
            lambda vae: vae,
            any_layout=True,
        )

    def before_checkpoint_choices(self) -> str:
        return Host.before_checkpoint_choices(self)

    def _preference(self, checkpoint: str) -> str:
        """Our own preference. Forge's, on the checkpoint's card, only takes effect when the card is clicked."""
        return read_preference(checkpoint, self.preference_key) if checkpoint else AUTOMATIC

    def host_decision(self) -> Decision:
        checkpoint = self.checkpoint_path()
        if not checkpoint:
            return Decision(BUILT_IN, "host", "No checkpoint is selected yet.")
        path = self._selected_vae()
        if not path:
            return Decision(BUILT_IN, "host", f"{BUILT_IN}: no VAE is selected in {_MENU}.", checkpoint)
        name = self._name_of(path)
        return Decision(name, "host", f"{name}: selected in {_MENU}.", path)

    def _selected_vae(self) -> str:
        """File of the VAE selected in Forge's menu, or "". Of several, Forge uses the last one.

        For a generation with ``sd_vae`` among its ``override_settings``, Forge Neo has a list of its own.
        """
        selected = (
            part("processing._overridden_modules") or getattr(shared.opts, "forge_additional_modules", None) or ()
        )
        return next((path for path in reversed(selected) if self._is_vae(path)), "")

    def _is_vae(self, path: str) -> bool:
        """Whether a file from the menu is a VAE: it lists text encoders as well."""
        facts = self.file_cache.known(path)
        if facts is not None:
            return not facts.problem
        try:
            with open_vae(path):
                return True
        except VaeLabError:
            return False

    def _save_preference(self, checkpoint: str, vae: str) -> None:
        """Loads nothing: the next generation does."""
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
            return f"Forge does not load it. Select a VAE in {_MENU}; VAE Lab can then replace it by others."
        return self.decision().reason

    # --- weights -----------------------------------------------------------------------------------------------

    def weights(self, choice: str) -> Weights:
        self._check_loaded_family()
        return super().weights(choice)

    def check_fits(self, vae: str) -> None:
        if self.vae.model() is not None and self.vae.path() == self.checkpoint_path():
            self._check_loaded_family()
        super().check_fits(vae)

    def _check_loaded_family(self) -> None:
        if self.vae.family() is None:
            raise HostError("the model loaded by Forge has latents of a family unknown to VAE Lab")


def _selected() -> Any:
    """Forge's information on the checkpoint for the next image; None without one."""
    selected = sd_models.model_data.forge_loading_parameters.get("checkpoint_info")
    return selected or sd_models.get_closet_checkpoint_match(shared.opts.sd_model_checkpoint or "")


def _will_load() -> bool:
    """Whether ``sd_models.forge_model_reload`` would do anything, by its own rule."""
    return sd_models.model_data.forge_hash != str(sd_models.model_data.forge_loading_parameters)
