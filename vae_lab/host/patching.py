"""Change the host, and have every change undone; run our code without ever costing the user a picture."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from vae_lab.errors import VaeLabError

__all__ = ["guarded", "patch"]

log = logging.getLogger("vae_lab")


def patch(owner: Any, name: str, around: Callable[..., Any], undo: ExitStack) -> None:
    """Replace ``owner.name`` by ``around(original, *args, **kwargs)``, until ``undo`` is closed.

    If somebody else has patched over us by then, their patch is left alone and ours becomes a pass-through.
    """
    original = getattr(owner, name)
    own = name in vars(owner)  # else it comes from the owner's class, and must not stay behind on the owner
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


@contextmanager
def guarded(what: str, tell: Callable[[str], None] | None = None) -> Iterator[None]:
    """The host boundary: an error of ours is reported, and the host goes on.

    Args:
        what: what was being done, for the log.
        tell: told one line for the user, where there is a place to show it.
    """
    try:
        yield
    except VaeLabError as error:
        log.warning("VAE Lab, %s: %s", what, error)
        if tell:
            tell(f"VAE Lab: {error}")
    except Exception:
        log.exception("VAE Lab, %s", what)
        if tell:
            tell(f"VAE Lab: an error while {what}; the log has the details. The picture is the host's own.")
