"""Latents that can be decoded again: stored in memory, and in files."""

from __future__ import annotations

import random
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from vae_lab.errors import FamilyMismatch, MalformedFile, UnknownChoice, UnreadableFile, VaeLabError
from vae_lab.latents import (
    Generation,
    GenerationStore,
    latents_file,
    load_latents,
    read_latents,
    read_limited,
    save_latents,
)
from vae_lab.latents.family import FAMILIES

LATENT = 4 * 8 * 8 * 4
"""Bytes of one latent below."""


def generation(name: str = "g", batch: int = 1) -> Generation:
    return Generation(name, torch.randn(batch, 4, 8, 8), FAMILIES["sd1"], title=name)


ONE = generation().nbytes
"""Bytes of one generation above, with its title."""


def ids(store: GenerationStore) -> list[str]:
    return [generation.id for generation in store.newest_first()]


# --- stored in memory ------------------------------------------------------------------------------------------------


def test_newest_comes_first() -> None:
    store = GenerationStore(10 * ONE)
    for name in "abc":
        store.add(generation(name))
    assert ids(store) == ["c", "b", "a"]
    assert store.get("b").title == "b"


def test_oldest_makes_room() -> None:
    store = GenerationStore(2 * ONE)
    for name in "abc":
        store.add(generation(name))
    assert ids(store) == ["c", "b"]
    with pytest.raises(UnknownChoice, match="generation a is no longer stored"):
        store.get("a")


def test_exactly_the_limit_fits() -> None:
    generations = [generation("a"), generation("b", batch=2)]
    store = GenerationStore(sum(one.nbytes for one in generations))
    for one in generations:
        store.add(one)
    assert ids(store) == ["b", "a"]


def test_texts_take_memory_too() -> None:
    """Texts from untrusted files may be larger than their latents."""
    store = GenerationStore(10 * LATENT)
    for name in "abc":
        store.add(replace(generation(name), infotexts=("猫" * 4 * LATENT,)))
    assert ids(store) == ["c"]


def test_number_of_generations_is_limited() -> None:
    store = GenerationStore(2**30)
    for i in range(450):
        store.add(Generation(str(i), torch.zeros(1, 4, 1, 1), FAMILIES["sd1"]))
    assert ids(store) == [str(i) for i in range(449, 49, -1)]


def test_newest_is_stored_even_if_too_large() -> None:
    store = GenerationStore(ONE - 1)
    store.add(generation("a"))
    store.add(generation("b", batch=3))
    assert ids(store) == ["b"]


def test_lowered_limit_holds_from_the_next_one_on() -> None:
    store = GenerationStore(10 * ONE)
    for name in "abc":
        store.add(generation(name))
    store.max_bytes = ONE
    store.add(generation("d"))
    assert ids(store) == ["d"]


def test_same_id_takes_the_place_and_becomes_the_newest() -> None:
    store = GenerationStore(10 * ONE)
    for name in "ab":
        store.add(generation(name))
    store.add(replace(generation("a"), title="again"))
    assert ids(store) == ["a", "b"]
    assert store.get("a").title == "again"


def test_unknown_id() -> None:
    with pytest.raises(UnknownChoice, match="generation g9 is no longer stored"):
        GenerationStore(ONE).get("g9")


def test_clear() -> None:
    store = GenerationStore(10 * ONE)
    store.add(generation())
    store.clear()
    assert ids(store) == []


def test_many_threads() -> None:
    store = GenerationStore(5 * generation("g100").nbytes)
    seen: list[str] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(100):
                name = store.new_id()
                seen.append(name)
                store.add(generation(name))
                assert len(store.newest_first()) <= 5
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(set(seen)) == 800, "no id twice"
    assert len(ids(store)) == 5


def test_label_says_when_how_large_and_what() -> None:
    made = replace(generation("cat", batch=2), latents=torch.zeros(2, 4, 8, 16))
    assert made.label.endswith(" · cat · 128x64 x 2")
    assert " · no prompt · " in replace(made, title="").label


# --- in files --------------------------------------------------------------------------------------------------------


def test_saved_and_loaded(tmp_path: Path) -> None:
    made = Generation(
        "g1",
        torch.randn(2, 16, 4, 4),
        FAMILIES["flux"],
        title="a cat, 猫",
        infotexts=("a cat\nSteps: 20", "猫\nSteps: 20"),
        checkpoint="model.safetensors",
        decoded_by="TAESD",
        tiling=True,
    )
    save_latents(made, tmp_path / "saved.safetensors")
    found = load_latents(tmp_path / "saved.safetensors")
    assert torch.equal(found.latents, made.latents)
    assert replace(found, id="g1", latents=made.latents, created=made.created) == made
    assert found.id == "saved"


@pytest.mark.parametrize("count", [0, 1, 2, 12, 101])
def test_infotexts_keep_their_order(tmp_path: Path, count: int) -> None:
    """The tenth must not come before the second."""
    made = replace(generation(batch=max(count, 1)), infotexts=tuple(f"image {i}" for i in range(count)))
    save_latents(made, tmp_path / "l.safetensors")
    assert load_latents(tmp_path / "l.safetensors").infotexts == made.infotexts


