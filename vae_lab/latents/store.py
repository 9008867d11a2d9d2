"""Stores the latest generations in memory."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict

from vae_lab.errors import UnknownChoice
from vae_lab.latents.generation import Generation

__all__ = ["GenerationStore"]

_MAX_GENERATIONS = 400  # however small, because users pick one from a menu


class GenerationStore:
    """The newest generations, up to 400 that fit into ``byte_limit``. Thread-safe."""

    def __init__(self, byte_limit: int) -> None:
        self.byte_limit = byte_limit
        self._generations: OrderedDict[str, Generation] = OrderedDict()
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def new_id(self) -> str:
        """A new id, unique within this store."""
        return f"g{next(self._numbers)}"

    def add(self, generation: Generation) -> None:
        """Store ``generation`` and discard the oldest ones beyond the limits, but never this one."""
        with self._lock:
            self._generations.pop(generation.id, None)
            self._generations[generation.id] = generation
            nbytes = sum(stored.nbytes for stored in self._generations.values())
            while len(self._generations) > 1 and (
                nbytes > self.byte_limit or len(self._generations) > _MAX_GENERATIONS
            ):
                nbytes -= self._generations.popitem(last=False)[1].nbytes

    def get(self, generation_id: str) -> Generation:
        """Raises UnknownChoice: there is none with this id, or it was discarded."""
        with self._lock:
            try:
                return self._generations[generation_id]
            except KeyError:
                raise UnknownChoice(
                    f"generation {generation_id} has been discarded; {len(self._generations)} are stored"
                ) from None

    def newest_first(self) -> list[Generation]:
        """All stored generations."""
        with self._lock:
            return list(reversed(self._generations.values()))

    def clear(self) -> None:
        """Discard all generations."""
        with self._lock:
            self._generations.clear()
