"""Stored comparisons: images with generation parameters that name the VAE."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from vae_lab.comparison import Comparison, Decoded
from vae_lab.latents import Generation
from vae_lab.latents.family import FAMILIES
from vae_lab.service.comparisons import StoredComparison

SD1 = FAMILIES["sd1"]
PLAIN = "a cat\nSteps: 20, Sampler: Euler, Seed: 1"


def stored(
    *infotexts: str, other: str = "other.pt", digest: str = "0123456789", sampled_by: str = "/models/one.safetensors"
) -> StoredComparison:
    """Two VAEs, two latents."""
    generation = Generation("g", torch.zeros(2, 4, 2, 2), SD1, "A cat", infotexts, sampled_by)
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    results = (Decoded("Built-in", images[:2], 0.1), Decoded(other, images[2:], 0.1))
    return StoredComparison("id", generation, Comparison(SD1, results), "one.safetensors", digests={other: digest})


def read(png: bytes) -> tuple[np.ndarray, dict[str, str]]:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image), dict(image.text)


def test_each_image_names_its_vae() -> None:
    comparison = stored(PLAIN, "a dog\nSteps: 20, Sampler: Euler, Seed: 2")
    texts = [read(comparison.png(i)[1])[1]["parameters"] for i in range(4)]
    ours = ", VAE Lab override: other.pt, VAE Lab override hash: 0123456789"
    assert texts == [
        PLAIN,
        "a dog\nSteps: 20, Sampler: Euler, Seed: 2",
        PLAIN + ours,
        "a dog\nSteps: 20, Sampler: Euler, Seed: 2" + ours,
    ]


def test_pixels_are_the_same_with_and_without_a_text() -> None:
    with_text, without = stored(PLAIN, PLAIN), stored()
    for number in range(4):
        np.testing.assert_array_equal(read(with_text.png(number)[1])[0], read(without.png(number)[1])[0])


def test_the_built_in_vae_is_named_where_another_was() -> None:
    """The latent was sampled with an override; the built-in VAE's image must not name that one."""
    comparison = stored(f"{PLAIN}, VAE Lab override: a.pt, VAE Lab override hash: 99")
    assert read(comparison.png(0)[1])[1]["parameters"] == f"{PLAIN}, VAE Lab override: Built-in"


@pytest.mark.parametrize("sampled_by", ["", "/models/two.safetensors"])
def test_of_latents_from_elsewhere_the_checkpoint_is_named_that_decoded(sampled_by: str) -> None:
    """Latents from another or an unknown checkpoint would have been decoded by another VAE."""
    comparison = stored(PLAIN, sampled_by=sampled_by)
    assert read(comparison.png(0)[1])[1]["parameters"] == f"{PLAIN}, VAE Lab override: one.safetensors"


def test_without_generation_parameters_none_are_invented() -> None:
    comparison = stored(PLAIN)
    assert "parameters" not in read(comparison.png(1)[1])[1]
    assert read(stored().sheet())[1] == {}


@pytest.mark.parametrize("prompt", ["猫, 'quoted'", "é", "\udce9 broken", "line\nline"])
def test_any_text_is_preserved(prompt: str) -> None:
    comparison = stored(f"{prompt}\nSteps: 20, Sampler: Euler, Seed: 1", other="动漫, 2.pt")
    found = read(comparison.png(2)[1])[1]["parameters"]
    printable = prompt.encode("utf8", "backslashreplace").decode()
    ours = 'VAE Lab override: "动漫, 2.pt", VAE Lab override hash: 0123456789'
    assert found == f"{printable}\nSteps: 20, Sampler: Euler, Seed: 1, {ours}"


def test_without_a_hash_only_the_name() -> None:
    assert stored(PLAIN, digest="").infotext("other.pt", 0) == f"{PLAIN}, VAE Lab override: other.pt"


def test_sheet_has_all_images_and_the_text_as_it_was() -> None:
    pixels, texts = read(stored(PLAIN).sheet())
    assert texts == {"parameters": PLAIN}
    assert pixels.shape[1] > 2 * 200
