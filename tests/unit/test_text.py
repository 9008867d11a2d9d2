"""Names for messages and lists."""

from __future__ import annotations

from vae_lab.text import natural_key


def test_names_are_sorted_as_people_do() -> None:
    wanted = ["2", "a", "A1", "a2b", "a10", "a10/b", "ab", "v1.9", "v1.10", "v02", "é"]
    assert sorted(wanted[5:] + wanted[:5], key=natural_key) == wanted
    assert len({natural_key(name) for name in ("a1", "a01", "A1", "a1 ")}) == 4, "the order never depends on chance"
    natural_key("1" * 5000 + "\udcff")
