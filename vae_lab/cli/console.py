"""Output to a terminal: lines, and one progress bar for every command."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import TextIO

from tqdm import tqdm

from vae_lab.progress import Progress

__all__ = ["print_json", "printable", "progress_bar", "say", "set_up_console"]


def set_up_console() -> None:
    """Make stdout and stderr escape what their encoding lacks; without one (a closed handle), drop what is written."""
    sys.stdout, sys.stderr = map(_safe, (sys.stdout, sys.stderr))


def _safe(stream: TextIO | None) -> TextIO:
    if stream is None:
        return open(os.devnull, "w", encoding="utf8")  # open for the rest of the process
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return stream


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
    """Write a line, above the progress bar, to ``out`` or stdout; what its encoding lacks is escaped.

    So are line breaks: a file's name can have them, and could otherwise add lines that look like ours. If it cannot be
    written (a full disk, a closed pipe), nothing happens: the work itself is done.
    """
    stream: TextIO = sys.stdout if out is None else out
    encoding = stream.encoding or "utf8"
    with suppress(OSError):
        _write(printable(text).encode(encoding, "backslashreplace").decode(encoding), stream)


def print_json(line: str) -> None:
    """Write a line of JSON, in ASCII, to stdout.

    Raises:
        OSError: it cannot be written; the caller of the program must not take what it got for all.
    """
    _write(line, sys.stdout)


def _write(lines: str, stream: TextIO) -> None:
    try:
        tqdm.write(lines, file=stream)
        stream.flush()
    except OSError:
        # Python would write the rest of the buffer when it exits, fail again, and change the exit code.
        with suppress(OSError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
        raise


def printable(text: str) -> str:
    """``text`` with control characters escaped: a file's name may contain terminal commands."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
