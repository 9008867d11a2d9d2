"""How much more of the system's memory this process can use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

__all__ = ["SHARE", "free_memory"]

SHARE = 0.8
"""The share of free memory that a task may use."""

_OWN = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


def free_memory(own: Path = _OWN, groups: Path = _GROUPS) -> int:
    """Free bytes of the machine, or of the container's own limit if that is less.

    A process that exceeds its container's limit is killed, even if the machine has free memory.

    Args:
        own: Linux' list of this process's control groups.
        groups: where Linux mounts the control groups.
    """
    return min([psutil.virtual_memory().available, *_remaining(own, groups)])


def _remaining(own: Path, groups: Path) -> Iterator[int]:
    """The remaining bytes of each control group (v1 or v2) of this process that has a limit."""
    try:
        lines = own.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root = groups / controllers
        names = ("memory.max", "memory.current", "inactive_file")
        if controllers:
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        # A container may see its own group as the root, whatever path is listed.
        group = root / path.strip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(root) and (remaining := _remaining_in(folder, *names)) is not None:
                yield remaining


def _remaining_in(folder: Path, limit: str, used: str, cached: str) -> int | None:
    try:
        maximum, current = (folder / limit).read_text().strip(), int((folder / used).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    # Unused file cache counts as used until its memory is needed.
    return None if maximum == "max" else max(int(maximum) - current + int(stat.get(cached, 0)), 0)
