"""The boundary to the host: keep our failures from affecting a generation, a page or the host's start."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from vae_lab.errors import VaeLabError

__all__ = ["for_host", "guarded"]

log = logging.getLogger("vae_lab")

_P = ParamSpec("_P")
_T = TypeVar("_T")
_REMEMBERED = 256  # errors that are not logged again


@contextmanager
def guarded(what: str, report_line: Callable[[str], None] | None = None) -> Iterator[None]:
    """Log and swallow our own errors, so that the host keeps running.

    An unexpected error is logged in full the first time only: hosts call some functions for every image or page.

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
    except Exception as error:
        _log_once(what, f"{type(error).__name__}: {error}")
        if report_line:
            report_line(f"VAE Lab: an error while {what}; the log has the details. The image is the host's own.")


@functools.lru_cache(maxsize=_REMEMBERED)
def _log_once(what: str, error: str) -> None:  # noqa: ARG001  part of the key
    log.exception("VAE Lab, %s", what)


def for_host(what: str, instead: Callable[[], Any] = lambda: None) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]:
    """Decorate a function that the host or gradio calls, so that an error in it stays in it.

    Args:
        what: what the function does, for the log.
        instead: gives what is returned after an error, something that the caller can use.
    """

    def decorate(function: Callable[_P, _T]) -> Callable[_P, _T]:
        @functools.wraps(function)
        def safe(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            with guarded(what):
                return function(*args, **kwargs)
            return instead()

        return safe

    return decorate
