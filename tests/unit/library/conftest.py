"""What the tests of scans start from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from vae_lab.library import FileCache


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[FileCache]:
    """An empty cache."""
    cache = FileCache(tmp_path / "cache")
    yield cache
    cache.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder to scan."""
    folder = tmp_path / "models"
    folder.mkdir()
    return folder
