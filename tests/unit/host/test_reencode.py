"""Which VAEs a round trip at an image's own size takes."""

from __future__ import annotations

import pytest

from tests.sample_hosts import GREY, grey_host, samples
from vae_lab.host.choices import Decision
from vae_lab.host.reencode import chosen_vaes
from vae_lab.host.standalone import StandaloneHost

__all__ = ["grey_host", "samples"]


def test_the_vae_in_use_is_taken_until_it_is_known_to_be_broken(grey_host: StandaloneHost) -> None:
    grey_host.select_checkpoint(GREY)
    assert chosen_vaes(grey_host, "Automatic", "Automatic") == ("Built-in", "Built-in")
    grey_host.inspect(GREY)
    assert chosen_vaes(grey_host, "Automatic", "Automatic") == ("Built-in", "Built-in"), (
        "no other is known to be better"
    )
    better = next(iter(grey_host.vaes())).name
    grey_host.inspect(better)
    assert chosen_vaes(grey_host, "Automatic", "Automatic") == (better, better)
    assert chosen_vaes(grey_host, "Built-in", "Automatic") == ("Built-in", "Built-in")
    assert chosen_vaes(grey_host, "Automatic", "Built-in") == (better, "Built-in")


def test_where_no_vae_decodes_the_hosts_own_is_taken(
    grey_host: StandaloneHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    grey_host.select_checkpoint(GREY)
    monkeypatch.setattr(grey_host, "decision", lambda: Decision("TAESD", "host", "TAESD: by the settings."))
    assert chosen_vaes(grey_host, "Automatic", "Automatic") == ("Built-in", "Built-in")
