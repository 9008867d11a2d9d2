"""Writes what a tool has measured into a page of the documentation."""

from __future__ import annotations

import sys
from pathlib import Path


def write_between(page: Path | None, begin: str, end: str, text: str) -> None:
    """Replace what stands between two marks of ``page``; without a page, print it."""
    if page is None:
        sys.stdout.write(text)
        return
    head, _, rest = page.read_text(encoding="utf8").partition(begin)
    page.write_text(f"{head}{begin}\n\n{text}\n{end}{rest.partition(end)[2]}", encoding="utf8")