def test_latents_that_are_a_view_are_saved_as_they_look(tmp_path: Path) -> None:
    whole = torch.randn(4, 4, 8, 8)
    save_latents(replace(generation(), latents=whole[1:2].transpose(2, 3)), tmp_path / "l.safetensors")
    assert torch.equal(load_latents(tmp_path / "l.safetensors").latents, whole[1:2].transpose(2, 3))


def saved(path: Path, tensors: dict[str, torch.Tensor], **metadata: str) -> Path:
    save_file(tensors, path, metadata)
    return path


def test_latent_without_a_batch_and_with_nothing_else(tmp_path: Path) -> None:
    path = saved(tmp_path / "cat.safetensors", {"anything": torch.zeros(4, 8, 8)})
    found = load_latents(path)
    assert found.latents.shape == (1, 4, 8, 8)
    assert (found.family.id, found.title, found.infotexts) == ("sd1", "cat", ())


def test_metadata_of_other_programs_does_not_matter(tmp_path: Path) -> None:
    path = saved(tmp_path / "l.safetensors", {"l": torch.zeros(1, 4, 8, 8)}, infotext="x", **{"infotext.first": "y"})
    assert load_latents(path).infotexts == ()


def test_family_of_four_channels_can_be_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "l.safetensors", {"l": torch.zeros(1, 4, 8, 8)}, family="sdxl")
    assert load_latents(path).family.id == "sdxl"


def test_sixteen_channels_need_a_family(tmp_path: Path) -> None:
    path = saved(tmp_path / "l.safetensors", {"l": torch.zeros(1, 16, 8, 8)})
    with pytest.raises(FamilyMismatch, match="could not be determined .*16 channels.*one of sd1, sdxl, sd3, flux"):
        load_latents(path)


@pytest.mark.parametrize("family", ["sd3", "sd9", ""])
def test_family_that_does_not_fit_the_channels(tmp_path: Path, family: str) -> None:
    path = saved(tmp_path / "l.safetensors", {"l": torch.zeros(1, 4, 8, 8)}, family=family)
    with pytest.raises(FamilyMismatch, match=f"metadata 'family' is '{family}', 4 channels"):
        load_latents(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="gone.safetensors: "):
        load_latents(tmp_path / "gone.safetensors")


def test_several_tensors(tmp_path: Path) -> None:
    path = saved(tmp_path / "l.safetensors", {"a": torch.zeros(1, 4, 8, 8), "b": torch.zeros(1)})
    with pytest.raises(MalformedFile, match="a latents file has one tensor, this one has 2"):
        load_latents(path)


@pytest.mark.parametrize("shape", [(4, 8), (1, 1, 4, 8, 8), (1, 4, 0, 8), (0, 4, 8, 8)])
def test_tensor_of_another_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = saved(tmp_path / "l.safetensors", {"l": torch.zeros(shape)})
    with pytest.raises(MalformedFile, match=r"latents have the shape \[B,C,h,w\], not \["):
        load_latents(path)


@pytest.mark.parametrize("family", ["sd1", "sdxl", "sd3", "flux"])
def test_latents_of_comfyui_are_scaled(tmp_path: Path, family: str) -> None:
    """With the marker they are in the VAE's own units."""
    made = FAMILIES[family]
    model_space = torch.randn(2, made.latent_channels, 6, 5, generator=torch.Generator().manual_seed(1))
    tensors = {"latent_tensor": made.to_vae_space(model_space), "latent_format_version_0": torch.tensor([])}
    found = load_latents(saved(tmp_path / "ComfyUI_00001_.latent", tensors, family=family, prompt="{}"))
    torch.testing.assert_close(found.latents, model_space, atol=1e-5, rtol=1e-5)
    data = save(tensors, {"family": family})
    torch.testing.assert_close(read_latents(data, "x.latent", 2**20).latents, found.latents)


def test_old_latents_of_comfyui_are_in_model_space(tmp_path: Path) -> None:
    latents = torch.randn(1, 4, 6, 5, generator=torch.Generator().manual_seed(1))
    found = load_latents(saved(tmp_path / "old.latent", {"latent_tensor": latents}, prompt="{}"))
    assert torch.equal(found.latents, latents)
    assert found.family.id == "sd1"


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 96, 64), "packed latents of Flux: unpack them"),
        ((2, 1024, 64), "packed latents of Flux: unpack them"),
        ((1, 16, 3, 8, 8), "latents of a video: save one frame"),
    ],
)
def test_latents_of_another_layout_are_named(tmp_path: Path, shape: tuple[int, ...], words: str) -> None:
    path = saved(tmp_path / "l.safetensors", {"l": torch.zeros(shape)}, family="flux")
    with pytest.raises(MalformedFile, match=words):
        load_latents(path)


def test_one_latent_64_wide_is_not_packed(tmp_path: Path) -> None:
    path = saved(tmp_path / "l.safetensors", {"l": torch.zeros(4, 96, 64)})
    assert load_latents(path).latents.shape == (1, 4, 96, 64)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_latents_not_finite(tmp_path: Path, value: float) -> None:
    path = saved(tmp_path / "l.safetensors", {"l": torch.full((1, 4, 8, 8), value)})
    with pytest.raises(MalformedFile, match="must be finite"):
        load_latents(path)


