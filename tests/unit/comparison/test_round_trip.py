"""Encode and decode an image with many VAEs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from tests.unit.makers import F8, kl_state, taesd_state, write
from vae_lab import load_autoencoder
from vae_lab.autoencoders import Autoencoder
from vae_lab.comparison import Coder, RoundTrip, contact_sheet, round_trip, to_pixels
from vae_lab.comparison.compare import Comparison
from vae_lab.comparison.round_trip import (
    LOSS_COLOURS,
    LOSS_SCALE,
    as_decoded,
    channel_images,
    coder_of,
    loss_between,
    loss_colour,
)
from vae_lab.images import prepared
from vae_lab.latents.family import FAMILIES
from vae_lab.samples import SampleSet, sample_photos


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    """[1,3,128,128]: a sample photo, made smaller."""
    with Image.open(sample_photos()["cat"]) as image:
        return prepared(image, 128).image


def coder(path: Path) -> Coder:
    return Coder(path.name, partial(coder_of, path))


def trip(photo: torch.Tensor, *paths: Path, **options: object) -> RoundTrip:
    return round_trip(photo, [coder(path) for path in paths], **options)  # type: ignore[arg-type]


def test_result_equals_the_vaes_own(photo: torch.Tensor, sample_set: SampleSet) -> None:
    result = trip(photo, sample_set.anime)["anime.vae.pt"]
    vae = load_autoencoder(sample_set.anime)
    latent = vae.encode(photo)
    assert result.latent is not None
    assert torch.equal(result.latent, latent)
    assert np.array_equal(result.image, to_pixels(vae.decode(latent))[0])
    assert result.family == FAMILIES["sd1"]
    assert result.finite
    assert result.error == ""
    assert min(result.encode_seconds, result.decode_seconds) > 0


def test_every_vae_encodes_for_itself_whatever_its_family(photo: torch.Tensor, sample_set: SampleSet) -> None:
    found = trip(photo, sample_set.healthy, sample_set.sdxl)
    one, two = found
    assert [one.family, two.family] == [FAMILIES["sd1"], FAMILIES["sdxl"]]
    assert one.latent is not None
    assert two.latent is not None
    assert not torch.equal(one.latent, two.latent)
    assert not np.array_equal(one.image, two.image)  # type: ignore[arg-type]


def test_numbers_show_what_people_claim(photo: torch.Tensor, sample_set: SampleSet) -> None:
    """The MSE type has the smallest squared error; the sharp one pays for its sharpness; a grey merge is far off."""
    with Image.open(sample_photos()["cat"]) as image:  # scaled down further, it is all detail, which blur loses
        larger = prepared(image, 256).image
    found = [
        *trip(photo, sample_set.healthy, sample_set.grey_merge),
        *trip(larger, sample_set.smooth, sample_set.sharp),
    ]
    psnr, delta = ({r.name: getattr(r.loss, kind) for r in found} for kind in ("psnr", "delta_e"))
    assert psnr["photo-a-smooth.safetensors"] > psnr["photo-a-sharp.safetensors"]
    assert psnr["healthy.safetensors"] > psnr["grey-merge.safetensors"] + 1
    assert delta["healthy.safetensors"] < delta["grey-merge.safetensors"]


def test_what_cannot_be_used_gives_its_reason_and_stops_nobody(
    photo: torch.Tensor, sample_set: SampleSet, tmp_path: Path
) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"not a VAE")
    write(tmp_path / "decoder.safetensors", taesd_state(encoder=False))
    write(tmp_path / "encoder.safetensors", taesd_state(decoder=False))
    bad = [tmp_path / f"{name}.safetensors" for name in ("broken", "decoder", "encoder", "gone")]
    found = trip(photo, *bad, sample_set.no_vae, sample_set.smooth)
    words = ("broken.safetensors: ", "contains only the decoder", "contains only the encoder", "no such file", "no-vae")
    for result, fragment in zip(found.results[:-1], words, strict=True):
        assert fragment in result.error, result.name
        assert "\n" not in result.error
        assert (result.image, result.latent, result.loss) == (None, None, None)
    assert found.results[-1].image is not None


def test_taesd_needs_no_family(photo: torch.Tensor, tmp_path: Path) -> None:
    (result,) = trip(photo, write(tmp_path / "both.safetensors", taesd_state()))
    assert result.error == ""
    assert result.latent is not None


class Failing(Autoencoder):
    """Raises what it is named after."""

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        raise {"memory": MemoryError(), "torch": RuntimeError("first\nsecond"), "disk": OSError("gone")}[self.name]


@pytest.mark.parametrize(
    ("kind", "line"),
    [("memory", "x: out of memory"), ("torch", "x: RuntimeError: first"), ("disk", "x: OSError: gone")],
)
def test_error_of_torch_or_of_the_disk(photo: torch.Tensor, sample_set: SampleSet, kind: str, line: str) -> None:
    whole = load_autoencoder(sample_set.smooth)
    failing = Failing(kind, "", whole.architecture, whole.module, whole.family, whole.latent_channels)
    found = round_trip(photo, [Coder("x", lambda: nullcontext(failing)), Coder("y", lambda: nullcontext(whole))])
    assert found["x"].error == line
    assert found["y"].image is not None


def test_sides_that_a_vae_cannot_take(tmp_path: Path) -> None:
    path = write(tmp_path / "f8.safetensors", kl_state(F8))
    vae = partial(coder_of, path, family=FAMILIES["sd1"])
    (result,) = round_trip(torch.zeros(1, 3, 12, 16), [Coder("f8", vae)])
    assert "multiples of 8" in result.error


def test_when_memory_is_short(photo: torch.Tensor, sample_set: SampleSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding turns to strips; encoding, which cannot, says what it would take instead of having it taken."""
    vae = load_autoencoder(sample_set.smooth)
    plain = round_trip(photo, [Coder("x", lambda: nullcontext(vae))])["x"]
    to_encode = vae.bytes_to_encode(photo)
    assert to_encode < vae.bytes_to_decode(plain.latent)
    for free, in_strips in ((1.5 * to_encode, True), (2 * to_encode, False)):
        monkeypatch.setattr(psutil, "virtual_memory", lambda free=free: SimpleNamespace(available=free))
        short = round_trip(photo, [Coder("x", lambda: nullcontext(vae))])["x"]
        assert (short.error, short.in_strips) == ("", in_strips)
        assert np.abs(short.image.astype(int) - plain.image).max() <= 1
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=to_encode))
    refused = round_trip(photo, [Coder("x", lambda: nullcontext(vae))])["x"]
    assert refused.image is None
    assert load_autoencoder(sample_set.smooth).family == vae.family, "the small chart that tells it is not refused"
    assert f"encoding {photo.shape[3]} x {photo.shape[2]} pixels needs about" in refused.error


