"""The composition root inside the WebUI: host, pages, script, settings, routes.

Called by ``scripts/vae_lab.py``, which passes the pages, because this module imports no gradio. The WebUI executes that
file again at every "Reload UI", while packages stay loaded; so everything registered here is undone when the scripts
are unloaded.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from functools import lru_cache
from typing import Any, Protocol

from modules import script_callbacks, scripts, shared

from vae_lab.api.routes import add_routes
from vae_lab.host.base import Host
from vae_lab.host.choices import AUTOMATIC, BUILT_IN, ON_GREY
from vae_lab.host.guard import guarded
from vae_lab.host.infotext import HASH_KEY, OVERRIDE_KEY, REDECODED_KEY, drop_host_vae
from vae_lab.messages import translated, use_language
from vae_lab.service.background_checkup import BackgroundCheckup
from vae_lab.webui.a1111 import A1111Host
from vae_lab.webui.capture import Jobs
from vae_lab.webui.forge import ForgeHost, is_forge
from vae_lab.webui.preferences import EXTERNAL_OPTION, KEEP_OPTION, ON_GREY_OPTION, PREFERRED_OPTION
from vae_lab.webui.script import ScriptBehaviour
from vae_lab.webui.xyz_axis import add_axis

__all__ = ["Pages", "load", "the_background_checkup", "the_host"]

_SECTION = ("vae_lab", "VAE Lab")


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


@lru_cache(maxsize=1)
def the_host() -> A1111Host:
    """One for the whole process: stored latents survive "Reload UI"."""
    return ForgeHost() if is_forge() else A1111Host()


@lru_cache(maxsize=1)
def the_background_checkup() -> BackgroundCheckup:
    """One for the whole process: each checkpoint is warned about once."""
    host = the_host()
    return BackgroundCheckup(host, host.check_own_memory)


def load(pages: Pages) -> type:
    """Register everything with the WebUI; returns the script class for the WebUI to find."""
    logging.getLogger("vae_lab").setLevel(logging.INFO)
    undo = ExitStack()
    host = the_host()
    checkup = the_background_checkup()
    behaviour = ScriptBehaviour(host, Jobs(host, undo, checkup.checkpoint_changed))
    script_callbacks.on_script_unloaded(undo.close)
    script_callbacks.on_before_ui(lambda: add_axis(host, undo))
    script_callbacks.on_ui_settings(lambda: _add_settings(host, pages))
    script_callbacks.on_ui_tabs(lambda: [(pages.build_tab(host), "VAE Lab", "vae_lab")])
    script_callbacks.on_app_started(lambda _, app: _app_started(app, host, checkup))
    script_callbacks.on_model_loaded(lambda _: checkup.checkpoint_changed())
    script_callbacks.on_infotext_pasted(lambda _, parameters: drop_host_vae(parameters))
    return _script_class(host, behaviour, pages)


def _app_started(app: Any, host: A1111Host, checkup: BackgroundCheckup) -> None:
    add_routes(app, host, _api_users())
    checkup.checkpoint_changed()  # it may have been loaded before us


def _api_users() -> dict[str, str]:
    """The users of ``--api-auth``, as in ``modules/api/api.py``. With a page, the page's login counts instead."""
    options = shared.cmd_opts
    pairs = options.api_auth.split(",") if options.api_auth and options.nowebui else []
    return dict(pair.split(":") for pair in pairs)


def _add_settings(host: A1111Host, pages: Pages) -> None:
    def choices() -> dict[str, Any]:
        return {"choices": [AUTOMATIC, BUILT_IN, *(entry.name for entry in host.vaes())]}

    external = shared.OptionInfo(
        AUTOMATIC, "External VAE", pages.dropdown, choices, refresh=lambda: host.listing(fresh=True), section=_SECTION
    ).info(
        "used to encode and decode with every checkpoint; Automatic: the WebUI decides; Built-in: the checkpoint's own"
    )
    keep = shared.OptionInfo(
        256,
        "Memory for stored latents (MB)",
        pages.slider,
        {"minimum": 16, "maximum": 4096, "step": 16},
        section=_SECTION,
    ).info("the latents of recent generations, which the VAE Lab tab can decode with any VAE")
    on_grey = shared.OptionInfo(
        "warn", "If an image comes out grey", pages.radio, {"choices": list(ON_GREY)}, section=_SECTION
    ).info(
        "because its VAE is broken. warn: show a warning under it; redecode: decode the same latent again with the "
        "recommended VAE"
    )
    preferred = shared.OptionInfo(
        [],
        "Preferred VAEs",
        pages.several,
        lambda: {"choices": [entry.name for entry in host.vaes()]},
        refresh=lambda: host.listing(fresh=True),
        section=_SECTION,
    ).info("the first healthy one that fits is recommended instead of a broken VAE")
    shared.opts.add_option(EXTERNAL_OPTION, external)
    shared.opts.add_option(ON_GREY_OPTION, on_grey)
    shared.opts.add_option(PREFERRED_OPTION, preferred)
    shared.opts.add_option(KEEP_OPTION, keep)


def _script_class(host: A1111Host, behaviour: ScriptBehaviour, pages: Pages) -> type:
    class VaeLabScript(scripts.Script):
        """The accordion in txt2img and img2img."""

        def title(self) -> str:
            return "VAE Lab"

        def show(self, is_img2img: bool) -> object:  # noqa: ARG002
            return scripts.AlwaysVisible

        def ui(self, is_img2img: bool) -> list[Any]:
            accordion = pages.build_accordion(host, "img2img" if is_img2img else "txt2img")
            self.infotext_fields = _paste_fields(behaviour, accordion)
            self.paste_field_names = [OVERRIDE_KEY, HASH_KEY, REDECODED_KEY]
            return list(accordion.components)

        def process(self, p: Any, *args: Any) -> None:
            behaviour.process(p, args)

    return VaeLabScript


def _paste_fields(behaviour: ScriptBehaviour, accordion: Any) -> list[tuple[Any, Any]]:
    """Components that pasted generation parameters fill, each with a function from the parameters to its value."""

    def pasted(parameters: dict[str, Any]) -> tuple[str, str]:
        with guarded("pasting generation parameters"):
            return behaviour.pasted(parameters)
        return AUTOMATIC, ""

    def reason(parameters: dict[str, Any]) -> str:
        with use_language(behaviour.host.language):
            return translated(pasted(parameters)[1])

    return [
        (accordion.components[0], lambda parameters: pasted(parameters)[0]),
        (accordion.not_here, lambda parameters: accordion.say_not_here(reason(parameters))),
        (accordion.box, lambda parameters: accordion.open_for(reason(parameters))),
    ]
