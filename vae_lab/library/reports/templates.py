"""The templates of reports: everything from files is escaped."""

from __future__ import annotations

import base64
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from vae_lab.checkup import DECODED, ROUND_TRIP
from vae_lab.identity import short
from vae_lab.text import as_text, sized

__all__ = ["WAYS", "template"]

WAYS = ((DECODED, "Decoded from reference latents"), (ROUND_TRIP, "Encoded and decoded"))
"""Name of each chart of a VAE, and what it shows."""


@cache
def template(name: str) -> Template:
    """A template next to this module."""
    environment = Environment(
        loader=PackageLoader("vae_lab.library", "reports"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=_as_text,
    )
    environment.filters |= {"png": _address, "short": short, "sized": sized}
    return environment.get_template(name)


def _as_text(value: Any) -> Any:
    """Escape characters of a file's name that UTF-8 cannot encode."""
    if value is None:
        return ""
    return as_text(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _address(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
