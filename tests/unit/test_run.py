"""``run.py test --gradio 4`` runs every test file that can differ there; ``run.py host`` runs what it is asked to."""

from __future__ import annotations

import ast
import os
import runpy
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SELECTION = runpy.run_path(str(ROOT / "run.py"))["GRADIO_4_TESTS"]
PINNED = {"gradio", "fastapi", "pydantic", "starlette", "uvicorn"}
"""Packages whose versions differ between the two hosts. httpx too, but only ``formats`` uses it, and its tests are
selected by name."""


@cache
def imports(file: Path, *, lazy: bool) -> tuple[str, ...]:
    """Names of the modules that a file imports, and of what it imports from them; ``lazy``: inside functions too."""
    return tuple(_imports(file, lazy))


def _imports(file: Path, lazy: bool) -> Iterator[str]:
    tree = ast.parse(file.read_text(encoding="utf8"))
    for node in ast.walk(tree) if lazy else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def depends(modules: Iterable[str]) -> bool:
    """Whether importing modules, of ours or not, imports one of the pinned packages, whoever imports it."""
    waiting, seen = list(modules), set()
    while waiting:
        module = waiting.pop()
        if module.partition(".")[0] in PINNED:
            return True
        path = ROOT / Path(*module.split("."))
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if module.startswith("vae_lab.") and file not in seen and file.exists():
                seen.add(file)
                waiting += imports(file, lazy=False)
    return False


@cache
def dependent_tests() -> list[str]:
    files = [
        file for folder in ("unit", "contract", "property") for file in (ROOT / "tests" / folder).rglob("test_*.py")
    ]
    found = [file for file in files if depends(imports(file, lazy=True))]
    return sorted(file.relative_to(ROOT).as_posix() for file in found)


@pytest.mark.parametrize("file", dependent_tests())
def test_what_depends_on_the_hosts_versions_is_selected(file: str) -> None:
    assert any(file == chosen or file.startswith(f"{chosen}/") for chosen in SELECTION)


def test_the_selection_exists_and_the_scan_finds_files() -> None:
    assert all((ROOT / path).exists() for path in SELECTION)
    assert {"tests/unit/api/test_routes.py", "tests/unit/ui/test_pieces.py"} <= set(dependent_tests())
    assert not depends(["vae_lab.formats.dtypes"])
    assert depends(["vae_lab.api.routes"])


@pytest.mark.skipif(os.name == "nt", reason="the WebUI's Python is a shell script here")
@pytest.mark.parametrize(
    ("asked", "run"),
    [
        ([], "tests/host -W ignore"),
        (["-k", "choice"], "tests/host -W ignore"),
        (["tests/host/test_choice.py", "-v"], "-W ignore"),
        (["tests/host/test_choice.py::test_always"], "-W ignore"),
    ],
)
def test_host_tests_are_all_of_them_or_those_that_are_named(tmp_path: Path, asked: list[str], run: str) -> None:
    log, python = tmp_path / "log", tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@" >> {log}\n')
    python.chmod(0o755)
    command = [sys.executable, ROOT / "run.py", "host", "--webui-dir", tmp_path, "--webui-python", python, "--", *asked]
    subprocess.run(command, check=True)
    calls = [line for line in log.read_text().splitlines() if line.startswith("-m pytest")]
    rest = f"{run} --webui-dir={tmp_path}{''.join(f' {part}' for part in asked)} --webui-flags="
    assert calls == [f"-m pytest {rest}", f"-m pytest {rest}--medvram"]
