"""Choices and HTML, without a browser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gradio as gr
import numpy as np
import pytest
import torch

from vae_lab.comparison import Comparison, Decoded, RoundTrip, RoundTripped
from vae_lab.comparison.round_trip import loss_between
from vae_lab.errors import UnknownChoice
from vae_lab.host.base import VaeEntry
from vae_lab.latents import Generation
from vae_lab.latents.family import FAMILIES
from vae_lab.service.comparisons import StoredComparison
from vae_lab.service.round_trips import StoredRoundTrip
from vae_lab.ui.compat import connect
from vae_lab.ui.pages import WebuiPages
from vae_lab.ui.panels.selection import (
    PageState,
    fits,
    follow_newest,
    grouped,
    in_order,
    keep_chosen,
    latent_choice,
)
from vae_lab.ui.views import comparison as views
from vae_lab.ui.views import round_trip as round_trip_views
from vae_lab.ui.views.numbers import numbers
from vae_lab.ui.views.sources import thumbnails, without_parts

SD1, SDXL, SD3 = FAMILIES["sd1"], FAMILIES["sdxl"], FAMILIES["sd3"]
HOSTILE = "<img src=x onerror=alert(1)>\"'&.pt"


def generation(name: str, family: object = SD1, **facts: object) -> Generation:
    channels = family.latent_channels
    return Generation(name, torch.zeros(1, channels, 4, 6), family, title=f"title of {name}", **facts)


ENTRIES = [
    VaeEntry("a", "/a"),
    VaeEntry("b", "/b", SD1),
    VaeEntry("c", "/c", SDXL),
    VaeEntry("d", "/d", None, "unreadable"),
]


def test_menu_for_the_settings_is_sent_whole() -> None:
    """As a WebUI makes it; what is missing in the browser keeps the page from loading with gradio 4."""
    with gr.Blocks() as page:
        WebuiPages.several(label="Preferred VAEs", choices=["a", "b"], elem_id="setting_preferred")
    props = next(part["props"] for part in page.get_config_file()["components"] if part["type"] == "dropdown")
    assert [choice[-1] for choice in props["choices"]] == ["a", "b"]
    assert (props["elem_id"], props["multiselect"]) == ("setting_preferred", True)
    WebuiPages.several(multiselect=True)  # as gradio 4 creates it again from what it has sent


def test_what_fits() -> None:
    assert [fits(entry, SD1) for entry in ENTRIES] == [True, True, False, False]
    assert [fits(entry, SDXL) for entry in ENTRIES] == [True, False, True, False]
    assert [fits(entry, None) for entry in ENTRIES] == [True, True, True, False]


@pytest.mark.parametrize(
    ("family", "chosen", "memory", "expected"),
    [
        (SD1, [], None, ["a", "b"]),
        (SD1, [], PageState("g1", "sd1"), []),
        (SD1, ["b", "c", "d", "gone"], PageState("g1", "sd1"), ["b"]),
        (SDXL, ["b"], PageState("g1", "sd1"), ["a", "c"]),
        (SDXL, ["a", "b"], PageState("g1", "sd1"), ["a"]),
    ],
    ids=["first look", "none stays none", "what fits stays", "other family, none left", "other family, some left"],
)
def test_ticked_vaes(family: object, chosen: list[str], memory: PageState | None, expected: list[str]) -> None:
    assert keep_chosen(ENTRIES, family, chosen, memory) == expected


def test_at_first_all_of_a_short_list_and_a_few_of_a_long_one_are_ticked() -> None:
    many = [VaeEntry(str(i), "", SD1 if i > 90 else None) for i in range(100)]
    assert len(keep_chosen(many[:8], SD1, [], None)) == 8
    assert keep_chosen(many, SD1, [], None) == ["91", "92", "93", "94"], "those of which it is known that they fit"


def test_what_was_used_last_comes_first_in_a_long_list() -> None:
    entries = [VaeEntry(str(i), "", SD1, weights="same" if i in (3, 7) else "") for i in range(12)]
    entries[7] = replace(entries[7], recent=True)
    entries[5] = replace(entries[5], recent=True)
    recent, others = grouped(entries, SD1)
    assert (recent.title, [[entry.name for entry in vae] for vae in recent.vaes]) == (
        "Recently used", [["7", "3"], ["5"]],
    )  # fmt: skip
    assert (others.title, len(others.vaes)) == ("SD1 / SD2", 9)
    assert keep_chosen(entries, SD1, [], None) == ["0", "1", "5", "7"]
    assert [group.title for group in grouped(entries[5:], SD1)] == [""], "a short list stays as it is"


def test_a_long_list_is_grouped_by_family_and_copies_are_one() -> None:
    entries = [
        *(VaeEntry(f"new-{i}", "") for i in range(8)),
        VaeEntry("x", "", SDXL, weights="1"),
        VaeEntry("a", "", SD1, weights="2"),
        VaeEntry("bad", "", problem="unreadable"),
        VaeEntry("z", "", SDXL, weights="1"),
    ]

    def shown(family: object) -> list[tuple[str, list[list[str]]]]:
        groups = grouped(entries, family)
        return [(group.title, [[entry.name for entry in vae] for vae in group.vaes]) for group in groups]

    new = ("Not identified yet", [[f"new-{i}"] for i in range(8)])
    sd1, sdxl, bad = ("SD1 / SD2", [["a"]]), ("SDXL", [["x", "z"]]), ("Cannot be used", [["bad"]])
    assert shown(None) == shown(SD1) == [sd1, sdxl, new, bad]
    assert shown(SDXL) == [sdxl, sd1, new, bad], "the latent's family first"
    assert keep_chosen(entries, SDXL, [], None) == ["new-0", "new-1", "new-2", "x"], "a copy is not ticked at first"
    del entries[:4]
    assert shown(SD1) == [("", [["new-4"], ["new-5"], ["new-6"], ["new-7"], ["x", "z"], ["a"], ["bad"]])]


def test_order_of_the_list() -> None:
    assert in_order(ENTRIES, ["gone", "c", "a"]) == ["a", "c", "gone"]


def test_newest_selection_follows_the_newest() -> None:
    old, new, newest = generation("g1"), generation("g2"), generation("g3")
    assert follow_newest([], None, None) is None
    assert follow_newest([new, old], None, None) is new
    assert follow_newest([newest, new, old], latent_choice(new), PageState("g2")) is newest
    assert follow_newest([newest, new, old], latent_choice(old), PageState("g2")) is old
    assert follow_newest([newest, new], latent_choice(old), PageState("g2")) is newest


def stored(*results: Decoded) -> StoredComparison:
    return StoredComparison("id", generation("g1"), Comparison(SD1, results), "model <1>.safetensors")


def grey(level: int, batch: int = 1) -> np.ndarray:
    return np.full((batch, 32, 48, 3), level, np.uint8)


def test_images_are_numbered_over_results_and_batch() -> None:
    comparison = stored(Decoded("a", grey(1, 2)), Decoded("b", error="no"), Decoded("c", grey(3, 2)))
    assert [list(numbers) for numbers in comparison.numbers()] == [[0, 1], [], [2, 3]]
    assert comparison.png(3)[0] == "c"
    assert comparison.png(3)[1] is comparison.png(3)[1]
    with pytest.raises(UnknownChoice, match="no image 4"):
        comparison.png(4)


def test_equal_images_are_reported() -> None:
    comparison = stored(Decoded("a", grey(1)), Decoded("b", grey(2)), Decoded("c", grey(1)))
    assert comparison.twins() == {"c": "a"}
    assert "Every pixel equals a." in views.results(comparison)


def test_names_reasons_and_infotexts_cannot_smuggle_markup() -> None:
    comparison = stored(Decoded(HOSTILE, grey(1)), Decoded("b", error=HOSTILE))
    latent = generation("g1", infotexts=(HOSTILE,), checkpoint=f"/models/{HOSTILE}")
    pieces = [
        views.results(comparison),
        views.latent_card(latent),
        views.alert(HOSTILE),
        views.note(HOSTILE, undo_id=HOSTILE),
        views.deciding(HOSTILE),
        views.built_in(HOSTILE),
        views.empty(HOSTILE),
    ]
    assert all("<img src=x" not in piece for piece in pieces)
    assert all("\"'&.pt" not in piece for piece in pieces)


def test_summary_counts() -> None:
    assert "1 VAE decoded in" in views.summary(stored(Decoded("a", grey(1))))
    two = Comparison(SD1, (Decoded("a", grey(1)), Decoded("b", error="no")), cancelled=True)
    assert "The run was cancelled. 1 VAE decoded in 0.0 s. 1 VAE could not be used." in views.summary(
        StoredComparison("id", generation("g1"), two)
    )


def test_nan_is_reported() -> None:
    assert "NaN" in views.results(stored(Decoded("a", grey(0), finite=False)))


def test_a_family_without_a_linear_preview_says_so() -> None:
    assert "no linear preview is available for SD3" in views.latent_card(generation("g1", SD3))


# --- the table of numbers ---------------------------------------------------------------------------------------------


def measured(*names: str, infotexts: tuple[str, ...] = (), batch: int = 1, refused: str = "") -> StoredComparison:
    """Noise by each of ``names``; and one that was refused."""
    images = np.random.default_rng(0).integers(0, 256, (len(names), batch, 16, 16, 3), dtype=np.uint8)
    results = [Decoded(name, image, 0.1 * i) for i, (name, image) in enumerate(zip(names, images, strict=True))]
    if refused:
        results.insert(0, Decoded(refused, error=f"{refused} <i>cannot</i> be read"))
    comparison = Comparison(SD1, tuple(results))
    made = Generation("g", torch.zeros(batch, 4, 2, 2), SD1, "A cat", infotexts)
    return StoredComparison("id", made, comparison)


def test_numbers_escape_everything() -> None:
    html = numbers(measured(HOSTILE, "b", refused=f"refused {HOSTILE}"))
    assert "<img" not in html
    assert "<i>" not in html
    assert html.count("&lt;img") > 4, "as name, as reference in the explanations, and as reason"


def test_numbers_say_what_they_compare_with() -> None:
    assert "Mean colour difference (CIEDE2000) from the built-in VAE" in numbers(measured("Built-in", "b"))
    html = numbers(measured("b", "c", refused="Built-in"))
    assert "Mean colour difference (CIEDE2000) from b." in html
    assert "The built-in VAE has no images, so the others are compared with b." in html


@pytest.mark.parametrize(
    ("batch", "words"), [(1, None), (3, "Mean of all 3 images"), (6, "Mean of the first 4 of 6 images")]
)
def test_numbers_say_what_they_are_the_mean_of(batch: int, words: str | None) -> None:
    html = numbers(measured("Built-in", "b", batch=batch))
    assert (words in html) if words else ("Mean of" not in html)


def test_of_two_vaes_none_is_marked_and_of_three_the_ends() -> None:
    assert "data-mark" not in numbers(measured("Built-in", "b"))
    assert numbers(measured("Built-in", "b", "c")).count('data-mark="largest"') >= 3


def test_without_results_there_are_no_numbers() -> None:
    assert numbers(StoredComparison("id", generation("g1"), Comparison(SD1))) == ""
    html = numbers(measured(refused="x.pt"))
    assert "not used: x.pt" in html


def test_a_round_trip_says_that_memory_was_short() -> None:
    shown = []
    for in_strips in (False, True):
        image = np.zeros((16, 16, 3), np.uint8)
        result = RoundTripped(
            "a", torch.zeros(1, 4, 2, 2), image, loss_between(image, image), family=SD1, in_strips=in_strips
        )
        shown.append(round_trip_views.results(StoredRoundTrip("id", RoundTrip(image, (result,)))))
    assert ["decoded in strips (low memory)" in page for page in shown] == [False, True]


@pytest.mark.parametrize(("outputs", "answer"), [(0, None), (1, gr.update()), (2, [gr.update(), gr.update()])])
def test_an_error_of_ours_leaves_the_page_as_it_is(
    outputs: int, answer: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The page says so; gradio would only show "Error"."""
    attached: list[Callable[..., Any]] = []
    said: list[str] = []
    monkeypatch.setattr(gr, "Warning", said.append)

    def broken(_value: str) -> None:
        raise KeyError(outputs)

    connect(lambda handler, **_: attached.append(handler), broken, ["field"], ["field"] * outputs)
    assert attached[0]("typed") == answer
    assert said == ["An error in VAE Lab; the log has the details."]
    assert "answering the page, broken" in caplog.text


def test_a_row_of_images_without_their_parts() -> None:
    """The image's own latent, or the newest part where there is none."""
    made = [("a", ""), ("a", ""), ("a", "inside"), ("a", "inside"), ("b", "tile"), ("b", "tile"), ("", ""), ("", "")]
    generations = [
        Generation(f"g{i}", torch.zeros(1, 4, 8, 8), FAMILIES["sd1"], part=part, group=group)
        for i, (group, part) in enumerate(made)
    ]
    assert [one.id for one in without_parts(generations)] == ["g0", "g1", "g4", "g6", "g7"]
    row = thumbnails(generations)
    assert row.count("data-pick") == 5
    assert "3 others, older ones or parts of an image, are only in the menu." in row
