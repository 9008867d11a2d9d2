"""How names and numbers from untrusted files are put into one-line messages."""

from __future__ import annotations

__all__ = ["as_text", "one_line", "quoted", "sized"]


def as_text(name: str) -> str:
    """A name that holds bytes which are no text, as Linux knows such, in a form that every page and file can hold."""
    return name.encode("utf8", "backslashreplace").decode("utf8")


def quoted(name: object, limit: int = 80) -> str:
    """Return a printable, quoted form of a string, at most about ``limit`` characters long."""
    text = str(name)
    if len(text) > limit:
        text = f"{text[: limit // 2]}...{text[-limit // 2 :]}"
    return ascii(text) if not text.isprintable() else repr(text)


def one_line(text: object, limit: int = 200) -> str:
    """Return the text of an error from a library in one line of bounded length."""
    line = " ".join(str(text).split())
    return line if len(line) <= limit else f"{line[:limit]}..."


def sized(count: int) -> str:
    """Return a number of bytes for people: ``'1.5 MB'``."""
    value = float(count)
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
