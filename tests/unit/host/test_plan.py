"""Parses script arguments from page and API; invalid ones are refused with a message."""

from __future__ import annotations

import json

import pytest

from vae_lab.errors import UnknownChoice
from vae_lab.host.choices import AUTOMATIC
from vae_lab.host.plan import AS_IN_SETTINGS, NotHere, Plan, asks_to_fall_back

READ = {
    "nothing": ((), Plan()),
    "page": (("vae.pt", ["a.pt", "b.pt"]), Plan("vae.pt", ("a.pt", "b.pt"))),
    "page, nothing chosen": ((AUTOMATIC, []), Plan()),
    "page, cleared": (("", None), Plan()),
    "page, null": ((None, None), Plan()),
    "only an override": (("vae.pt",), Plan("vae.pt")),
    "page, on grey": (("vae.pt", ["a.pt"], "warn"), Plan("vae.pt", ("a.pt",), "warn")),
    "page, on grey as in settings": (("vae.pt", [], AS_IN_SETTINGS), Plan("vae.pt")),
    "arguments of later versions": (("vae.pt", ["a.pt"], "warn", 7), Plan("vae.pt", ("a.pt",), "warn")),
    "api, on grey": (({"on_grey": "redecode"},), Plan(on_grey="redecode")),
    "api": (({"override": "vae.pt", "compare": ["a.pt"]},), Plan("vae.pt", ("a.pt",))),
    "api, nothing": (({},), Plan()),
    "api, null": (({"override": None, "compare": None},), Plan()),
    "api, fallback": (({"override": "vae.pt", "fallback": True},), Plan("vae.pt")),
    "list": ((["vae.pt", ["a.pt"]][0], ("a.pt",)), Plan("vae.pt", ("a.pt",))),
}


@pytest.mark.parametrize(("args", "plan"), READ.values(), ids=READ)
def test_read(args: tuple, plan: Plan) -> None:
    assert Plan.from_args(args) == plan
    assert Plan.from_args(list(args)) == plan


@pytest.mark.parametrize(
    "args",
    [
        (5, []),
        (0, []),
        (False, []),
        (True, []),
        (["vae.pt"], []),
        ([], []),
        ("vae.pt", "a.pt"),
        ("vae.pt", 0),
        ("vae.pt", {"a.pt": 1}),
        ("vae.pt", [5]),
        ("vae.pt", [None]),
        ({"override": 5},),
        ({"override": {}},),
        ({"compare": "a.pt"},),
        ({"compare": False},),
        ({"compare": [["a.pt"]]},),
    ],
    ids=str,
)
def test_wrong_types(args: tuple) -> None:
    with pytest.raises(UnknownChoice, match="override must be a name, compare a list of names"):
        Plan.from_args(args)


@pytest.mark.parametrize("key", ["overide", "Override", "vae", 5, None])
def test_unknown_keys(key: object) -> None:
    with pytest.raises(
        UnknownChoice, match=f"unknown argument {key}; valid are override, compare, on_grey and fallback"
    ):
        Plan.from_args([{key: "vae.pt"}])


@pytest.mark.parametrize("value", ["Warn", "always", 1, ["warn"], True])
def test_what_cannot_be_done_on_grey(value: object) -> None:
    with pytest.raises(UnknownChoice, match="on_grey must be one of off, warn, redecode, not"):
        Plan.from_args([{"on_grey": value}])


@pytest.mark.parametrize("value", ["yes", 1, None, []])
def test_a_fallback_is_asked_for_or_not(value: object) -> None:
    with pytest.raises(UnknownChoice, match="fallback must be true or false"):
        Plan.from_args([{"fallback": value}])


def test_who_asks_to_fall_back() -> None:
    """Whoever does so gets an image even if the rest is malformed."""
    assert asks_to_fall_back([{"fallback": True, "overide": "vae.pt"}, []])
    assert not any(map(asks_to_fall_back, ([], [{}], [{"fallback": 1}], [{"fallback": False}], ["vae.pt", []])))


def test_unknown_keys_of_several_types() -> None:
    with pytest.raises(UnknownChoice, match="unknown argument 5, vae"):
        Plan.from_args([{"vae": 1, 5: 1}])


def test_pasted_parameters_with_a_vae_that_is_not_here() -> None:
    missing = NotHere("the image was decoded by gone.pt")
    assert (missing, str(missing), json.dumps(missing)) == (AUTOMATIC, AUTOMATIC, f'"{AUTOMATIC}"'), "for a page"
    with pytest.raises(UnknownChoice, match="the image was decoded by gone"):
        Plan.from_args([missing, []])
