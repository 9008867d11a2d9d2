"""Which parts of the host there are, found by looking: hosts differ in them, whatever their name or version.

Imports nothing of the host by itself, so that it works on any.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from vae_lab.host.guard import for_host, guarded

__all__ = [
    "COPIES", "NEEDED", "NEEDED_IN_FORGE", "NEEDED_IN_WEBUI", "about_webui", "has", "missing_parts", "option_paths",
    "part", "register",
]  # fmt: skip

log = logging.getLogger("vae_lab")

NEEDED = (
    "call_queue.queue_lock",
    *(f"devices.{name}" for name in ("NansException", "cpu", "device", "dtype_vae", "test_for_nans", "torch_gc")),
    "devices.without_autocast",
    *("paths_internal.data_path", "paths_internal.models_path"),
    *("processing.Processed.js", "processing.decode_latent_batch", "processing.process_images_inner"),
    *("scripts.AlwaysVisible", "scripts.Script", "scripts.ScriptRunner.run", "scripts.scripts_data"),
    *("sd_models.CheckpointInfo", "sd_models.checkpoints_list", "sd_models.model_data.sd_model"),
    *("sd_models.model_path", "sd_vae.loaded_vae_file", "sd_vae.vae_dict", "sd_vae.vae_path"),
    *("shared.OptionInfo", "shared.cmd_opts", "shared.config_filename"),
    *(f"shared.opts.{name}" for name in ("add_option", "data", "save", "set")),
    *("shared.state.interrupted", "shared.state.skipped"),
)
"""What overrides, comparisons and captured latents need of every host: names in the host's package ``modules``."""

NEEDED_IN_WEBUI = (
    *("sd_models.reload_model_weights", "sd_models.select_checkpoint"),
    *("sd_vae.is_automatic", "sd_vae.refresh_vae_list", "sd_vae.reload_vae_weights", "sd_vae.resolve_vae"),
    "sd_vae.restore_base_vae",
    *("shared.cmd_opts.vae_path", "shared.opts.sd_vae", "shared.opts.sd_vae_overrides_per_model_preferences"),
)
"""What they need besides in the WebUI and in forks that load models as it does."""

NEEDED_IN_FORGE = (
    *("sd_models.forge_model_reload", "sd_models.get_closet_checkpoint_match"),
    *("sd_models.model_data.forge_hash", "sd_models.model_data.forge_loading_parameters"),
    "shared.opts.sd_model_checkpoint",
)
"""What they need besides in Forge."""

COPIES: list[str] = []
"""Folders of the extension that the host has loaded, the one that is used first. More than one: installed twice."""

_FLAGS = (
    *("api", "nowebui", "medvram", "medvram_sdxl", "lowvram", "no_half", "no_half_vae", "precision", "vae_path"),
    *("vae_dir", "vae_dirs", "ckpt", "ckpt_dir", "ckpt_dirs", "disable_nan_check", "upcast_sampling", "use_cpu"),
)  # of which the presence, never the value, is told: values have paths

_NOTHING = object()


def part(name: str, default: Any = None, *, package: str = "modules") -> Any:
    """``modules.<name>``, such as ``shared.cmd_opts``; ``default`` if the host has no such part, or it fails.

    Args:
        name: dotted.
        default: see above.
        package: of the host, in which to look.
    """
    module, *path = name.split(".")
    with guarded(f"looking for {package}.{name}"):
        try:
            found = importlib.import_module(f"{package}.{module}")
            for attribute in path:
                found = getattr(found, attribute)
            return found
        except (ImportError, AttributeError):
            return default
    return default


def has(name: str, *, package: str = "modules") -> bool:
    """Whether the host has ``modules.<name>``, or that of another of its packages."""
    return part(name, _NOTHING, package=package) is not _NOTHING


def missing_parts(names: Iterable[str]) -> tuple[str, ...]:
    """Those of ``names`` that the host does not have; a missing module only once."""
    missing = (name if has(name.partition(".")[0]) else name.partition(".")[0] for name in names if not has(name))
    return tuple(f"modules.{name}" for name in dict.fromkeys(missing))


def option_paths(*names: str) -> list[str]:
    """The paths in the host's command line options: each names one, a list of them, or is unknown to this host."""
    values = (part(f"shared.cmd_opts.{name}") for name in names)
    return [str(path) for value in values for path in (value if isinstance(value, list | tuple) else [value]) if path]


def about_webui() -> dict[str, str]:
    """The WebUI's version, the folders that its options name, and the extensions beside us: name -> value."""
    facts = {}
    with guarded("asking for the WebUI's version"):
        git_tag = part("launch_utils.git_tag")
        facts["Version"] = str(git_tag()) if git_tag is not None else "unknown"
    given = [name for name in _FLAGS if part(f"shared.cmd_opts.{name}") not in (None, False, "", [])]
    facts["Flags"] = ", ".join(given) or "none that matter to VAE Lab"
    with guarded("listing extensions"):
        others = [each.name for each in part("extensions.extensions", ()) if each.enabled and not each.is_builtin]
        facts["Extensions"] = ", ".join(sorted(others)) or "none"
    if len(COPIES) > 1:
        used, *others = (Path(folder).name for folder in COPIES)
        facts["Installed twice"] = f"{used} is used, {' and '.join(others)} can be removed"
    return facts


def register(callback: str, what: str, function: Callable[..., Any], instead: Callable[[], Any] = lambda: None) -> None:
    """Have the host call ``function``, guarded by :func:`vae_lab.host.guard.for_host`.

    Args:
        callback: of the host's ``script_callbacks``, such as ``on_ui_tabs``.
        what: what the function does, for the log.
        function: called by the host.
        instead: gives what the host gets after an error.
    """
    with guarded(f"registering {callback}"):
        add = part(f"script_callbacks.{callback}")
        if add is None:
            log.warning("VAE Lab: this WebUI has no script_callbacks.%s", callback)
        else:
            add(for_host(what, instead)(function))
