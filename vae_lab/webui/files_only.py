"""A WebUI that lacks a part that VAE Lab needs: its tab works with files, and no image is touched."""

from __future__ import annotations

from pathlib import Path

from vae_lab.errors import HostError
from vae_lab.host.base import Host
from vae_lab.host.checkpoint_choices import CheckpointChoices
from vae_lab.host.choices import BUILT_IN, Decision, StandingChoices
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.library.cache import user_cache_folder
from vae_lab.library.folders import is_folder
from vae_lab.webui.parts import about_webui, option_paths, part

__all__ = ["FilesOnlyHost"]


class FilesOnlyHost(StandaloneHost):
    """Folders of the WebUI, as far as they are found, with the tab of the stand-alone host.

    Args:
        not_found: see :attr:`vae_lab.host.base.Host.not_found`.
    """

    name = "this WebUI"

    def __init__(self, not_found: tuple[str, ...]) -> None:
        super().__init__(_folders())
        self.not_found = not_found
        self.how_to_begin = "Press Load latent for a latent from a file."

    def about(self) -> dict[str, str]:
        return {**super().about(), **about_webui()}

    @property
    def language(self) -> str:  # type: ignore[override]
        chosen = str(part("shared.opts.localization", "None"))
        return "" if chosen == "None" else chosen

    def host_decision(self) -> Decision:
        return Decision(BUILT_IN, "host", "VAE Lab cannot see which VAE this WebUI uses.")

    def standing_choices(self) -> StandingChoices:
        return StandingChoices()

    def checkpoint_choices(self) -> CheckpointChoices:
        return Host.checkpoint_choices(self)

    def use_for_checkpoint(self, vae: str) -> str:
        raise HostError(f"VAE Lab cannot choose a VAE in this WebUI; choose {vae} in its own settings")

    def use_always(self, vae: str) -> str:
        return self.use_for_checkpoint(vae)


def _folders() -> Folders:
    models = Path(str(part("paths_internal.models_path", "models")))
    own = part("paths_internal.data_path")
    data = Path(str(own)) / "cache" / "vae-lab" if own else user_cache_folder()
    checkpoints = [models / "Stable-diffusion", *map(Path, option_paths("ckpt_dir", "ckpt_dirs"))]
    vaes = [models / "VAE", models / "VAE-taesd", *map(Path, option_paths("vae_dir", "vae_dirs"))]
    return Folders(data, _existing(checkpoints), _existing(vaes))


def _existing(folders: list[Path]) -> tuple[Path, ...]:
    return tuple(dict.fromkeys(folder.absolute() for folder in folders if is_folder(folder)))
