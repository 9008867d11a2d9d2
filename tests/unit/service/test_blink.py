"""A comparison as an animated image."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont, ImageSequence

from vae_lab.comparison import Comparison, Decoded
from vae_lab.comparison import sheet as sheets
from vae_lab.errors import UnknownChoice, VaeLabError
from vae_lab.latents import Generation
from vae_lab.latents.family import FAMILIES
from vae_lab.service.blink import MAX_FRAMES, blink, can_blink
from vae_lab.service.comparisons import StoredComparison

SD1 = FAMILIES["sd1"]


def pixels(seed: int, height: int = 24, width: int = 232) -> np.ndarray:
    """A batch of two, wide enough for any font."""
    return np.random.default_rng(seed).integers(0, 256, (2, height, width, 3), dtype=np.uint8)


def stored(*results: Decoded) -> StoredComparison:
    generation = Generation("g", torch.zeros(2, 4, 3, 29), SD1, "A cat", ("A secret prompt\nSteps: 20",) * 2)
    return StoredComparison("id", generation, Comparison(SD1, results), "dreams.safetensors")


THREE = ("Built-in", "b.pt", "动漫.pt")


def three(names: tuple[str, ...] = THREE) -> StoredComparison:
    broken = Decoded("broken.pt", None, 0.0, error="it is broken")
    return stored(*(Decoded(name, pixels(i), 0.5) for i, name in enumerate(names)), broken)


def frames(data: bytes) -> tuple[list[np.ndarray], list[int], Image.Image]:
    with Image.open(io.BytesIO(data)) as image:
        found = [(np.asarray(frame.convert("RGB")), frame.info["duration"]) for frame in ImageSequence.Iterator(image)]
        return [frame for frame, _ in found], [duration for _, duration in found], image


def test_every_vae_is_a_frame_without_loss_below_its_name() -> None:
    found, durations, image = frames(blink(three()))
    assert (len(found), durations, image.info["loop"], image.format) == (3, [1000] * 3, 0, "WEBP")
    for number, frame in enumerate(found):
        np.testing.assert_array_equal(frame[-24:], pixels(number)[0])
    labels = [frame[:-24].tobytes() for frame in found]
    assert len(set(labels)) == 3
    assert b"secret" not in blink(three())


def test_chosen_vaes_image_and_rate() -> None:
    found, durations, _ = frames(blink(three(), vaes=["动漫.pt", "Built-in", "动漫.pt"], image=1, rate=4))
    assert durations == [250, 250]
    for frame, expected in zip(found, (pixels(2)[1], pixels(0)[1]), strict=True):
        np.testing.assert_array_equal(frame[-24:], expected)


def test_as_gif() -> None:
    found, durations, image = frames(blink(three(), "gif", rate=0.5))
    assert (len(found), durations, image.info["loop"], image.format) == (3, [2000] * 3, 0, "GIF")
    for number, frame in enumerate(found):
        error = np.abs(frame[-24:].astype(int) - pixels(number)[0]).mean()
        assert error < 30, "of 85 between unrelated images"


def test_large_images_are_downscaled() -> None:
    large = stored(*(Decoded(name, pixels(i, 40, 2048)[:1], 0.5) for i, name in enumerate("ab")))
    found, _, image = frames(blink(large))
    assert image.size[0] == 1024
    small = Image.fromarray(pixels(1, 40, 2048)[0]).resize((1024, 20), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(found[1][-20:], np.asarray(small))


def test_many_images_are_compressed_and_none_shows_in_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = [np.full((1, 64, 256, 3), value, np.uint8) for value in (30, 128, 220)]
    comparison = stored(*(Decoded(name, image, 0.5) for name, image in zip("abc", plain, strict=True)))
    monkeypatch.setattr("vae_lab.service.blink._MAX_LOSSLESS", 1)
    data = blink(comparison)
    assert b"VP8L" not in data
    for frame, image in zip(frames(data)[0], plain, strict=True):
        assert np.abs(frame[-48:].astype(int) - image[0, -48:]).max() <= 3


@pytest.mark.parametrize("name", ["漫" * 20, "x" * 255, "\udce9 broken", "a\nb\0\u202e", "🦊 fox.pt", " "])
def test_any_name_is_drawn(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the system's fonts, and without any."""
    other = "another"
    for _ in range(2):
        labels = [frame[:-24] for frame in frames(blink(three((name, other))))[0]]
        assert labels[0].shape == labels[1].shape
        assert not np.array_equal(*labels)

        def none(*_: object) -> None:
            raise OSError("no such font")

        monkeypatch.setattr(ImageFont, "truetype", none)


def test_without_a_font_for_them_names_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes would all look the same."""
    monkeypatch.setattr(sheets, "_FONTS", ())
    labels = [frame[:-24].tobytes() for frame in frames(blink(three(("动漫.pt", "写实.pt"))))[0]]
    assert len(set(labels)) == 2


def test_what_cannot_be_made_is_refused() -> None:
    comparison = three()
    for error, message, values in (
        (UnknownChoice, "no image of c.pt", {"vaes": ["b.pt", "c.pt"]}),
        (UnknownChoice, "no image of broken.pt", {"vaes": ["b.pt", "broken.pt"]}),
        (UnknownChoice, "no image 2; its batch has 2", {"image": 2}),
        (UnknownChoice, "no image -1", {"image": -1}),
        (VaeLabError, "at least two", {"vaes": ["b.pt"]}),
        (VaeLabError, "from 0.5 to 4", {"rate": 5}),
        (VaeLabError, "from 0.5 to 4", {"rate": float("nan")}),
    ):
        with pytest.raises(error, match=message):
            blink(comparison, **values)  # type: ignore[arg-type]
    many = stored(*(Decoded(f"{i}.pt", pixels(i, 8, 8), 0.5) for i in range(MAX_FRAMES + 1)))
    with pytest.raises(VaeLabError, match="25 VAEs are too many"):
        blink(many)
    assert len(frames(blink(many, vaes=[f"{i}.pt" for i in range(MAX_FRAMES)]))[0]) == MAX_FRAMES
    assert [can_blink(each) for each in (many, comparison, stored())] == [False, True, False]
