"""The order of precedence among choices."""

from __future__ import annotations

from itertools import product

import pytest

from vae_lab.host.choices import AUTOMATIC, BUILT_IN, ON_GREY, StandingChoices, resolve, unknown_vae


@pytest.mark.parametrize(
    ("axis", "generation", "always", "checkpoint", "expected"),
    [
        (None, AUTOMATIC, AUTOMATIC, AUTOMATIC, (AUTOMATIC, "host")),
        (None, AUTOMATIC, AUTOMATIC, "c", ("c", "checkpoint")),
        (None, AUTOMATIC, "a", "c", ("a", "always")),
        (None, "g", "a", "c", ("g", "generation")),
        ("x", "g", "a", "c", ("x", "generation")),
        (None, BUILT_IN, "a", "c", (BUILT_IN, "generation")),
        (None, AUTOMATIC, BUILT_IN, "c", (BUILT_IN, "always")),
        (AUTOMATIC, "g", "a", "c", ("a", "always")),  # the axis varies the VAE, so the accordion has no say
        (AUTOMATIC, "g", AUTOMATIC, AUTOMATIC, (AUTOMATIC, "host")),
    ],
)
def test_precedence(axis: str | None, generation: str, always: str, checkpoint: str, expected: tuple[str, str]) -> None:
    assert resolve(StandingChoices(always, checkpoint), generation, axis) == expected


def test_the_host_decides_only_if_nothing_is_chosen() -> None:
    for names in product((AUTOMATIC, "vae"), repeat=3):
        choice = resolve(StandingChoices(*names[:2]), names[2])
        assert (choice.source == "host") == (set(names) == {AUTOMATIC})


def test_what_to_do_about_grey_images() -> None:
    assert ON_GREY == ("off", "warn", "redecode")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("b", "did you mean x/b.pt or y/B.safetensors?"),
        ("B.PT", "did you mean x/b.pt?"),
        ("orangemix.vae.p", "did you mean orangemix.vae.pt?"),
        ("gone", "available: orangemix.vae.pt, x/b.pt, y/B.safetensors"),
    ],
)
def test_an_unknown_name_is_answered_with_what_may_be_meant(name: str, said: str) -> None:
    assert str(unknown_vae(name, ["orangemix.vae.pt", "x/b.pt", "y/B.safetensors"])) == f"no VAE named {name}; {said}"


def test_an_unknown_name_without_any_vaes() -> None:
    assert str(unknown_vae("a", [])) == "no VAE named a; available: none"
    assert str(unknown_vae("a", [], "models/VAE")) == "no VAE named a; looked in models/VAE, found none"
