"""What the user has saved in the WebUI: the settings of VAE Lab, and the WebUI's own preference for a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from modules import sd_models, sd_vae, shared
from modules.call_queue import queue_lock

from vae_lab.autoencoders import open_vae
from vae_lab.errors import HostError
from vae_lab.host.checkpoint_choices import Change, JsonChoices
from vae_lab.host.choices import AUTOMATIC, BUILT_IN, ON_BROKEN, OnBroken, OnGrey
from vae_lab.host.guard import guarded
from vae_lab.host.preferences import NO_VAE_FILE, metadata_file, webui_reads, with_preference, write_metadata
from vae_lab.webui.loaded_vae import LoadedVae
from vae_lab.webui.weight_swap import check_shapes_fit

__all__ = [
    "EXTERNAL_OPTION", "KEEP_OPTION", "ON_BROKEN_OPTION", "ON_GREY_OPTION", "PREFERRED_OPTION", "NativePreferences",
    "external_vae", "on_broken", "on_grey", "preferred_vaes", "save_external_vae", "save_native_preference",
    "store_bytes",
]  # fmt: skip

EXTERNAL_OPTION = "vae_lab_external"
KEEP_OPTION = "vae_lab_keep_mb"
ON_BROKEN_OPTION = "vae_lab_on_broken"
ON_GREY_OPTION = "vae_lab_on_grey"
PREFERRED_OPTION = "vae_lab_preferred"

# --- settings; the WebUI adds them late, so each may be missing ------------------------------------------------------


def external_vae() -> str:
    """The VAE chosen for every checkpoint, or ``Automatic``."""
    return getattr(shared.opts, EXTERNAL_OPTION, AUTOMATIC)


def save_external_vae(vae: str) -> None:
    """Choose a VAE for every checkpoint.

    Raises:
        HostError: the WebUI does not save it; nothing has changed.
    """
    before = external_vae()
    try:
        shared.opts.set(EXTERNAL_OPTION, vae)
        shared.opts.save(shared.config_filename)
    except (AssertionError, OSError) as error:  # the former under --freeze-settings
        shared.opts.data[EXTERNAL_OPTION] = before
        raise HostError(f"the WebUI does not save this setting: {error or 'its settings are frozen'}") from error


def preferred_vaes() -> list[str]:
    """Names of the VAEs to recommend first."""
    return list(getattr(shared.opts, PREFERRED_OPTION, None) or ())


def on_grey() -> OnGrey:
    """What to do if an image is grey."""
    return getattr(shared.opts, ON_GREY_OPTION, "warn")


def on_broken() -> OnBroken:
    """What to do when a checkpoint is loaded whose own VAE is broken or missing."""
    chosen = getattr(shared.opts, ON_BROKEN_OPTION, "ask")
    return chosen if chosen in ON_BROKEN else "ask"


def store_bytes() -> int:
    """Memory for stored latents, in bytes."""
    return int(getattr(shared.opts, KEEP_OPTION, 256)) * 2**20


# --- the WebUI's own preference --------------------------------------------------------------------------------------


def save_native_preference(loaded: LoadedVae, checkpoint: str, key: str, vae: str, path: str) -> None:
    """Store the preferred VAE of the loaded checkpoint, and have the WebUI load it now.

    Args:
        loaded: the VAE in memory.
        checkpoint: file of the loaded checkpoint.
        key: see :func:`write_preference`.
        vae: name of the VAE, ``Built-in`` or ``Automatic``.
        path: file of the VAE; "" for the other two.

    Raises:
        VaeLabError: the WebUI cannot use it as a preference or cannot load it; everything is as before.
    """
    with queue_lock:
        native_name = _native_name(path) if path else {AUTOMATIC: "Automatic", BUILT_IN: NO_VAE_FILE}[vae]
        if path:
            _check_host_loads(loaded, path, vae)
        before, after = with_preference(checkpoint, key, native_name)
        _write_and_load(metadata_file(checkpoint), before, after, vae)


class NativePreferences(JsonChoices):
    """The WebUI's own preferences of all checkpoints. It loads at once what is written for the loaded one.

    Args:
        loaded: the VAE in memory.
        vae_path: returns the file of a VAE; raises UnknownChoice.
        listed: see the key, checkpoints and vaes of :class:`JsonChoices`.
        listed_name: see :class:`JsonChoices`.
    """

    def __init__(
        self,
        loaded: LoadedVae,
        vae_path: Callable[[str], str],
        listed: tuple[str, Callable[[], Mapping[str, Path]], Callable[[], Mapping[str, Path]]],
        listed_name: Callable[[str], str],
    ) -> None:
        super().__init__(*listed, lambda vae: _native_name(vae_path(vae)), listed_name)
        self._loaded = loaded
        self._vae_path = vae_path

    def write(self, change: Change, content: bytes | None) -> None:
        checkpoint = self._loaded.path()
        if not checkpoint or os.path.abspath(metadata_file(checkpoint)) != os.path.abspath(change.file):
            super().write(change, content)
            return
        with queue_lock:
            if content == change.after:
                _check_host_loads(self._loaded, self._vae_path(change.vae), change.vae)
            _write_and_load(Path(change.file), self.content(change), content, change.vae)


def _write_and_load(file: Path, before: bytes | None, content: bytes | None, vae: str) -> None:
    write_metadata(file, content)
    try:
        if sd_models.model_data.sd_model is not None:
            sd_vae.reload_vae_weights(sd_models.model_data.sd_model)
    except Exception as error:  # the host boundary: it loads the file in its own way
        try:
            write_metadata(file, before)
        finally:
            _load_checkpoint_again()
        raise HostError(f"the WebUI could not load {vae}, so it was not chosen: {error}") from error


def _load_checkpoint_again() -> None:
    """After a failed load the WebUI's VAE is a mixture, and its model is off the device and without its hooks."""
    with guarded("loading the checkpoint again"):
        model = sd_models.model_data.sd_model
        sd_vae.restore_base_vae(model)  # if the checkpoint has none of its own
        sd_models.reload_model_weights(info=model.sd_checkpoint_info, forced_reload=True)


def _native_name(path: str) -> str:
    """The name of a VAE file in the WebUI's own preference.

    Raises:
        HostError: it cannot be named there.
    """
    sd_vae.refresh_vae_list()
    basename = os.path.basename(path)
    native_path = sd_vae.vae_dict.get(basename)
    if native_path is None:
        raise HostError(f"the WebUI does not list {basename} as a VAE, so it cannot be a checkpoint's preference")
    if os.path.abspath(native_path) != os.path.abspath(path):
        raise HostError(f"the WebUI knows VAEs only by file name, and takes {basename} for {native_path}; rename one")
    return basename


def _check_host_loads(loaded: LoadedVae, vae_path: str, vae: str) -> None:
    """Refuse what the WebUI itself cannot load: it copies what fits, and then fails with a mixture in its module.

    Raises:
        VaeLabError: names or shapes differ from those of the loaded checkpoint's VAE.
    """
    if loaded.model() is None:
        return
    with open_vae(vae_path) as file:
        check_shapes_fit(loaded.module(), file.shapes, vae_path)
        if not webui_reads(file):
            raise HostError(
                f"{vae} has a layout that the WebUI itself cannot load ({file.layout.label}); "
                "VAE Lab can: choose it in the accordion, or with Use always"
            )
