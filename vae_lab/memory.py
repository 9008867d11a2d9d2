"""How much of the system's memory this process may still take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

__all__ = ["SHARE", "free_memory"]

SHARE = 0.8
"""Of the free memory, what a task may take: the rest is for whatever else goes on."""

_OWN = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


def free_memory(own: Path = _OWN, groups: Path = _GROUPS) -> int:
    """Bytes that are free: of the machine's, or in a container with a limit of its own, of that if it is less.

    Beyond its limit a process of a container is killed, however much the machine has.

    Args:
        own: which control groups this process is in, as Linux tells it.
        groups: where Linux shows them.
    """
    return min([psutil.virtual_memory().available, *_left(own, groups)])


def _left(own: Path, groups: Path) -> Iterator[int]:
    """Of each control group around this process that has a limit, what is left of it. Of both versions of them."""
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
        # A container may see its own group as the root of all, whatever path it is told.
        group = root / path.strip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(root) and (left := _left_in(folder, *names)) is not None:
                yield left


def _left_in(folder: Path, limit: str, used: str, cached: str) -> int | None:
    try:
        most, taken = (folder / limit).read_text().strip(), int((folder / used).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    # Pages of files that nobody uses count as taken until somebody needs them.
    return None if most == "max" else max(int(most) - taken + int(stat.get(cached, 0)), 0)
