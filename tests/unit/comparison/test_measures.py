"""Measures of images with known properties."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import fields

import numpy as np
import pytest

from vae_lab import load_autoencoder
from vae_lab.comparison import Comparison, Decoded, compare, measure, measure_comparison
from vae_lab.comparison.measures import EXPLANATIONS, MAX_IMAGES, Measures
from vae_lab.latents.family import FAMILIES
from vae_lab.samples import SampleSet, load_sample_latents

SD1 = FAMILIES["sd1"]
GREY, BLACK, WHITE = (119, 119, 119), (0, 0, 0), (255, 255, 255)


def flat(*colours: tuple[int, int, int], side: int = 64) -> np.ndarray:
    """A batch of one image in bands of equal height."""
    bands = [np.full((side // len(colours), side, 3), colour, dtype=np.uint8) for colour in colours]
    return np.concatenate(bands)[None]


def noise(seed: int = 0, side: int = 64, batch: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (batch, side, side, 3), dtype=np.uint8)


def test_sharpness_orders_the_sample_vaes(sample_set: SampleSet) -> None:
    """Smooth, plain, sharp: so these three were trained, and so the measure must distinguish them for every photo."""
    vaes = {
        name: load_autoencoder(path, family="sd1")
        for name, path in (("smooth", sample_set.smooth), ("plain", sample_set.healthy), ("sharp", sample_set.sharp))
    }
    latents = load_sample_latents()
    assert len(latents) == 6
    for photo, latent in latents.items():
        decoded = compare(latent[:, :, 24:40, 24:40], vaes, family="sd1")
        found = measure_comparison(decoded).of
        assert found["smooth"].sharpness < found["plain"].sharpness < found["sharp"].sharpness, photo


def test_a_paler_image_is_no_sharper() -> None:
    """What a grey VAE does: the same image with half of the contrast and of the colour."""
    image = noise()
    pale = (image.astype(float) / 2 + 64).astype(np.uint8)
    own, paler = measure(image), measure(pale)
    assert paler.sharpness < own.sharpness
    assert paler.contrast < 0.7 * own.contrast
    assert paler.saturation < 0.7 * own.saturation


def test_identical_images() -> None:
    found = measure(noise(), noise())
    assert (found.delta_e, found.delta_e_95) == (0, 0)
    assert found.ssim == pytest.approx(1)
    assert found.psnr == math.inf
    assert found.equal


def test_one_pixel_makes_a_difference() -> None:
    other = noise()
    other[0, 5, 5] ^= 1
    found = measure(noise(), other)
    assert not found.equal
    assert math.isfinite(found.psnr)


def test_flat_grey_has_no_contrast_colour_or_detail() -> None:
    found = measure(flat(GREY))
    assert found.contrast == pytest.approx(0, abs=1e-4)
    assert found.saturation == pytest.approx(0, abs=0.01)
    assert found.sharpness == pytest.approx(0, abs=1e-4)
    assert (found.clipped_blacks, found.clipped_whites) == (0, 0)


def test_black_and_white_halves() -> None:
    found = measure(flat(BLACK, WHITE))
    assert found.contrast == pytest.approx(50, abs=0.01)
    assert (found.clipped_blacks, found.clipped_whites) == (50, 50)


def test_one_channel_at_its_limit_is_not_clipped() -> None:
    found = measure(flat((255, 0, 0), (0, 255, 255)))
    assert (found.clipped_blacks, found.clipped_whites) == (0, 0)


def test_saturation_of_a_known_colour() -> None:
    """Pure sRGB red is L* 53.24, a* 80.09, b* 67.20."""
    assert measure(flat((255, 0, 0))).saturation == pytest.approx(math.hypot(80.09, 67.20), abs=0.1)


def test_colour_difference_of_known_colours() -> None:
    """Of greys, CIEDE2000 of black and white is 100; half of the image differs, so the mean is 50."""
    found = measure(flat(BLACK, BLACK), flat(BLACK, WHITE))
    assert found.delta_e == pytest.approx(50, abs=0.1)
    assert found.delta_e_95 == pytest.approx(100, abs=0.1)


def test_psnr_of_a_known_error() -> None:
    found = measure(flat((100, 100, 100)), flat((110, 110, 110)))
    assert found.psnr == pytest.approx(10 * math.log10(255**2 / 100))


def test_ssim_orders_distortions() -> None:
    image = np.repeat(np.repeat(noise(side=16), 4, axis=1), 4, axis=2)
    near = np.clip(image.astype(int) + np.random.default_rng(1).integers(-8, 9, image.shape), 0, 255)
    far = np.clip(image.astype(int) + np.random.default_rng(1).integers(-80, 81, image.shape), 0, 255)
    close, distant = (measure(other.astype(np.uint8), image).ssim for other in (near, far))
    assert 0 < distant < close < 1


def test_a_large_image_gives_nearly_the_same_colour_difference() -> None:
    """Above 512 x 512 pixels, only a subset is compared."""
    small, other = noise(0, 256), noise(1, 256)
    large = [np.tile(image, (1, 3, 3, 1)) for image in (small, other)]
    assert measure(*large).delta_e == pytest.approx(measure(small, other).delta_e, rel=0.02)


def test_batches_are_averaged() -> None:
    pair = np.concatenate([flat(BLACK), flat(WHITE)])
    found = measure(pair, np.concatenate([flat(BLACK), flat(BLACK)]))
    assert (found.clipped_blacks, found.clipped_whites) == (50, 50)
    assert found.delta_e == pytest.approx(50, abs=0.1)
    assert math.isfinite(found.psnr), "one of the two is not equal"


def test_of_large_batches_the_first_are_measured() -> None:
    images = np.concatenate([flat(GREY)] * MAX_IMAGES + [flat(BLACK)] * 5)
    found = measure_comparison(Comparison(SD1, (Decoded("a", images, 1.0),)))
    assert found.of["a"].clipped_blacks == 0


def test_tiny_images_have_no_ssim() -> None:
    found = measure(noise(side=8), noise(1, side=8))
    assert found.ssim is None
    assert found.delta_e > 0


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        measure(noise(side=32), noise(side=64))
    with pytest.raises(ValueError, match="zip"):
        measure(noise(batch=2), noise(batch=1))


def test_without_a_reference_nothing_is_compared() -> None:
    found = measure(noise(), seconds=1.5)
    assert found.seconds == 1.5
    assert (found.delta_e, found.delta_e_95, found.ssim, found.psnr, found.equal) == (None, None, None, None, False)


def test_json_has_neither_nan_nor_infinity() -> None:
    for found in (measure(noise(), noise()), measure(flat(BLACK), flat(WHITE)), measure(flat(GREY, side=4))):
        plain = json.loads(json.dumps(found.to_json(), allow_nan=False))
        assert set(plain) == {field.name for field in fields(Measures)}
    assert measure(noise(), noise()).to_json()["psnr"] is None


def test_every_number_is_explained() -> None:
    assert set(EXPLANATIONS) == {field.name for field in fields(Measures)} - {"equal"}
    for known in EXPLANATIONS.values():
        assert known.compares == ("{reference}" in known.text)
        assert known.text.endswith(".")
        assert len(known.text) < 100


def test_the_first_that_decoded_is_the_reference() -> None:
    refused = Decoded("Built-in", error="no checkpoint is there")
    found = measure_comparison(Comparison(SD1, (refused, Decoded("b", noise(), 0.5), Decoded("c", noise(1), 0.7))))
    assert found.reference == "b"
    assert set(found.of) == {"b", "c"}
    assert found.of["b"].equal
    assert found.of["c"].seconds == 0.7


@pytest.mark.parametrize("results", [(), (Decoded("x", error="refused"),)])
def test_nothing_decoded(results: tuple[Decoded, ...]) -> None:
    found = measure_comparison(Comparison(SD1, results))
    assert (found.reference, dict(found.of), found.problem) == ("", {}, "")


def _raise(error: Exception) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("error", [MemoryError(), ImportError("numpy.core\nfailed"), ValueError("odd")])
def test_what_fails_is_reported_and_never_raised(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    import skimage.metrics

    monkeypatch.setattr(skimage.metrics, "structural_similarity", _raise(error))
    found = measure_comparison(Comparison(SD1, (Decoded("a", noise(), 0.5),)))
    assert type(error).__name__ in found.problem
    assert "\n" not in found.problem
    assert found.of == {}


def test_of_large_images_few_colours_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """CIEDE2000 takes most of the time: at most 512 x 512 pixels of an image, and SSIM once for each."""
    import skimage.color
    import skimage.metrics

    colours: list[int] = []
    compared: list[object] = []

    def counting(a: np.ndarray, b: np.ndarray, original=skimage.color.deltaE_ciede2000) -> np.ndarray:
        colours.append(a.size // 3)
        return original(a, b)

    def counting_ssim(*images: np.ndarray, original=skimage.metrics.structural_similarity, **options: object) -> object:
        compared.append(images[0].shape)
        return original(*images, **options)

    monkeypatch.setattr(skimage.color, "deltaE_ciede2000", counting)
    monkeypatch.setattr(skimage.metrics, "structural_similarity", counting_ssim)
    results = tuple(Decoded(str(i), noise(i, 1024), 1.0) for i in range(3))
    measure_comparison(Comparison(SD1, results))
    assert 2 <= len(colours) <= 3
    assert max(colours) <= 512 * 512
    assert len(compared) == len(colours)
