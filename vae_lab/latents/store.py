"""The latents of the last generations, in memory."""

from __future__ import annotations

import itertools

from vae_lab.bounded_store import BoundedStore
from vae_lab.latents.generation import Generation

__all__ = ["GenerationStore"]

_MAX_GENERATIONS = 400  # however small they are: people look for one in a menu


class GenerationStore(BoundedStore[Generation]):
    """The newest generations, as many as fit into ``max_bytes``, at most 400."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes, _MAX_GENERATIONS, "generation {id} is no longer stored")
        self._numbers = itertools.count(1)

    def new_id(self) -> str:
        """A new id, unique within this store."""
        return f"g{next(self._numbers)}"
