"""``vae-lab download``, with a publisher that stands in for the published one."""

from __future__ import annotations

import argparse
import os
import re
import signal
import threading
from pathlib import Path

import pytest

from tests.publisher import Publisher, Request, refuses
from vae_lab.cli import main
from vae_lab.cli.download import add_download
from vae_lab.errors import HostError
from vae_lab.identity import published_vaes


def run(publisher: Publisher, *arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_download(parser.add_subparsers(), [publisher.publishes()])
    args = parser.parse_args(["download", *arguments])
    return args.function(args)


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["download"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(published_vaes()) == 2
    for line, each in zip(lines, published_vaes(), strict=True):
        assert line.startswith(f"{each.name}: ")
        for fact in (f"{each.size:,} bytes", each.sha256, each.address):
            assert fact in line


def test_a_download(publisher: Publisher, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(publisher, "published", "--out", str(tmp_path)) == 0
    said = capsys.readouterr()
    assert said.out == f"{tmp_path / 'published.safetensors'}\n"
    assert said.err == "Healthy, SHA-256 as published\n"
    assert [path.name for path in tmp_path.iterdir()] == ["published.safetensors"]
    assert (tmp_path / "published.safetensors").read_bytes() == publisher.content


def test_a_failure_says_how_to_get_it_by_hand(
    publisher: Publisher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publisher.faults = [refuses(404)]
    assert run(publisher, "published", "--out", str(tmp_path)) == 2
    published = publisher.publishes()
    target = tmp_path / "published.safetensors"
    assert capsys.readouterr().err == (
        f"{published.address}: there is no such file on the server (404)\n"
        f"To get it by hand: save {published.address} as {target} "
        f"({published.size:,} bytes, SHA-256 {published.sha256}).\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_refusals(publisher: Publisher, tmp_path: Path) -> None:
    for arguments, said in (
        (("other", "--out", str(tmp_path)), "no published VAE named other can be downloaded: published"),
        (("published",), "give the folder for the file with --out FOLDER"),
        (("published", "--out", str(tmp_path / "nowhere")), "is not a folder. Create it first."),
    ):
        with pytest.raises(HostError, match=said):
            run(publisher, *arguments)
    assert not publisher.asked
    assert main(["download", "other"]) == 2


@pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise there")
def test_interrupted_and_run_again(publisher: Publisher, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupts(request: Request) -> None:
        request.send_range(400_000)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    publisher.faults = [Request.send_range, interrupts]
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored if a shell runs tests in background
    try:
        assert run(publisher, "published", "--out", str(tmp_path)) == 130
    finally:
        signal.signal(signal.SIGINT, handler)
    said = capsys.readouterr().err
    assert re.fullmatch(r"Interrupted; [\d.]+ (kB|bytes) are stored. Run the same command to resume.\n", said)
    assert run(publisher, "published", "--out", str(tmp_path)) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["published.safetensors"]
