"""What the user asked for, for one generation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from vae_lab.errors import UnknownChoice
from vae_lab.host.choices import AUTOMATIC, ON_GREY, OnGrey

__all__ = ["AS_IN_SETTINGS", "NotHere", "Plan", "asks_to_fall_back"]

AS_IN_SETTINGS = "As in Settings"
"""The accordion's menu entry that leaves ``on_grey`` to the settings."""


class NotHere(str):
    """``Automatic``, in the place of a VAE that pasted parameters name and the user does not have.

    A page shows the reason; a request with such an infotext is refused.
    """

    __slots__ = ("reason",)

    def __new__(cls, reason: str) -> NotHere:
        choice = super().__new__(cls, AUTOMATIC)
        choice.reason = reason
        return choice


@dataclass(frozen=True)
class Plan:
    """The accordion's values, from the page or from the API.

    Attributes:
        override: name of a VAE, ``Built-in`` or ``Automatic``.
        compare: names of VAEs that should decode the images as well.
        on_grey: what to do if an image is grey; None: as in the settings.
    """

    override: str = AUTOMATIC
    compare: tuple[str, ...] = ()
    on_grey: OnGrey | None = None

    @classmethod
    def from_args(cls, args: Sequence[Any]) -> Plan:
        """Read script arguments: positional from the page, or one dict from the API.

        Raises:
            UnknownChoice: an argument is unknown or has a value of the wrong type.
        """
        if args and isinstance(args[0], Mapping):
            values = args[0]
            unknown = sorted(str(key) for key in set(values) - {"override", "compare", "on_grey", "fallback"})
            if unknown:
                names = "override, compare, on_grey and fallback"
                raise UnknownChoice(f"unknown argument {', '.join(unknown)}; valid are {names}")
            if not isinstance(values.get("fallback", False), bool):
                raise UnknownChoice("fallback must be true or false")
            override, compare, on_grey = values.get("override"), values.get("compare"), values.get("on_grey")
        else:
            override, compare, on_grey = (*args, None, None, None)[:3]
        if isinstance(override, NotHere):
            raise UnknownChoice(override.reason)
        override = AUTOMATIC if override in (None, "") else override
        compare = () if compare in (None, "") else compare
        if not isinstance(override, str) or not isinstance(compare, (list, tuple)):
            raise UnknownChoice("override must be a name, compare a list of names")
        names = tuple(name for name in compare if isinstance(name, str))
        if len(names) != len(compare):
            raise UnknownChoice("override must be a name, compare a list of names")
        on_grey = None if on_grey in (None, "", AS_IN_SETTINGS) else on_grey
        if on_grey is not None and (not isinstance(on_grey, str) or on_grey not in ON_GREY):
            raise UnknownChoice(f"on_grey must be one of {', '.join(ON_GREY)}, not {on_grey!r}")
        return cls(override, names, cast("OnGrey | None", on_grey))


def asks_to_fall_back(args: Sequence[Any]) -> bool:
    """Whether an API request wants an image of the host's own VAE rather than an error, even if it is malformed."""
    return bool(args) and isinstance(args[0], Mapping) and args[0].get("fallback") is True
