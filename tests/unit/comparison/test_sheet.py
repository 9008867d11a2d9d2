"""The contact sheet: everything on it is distinguishable and legible."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFont

from vae_lab.comparison import Comparison, Decoded, contact_sheet, error_tile
from vae_lab.comparison import sheet as sheet_module
from vae_lab.latents.family import FAMILIES

SD1 = FAMILIES["sd1"]
RED, GREEN = (200, 30, 40), (20, 180, 60)
LONG = "a-folder-of-mine/" + "x" * 75
REASON = "the file /models/VAE/" + "very-long-folder-name-without-a-space/" * 5 + "vae.safetensors cannot be read: "


def image(colour: tuple[int, int, int], batch: int = 1, side: int = 256) -> np.ndarray:
    return np.tile(np.array(colour, dtype=np.uint8), (batch, side, side, 1))


def result(name: str, colour: tuple[int, int, int] = RED, batch: int = 1, side: int = 256) -> Decoded:
    return Decoded(name, image(colour, batch, side), 0.5, family=SD1)


def sheet(*results: Decoded, **options: object) -> np.ndarray:
    return np.asarray(contact_sheet(Comparison(SD1, results), **options))


def area(pixels: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((pixels == colour).all(axis=2).sum())


def columns_of(pixels: np.ndarray, colour: tuple[int, int, int]) -> tuple[int, int]:
    found = np.nonzero((pixels == colour).all(axis=2).any(axis=0))[0]
    return int(found.min()), int(found.max())


def test_every_image_is_drawn_pixel_for_pixel() -> None:
    pixels = sheet(result("a", RED, batch=2), result("b", GREEN, batch=2))
    assert area(pixels, RED) == 2 * 256 * 256
    assert area(pixels, GREEN) == 2 * 256 * 256
    assert columns_of(pixels, RED)[1] < columns_of(pixels, GREEN)[0]


def test_image_is_not_scaled_or_turned() -> None:
    own = np.random.default_rng(0).integers(0, 255, (1, 200, 300, 3), dtype=np.uint8)
    pixels = np.asarray(contact_sheet(Comparison(SD1, (Decoded("a", own, 1.0, family=SD1),))))
    first = own[0, 0, 0]
    corners = np.argwhere((pixels == first).all(axis=2))
    assert any(np.array_equal(pixels[y : y + 200, x : x + 300], own[0]) for y, x in corners)


@pytest.mark.parametrize("size", [(512, 768), (128, 64), (16, 16)])
def test_an_error_tile_has_the_size_of_an_image(size: tuple[int, int]) -> None:
    tile = error_tile(REASON, *size)
    pixels = np.asarray(tile)
    assert (tile.size, tile.mode) == (size, "RGB")
    assert tuple(pixels[0, 0]) == tuple(pixels[-1, -1]) == (176, 0, 32), "a border"
    assert size == (16, 16) or area(pixels[12:-12, 12:-12], (176, 0, 32)) > 10, "the reason"


def test_images_of_a_huge_comparison_are_made_smaller() -> None:
    """Six VAEs over a batch of sixteen: 101 megapixels in their own size."""
    colours = [(20 + 25 * i, 40, 200) for i in range(6)]
    results = [
        Decoded(str(i), np.broadcast_to(np.array(colour, np.uint8), (16, 1024, 1024, 3)), 1.0, family=SD1)
        for i, colour in enumerate(colours)
    ]
    pixels = sheet(*results, rows=["huge"])
    assert pixels.size / 3 < 70e6
    areas = [area(pixels[::8, ::8], colour) * 64 for colour in colours]
    assert min(areas) > 0.9 * 64e6 / 6, "all images are drawn"
    assert max(areas) < 1.1 * 64e6 / 6, "all of one size"


def test_after_six_a_new_band_begins() -> None:
    six = sheet(*(result(f"{i}") for i in range(6)))
    seven = sheet(*(result(f"{i}") for i in range(7)))
    assert seven.shape[1] == six.shape[1]
    assert seven.shape[0] > six.shape[0] + 256
    assert area(seven, RED) == 7 * 256 * 256


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("side", [64, 128, 256, 512])
def test_long_names_that_differ_at_their_end_stay_different(side: int, count: int) -> None:
    others = [result(f"{i}", side=side) for i in range(count - 1)]
    one, two = (
        sheet(*others, result(name, side=side)) for name in (LONG + "-v1.safetensors", LONG + "-v2.safetensors")
    )
    assert one.shape == two.shape
    assert not np.array_equal(one, two)


@pytest.mark.parametrize("side", [64, 256])
def test_text_stays_within_its_column(side: int) -> None:
    pixels = sheet(result(LONG, RED, side=side), Decoded("x", error=REASON * 2), result(LONG, GREEN, side=side))
    left = columns_of(pixels, RED)
    right = columns_of(pixels, GREEN)
    width = (right[0] - left[0]) // 2
    gaps = [left[0] - 1, left[0] + width - 1, right[0] - 1, right[0] + width - 1]
    for gap in gaps:
        assert (pixels[:, gap] == 255).all(), f"something crosses column {gap}"


def test_small_images_get_room_for_their_labels() -> None:
    """A 64 px image is a test of a tiny latent; its label must still be legible."""
    assert sheet(result("a", side=64)).shape[1] >= 200


def test_refused_vae_shows_its_reason() -> None:
    kinds = [sheet(result("a"), Decoded("x", error=error)) for error in ("not finite", "wrong family")]
    assert kinds[0].shape == kinds[1].shape
    assert not np.array_equal(*kinds)


def test_long_reasons_that_differ_at_their_end_stay_different() -> None:
    one, two = (sheet(result("a", side=128), Decoded("x", error=REASON + end)) for end in ("truncated", "malformed"))
    assert one.shape != two.shape or not np.array_equal(one, two)


def test_everything_refused() -> None:
    pixels = sheet(Decoded("x", error="no VAE named x"), Decoded("y", error="no VAE named y"))
    assert pixels.shape[1] >= 2 * 200
    assert (pixels < 128).any()


def test_empty_comparison_is_a_sheet_all_the_same() -> None:
    assert min(sheet().shape[:2]) > 0


def test_family_and_seconds_are_on_it() -> None:
    shown = [
        sheet(Decoded("a", image(RED), seconds, family=family))
        for seconds, family in ((0.5, SD1), (0.7, SD1), (0.5, FAMILIES["sdxl"]))
    ]
    assert not np.array_equal(shown[0], shown[1])
    assert not np.array_equal(shown[0], shown[2])


def test_what_is_wrong_with_a_image_is_on_it() -> None:
    plain, nan, strips = (
        sheet(Decoded("a", image(RED), family=SD1, **kind)) for kind in ({}, {"finite": False}, {"in_strips": True})
    )
    assert not np.array_equal(plain, nan)
    assert not np.array_equal(plain, strips)
    assert not np.array_equal(nan, strips)
    noted = [
        np.asarray(contact_sheet(Comparison(SD1, (Decoded("a", image(RED), finite=finite),)), notes={"a": "mine"}))
        for finite in (True, False)
    ]
    assert not np.array_equal(*noted), "also below a note of one's own"


def test_rows_title_the_sheet() -> None:
    plain, titled, other = (sheet(result("a"), rows=rows) for rows in ([], ["cat"], ["dog"]))
    assert titled.shape[0] > plain.shape[0]
    assert not np.array_equal(titled, other)
    assert area(titled, RED) == 256 * 256


@pytest.fixture
def no_font(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without DejaVu, as every Windows is."""

    def missing(*args: object, **kwargs: object) -> None:
        raise OSError("cannot open resource")

    monkeypatch.setattr(ImageFont, "truetype", missing)


