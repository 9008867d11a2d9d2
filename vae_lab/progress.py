"""The callback type with which long operations report progress."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Progress"]

Progress = Callable[[int, int, str], None]
"""Called with the steps done, the total, and what comes next."""
