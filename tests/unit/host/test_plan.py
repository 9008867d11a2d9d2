"""What the page and the API send, read into a plan; what cannot be read is refused in words."""

from __future__ import annotations

import pytest

from vae_lab.errors import UnknownChoice
from vae_lab.host.base import AUTOMATIC
from vae_lab.host.plan import Plan

READ = {
    "nothing": ((), Plan()),
    "page": (("vae.pt", ["a.pt", "b.pt"]), Plan("vae.pt", ("a.pt", "b.pt"))),
    "page, nothing chosen": ((AUTOMATIC, []), Plan()),
    "page, cleared": (("", None), Plan()),
    "page, null": ((None, None), Plan()),
    "override alone": (("vae.pt",), Plan("vae.pt")),
    "arguments of later versions": (("vae.pt", ["a.pt"], "warn", 7), Plan("vae.pt", ("a.pt",))),
    "api": (({"override": "vae.pt", "compare": ["a.pt"]},), Plan("vae.pt", ("a.pt",))),
    "api, nothing": (({},), Plan()),
    "api, null": (({"override": None, "compare": None},), Plan()),
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
    with pytest.raises(UnknownChoice, match="override is a name, compare is a list of names"):
        Plan.from_args(args)


@pytest.mark.parametrize("key", ["overide", "Override", "vae", 5, None])
def test_unknown_keys(key: object) -> None:
    with pytest.raises(UnknownChoice, match=f"unknown argument {key}; there are override and compare"):
        Plan.from_args([{key: "vae.pt"}])


def test_unknown_keys_of_several_types() -> None:
    with pytest.raises(UnknownChoice, match="unknown argument 5, vae"):
        Plan.from_args([{"vae": 1, 5: 1}])
