"""Everything of ours that takes part in the WebUI's generations: the script with its accordion, the settings, the axis.

Imported only where the host has the parts that this needs; see :mod:`vae_lab.webui.parts`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, Protocol

from modules import scripts, shared

from vae_lab.host.base import Host
from vae_lab.host.choices import AUTOMATIC, BUILT_IN, ON_BROKEN, ON_GREY
from vae_lab.host.guard import for_host
from vae_lab.host.infotext import HASH_KEY, OVERRIDE_KEY, REDECODED_KEY, drop_host_vae
from vae_lab.messages import translated, use_language
from vae_lab.webui import parts
from vae_lab.webui.a1111 import A1111Host
from vae_lab.webui.capture import Jobs
from vae_lab.webui.forge import ForgeHost, is_forge
from vae_lab.webui.ldm_patched import LdmPatchedHost
from vae_lab.webui.preferences import (
    EXTERNAL_OPTION,
    KEEP_OPTION,
    ON_BROKEN_OPTION,
    ON_GREY_OPTION,
    PREFERRED_OPTION,
    external_vae,
)
from vae_lab.webui.script import ScriptBehaviour
from vae_lab.webui.wrapped_vae import is_wrapped
from vae_lab.webui.xyz_axis import add_axis

__all__ = ["Components", "adapter", "missing_here", "register"]

_PASTING = "pasting generation parameters"
_SECTION = ("vae_lab", "VAE Lab")


class Components(Protocol):
    """Gradio's components for the settings, and the accordion."""

    dropdown: type
    several: type
    slider: type
    radio: type

    def build_accordion(self, host: Host, tab: str) -> Any:
        """The accordion of ``txt2img`` or ``img2img``; its ``components`` are the script's inputs."""


def missing_here() -> tuple[str, ...]:
    """Parts that the adapter for this kind of host needs, and that are missing."""
    return parts.missing_parts(parts.NEEDED_IN_FORGE if is_forge() else parts.NEEDED_IN_WEBUI)


def adapter() -> A1111Host:
    """The adapter for this kind of host."""
    if is_forge():
        return ForgeHost()
    return LdmPatchedHost() if is_wrapped() else A1111Host()


def register(host: A1111Host, components: Components, undo: ExitStack, checkpoint_changed: Callable[[], None]) -> type:
    """Register script, settings and axis with the WebUI.

    Args:
        host: the adapter.
        components: what the WebUI shows.
        undo: closed when the scripts are unloaded.
        checkpoint_changed: called when another checkpoint may be in use.

    Returns:
        The script class for the WebUI to find.
    """
    behaviour = ScriptBehaviour(host, Jobs(host, undo, checkpoint_changed))
    parts.register("on_before_ui", "adding an axis to the X/Y/Z plot", lambda: add_axis(host, undo))
    parts.register("on_ui_settings", "adding the settings", lambda: _add_settings(host, components))
    parts.register("on_model_loaded", "following the checkpoint", lambda _: checkpoint_changed())
    parts.register("on_infotext_pasted", _PASTING, lambda _, parameters: drop_host_vae(parameters))
    return _script_class(host, behaviour, components)


def _add_settings(host: A1111Host, components: Components) -> None:
    # An error in these would keep the WebUI from building its page. Saved values stay valid.
    @for_host("listing VAEs for the settings", lambda: {"choices": [AUTOMATIC, BUILT_IN, external_vae()]})
    def choices() -> dict[str, Any]:
        return {"choices": [AUTOMATIC, BUILT_IN, *(entry.name for entry in host.vaes())]}

    @for_host("listing VAEs for the settings", lambda: {"choices": []})
    def preferable() -> dict[str, Any]:
        return {"choices": [entry.name for entry in host.vaes()]}

    refresh = for_host("listing files again")(partial(host.listing, fresh=True))
    external = shared.OptionInfo(
        AUTOMATIC, "External VAE", components.dropdown, choices, refresh=refresh, section=_SECTION
    ).info(
        "used to encode and decode with every checkpoint; Automatic: the WebUI decides; Built-in: the checkpoint's own"
    )
    keep = shared.OptionInfo(
        256,
        "Memory for stored latents (MB)",
        components.slider,
        {"minimum": 16, "maximum": 4096, "step": 16},
        section=_SECTION,
    ).info("the latents of recent generations, which the VAE Lab tab can decode with any VAE")
    on_grey = shared.OptionInfo(
        "warn", "If an image comes out grey", components.radio, {"choices": list(ON_GREY)}, section=_SECTION
    ).info(
        "because its VAE is broken. warn: show a warning under it; redecode: decode the same latent again with the "
        "recommended VAE"
    )
    on_broken = shared.OptionInfo(
        "ask", "If the VAE in a checkpoint is broken or missing", components.radio, {"choices": list(ON_BROKEN)},
        section=_SECTION,
    ).info(
        "when you load it. ask: a badge, and a button on the Checkup page; fix: choose the recommended VAE for it, "
        "unless you have chosen one; Undo is on the Library page"
    )  # fmt: skip
    preferred = shared.OptionInfo(
        [], "Preferred VAEs", components.several, preferable, refresh=refresh, section=_SECTION
    ).info("the first healthy one that fits is recommended instead of a broken VAE")
    shared.opts.add_option(EXTERNAL_OPTION, external)
    shared.opts.add_option(ON_GREY_OPTION, on_grey)
    shared.opts.add_option(ON_BROKEN_OPTION, on_broken)
    shared.opts.add_option(PREFERRED_OPTION, preferred)
    shared.opts.add_option(KEEP_OPTION, keep)


def _script_class(host: A1111Host, behaviour: ScriptBehaviour, components: Components) -> type:
    class VaeLabScript(scripts.Script):
        """The accordion in txt2img and img2img."""

        def title(self) -> str:
            return "VAE Lab"

        def show(self, is_img2img: bool) -> object:  # noqa: ARG002
            return scripts.AlwaysVisible

        @for_host("building the accordion", list)
        def ui(self, is_img2img: bool) -> list[Any]:
            accordion = components.build_accordion(host, "img2img" if is_img2img else "txt2img")
            self.infotext_fields = _paste_fields(behaviour, accordion)
            self.paste_field_names = [OVERRIDE_KEY, HASH_KEY, REDECODED_KEY]
            return list(accordion.components)

        @for_host("starting a generation")
        def process(self, p: Any, *args: Any) -> None:
            behaviour.process(p, args)

        @for_host("beginning a batch")
        def process_batch(self, p: Any, *_: Any, **__: Any) -> None:
            behaviour.batch_begins(p)

        @for_host("ending a batch")
        def postprocess_batch(self, p: Any, *_: Any, **__: Any) -> None:
            behaviour.batch_ends(p)

    return VaeLabScript


def _paste_fields(behaviour: ScriptBehaviour, accordion: Any) -> list[tuple[Any, Any]]:
    """Components that pasted generation parameters fill, each with a function from the parameters to its value."""

    def reason(parameters: dict[str, Any]) -> str:
        with use_language(behaviour.host.language):
            return translated(behaviour.pasted(parameters)[1])

    return [
        (
            accordion.components[0],
            for_host(_PASTING, lambda: AUTOMATIC)(lambda parameters: behaviour.pasted(parameters)[0]),
        ),
        (
            accordion.not_here,
            for_host(_PASTING, accordion.leave)(lambda parameters: accordion.say_not_here(reason(parameters))),
        ),
        (
            accordion.box,
            for_host(_PASTING, accordion.leave)(lambda parameters: accordion.open_for(reason(parameters))),
        ),
    ]
