"""Configuration of all unit tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.once import each_checkup_once
from tests.publisher import publisher

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Networks this small are done long before a second thread has woken up, the more so on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Random numbers are the same in every run, whichever tests run."""
    torch.manual_seed(0)


def start_cli(*arguments: str | Path, folder: Path) -> subprocess.Popen[str]:
    """Start ``python -m vae_lab`` as a user would, elsewhere than in the project's folder; any warning is an error."""
    settings = {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "PYTHONIOENCODING": "utf8", "OMP_NUM_THREADS": "1"}
    # glibc gives the memory of every layer back to the system, and asks for it again with the next.
    settings |= {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**30)}
    return subprocess.Popen(
        [sys.executable, "-m", "vae_lab", *map(str, arguments)],
        cwd=folder,
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf8",
    )
