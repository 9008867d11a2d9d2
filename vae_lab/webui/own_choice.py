"""Which VAE the WebUI itself uses, without VAE Lab."""

from __future__ import annotations

import os
from collections.abc import Callable

from modules import sd_vae, shared

from vae_lab.host.choices import BUILT_IN, Decision, Source
from vae_lab.host.preferences import NO_VAE_FILE, metadata_file, read_preference
from vae_lab.library.folders import file_key

__all__ = ["DECODE_METHOD", "OwnChoice", "decode_method", "settings_come_first"]

DECODE_METHOD = "Settings > VAE > VAE type for decode"

_PREFERENCE = "the checkpoint's own preference (its card > edit metadata > Preferred VAE)"


def decode_method() -> str:
    """What the WebUI decodes with: ``Full`` is the VAE, everything else an approximation without it."""
    return getattr(shared.opts, "sd_vae_decode_method", "Full")


class OwnChoice:
    """What the WebUI has chosen and loaded.

    Args:
        name_of: gives the listed name of a file.
        key: of the preferred VAE in a checkpoint's metadata.
    """

    def __init__(self, name_of: Callable[[str], str], key: str) -> None:
        self._name_of = name_of
        self._key = key
        self._last: tuple[tuple[object, ...], object, Decision] | None = None

    def decision(self, checkpoint: str, listing: object) -> Decision:
        """Decided again only if something has changed: pages ask often, and the WebUI prints a line for a missing file.

        Args:
            checkpoint: file of the loaded checkpoint.
            listing: where ``name_of`` finds the names; another one may have other names.
        """
        options = shared.opts
        facts = (
            *(checkpoint, file_key(str(metadata_file(checkpoint))), shared.cmd_opts.vae_path),
            *(options.sd_vae, options.sd_vae_overrides_per_model_preferences),
            *(sd_vae.loaded_vae_file, tuple(sd_vae.vae_dict.values())),
        )
        last = self._last
        if last is None or last[0] != facts or last[1] is not listing:
            last = self._last = facts, listing, self._decide(checkpoint)
        return last[2]

    def _decide(self, checkpoint: str) -> Decision:
        wanted, loaded = self._wanted(checkpoint), sd_vae.loaded_vae_file
        if os.path.abspath(loaded or checkpoint) == os.path.abspath(wanted.path):
            return wanted
        # The preference was changed in its file, or the WebUI could not load the VAE.
        name = self._name_of(loaded) if loaded else BUILT_IN
        return Decision(name, "host", f"{name}: still in memory. Not loaded: {wanted.reason}", loaded or checkpoint)

    def _wanted(self, checkpoint: str) -> Decision:
        source: Source = "host"
        resolved = sd_vae.resolve_vae(checkpoint)
        if resolved.source == "from user metadata":
            source, why = "checkpoint", _PREFERENCE
        elif resolved.source == "specified in settings":
            why = "Settings > VAE > SD VAE"
        elif resolved.vae:
            why = f"chosen by the WebUI, {resolved.source}"
        elif read_preference(checkpoint, self._key) == NO_VAE_FILE and not settings_come_first():
            source, why = "checkpoint", _PREFERENCE
        else:
            why = "no external VAE is chosen"
        name = self._name_of(resolved.vae) if resolved.vae else BUILT_IN
        return Decision(name, source, f"{name}: {why}.", resolved.vae or checkpoint)


def settings_come_first() -> bool:
    """Whether the WebUI's settings take precedence over a checkpoint's preference."""
    return shared.cmd_opts.vae_path is not None or (
        shared.opts.sd_vae_overrides_per_model_preferences and not sd_vae.is_automatic()
    )
