"""What the user asked for, for one generation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vae_lab.errors import UnknownChoice
from vae_lab.host.base import AUTOMATIC

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """The accordion's values, from the page or from the API.

    Attributes:
        override: name of a VAE, ``Built-in`` or ``Automatic``.
        compare: VAEs whose pictures are wanted too.
    """

    override: str = AUTOMATIC
    compare: tuple[str, ...] = ()

    @classmethod
    def from_args(cls, args: Sequence[Any]) -> Plan:
        """Read script arguments: positional as the page sends them, or one dict as the API documents.

        Raises:
            UnknownChoice: the values are of another kind.
        """
        if args and isinstance(args[0], Mapping):
            values = args[0]
            unknown = sorted(str(key) for key in set(values) - {"override", "compare"})
            if unknown:
                raise UnknownChoice(f"unknown argument {', '.join(unknown)}; there are override and compare")
            override, compare = values.get("override"), values.get("compare")
        else:
            override, compare = (*args, None, None)[:2]
        override = AUTOMATIC if override in (None, "") else override
        compare = () if compare in (None, "") else compare
        if not isinstance(override, str) or not isinstance(compare, (list, tuple)):
            raise UnknownChoice("override is a name, compare is a list of names")
        names = tuple(name for name in compare if isinstance(name, str))
        if len(names) != len(compare):
            raise UnknownChoice("override is a name, compare is a list of names")
        return cls(override, names)