def test_latents_of_whole_numbers(tmp_path: Path) -> None:
    path = saved(tmp_path / "l.safetensors", {"l": torch.zeros(1, 4, 8, 8, dtype=torch.uint8)})
    with pytest.raises(MalformedFile, match="must be finite floating point numbers"):
        load_latents(path)


# --- untrusted files -------------------------------------------------------------------------------------------------


def test_given_away_and_taken_back() -> None:
    made = replace(generation("cat", 2), infotexts=("a", "b"), checkpoint="/home/me/models/x.safetensors", tiling=True)
    data = latents_file(made)
    assert b"/home/me" not in data, "folders are private"
    found = read_latents(data, "cat.safetensors", 10 * LATENT)
    assert torch.equal(found.latents, made.latents)
    assert (found.infotexts, found.checkpoint, found.tiling) == (("a", "b"), "x.safetensors", True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_precision_does_not_change(dtype: torch.dtype) -> None:
    made = replace(generation(), latents=torch.randn(1, 4, 8, 8).to(dtype))
    assert torch.equal(read_latents(latents_file(made), "x", LATENT).latents, made.latents)


def test_other_precisions_become_single() -> None:
    data = save({"l": torch.ones(1, 4, 8, 8, dtype=torch.float64)})
    assert read_latents(data, "x", 2 * LATENT).latents.dtype == torch.float32


@pytest.mark.parametrize("start", [b"", b"hello", b"PK\x03\x04" + bytes(30), b"\x80\x02}q\x00.", b"\x89PNG\r\n\x1a\n"])
def test_only_safetensors_are_taken(start: bytes) -> None:
    with pytest.raises(UnreadableFile, match="x.pt: not a .safetensors file"):
        read_latents(start, "x.pt", LATENT)


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    torch.save({"l": torch.zeros(1, 4, 8, 8)}, tmp_path / "l.safetensors")
    with pytest.raises(UnreadableFile, match="not a .safetensors file"):
        read_latents((tmp_path / "l.safetensors").read_bytes(), "l.safetensors", LATENT)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((2, 4, 8, 8), "limit"),  # more bytes than may be
        ((101, 4, 1, 1), "the limit is 100 images of 8192 x 8192"),
        ((1, 4, 1, 2**20 + 1), "the limit is 100 images of 8192 x 8192"),
        ((4, 1025, 1025), "the limit is 100 images of 8192 x 8192"),
        ((1, 1, 4, 8, 8), "latents have the shape"),
    ],
)
def test_too_much_is_refused(shape: tuple[int, ...], words: str) -> None:
    data = save({"l": torch.zeros(shape, dtype=torch.float16)})
    limit = 2 * LATENT // 2 - 1 if shape == (2, 4, 8, 8) else 2**30
    with pytest.raises(MalformedFile, match=words):
        read_latents(data, "x.safetensors", limit)


def test_a_header_of_many_megabytes_is_refused() -> None:
    data = save({"l": torch.zeros(1, 4, 8, 8)}, {"infotext.0": "x" * 5_000_000})
    with pytest.raises(MalformedFile, match="header"):
        read_latents(data, "x.safetensors", LATENT)


def test_untrusted_texts_are_cut_and_cleaned() -> None:
    texts = {f"infotext.{i}": str(i) for i in range(50)}
    data = save({"l": torch.zeros(2, 4, 8, 8)}, {"title": "a\nb\u202ec" + "x" * 500, **texts})
    found = read_latents(data, "x.safetensors", 2 * LATENT)
    assert found.title == ("a b c" + "x" * 500)[:120]
    assert found.infotexts == ("0", "1"), "one for each image"


def test_untrusted_infotexts_are_cut(tmp_path: Path) -> None:
    tensors, metadata = {"l": torch.zeros(1, 4, 8, 8)}, {"infotext.0": "x" * 100_000}
    assert read_latents(save(tensors, metadata), "x.safetensors", LATENT).infotexts == ("x" * 2**16,)
    save_file(tensors, tmp_path / "l.safetensors", metadata)
    assert load_latents(tmp_path / "l.safetensors").infotexts == ("x" * 2**16,)


def test_damaged_files_give_latents_or_our_error() -> None:
    whole = latents_file(generation())
    chance = random.Random(0)
    for _ in range(500):
        data = bytearray(whole[: chance.randrange(len(whole))] if chance.random() < 0.2 else whole)
        for _ in range(chance.randrange(4)):
            if data:
                data[chance.randrange(min(len(data), 300))] = chance.randrange(256)
        with suppress(VaeLabError):
            assert read_latents(bytes(data), "x", LATENT).latents.ndim == 4


def test_file_that_is_too_large(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(11))
    assert read_limited(tmp_path / "f", 11) == bytes(11)
    with pytest.raises(MalformedFile, match="f: files are limited to"):
        read_limited(tmp_path / "f", 10)
    with pytest.raises(UnreadableFile, match="gone: No such file"):
        read_limited(tmp_path / "gone", 10)