def test_nan_is_reported(photo: torch.Tensor, sample_set: SampleSet) -> None:
    vae = load_autoencoder(sample_set.smooth)
    next(iter(vae.module.decoder.parameters())).data.fill_(float("nan"))  # type: ignore[union-attr]
    (result,) = round_trip(photo, [Coder("nan", lambda: nullcontext(vae))])
    assert not result.finite
    assert result.image is not None
    assert not result.image.any()


def test_one_vae_is_in_memory_at_a_time(photo: torch.Tensor, sample_set: SampleSet) -> None:
    events: list[str] = []

    @contextmanager
    def watched(path: Path) -> Iterator[Autoencoder]:
        events.append(f"+{path.name}")
        with coder_of(path) as vae:
            yield vae
        events.append(f"-{path.name}")

    paths = (sample_set.smooth, sample_set.sharp)
    round_trip(photo, [Coder(path.name, partial(watched, path)) for path in paths])
    assert events == [f"{sign}{path.name}" for path in paths for sign in "+-"]


def test_progress_counts_both_ways_up_to_the_total(photo: torch.Tensor, sample_set: SampleSet) -> None:
    seen: list[tuple[int, int, str]] = []
    paths = (sample_set.smooth, Path("gone.safetensors"), sample_set.sharp)
    trip(photo, *paths, progress=lambda *report: seen.append(report))
    assert [done for done, _, _ in seen] == [0, 1, 2, 4, 5, 6]
    assert {total for _, total, _ in seen} == {6}
    assert seen[1][2] == "photo-a-smooth.safetensors, decoding"


