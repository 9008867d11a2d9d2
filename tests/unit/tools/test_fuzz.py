"""The fuzzer tells good outcomes from bad ones, and its canary works."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tools.fuzz import Run, Target, Watch, check_canary, table, targets
from vae_lab.errors import MalformedFile


def run(target: Target, folder: Path) -> Run:
    """A run without any time: intact inputs only."""
    done = Run([target], Watch(folder), folder / "findings")
    done.until(0.0, random.Random(0))
    return done


def test_intact_files_are_read_and_nothing_is_executed(tmp_path: Path) -> None:
    for target in targets(tmp_path):
        done = run(target, tmp_path)
        assert not done.crashes
        assert target.inputs == len(target.corpus)
        assert target.read > 0
        assert target.refused >= (4 if "torch" in target.name else 0), "calls in a pickle"
    assert not (tmp_path / "canary").exists()


def test_the_canary_works(tmp_path: Path) -> None:
    """Else its absence would prove nothing."""
    check_canary(tmp_path)


@pytest.mark.parametrize(
    ("error", "problem"),
    [(KeyError("x"), "KeyError: 'x'"), (MalformedFile("f", "one\ntwo"), "an error of several lines")],
)
def test_a_bad_outcome_is_saved_once(error: Exception, problem: str, tmp_path: Path) -> None:
    def parse(data: bytes) -> None:
        raise error

    done = run(Target("t", parse, [b"one", b"two"]), tmp_path)
    assert [problem in line for line in done.crashes.values()] == [True]
    assert [file.read_bytes() for file in (tmp_path / "findings").iterdir()] == [b"one"]
    assert table(done.targets).splitlines()[-1].startswith("| **all** | 2 |")


@pytest.mark.parametrize(
    ("event", "arguments"),
    [
        ("os.system", (b"true",)),
        ("pickle.find_class", ("os", "system")),
        ("import", ("posix", None, None, None, None)),
        ("open", ("/elsewhere", "w", os.O_WRONLY)),
    ],
)
def test_what_no_parser_has_to_do_is_reported(event: str, arguments: tuple[object, ...], tmp_path: Path) -> None:
    watch = Watch(tmp_path)
    watch(event, arguments)
    assert not watch.seen, "nothing is parsed"
    watch.active = True
    watch("open", (str(tmp_path / "own"), "w", os.O_WRONLY))
    watch("open", ("/elsewhere", "r", os.O_RDONLY))
    assert not watch.seen
    watch(event, arguments)
    assert len(watch.seen) == 1
