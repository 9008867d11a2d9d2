"""One latent, many VAEs: results are independent of each other."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor, nn

from tests.unit.makers import F8, SD1_TEXT, UNET, kl_state, write
from vae_lab import compare, load_autoencoder
from vae_lab.autoencoders import Autoencoder
from vae_lab.autoencoders.kl import AutoencoderKL, KLArchitecture, config_from_shapes
from vae_lab.autoencoders.kl.strips import decode_in_strips
from vae_lab.comparison import Candidate, Comparison, compare_candidates, to_pixels
from vae_lab.decoding import Decoder, decoder_of
from vae_lab.errors import Cancelled, FamilyMismatch, MissingVae, UnknownChoice
from vae_lab.latents.family import FAMILIES
from vae_lab.samples import SampleSet, load_sample_latents, load_sample_vae

SD1, SDXL = FAMILIES["sd1"], FAMILIES["sdxl"]


def flat(value: float) -> Callable[[Tensor], Tensor]:
    """A decoder that paints everything in one grey, four image pixels to a latent pixel."""
    return lambda latent: torch.full((1, 3, latent.shape[2] * 2, latent.shape[3] * 2), value)


def good(name: str, value: float = 0.5) -> Candidate:
    return Candidate(name, lambda: nullcontext(Decoder(flat(value))), SD1)


def failing(error: BaseException) -> Callable[[Tensor], Tensor]:
    def decode(latent: Tensor) -> Tensor:
        raise error

    return decode


def bad(name: str, error: BaseException) -> Candidate:
    return Candidate(name, lambda: nullcontext(Decoder(failing(error))))


def unopenable(name: str, error: BaseException) -> Candidate:
    def fail():
        raise error

    return Candidate(name, fail)


def latents(batch: int = 1) -> Tensor:
    return torch.randn(batch, 4, 2, 2)


def names(comparison: Comparison) -> list[str]:
    return [result.name for result in comparison]


@pytest.fixture(scope="module")
def vaes(tmp_path_factory: pytest.TempPathFactory) -> list[Autoencoder]:
    """Three VAEs with different weights."""
    folder = tmp_path_factory.mktemp("vaes")
    return [
        load_autoencoder(write(folder / f"{seed}.safetensors", kl_state(F8, seed)), family="sd1") for seed in (3, 1, 2)
    ]


# --- what is decoded -------------------------------------------------------------------------------------------------


def test_each_result_equals_the_vaes_own_decode(vaes: list[Autoencoder]) -> None:
    wanted = latents(2)
    comparison = compare(wanted, vaes)
    assert comparison.family == SD1
    assert names(comparison) == ["3.safetensors", "1.safetensors", "2.safetensors"], "in the order asked for"
    for vae, result in zip(vaes, comparison, strict=True):
        assert result.images is not None
        assert result.images.dtype == np.uint8
        assert result.images.shape == (2, 16, 16, 3)
        single = np.concatenate([to_pixels(vae.decode(one)) for one in wanted.split(1)])
        assert np.array_equal(result.images, single)
        assert result.finite
        assert result.seconds > 0
    assert not np.array_equal(comparison["1.safetensors"].images, comparison["2.safetensors"].images)


def test_a_mapping_names_the_vaes(vaes: list[Autoencoder]) -> None:
    assert names(compare(latents(), {"mine": vaes[0], "yours": vaes[1]})) == ["mine", "yours"]


def test_family_of_the_latents_is_that_of_the_first_vae_that_has_one(vaes: list[Autoencoder]) -> None:
    unknown, known = vaes[0].with_family(None), vaes[1].with_family("sdxl")
    assert compare(latents(), [unknown, known]).family == SDXL


def test_family_that_cannot_be_detected(vaes: list[Autoencoder]) -> None:
    with pytest.raises(FamilyMismatch, match="could not be determined from these VAEs; pass one"):
        compare(latents(), [vaes[0].with_family(None)])


def test_trained_vaes_of_the_sample_set(sample_set: SampleSet) -> None:
    crop = load_sample_latents()["cat"][:, :, :8, :8]
    paths = {"healthy": sample_set.healthy, "photo-b": sample_set.photo_b, "sdxl": sample_set.sdxl}
    comparison = compare(crop, {name: load_autoencoder(path) for name, path in paths.items()})
    assert [result.name for result in comparison.decoded] == ["healthy", "photo-b"]
    assert comparison["sdxl"].error == "sdxl-c.safetensors is a VAE for SDXL, but the latents are SD1 / SD2" or (
        comparison["sdxl"].error == "sdxl is a VAE for SDXL, but the latents are SD1 / SD2"
    )


# --- what is refused -------------------------------------------------------------------------------------------------


def test_equal_weights_are_decoded_once() -> None:
    decoded: list[str] = []

    def candidate(name: str, weights: str) -> Candidate:
        def whole(latent: Tensor) -> Tensor:
            decoded.append(name)
            return flat(len(decoded) / 10)(latent)

        return Candidate(name, lambda: nullcontext(Decoder(whole)), SD1, weights)

    progress: list[int] = []
    all_of_them = [
        candidate("a", "x"),
        candidate("b", "y"),
        candidate("c", "x"),
        candidate("d", ""),
        candidate("e", ""),
    ]
    comparison = compare_candidates(latents(), all_of_them, SD1, progress=lambda done, *_: progress.append(done))
    assert names(comparison) == ["a", "b", "c", "d", "e"]
    assert decoded == ["a", "b", "d", "e"]
    assert np.array_equal(comparison["c"].images, comparison["a"].images)
    assert progress[-1] == 5


def test_equal_weights_are_decoded_again_after_an_error() -> None:
    broken = Candidate("a", lambda: nullcontext(Decoder(failing(RuntimeError("once")))), SD1, "x")
    comparison = compare_candidates(latents(), [broken, replace(good("b"), weights="x")], SD1)
    assert [bool(result.error) for result in comparison] == [True, False]


def test_vae_of_another_family_is_refused_and_the_rest_decoded() -> None:
    def never() -> None:
        pytest.fail("was opened")

    candidates = [good("a"), Candidate("xl", never, SDXL), good("b")]
    comparison = compare_candidates(latents(), candidates, SD1)
    assert names(comparison) == ["a", "xl", "b"]
    assert comparison["xl"].images is None
    assert comparison["xl"].error == "xl is a VAE for SDXL, but the latents are SD1 / SD2"
    assert comparison["xl"].family == SDXL
    assert [result.name for result in comparison.decoded] == ["a", "b"]


ERRORS = {
    "our own": UnknownChoice("no VAE named x"),
    "of torch": RuntimeError("expected scalar type Half but found Float"),
    "of the disk": OSError(5, "Input/output error"),
    "of memory": MemoryError(),
}


@pytest.mark.parametrize("where", [bad, unopenable])
@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_one_bad_candidate_never_stops_the_others(
    where: Callable[[str, BaseException], Candidate], error: BaseException
) -> None:
    comparison = compare_candidates(latents(2), [good("a"), where("x", error), good("b")], SD1)
    assert names(comparison) == ["a", "x", "b"]
    assert comparison["x"].images is None
    assert comparison["x"].error
    assert "\n" not in comparison["x"].error
    assert [result.name for result in comparison.decoded] == ["a", "b"]


def test_error_nobody_expected_is_named_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    comparison = compare_candidates(latents(), [bad("x", RuntimeError("first line\nsecond line"))], SD1)
    assert comparison["x"].error == "x: RuntimeError: first line"
    assert "second line" in caplog.text


def test_images_of_a_batch_that_fails_halfway_are_not_shown() -> None:
    calls = iter([flat(0.5), failing(UnknownChoice("gone"))])
    candidate = Candidate("x", lambda: nullcontext(Decoder(lambda latent: next(calls)(latent))))
    assert compare_candidates(latents(2), [candidate], SD1)["x"].images is None


def test_candidate_is_closed_whatever_happens() -> None:
    log: list[str] = []

    def opening(name: str, error: BaseException | None) -> Callable[[], object]:
        @contextmanager
        def opened() -> Iterator[Decoder]:
            log.append(f"open {name}")
            try:
                yield Decoder(flat(0.5) if error is None else failing(error))
            finally:
                log.append(f"close {name}")

        return opened

    candidates = [Candidate("a", opening("a", None)), Candidate("x", opening("x", RuntimeError("no")))]
    compare_candidates(latents(), candidates, SD1)
    assert log == ["open a", "close a", "open x", "close x"], "one at a time"


def test_out_of_memory_is_reported() -> None:
    error = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")
    comparison = compare_candidates(latents(), [bad("x", error), good("b")], SD1)
    assert comparison["x"].error == "x: out of memory: CUDA out of memory. Tried to allocate 2.00 GiB."
    assert comparison["b"].images is not None


def test_out_of_memory_with_torch_2_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no ``torch.OutOfMemoryError`` yet."""
    monkeypatch.delattr(torch, "OutOfMemoryError", raising=False)
    comparison = compare_candidates(latents(), [bad("x", torch.cuda.OutOfMemoryError("full")), good("b")], SD1)
    assert comparison["x"].error == "x: out of memory: full"
    assert comparison["b"].images is not None


