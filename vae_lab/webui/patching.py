"""Change the host, and undo every change."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

__all__ = ["patch"]


def patch(owner: Any, name: str, around: Callable[..., Any], undo: ExitStack) -> Callable[[], bool]:
    """Replace ``owner.name`` by ``around(original, *args, **kwargs)``, until ``undo`` is closed.

    If somebody else has patched over us by then, their patch stays and ours becomes a pass-through.

    Returns:
        Whether nobody has put another function in its place: one that calls ours, or one from before.
    """
    original = getattr(owner, name)
    own = name in vars(owner)  # else it comes from the owner's class, and must not be left on the owner
    active = True

    @functools.wraps(original)
    def replacement(*args: Any, **kwargs: Any) -> Any:
        return around(original, *args, **kwargs) if active else original(*args, **kwargs)

    def restore() -> None:
        nonlocal active
        active = False
        if getattr(owner, name) is not replacement:
            return
        if own:
            setattr(owner, name, original)
        else:
            delattr(owner, name)

    undo.callback(restore)
    setattr(owner, name, replacement)
    return lambda: getattr(owner, name) is replacement
