"""The scripts and the style sheet, as files."""

from __future__ import annotations

import mimetypes
from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

__all__ = ["add_scripts", "folder", "script_url", "style_sheet"]

_PATH = "/vae-lab/scripts"
_ENTRY = "vae_lab.mjs"
_TRANSLATIONS = "/vae-lab/localizations"  # next to the scripts, as in a checkout


def folder() -> Path:
    """The folder that has ``javascript/`` and ``style.css``.

    In an installed package, a subfolder; in a checkout, which the WebUI loads, the root.
    """
    packaged = Path(__file__).parent / "assets"
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[2]


def style_sheet() -> str:
    """The style sheet's text."""
    return (folder() / "style.css").read_text(encoding="utf8")


def add_scripts(app: FastAPI) -> None:
    """Serve the scripts (see :func:`script_url`), as the ``file=`` route does in a WebUI, and the translations."""
    mimetypes.add_type("text/javascript", ".mjs")  # browsers run no module of another type; Windows may not know it
    app.mount(_PATH, StaticFiles(directory=folder() / "javascript"))
    app.mount(_TRANSLATIONS, StaticFiles(directory=folder() / "localizations"))


def script_url() -> str:
    """URL of the module that loads all others, relative to the page.

    As in a WebUI, it contains the modification time, so that browsers never use an old copy.
    """
    return f"{_PATH.lstrip('/')}/{_ENTRY}?{(folder() / 'javascript' / _ENTRY).stat().st_mtime}"
