"""Output to a terminal: lines, and one progress bar for every command."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from tqdm import tqdm

from vae_lab.progress import Progress

__all__ = ["printable", "progress_bar", "say"]


@contextmanager
def progress_bar(description: str, unit: str, *, scale: bool = False, hidden: bool = False) -> Iterator[Progress]:
    """A progress bar on stderr, as the callback that long operations report to.

    Args:
        description: what is being done, such as "decoding".
        unit: what is counted, such as "image".
        scale: abbreviate large counts, as for bytes.
        hidden: show no bar. It is never shown if stderr is not a terminal.
    """
    hidden = hidden or not sys.stderr.isatty()
    with tqdm(desc=printable(description), unit=unit, unit_scale=scale, disable=hidden) as bar:

        def report(done: int, total: int, what: str) -> None:
            bar.total = total
            bar.set_postfix_str(printable(what), refresh=False)
            bar.update(done - bar.n)

        yield report


def say(text: str, out: TextIO | None = None) -> None:
    """Write lines, above the progress bar, to ``out`` or stdout; what its encoding lacks is escaped."""
    stream: TextIO = sys.stdout if out is None else out
    encoding = stream.encoding or "utf8"
    lines = "\n".join(printable(line) for line in text.split("\n"))
    tqdm.write(lines.encode(encoding, "backslashreplace").decode(encoding), file=stream)
    stream.flush()


def printable(text: str) -> str:
    """``text`` with control characters escaped: a file's name may contain terminal commands."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