@pytest.mark.usefixtures("no_font")
def test_without_a_font_of_the_system() -> None:
    one, two = (sheet(result(name)) for name in (LONG + "-v1.safetensors", LONG + "-v2.safetensors"))
    assert not np.array_equal(one, two)


@pytest.mark.usefixtures("no_font")
def test_names_in_any_script_without_a_font_of_the_system() -> None:
    """Pillow's own font before 10.1 knows Latin letters only, and raises an error for all others."""
    assert not np.array_equal(sheet(result("动漫.safetensors")), sheet(result("写实.safetensors")))


def test_names_in_any_script_stay_different() -> None:
    """What the font has no image of must not become the same box for every letter."""
    assert not np.array_equal(sheet(result("动漫.safetensors")), sheet(result("写实.safetensors")))


def test_it_is_an_rgb_image() -> None:
    made = contact_sheet(Comparison(SD1, (result("a"),)))
    assert isinstance(made, Image.Image)
    assert made.mode == "RGB"


def test_narrow_images_do_not_make_a_huge_sheet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each gets the width of a column: 200 latents of 4 MB would become a sheet of 7 GB."""
    monkeypatch.setattr(sheet_module, "_MAX_PIXELS", 10**6)
    narrow = np.zeros((1, 2048, 8, 3), np.uint8)
    found = contact_sheet(Comparison(SD1, tuple(Decoded(str(i), narrow, 0.5, family=SD1) for i in range(12))))
    assert found.width * found.height < 1.5 * 10**6
