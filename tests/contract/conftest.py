"""Configuration of the contract suite."""

from __future__ import annotations

import pytest
import torch

from tests.once import each_checkup_once


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Networks this small are done long before a second thread has woken up, the more so on a busy machine."""
    torch.set_num_threads(1)
