"""The boundary to the host: keep our failures from affecting a generation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vae_lab.errors import VaeLabError

__all__ = ["guarded"]

log = logging.getLogger("vae_lab")


@contextmanager
def guarded(what: str, report_line: Callable[[str], None] | None = None) -> Iterator[None]:
    """Log and swallow our own errors, so that the host keeps running.

    Args:
        what: what is being done, for the log.
        report_line: called with one line for the user, if there is a place to show it.
    """
    try:
        yield
    except VaeLabError as error:
        log.warning("VAE Lab, %s: %s", what, error)
        if report_line:
            report_line(f"VAE Lab: {error}")
    except Exception:
        log.exception("VAE Lab, %s", what)
        if report_line:
            report_line(f"VAE Lab: an error while {what}; the log has the details. The image is the host's own.")
