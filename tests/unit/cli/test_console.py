"""Terminal output of the command line."""

from __future__ import annotations

import io
import sys

import pytest

from vae_lab.cli.console import printable, progress_bar, say


class Terminal(io.StringIO):
    """A stderr that shows progress bars."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("model.pt", "model.pt"),
        ("猫.pt", "猫.pt"),
        ("\x1b[2J.pt", "\\x1b[2J.pt"),
        ("a\rb", "a\\rb"),
        ("\udc80", "\\udc80"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_lines_stay_lines() -> None:
    out = io.StringIO()
    say("one\n  two\x07", out)
    assert out.getvalue() == "one\n  two\\x07\n"


def test_what_the_terminal_cannot_encode_is_escaped() -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", newline="\n")
    say("猫 · ok", out)
    out.seek(0)
    assert out.read() == "\\u732b \\xb7 ok\n"


def test_progress_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_bar("decoding", "image") as progress:
        progress(0, 2, "a\x1b.pt")
        progress(2, 2, "done")
    shown = terminal.getvalue()
    assert "decoding: 100%" in shown
    assert "2/2" in shown
    assert "\x1b" not in shown.replace("\x1b[A", "")


def test_no_progress_bar_outside_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("decoding", "image") as progress:
        progress(1, 2, "a.pt")
    assert capsys.readouterr().err == ""
