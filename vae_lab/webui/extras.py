"""The postprocessing script *VAE round trip*: an image of the Extras tab through a VAE.

The WebUI applies it to single images, batches and folders, and after txt2img and img2img if its own settings say so
(*Enable postprocessing operations in txt2img and img2img tabs*). It holds its queue meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modules import shared

from vae_lab.host.choices import AUTOMATIC, BUILT_IN
from vae_lab.host.guard import for_host, guarded
from vae_lab.host.reencode import chosen_vaes, reencoded
from vae_lab.identity import short
from vae_lab.webui.a1111 import A1111Host
from vae_lab.webui.parts import part

__all__ = ["DECODE_KEY", "ENCODE_KEY", "NAME", "NOT_DONE_KEY", "script_class"]

NAME = "VAE round trip"
ENCODE_KEY = f"{NAME} encode"
DECODE_KEY = f"{NAME} decode"
NOT_DONE_KEY = f"{NAME} not done"
"""Key in the infotext for the reason why an image is unchanged. Extras shows nothing else of what scripts say."""

_AFTER_UPSCALERS = 3000  # face restoration has 2000, upscaling 1000


def script_class(host: A1111Host, build: Callable[..., dict[str, Any]]) -> type | None:
    """The script class for the WebUI to find; None in one without postprocessing scripts.

    Args:
        host: the adapter.
        build: makes the script's components from the host and the WebUI's own kind of accordion; returns them by the
            names ``enabled``, ``encode`` and ``decode``.
    """
    ScriptPostprocessing = part("scripts_postprocessing.ScriptPostprocessing")  # noqa: N806  a class
    if ScriptPostprocessing is None:
        return None

    class VaeRoundTrip(ScriptPostprocessing):
        """The accordion in the Extras tab."""

        name = NAME
        order = _AFTER_UPSCALERS

        # The WebUI's page fails without a dictionary.
        @for_host("building the accordion of the Extras tab", dict)
        def ui(self) -> dict[str, Any]:
            return build(host, part("ui_components.InputAccordion"))

        @for_host("the round trip of an image")
        def process(self, pp: Any, **values: Any) -> None:
            # Nothing is set by the WebUI's API for Extras, and by pages without our accordion.
            if values.get("enabled"):
                _process(host, pp, values.get("encode") or AUTOMATIC, values.get("decode") or AUTOMATIC)

    return VaeRoundTrip


def _process(host: A1111Host, pp: Any, encode: str, decode: str) -> None:
    """After an error of any kind the image is unchanged, and its infotext says why."""

    def not_done(line: str) -> None:
        pp.info[NOT_DONE_KEY] = line

    with guarded("the round trip of an image", not_done):
        encoder, decoder = chosen_vaes(host, encode, decode)
        image = reencoded(host, pp.image, encoder, decoder, _interrupted)
        facts = {ENCODE_KEY: _named(host, encoder), DECODE_KEY: _named(host, decoder)}
        pp.image = image
        pp.info |= facts


def _interrupted() -> bool:
    state = shared.state
    return bool(state.interrupted or state.skipped or getattr(state, "stopping_generation", False))


def _named(host: A1111Host, vae: str) -> str:
    """The name and the short fingerprint of a VAE that has been loaded."""
    name = f"{BUILT_IN} of {host.current_checkpoint()}" if vae == BUILT_IN else vae
    record = host.file_cache.known(str(host.file_of(vae)))
    return f"{name} ({short(record.fingerprint)})" if record is not None else name
