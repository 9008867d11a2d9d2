"""Files with the same VAE, and the space that they waste."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.makers import F2, SD1_TEXT, UNET, diffusers_names, kl_state, prefixed, write, write_zip
from vae_lab.identity import already_contains, contains_sentence, find_duplicates, sketch_digest, sketch_of_state
from vae_lab.library import FileRecord, scan_file


def vae(name: str, fingerprint: str = "f", size: int = 100, **facts: str) -> FileRecord:
    facts = {"kind": "vae", "file_id": name, "sketch": f"s{fingerprint}", **facts}
    return FileRecord(f"/{name}", name, size, fingerprint=fingerprint, **facts)  # type: ignore[arg-type]


def checkpoint(name: str, fingerprint: str = "f", size: int = 10**6) -> FileRecord:
    return vae(name, fingerprint, size, kind="checkpoint")


def test_copies_are_one_group() -> None:
    (group,) = find_duplicates([vae("a"), vae("b"), vae("other", "g"), vae("c")])
    assert group.vaes == ("/a", "/b", "/c")
    assert (group.fingerprint, group.confirmed, group.checkpoints, group.freeable_bytes) == ("f", True, (), 200)
    assert group.sentence == "a, b and c are the same VAE: keeping only a would free 200 bytes."


def test_nothing_twice() -> None:
    assert find_duplicates([]) == []
    assert find_duplicates([vae("a", "f"), vae("b", "g"), checkpoint("c", "h")]) == []


def test_the_largest_is_the_one_to_keep() -> None:
    """Of an fp16 and an fp32 copy, the fp32 one has bits that the other has lost."""
    (group,) = find_duplicates([vae("half", size=50), vae("full", size=100)])
    assert group.vaes[0] == "/full"
    assert group.freeable_bytes == 50


def test_checkpoints_are_never_counted() -> None:
    (group,) = find_duplicates([checkpoint("m"), vae("a", size=7), checkpoint("n"), vae("b", size=7)])
    assert (group.vaes, group.checkpoints, group.freeable_bytes) == (("/a", "/b"), ("/m", "/n"), 7)
    assert group.sentence.endswith("m and n already contain a: choosing it there changes nothing.")


def test_one_vae_that_a_checkpoint_contains() -> None:
    (group,) = find_duplicates([checkpoint("model.ckpt"), vae("x.pt")])
    assert group.freeable_bytes == 0
    assert group.sentence == "model.ckpt already contains x.pt: choosing it there changes nothing."


def test_only_checkpoints() -> None:
    (group,) = find_duplicates([checkpoint("m"), checkpoint("n")])
    assert (group.freeable_bytes, group.sentence) == (0, "m and n contain the same VAE.")


def test_hard_links_take_no_room() -> None:
    (group,) = find_duplicates([vae("a", file_id="1"), vae("b", file_id="1")])
    assert group.freeable_bytes == 0
    assert "nothing to free" in group.sentence
    (group,) = find_duplicates([vae("a", file_id="1"), vae("b", file_id="1"), vae("c", file_id="2")])
    assert group.freeable_bytes == 100


@pytest.mark.parametrize(
    ("keep", "others"),
    [
        ("z.safetensors", {"a.bin": {}, "b.sft": {}, "c.pth": {}}),
        ("half.safetensors", {"full.bin": {"dtype": "fp32"}, "half.ckpt": {"dtype": "fp16"}}),
        ("full.ckpt", {"half.safetensors": {"dtype": "fp16"}}),
        ("z.pt", {"a.safetensors": {"layout": "diffusers"}, "b.safetensors": {"layout": "ldm (vae.)"}}),
    ],
)
def test_a_file_that_every_host_lists_and_loads_is_the_one_to_keep(keep: str, others: dict[str, dict]) -> None:
    """The WebUI lists no .bin or .sft, and cannot load names of diffusers."""
    own = {"full": "fp32", "half": "fp16"}.get(keep.split(".")[0], "")
    records = [
        vae(name, size=200, layout="ldm") if not facts else vae(name, size=200, **facts)
        for name, facts in others.items()
    ]
    (group,) = find_duplicates([*records, vae(keep, size=100, layout="ldm", dtype=own)])
    assert group.vaes[0] == f"/{keep}"
    assert f"keeping only {keep} would free" in group.sentence


def linked_copies(folder: Path) -> dict[str, Path]:
    """A file, a copy with a hard link elsewhere, and symbolic links to both."""
    (folder / "VAE").mkdir()
    (folder / "ComfyUI").mkdir()
    state = kl_state(F2)
    files = {name: folder / "VAE" / name for name in ("m.safetensors", "n.safetensors", "a.safetensors", "b.pt")}
    write(files["m.safetensors"], state)
    write(folder / "ComfyUI" / "n.safetensors", state)
    try:
        os.link(folder / "ComfyUI" / "n.safetensors", files["n.safetensors"])
        files["a.safetensors"].symlink_to(files["m.safetensors"])
        files["b.pt"].symlink_to(folder / "ComfyUI" / "n.safetensors")
    except OSError:
        pytest.skip("this system does not let us make links")
    return files


def test_what_links_would_free(tmp_path: Path) -> None:
    """Nothing, if a hard link elsewhere stays; and a symbolic link is never the one to keep."""
    files = linked_copies(tmp_path)
    records = {name: scan_file(path, probe=False) for name, path in files.items()}
    (group,) = find_duplicates(records.values())
    assert Path(group.vaes[0]).name == "m.safetensors"
    assert group.freeable_bytes == 0
    assert group.sentence.endswith("they are links, so there is nothing to free.")
    (tmp_path / "ComfyUI" / "n.safetensors").unlink()
    (group,) = find_duplicates(records[name] for name in ("a.safetensors", "n.safetensors", "m.safetensors"))
    assert group.freeable_bytes == files["n.safetensors"].stat().st_size, "its last link is in the list"
    (group,) = find_duplicates(records[name] for name in ("a.safetensors", "m.safetensors"))
    assert (Path(group.vaes[0]).name, group.freeable_bytes) == ("m.safetensors", 0)


def test_addresses_promise_no_space() -> None:
    """A file on a server has no size here."""
    (group,) = find_duplicates([vae("a.pt", size=0, file_id=""), vae("b.pt", size=0, file_id="")])
    assert group.sentence == "a.pt and b.pt are the same VAE."


def test_files_that_were_sketched_only_are_unconfirmed() -> None:
    (group,) = find_duplicates([vae("a", "", sketch="s"), vae("b", "", sketch="s"), vae("c", "", sketch="t")])
    assert (group.confirmed, group.fingerprint, group.sketch, group.vaes) == (False, "", "s", ("/a", "/b"))
    assert "according to a sample of their weights" in group.sentence


def test_sketched_file_next_to_known_ones() -> None:
    """No byte is counted twice."""
    groups = find_duplicates([vae("a"), vae("b"), vae("c", "", sketch="sf")])
    assert {group.confirmed: group.vaes for group in groups} == {True: ("/a", "/b"), False: ("/a", "/c")}
    assert sum(group.freeable_bytes for group in groups) == 200


def test_broken_files_are_in_no_group() -> None:
    broken = [replace(vae(name, ""), sketch="s", problem="not finite") for name in "ab"]
    assert find_duplicates([*broken, FileRecord("/e", "e"), FileRecord("/f", "f")]) == []


def test_what_frees_most_comes_first() -> None:
    records = [vae("a", "f", 1), vae("b", "f", 1), vae("c", "g", 5), vae("d", "g", 5), checkpoint("m", "h")]
    assert [group.freeable_bytes for group in find_duplicates([*records, checkpoint("n", "h")])] == [5, 1, 0]


@pytest.mark.parametrize(("size", "words"), [(999, "999 bytes"), (334_641_164, "334.6 MB"), (2 * 10**9, "2.0 GB")])
def test_human_readable_sizes(size: int, words: str) -> None:
    (group,) = find_duplicates([vae("a", size=size), vae("b", size=size)])
    assert f"free {words}." in group.sentence


def test_many_names_are_cut() -> None:
    (group,) = find_duplicates([vae(f"{i}") for i in range(9)])
    assert group.sentence.startswith("0, 1, 2 and 6 more are")
    assert len(group.paths) == 9


def test_checkpoint_that_contains_a_vae() -> None:
    records = [vae("x"), vae("other", "g"), checkpoint("m2")]
    assert already_contains(checkpoint("m"), records) == records[:1]
    assert contains_sentence(checkpoint("m"), records) == "m already contains x: choosing it changes nothing."
    assert contains_sentence(checkpoint("m", "h"), records) == ""
    assert already_contains(checkpoint("m", ""), [vae("x", "")]) == [], "nothing is known of either"


def test_real_files(tmp_path: Path) -> None:
    """Whatever container, precision, names, and place in a checkpoint."""
    state = kl_state(F2)
    half = {name: tensor.half() for name, tensor in state.items()}
    paths = [
        write(tmp_path / "full.safetensors", state),
        write_zip(tmp_path / "half.pt", half),
        write(tmp_path / "diffusers.safetensors", diffusers_names(half, 2)),
        write(tmp_path / "model.safetensors", UNET | SD1_TEXT | prefixed("first_stage_model.", half)),
        write(tmp_path / "other.safetensors", kl_state(F2, 1)),
    ]
    os.link(paths[1], tmp_path / "link.pt")
    records = [scan_file(path, probe=False) for path in (*paths, tmp_path / "link.pt")]
    (group,) = find_duplicates(iter(records))
    assert [Path(path).name for path in group.checkpoints] == ["model.safetensors"]
    assert {Path(path).name for path in group.vaes} == {
        "full.safetensors",
        "half.pt",
        "link.pt",
        "diffusers.safetensors",
    }
    assert group.vaes[0] == str(paths[0])
    assert group.freeable_bytes == paths[1].stat().st_size + paths[2].stat().st_size
    assert group.sketch == sketch_digest(sketch_of_state(state))
    assert all(path.exists() for path in paths), "nothing is deleted"
