"""The last generations, kept in memory."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict

from vae_lab.errors import UnknownChoice
from vae_lab.latents.generation import Generation

__all__ = ["GenerationStore"]

_MOST_KEPT = 400  # generations in memory, however small: people look for one in a menu


class GenerationStore:
    """The newest generations, as many as fit into ``byte_limit``, 400 at most. Safe to use from several threads."""

    def __init__(self, byte_limit: int) -> None:
        self.byte_limit = byte_limit
        self._kept: OrderedDict[str, Generation] = OrderedDict()
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def new_id(self) -> str:
        """An id that no other generation of this store has."""
        return f"g{next(self._numbers)}"

    def add(self, generation: Generation) -> None:
        """Keep ``generation``, and let go of the oldest ones over the limits (one is kept in any case)."""
        with self._lock:
            self._kept.pop(generation.id, None)
            self._kept[generation.id] = generation
            held = sum(kept.nbytes for kept in self._kept.values())
            while len(self._kept) > 1 and (held > self.byte_limit or len(self._kept) > _MOST_KEPT):
                held -= self._kept.popitem(last=False)[1].nbytes

    def get(self, generation_id: str) -> Generation:
        """Raises UnknownChoice: it was never there, or had to make room."""
        with self._lock:
            try:
                return self._kept[generation_id]
            except KeyError:
                raise UnknownChoice(f"generation {generation_id} is no longer kept; {len(self._kept)} are") from None

    def newest_first(self) -> list[Generation]:
        """All that are kept."""
        with self._lock:
            return list(reversed(self._kept.values()))

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._kept.clear()
