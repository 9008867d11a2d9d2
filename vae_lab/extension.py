"""The composition root inside the WebUI: host, pages, script, settings, routes.

Called by ``scripts/vae_lab.py``, which passes the pages, because this module imports no gradio. The WebUI executes that
file again at every "Reload UI", while packages stay loaded; so everything registered here is undone when the scripts
are unloaded.

A host may lack any part of the WebUI that we use, so this module imports none. Without a part that overrides and
comparisons need, nothing of ours takes part in generations, and the tab works with files only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from functools import lru_cache
from typing import Any, Protocol

from vae_lab.api.origin import AllowedOrigins
from vae_lab.api.routes import add_routes
from vae_lab.host.base import Host
from vae_lab.host.guard import for_host, guarded
from vae_lab.service.background_checkup import BackgroundCheckup
from vae_lab.service.service import service_of
from vae_lab.webui.files_only import FilesOnlyHost
from vae_lab.webui.parts import COPIES, NEEDED, missing_parts, part, register

__all__ = ["Pages", "load", "load_extras", "the_background_checkup", "the_host"]

log = logging.getLogger("vae_lab")


class Pages(Protocol):
    """What the WebUI shows, made of gradio components; see ``vae_lab.ui.pages``."""

    dropdown: type
    several: type
    slider: type
    radio: type

    def build_tab(self, host: Host) -> Any:
        """The tab, as Blocks."""

    def build_accordion(self, host: Host, tab: str) -> Any:
        """The accordion of ``txt2img`` or ``img2img``; its ``components`` are the script's inputs."""

    def build_extras(self, host: Host, input_accordion: Callable[..., Any] | None) -> dict[str, Any]:
        """The accordion of the Extras tab: name -> component."""


@lru_cache(maxsize=1)
def the_host() -> Any:
    """One for the whole process: stored latents survive "Reload UI". An adapter, or a :class:`FilesOnlyHost`."""
    missing = missing_parts(NEEDED)
    if not missing:
        with guarded("looking at this WebUI"):
            from vae_lab.webui import generations  # its imports need those parts

            missing = generations.missing_here()
            if not missing:
                return generations.adapter()
    return _files_only(missing)


def _files_only(missing: tuple[str, ...] = ()) -> FilesOnlyHost:
    where = ", ".join(missing) or "see the error above"
    log.warning("VAE Lab works with files only here; not found in this WebUI: %s", where)
    return FilesOnlyHost(missing)


@lru_cache(maxsize=1)
def the_background_checkup() -> BackgroundCheckup:
    """One for the whole process: each checkpoint is warned about once. Only for an adapter."""
    host = the_host()
    return BackgroundCheckup(host, host.check_own_memory, service_of(host).fixes.apply)


@for_host("starting")
def load(pages: Pages) -> type | None:
    """Register everything with the WebUI, or nothing if another copy of ours has done so.

    Returns:
        The script class for the WebUI to find; None without one.
    """
    log.setLevel(logging.INFO)
    if not _is_first_copy():
        return None
    undo = ExitStack()

    def unload() -> None:
        COPIES.clear()
        undo.close()

    register("on_script_unloaded", "unloading", unload)
    host = the_host()
    script, checkpoint_changed = None, _nothing
    if host.not_found is None:
        with guarded("registering with the WebUI"):
            from vae_lab.webui import generations

            checkpoint_changed = the_background_checkup().checkpoint_changed
            script = generations.register(host, pages, undo, checkpoint_changed)
        if script is None:
            undo.close()  # what was registered before the error
    shown = _Shown(host, pages, checkpoint_changed)
    register("on_ui_tabs", "building the tab", shown.tabs, list)
    register("on_app_started", "adding the routes", shown.app_started)
    return script


@for_host("adding the round trip to the Extras tab")
def load_extras(pages: Pages) -> type | None:
    """The postprocessing script for the WebUI to find; nothing has to be undone.

    Returns:
        None if the WebUI has no such scripts, or lacks what we need.
    """
    host = the_host()
    if host.not_found is not None or len(COPIES) > 1:
        return None
    from vae_lab.webui.extras import script_class

    return script_class(host, pages.build_extras)


def _is_first_copy() -> bool:
    """Whether no other folder with VAE Lab in it has been loaded: all share this package, that of the first one."""
    where = part("scripts.basedir")  # known while scripts load
    folder = str(where()) if where is not None else ""
    if folder not in COPIES:  # else loaded again, by a host that does not say when it unloads scripts
        COPIES.append(folder)
    if len(COPIES) == 1:
        return True
    log.error("VAE Lab is installed twice, in %s. Only the first one is used: remove one.", " and in ".join(COPIES))
    return False


def _nothing() -> None:
    pass


class _Shown:
    """The tab, and the routes that it needs."""

    def __init__(self, host: Host, pages: Pages, checkpoint_changed: Callable[[], None]) -> None:
        self._host = host
        self._pages = pages
        self._checkpoint_changed = checkpoint_changed

    def tabs(self) -> list[tuple[Any, str, str]]:
        with guarded("building the tab"):
            return self._tabs()
        self._host = _files_only()
        return self._tabs()

    def _tabs(self) -> list[tuple[Any, str, str]]:
        return [(self._pages.build_tab(self._host), "VAE Lab", "vae_lab")]

    def app_started(self, _: Any, app: Any) -> None:
        add_routes(app, self._host, _api_users(), _allowed_origins())
        log.info("VAE Lab: %s", "; ".join(f"{name}: {value}" for name, value in self._host.about().items()))
        self._checkpoint_changed()  # it may have been loaded before us


def _api_users() -> dict[str, str]:
    """The users of ``--api-auth``, as in ``modules/api/api.py``."""
    named = part("shared.cmd_opts.api_auth")
    return dict(pair.split(":", 1) for pair in (named or "").split(",") if pair)


def _allowed_origins() -> AllowedOrigins:
    """Those of ``--cors-allow-origins`` and ``--cors-allow-origins-regex``, as in ``modules/initialize_util.py``."""
    named, pattern = part("shared.cmd_opts.cors_allow_origins"), part("shared.cmd_opts.cors_allow_origins_regex")
    return AllowedOrigins(tuple(name.strip() for name in (named or "").split(",") if name.strip()), pattern or "")
