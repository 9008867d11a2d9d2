"""HTML from the templates next to this module: untrusted text is escaped, our texts are translated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from vae_lab.checkup import Evidence
from vae_lab.messages import text, translated
from vae_lab.text import as_text, shortened, sized

__all__ = ["ENVIRONMENT", "breakable", "render"]


def render(template: str, macro: str, *values: Any, **named: Any) -> str:
    """Render a macro of ``templates/<template>.html``."""
    return str(getattr(ENVIRONMENT.get_template(f"{template}.html").module, macro)(*values, **named))


def breakable(name: object) -> Markup:
    """A file name with line break opportunities; never truncated."""
    html = str(escape(name))
    for sign in "/_-.":
        html = html.replace(sign, f"{sign}<wbr>")
    return Markup(html)  # noqa: S704  escaped above


def _thousands(count: int) -> str:
    return f"{count:,}"


def _translated_html(template: str, **values: object) -> str:
    return text(template, escape=escape, **values)


def _evidence(evidence: Evidence) -> str:
    """One measurement of a finding, in the user's language."""
    return str(replace(evidence, name=translated(evidence.name), wanted=translated(evidence.wanted)))


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["t"] = _translated_html
    environment.filters |= {
        "breakable": breakable, "evidence": _evidence, "printable": as_text, "shortened": shortened, "sized": sized,
        "thousands": _thousands, "translated": translated,
    }  # fmt: skip
    return environment


ENVIRONMENT = _environment()
