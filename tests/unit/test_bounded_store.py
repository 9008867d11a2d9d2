"""A store contains the newest items, within its limits."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from vae_lab.bounded_store import BoundedStore
from vae_lab.errors import UnknownChoice


@dataclass
class Item:
    id: str
    nbytes: int = 1


def store(max_bytes: int = 100, max_items: int = 100) -> BoundedStore[Item]:
    return BoundedStore(max_bytes, max_items, "no item {id}")


def ids(stored: BoundedStore[Item]) -> list[str]:
    return [item.id for item in stored.newest_first()]


def test_limits_of_size_and_number() -> None:
    by_size, by_number = store(max_bytes=5), store(max_items=3)
    for name in "abcd":
        by_size.add(Item(name, 2))
        by_number.add(Item(name, 2))
    assert ids(by_size) == ["d", "c"]
    assert ids(by_number) == ["d", "c", "b"]


def test_the_newest_stays_however_large() -> None:
    small = store(max_bytes=0)
    for name in "ab":
        small.add(Item(name))
    assert ids(small) == ["b"]


def test_what_has_grown_counts_as_it_is_now() -> None:
    growing, stored = Item("a"), store(max_bytes=3)
    stored.add(growing)
    growing.nbytes = 3
    stored.add(Item("b"))
    assert ids(stored) == ["b"]


def test_one_item_by_id() -> None:
    stored = store()
    stored.add(Item("a"))
    assert stored.get("a").id == "a"
    stored.discard("a")
    stored.discard("a")
    with pytest.raises(UnknownChoice, match="no item a"):
        stored.get("a")
