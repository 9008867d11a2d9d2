"""The JSON of a comparison."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vae_lab.comparison import Comparison, Decoded, Measured, comparison_json, measure_comparison
from vae_lab.latents.family import FAMILIES

SD1 = FAMILIES["sd1"]
IMAGES = np.zeros((1, 16, 16, 3), dtype=np.uint8)


def test_images_and_errors() -> None:
    comparison = Comparison(
        SD1, (Decoded("a", IMAGES, 0.123456, family=SD1, finite=False, in_strips=True), Decoded("b", error="b: broken"))
    )
    data = comparison_json(comparison, measure_comparison(comparison), [["a.png"], []])
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    a, b = data.pop("results")
    assert data == {"family": "sd1", "cancelled": False, "reference": "a"}
    measures = a.pop("measures")
    assert measures["equal"]
    assert measures["psnr"] is None
    assert a == {
        "name": "a",
        "family": "sd1",
        "seconds": 0.1235,
        "error": "",
        "finite": False,
        "in_strips": True,
        "images": ["a.png"],
    }
    assert (b["family"], b["error"], b["images"], b["measures"]) == (None, "b: broken", [], None)


def test_nothing_decoded() -> None:
    data = comparison_json(Comparison(SD1, cancelled=True), Measured(), [])
    assert data == {"family": "sd1", "cancelled": True, "reference": "", "results": []}


def test_a_list_of_images_for_each_result() -> None:
    with pytest.raises(ValueError, match="zip"):
        comparison_json(Comparison(SD1, (Decoded("a"),)), Measured(), [])