# --- progress and cancel ---------------------------------------------------------------------------------------------


def test_progress_counts_every_decode_up_to_the_total() -> None:
    reports: list[tuple[int, int, str]] = []
    compare_candidates(latents(2), [good("a"), good("b")], SD1, progress=lambda *report: reports.append(report))
    done = [report[0] for report in reports]
    assert {report[1] for report in reports} == {4}
    assert done == sorted(done)
    assert set(done) == {0, 1, 2, 3, 4}
    assert (0, 4, "a") in reports
    assert (2, 4, "b") in reports


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize(
    "refused",
    [
        Candidate("x", lambda: pytest.fail("was opened"), SDXL),
        unopenable("x", UnknownChoice("gone")),
        bad("x", UnknownChoice("gone")),
        bad("x", torch.cuda.OutOfMemoryError("full")),
    ],
    ids=["family", "opening", "decoding", "memory"],
)
def test_progress_reaches_the_total_with_a_refused_vae(refused: Candidate, position: int) -> None:
    candidates = [good("a"), good("b")]
    candidates.insert(position, refused)
    done: list[int] = []
    compare_candidates(latents(2), candidates, SD1, progress=lambda steps, total, what: done.append(steps))
    assert done[-1] == 6
    assert done == sorted(done)


def test_cancel_keeps_what_is_finished() -> None:
    decoded: list[str] = []
    candidates = [good("a"), good("b"), good("c")]
    comparison = compare_candidates(
        latents(),
        candidates,
        SD1,
        progress=lambda done, total, what: decoded.append(what),
        cancelled=lambda: "b" in decoded,
    )
    assert comparison.cancelled
    assert names(comparison) == ["a"]
    assert comparison["a"].images is not None