@pytest.mark.parametrize("stop", [0, 1, 2, 3])
def test_cancel_keeps_what_is_finished(photo: torch.Tensor, sample_set: SampleSet, stop: int) -> None:
    asked: list[None] = []

    def cancelled() -> bool:
        asked.append(None)
        return len(asked) > stop

    found = trip(photo, sample_set.smooth, sample_set.sharp, cancelled=cancelled)
    assert found.cancelled
    assert len(found.results) == stop // 2
    assert all(result.image is not None for result in found)


# --- what is lost ----------------------------------------------------------------------------------------------------


def noise(seed: int = 0, shape: tuple[int, ...] = (300, 40, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_equal_images_lose_nothing() -> None:
    loss = loss_between(noise(), noise())
    assert (loss.psnr, loss.delta_e) == (math.inf, 0.0)
    assert loss.ssim == pytest.approx(1, abs=1e-6)
    assert not loss.image.any()
    assert loss.to_json() == {"psnr": None, "ssim": 1.0, "delta_e": 0.0}


def test_numbers_are_those_of_the_literature() -> None:
    from skimage.color import deltaE_ciede2000, rgb2lab
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    one, two = noise(0), noise(1)
    loss = loss_between(one, two)
    assert loss.psnr == pytest.approx(peak_signal_noise_ratio(one, two), rel=1e-5)
    luma = [image @ np.array([0.299, 0.587, 0.114]) for image in (one, two)]
    wang = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    assert loss.ssim == pytest.approx(structural_similarity(*luma, **wang), rel=1e-4)
    assert loss.delta_e == pytest.approx(deltaE_ciede2000(rgb2lab(one), rgb2lab(two)).mean(), rel=1e-3)


def test_small_images_have_no_ssim() -> None:
    loss = loss_between(noise(0, (8, 40, 3)), noise(1, (8, 40, 3)))
    assert loss.ssim is None
    assert "SSIM" not in str(loss)
    assert loss.to_json()["ssim"] is None


def test_loss_map_is_one_fixed_scale_dark_to_bright() -> None:
    from skimage.color import rgb2lab

    lightness = rgb2lab(np.array([LOSS_COLOURS], dtype=np.uint8))[0, :, 0]
    assert lightness[0] == 0
    assert np.all(np.diff(lightness) > 7), "evenly brighter"
    black, grey = np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16, 3), np.uint8)
    grey[:, 8:] = 255
    loss = loss_between(black, grey)
    assert tuple(loss.image[0, 0]) == LOSS_COLOURS[0]
    assert tuple(loss.image[0, 15]) == LOSS_COLOURS[-1], f"all above {LOSS_SCALE} is brightest"
    assert loss_colour(0) == LOSS_COLOURS[0]
    assert loss_colour(LOSS_SCALE) == loss_colour(99) == LOSS_COLOURS[-1]
    grey[:, 8:] = 20
    assert tuple(loss_between(black, grey).image[0, 15]) not in (LOSS_COLOURS[0], LOSS_COLOURS[-1])


def test_channels_in_greys_of_their_own_range() -> None:
    latent = torch.stack([torch.linspace(-1, 3, 16).view(4, 4), torch.full((4, 4), 2.0)])[None]
    (first, low, high), (flat, *both) = channel_images(latent)
    assert (low, high, both) == (-1.0, 3.0, [2.0, 2.0])
    assert (first[0, 0, 0], first[-1, -1, 2]) == (0, 255)
    assert first.shape == (4, 4, 3)
    assert not flat.any()


def test_contact_sheet_has_the_original_and_every_loss(photo: torch.Tensor, sample_set: SampleSet) -> None:
    found = trip(photo, sample_set.smooth, Path("gone.safetensors"))
    columns = as_decoded(found)
    assert [column.name for column in columns] == ["Original", "photo-a-smooth.safetensors", "gone.safetensors"]
    result = found.results[0]
    assert result.loss is not None
    assert np.array_equal(columns[1].images[1], result.loss.image)  # type: ignore[index]
    with_notes, without = (
        np.asarray(contact_sheet(Comparison(FAMILIES["sd1"], columns), notes=notes))
        for notes in ({"photo-a-smooth.safetensors": "PSNR 30 dB"}, None)
    )
    assert with_notes.shape == without.shape
    assert not np.array_equal(with_notes, without)
