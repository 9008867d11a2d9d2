"""The browser of the tests."""

from __future__ import annotations

import os
import shutil


def find_chromium() -> str | None:
    """A headless Chromium: the one that ``VAE_LAB_CHROMIUM`` names, else Debian's or Google's; None if there is none.

    The headless shell needs half the processor time of the whole browser.
    """
    named = os.environ.get("VAE_LAB_CHROMIUM")
    names = ("chromium-headless-shell", "chromium", "google-chrome")
    return named or next((path for path in map(shutil.which, names) if path), None)