def test_cancel_during_the_last_decode_loses_nothing() -> None:
    stop: list[bool] = []

    def decode(latent: Tensor) -> Tensor:
        stop.append(True)
        return flat(0.5)(latent)

    candidates = [good("a"), Candidate("b", lambda: nullcontext(Decoder(decode)))]
    comparison = compare_candidates(latents(), candidates, SD1, cancelled=lambda: bool(stop))
    assert names(comparison) == ["a", "b"]
    assert comparison["b"].images is not None


def test_cancel_before_anything() -> None:
    comparison = compare_candidates(latents(), [good("a")], SD1, cancelled=lambda: True)
    assert comparison.cancelled
    assert names(comparison) == []


def test_cancel_inside_a_batch_stops_after_the_current_image() -> None:
    decoded: list[int] = []

    def decode(latent: Tensor) -> Tensor:
        decoded.append(1)
        return flat(0.5)(latent)

    candidate = Candidate("a", lambda: nullcontext(Decoder(decode)))
    comparison = compare_candidates(latents(8), [candidate], SD1, cancelled=lambda: len(decoded) == 3)
    assert comparison.cancelled
    assert len(decoded) == 3
    assert names(comparison) == []


def test_decoder_that_cancels_itself_stops_the_comparison() -> None:
    comparison = compare_candidates(latents(), [good("a"), bad("x", Cancelled("cancelled")), good("b")], SD1)
    assert comparison.cancelled
    assert names(comparison) == ["a"]


def test_not_cancelled() -> None:
    assert not compare_candidates(latents(), [good("a")], SD1, cancelled=lambda: False).cancelled


def test_nothing_to_compare() -> None:
    assert names(compare_candidates(latents(), [], SD1)) == []


# --- broken decoders -------------------------------------------------------------------------------------------------


def test_nan_gives_a_black_image_and_is_reported() -> None:
    result = compare_candidates(latents(), [good("x", float("nan"))], SD1)["x"]
    assert not result.finite
    assert result.images is not None
    assert not result.images.any()


def test_a_single_nan_is_reported(vaes: list[Autoencoder]) -> None:
    def decode(latent: Tensor) -> Tensor:
        image = flat(0.5)(latent)
        image[0, 2, 3, 1] = float("nan")
        return image

    assert not compare_candidates(latents(), [Candidate("x", lambda: nullcontext(Decoder(decode)))], SD1)["x"].finite


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_vae_whose_last_layer_overflows_is_reported(tmp_path: Path, value: float) -> None:
    """Infinite values must not pass for white: they are what an overflow in half precision leaves."""
    state = kl_state(F8)
    vae = load_autoencoder(write(tmp_path / "v.safetensors", state), family="sd1")
    vae.module.get_parameter("decoder.conv_out.bias").fill_(value)
    assert not compare(latents(), [vae])["v.safetensors"].finite


# --- files -----------------------------------------------------------------------------------------------------------


def test_decoder_of_a_file_of_another_family(sample_set: SampleSet) -> None:
    with (
        pytest.raises(FamilyMismatch, match=r"sdxl-c\.safetensors is a VAE for SDXL"),
        decoder_of(sample_set.sdxl, SD1),
    ):
        pass


