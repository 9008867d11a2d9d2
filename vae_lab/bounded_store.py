"""The newest items of a kind, held in memory within limits of size and number."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, Protocol, TypeVar

from vae_lab.errors import UnknownChoice

__all__ = ["BoundedStore", "Storable"]


class Storable(Protocol):
    """What a store can hold."""

    @property
    def id(self) -> str:
        """Unique within its store."""
        ...

    @property
    def nbytes(self) -> int:
        """Memory it takes now, in bytes; may grow while it is stored."""
        ...


Item = TypeVar("Item", bound=Storable)


class BoundedStore(Generic[Item]):
    """Items by id. Adding one discards the oldest until the limits hold again. Thread-safe.

    Args:
        max_bytes: memory for all items together. The newest item stays even if it is larger.
        max_items: how many items.
        missing: error message for an id that is not stored; ``{id}`` stands for it.

    Attributes:
        max_bytes: may be changed; takes effect with the next item.
    """

    def __init__(self, max_bytes: int, max_items: int, missing: str) -> None:
        self.max_bytes = max_bytes
        self._max_items = max_items
        self._missing = missing
        self._items: OrderedDict[str, Item] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, item: Item) -> None:
        """Store ``item`` as the newest one, in place of any other with its id."""
        with self._lock:
            self._items.pop(item.id, None)
            self._items[item.id] = item
            total = sum(stored.nbytes for stored in self._items.values())
            while len(self._items) > 1 and (total > self.max_bytes or len(self._items) > self._max_items):
                total -= self._items.popitem(last=False)[1].nbytes

    def get(self, item_id: str) -> Item:
        """Raises UnknownChoice: it was never stored, or was discarded."""
        with self._lock:
            try:
                return self._items[item_id]
            except KeyError:
                raise UnknownChoice(self._missing.format(id=item_id)) from None

    def discard(self, item_id: str) -> None:
        """Remove one item, if it is stored."""
        with self._lock:
            self._items.pop(item_id, None)

    def newest_first(self) -> list[Item]:
        """All items."""
        with self._lock:
            return list(reversed(self._items.values()))

    def clear(self) -> None:
        """Remove all items."""
        with self._lock:
            self._items.clear()
