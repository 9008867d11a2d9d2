from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from vae_lab.memory import free_memory

MACHINE = 1000


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=MACHINE))


def groups(folder: Path, files: dict[str, str], own: str) -> int:
    """What is free with the control groups of ``files`` and in those that ``own`` names."""
    for name, text in files.items():
        (folder / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "groups" / name).write_text(f"{text}\n")
    (folder / "own").write_text(own)
    return free_memory(folder / "own", folder / "groups")


def limited(folder: str, limit: str, used: int, cached: int) -> dict[str, str]:
    return {
        f"{folder}memory.max": limit,
        f"{folder}memory.current": str(used),
        f"{folder}memory.stat": f"anon 5\ninactive_file {cached}\nactive_file 3",
    }


def test_of_a_container(tmp_path: Path) -> None:
    assert groups(tmp_path, limited("", "700", 400, 50), "0::/\n") == 350


def test_of_a_container_that_is_given_a_path_it_cannot_see(tmp_path: Path) -> None:
    assert groups(tmp_path, limited("", "700", 400, 50), "0::/docker/abc\n") == 350


def test_the_tightest_of_nested_groups_counts(tmp_path: Path) -> None:
    files = limited("user/", "500", 400, 0) | limited("user/app/", "max", 300, 0)
    assert groups(tmp_path, files, "0::/user/app\n") == 100


def test_of_the_first_version(tmp_path: Path) -> None:
    files = {
        "memory/box/memory.limit_in_bytes": "700",
        "memory/box/memory.usage_in_bytes": "500",
        "memory/box/memory.stat": "inactive_file 1\ntotal_inactive_file 20",
    }
    assert groups(tmp_path, files, "4:cpu,cpuacct:/box\n3:memory:/box\n0::/\n") == 220


@pytest.mark.parametrize(
    "files",
    [{}, limited("", "max", 400, 0), limited("", "9000", 400, 0), {"memory.max": "700"}],
    ids=["none", "no limit", "more than the machine", "half of it missing"],
)
def test_of_the_machine(tmp_path: Path, files: dict[str, str]) -> None:
    assert groups(tmp_path, files, "0::/\n") == MACHINE


def test_where_there_are_no_groups(tmp_path: Path) -> None:
    assert free_memory(tmp_path / "none", tmp_path / "none") == MACHINE


def test_nothing_is_left(tmp_path: Path) -> None:
    assert groups(tmp_path, limited("", "300", 400, 50), "0::/\n") == 0
