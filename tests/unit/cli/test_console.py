"""Terminal output of the command line."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.unit.conftest import ROOT
from tests.unit.makers import F2, F8, kl_state, write, write_zip
from vae_lab.cli import main
from vae_lab.cli.console import print_json, printable, progress_bar, say
from vae_lab.text import as_json


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


def test_one_line_stays_one() -> None:
    out = io.StringIO()
    say("one\n  two\x07", out)
    assert out.getvalue() == "one\\n  two\\x07\n"


@pytest.mark.skipif(os.name == "nt", reason="no such names there")
@pytest.mark.parametrize("command", ["inspect", "scan", "extract", "decode"])
def test_names_add_no_lines(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forged = tmp_path / "x\nmodel.ckpt: healthy\x1b[2J.pt"
    write_zip(forged, kl_state(F2) | {"a\nb": torch.zeros(1)})
    options = {
        "inspect": ["--no-probe"],
        "scan": ["--no-probe", "--cache", str(tmp_path / "cache")],
        "extract": ["-o", str(tmp_path / "y\nmodel.ckpt: healthy.safetensors")],
        "decode": ["--vae", str(forged), "-o", str(tmp_path / "out")],
    }
    main([command, str(forged), *options[command]])
    captured = capsys.readouterr()
    assert captured.out + captured.err
    for line in (captured.out + captured.err).splitlines():
        assert line.isprintable()
        assert not line.startswith("model.ckpt")


@pytest.mark.parametrize("extra", ["__metadata__", "first_stage_model.odd"])
def test_unusual_tensors_are_no_tracebacks(extra: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a type that safetensors does not have, or with a name that has another meaning there."""
    state = kl_state(F2) | {extra: torch.full((2,), float("inf"), dtype=torch.complex128)}
    wrong = {name: value.to(torch.complex128) for name, value in kl_state(F2).items()}
    for content in (state, wrong):
        path = write_zip(tmp_path / "x.pt", content)
        for arguments in (
            ["inspect", "--json", str(path)],
            ["extract", str(path), "-o", str(tmp_path / "y.safetensors")],
        ):
            assert main(arguments) in (0, 1, 2, 3)
            captured = capsys.readouterr()
            assert len((captured.out + captured.err).splitlines()) == 1
            assert "Infinity" not in captured.out
        (tmp_path / "y.safetensors").unlink(missing_ok=True)


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


BLOCKS = "█▉▊▋▌▍▎▏"


@pytest.mark.parametrize("encoding", ["cp932", "cp1252", "cp437", "ascii", "utf8"])
def test_progress_bar_has_blocks_only_where_the_console_shows_them(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Console(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    console = Console(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stderr", console)
    with progress_bar("decoding", "image") as progress:
        progress(2, 2, "a.pt")
    console.seek(0)
    shown = console.read()
    assert "2/2" in shown
    assert any(block in shown for block in BLOCKS) is (encoding == "utf8")


def test_json_is_ascii_and_has_no_nan() -> None:
    plain = {"path": "猫\udcff.pt", "values": [float("nan"), (float("inf"), 1.5)], "none": None}
    line = as_json(plain)
    assert line.isascii()
    assert json.loads(line) == {"path": "猫\udcff.pt", "values": [None, [None, 1.5]], "none": None}


class Full(io.StringIO):
    """On a full disk."""

    tried = ""

    def write(self, text: str) -> int:
        self.tried += text
        raise OSError(28, "No space left on device")


def test_what_cannot_be_printed_changes_nothing() -> None:
    out = Full()
    say("done", out)
    assert out.tried == "done", "the work itself is done, so this is no error"


def test_json_that_cannot_be_printed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(OSError, match="No space"):
        print_json("{}")


@pytest.fixture(scope="module")
def odd_vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VAE whose name has letters that few consoles have, and a byte that is not UTF-8 where the system allows it."""
    folder = tmp_path_factory.mktemp("odd")
    path = write(folder / "plain.safetensors", kl_state(F8, 0))
    try:
        return path.rename(folder / "é 猫 \udcff.safetensors")
    except OSError:
        return path.rename(folder / "é 猫.safetensors")


@pytest.fixture
def small_latents(tmp_path: Path) -> Path:
    path = tmp_path / "latents.safetensors"
    save_file({"latents": torch.zeros(1, 4, 4, 4)}, path, {"family": "sd1"})
    return path


def console(monkeypatch: pytest.MonkeyPatch, encoding: str) -> io.BytesIO:
    """Replace stdout by one of this encoding."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, write_through=True))
    return raw


@pytest.mark.parametrize("encoding", ["cp932", "cp1252", "gbk", "utf8"])
def test_inspect_on_any_console(odd_vae: Path, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = console(monkeypatch, encoding)
    assert main(["inspect", "--no-probe", str(odd_vae)]) == 0
    shown = raw.getvalue().decode(encoding)
    facts = shown.splitlines()[1]
    assert facts.isascii()
    assert "\\" not in facts, "nothing of ours needs an escape"


@pytest.mark.parametrize("encoding", ["cp932", "utf8"])
def test_json_lines_are_utf8_on_any_console(
    odd_vae: Path, encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = console(monkeypatch, encoding)
    assert main(["inspect", "--no-probe", "--json", str(odd_vae)]) == 0
    assert json.loads(raw.getvalue().decode("utf8"))["path"] == str(odd_vae)
    for target in ("-", str(tmp_path / "out.jsonl")):
        raw = console(monkeypatch, encoding)
        assert main(["scan", "--no-probe", "--cache", str(tmp_path), "--jsonl", target, str(odd_vae.parent)]) == 0
        written = raw.getvalue() if target == "-" else Path(target).read_bytes()
        assert json.loads(written.decode("utf8").splitlines()[0])["path"] == str(odd_vae)


def test_a_comparison_with_a_vae_of_an_odd_name(odd_vae: Path, tmp_path: Path, small_latents: Path) -> None:
    assert main(["decode", str(small_latents), "--vae", str(odd_vae), "-o", str(tmp_path / "out")]) == 0
    record = json.loads((tmp_path / "out" / "comparison.json").read_bytes().decode("utf8"))
    assert [row["name"] for row in record["results"]] == [odd_vae.name]


# One process imports torch, which takes seconds, and forks for each way; each child ends as ``python -m vae_lab`` does.
UNPRINTED = """
import os, runpy, sys
import vae_lab.cli

def full_disk():
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)

def closed_pipe():
    read, write = os.pipe()
    os.dup2(write, 1)
    os.close(write)
    os.close(read)

def no_handle():
    os.close(1)
    sys.stdout = sys.__stdout__ = None  # as Python has them then

codes = []
for way in (full_disk, closed_pipe, no_handle):
    child = os.fork()
    if not child:
        way()
        sys.argv = ["vae_lab", "extract", sys.argv[1], "-o", f"{way.__name__}.safetensors"]
        runpy.run_module("vae_lab", run_name="__main__", alter_sys=True)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(*codes)
"""


@pytest.mark.skipif(os.name == "nt", reason="no pipe that is closed, and no /dev/full")
def test_exit_code_does_not_depend_on_printing(odd_vae: Path, tmp_path: Path) -> None:
    """In processes of their own: what Python itself does when it exits counts too."""
    settings = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", UNPRINTED, str(odd_vae)]
    done = subprocess.run(command, env=settings, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.stdout == "0 0 0\n", done.stderr
    copies = sorted(path.name for path in tmp_path.iterdir())
    assert copies == ["closed_pipe.safetensors", "full_disk.safetensors", "no_handle.safetensors"]