def test_decoder_of_a_vae_that_does_not_tell_takes_the_latents_family(tmp_path: Path) -> None:
    path = write(tmp_path / "v.safetensors", kl_state(F8))
    one = latents()
    with decoder_of(path, SDXL) as decoder:
        found = decoder.whole(one)
    expected = load_autoencoder(path, family="sdxl").decode(one)
    assert torch.allclose(found.clamp(0, 1), expected)


def test_decoder_of_a_file_without_vae(tmp_path: Path) -> None:
    path = write(tmp_path / "c.safetensors", UNET | SD1_TEXT)
    with pytest.raises(MissingVae), decoder_of(path, SD1):
        pass


# --- when memory is short -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vae() -> Autoencoder:
    state = load_sample_vae("photo-a")
    module = AutoencoderKL(config_from_shapes({name: tuple(value.shape) for name, value in state.items()}))
    module.load_state_dict({name: value.float() for name, value in state.items()})
    return Autoencoder("photo-a", "", KLArchitecture(), module.eval().requires_grad_(False), SD1, 4)


def in_wrapped_padding(vae: Autoencoder) -> Autoencoder:
    """As a host that makes images which tile."""
    module = copy.deepcopy(vae.module)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            layer.padding_mode = "circular"
    return replace(vae, module=module)


def with_channels_last(vae: Autoencoder) -> Autoencoder:
    """As the WebUI under ``--opt-channelslast``."""
    return replace(vae, module=copy.deepcopy(vae.module).to(memory_format=torch.channels_last))


CHANGES = {"zeros": lambda vae: vae, "circular": in_wrapped_padding, "channels-last": with_channels_last}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("elements", [2**12, 2**15, 2**19])
def test_strips_give_the_same_image(
    vae: Autoencoder, elements: int, change: Callable[[Autoencoder], Autoencoder]
) -> None:
    """From one row at a time to a few strips: no seam, since nothing but the work is cut."""
    vae = change(vae)
    latent = next(iter(load_sample_latents().values()))[:1, :, :20, :14].float()
    whole = vae.decode_unclamped(latent)
    made = decode_in_strips(vae.module, SD1.to_vae_space(latent), elements=elements)
    strips = (made + 1.0) / 2.0
    assert torch.allclose(strips, whole, atol=1e-4)
    assert np.abs(to_pixels(strips).astype(int) - to_pixels(whole)).max() <= 1


def test_memory_that_is_short_is_reported_first(vae: Autoencoder, monkeypatch: pytest.MonkeyPatch) -> None:
    latent = next(iter(load_sample_latents().values()))[:1, :, :16, :16].float()
    plain = compare(latent, {"a": vae})["a"]
    needed = vae.bytes_to_decode(latent)
    for free, in_strips in ((needed * 2, False), (needed, True)):
        monkeypatch.setattr(psutil, "virtual_memory", lambda free=free: SimpleNamespace(available=free))
        result = compare(latent, {"a": vae})["a"]
        assert result.in_strips == in_strips
        assert np.abs(result.images.astype(int) - plain.images).max() <= 1, "only rounding differs"


def test_what_a_failed_decode_held_is_let_go_before_the_strips(vae: Autoencoder) -> None:
    """Else they would run out of memory too: the frames of an error that is being handled keep all their maps."""
    references: list[weakref.ref[Tensor]] = []

    def full(latent: Tensor) -> Tensor:
        maps = torch.zeros(8)
        references.append(weakref.ref(maps))
        raise MemoryError

    def in_strips(latent: Tensor) -> Tensor | None:
        assert references[0]() is None
        return vae.decode_in_strips(latent)

    latent = next(iter(load_sample_latents().values()))[:1, :, :16, :16].float()
    image, stripped = Decoder(full, in_strips).decode(latent)
    assert stripped
    assert image.shape == (1, 3, 128, 128)
    with pytest.raises(MemoryError):
        Decoder(full, lambda _: None).decode(latent)


OUT_OF_MEMORY = {
    "memory": MemoryError(),
    "cuda": torch.cuda.OutOfMemoryError("full"),
    "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory"),
    "mps": RuntimeError("MPS backend out of memory (MPS allocated: 17.83 GB, max allowed: 18.13 GB)"),
}


@pytest.mark.parametrize("error", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
def test_running_out_of_memory_does_not_cost_the_image(vae: Autoencoder, error: BaseException) -> None:
    latent = next(iter(load_sample_latents().values()))[:1, :, :16, :16].float()
    candidate = Candidate("a", lambda: nullcontext(Decoder(failing(error), vae.decode_in_strips)), SD1)
    result = compare_candidates(latent, [candidate], SD1)["a"]
    assert (result.error, result.in_strips) == ("", True)
    plain = compare(latent, {"a": vae})["a"]
    assert np.abs(result.images.astype(int) - plain.images).max() <= 1, "only rounding differs"
