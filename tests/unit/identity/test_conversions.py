"""Copies of a VAE in bf16 and fp8 are recognised, and nothing else is taken for one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.unit.makers import F2, SD1_TEXT, UNET, State, diffusers_names, kl_state, prefixed, write, write_zip
from vae_lab.cli import main
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.identity import Conversions, Sketched, find_duplicates, sketch_digest, sketch_of_state
from vae_lab.library import FileCache, Scan
from vae_lab.service.service import service_of

ORIGINAL = kl_state(F2, 5)


def cast(state: State, *dtypes: str) -> State:
    for name in dtypes:
        dtype = getattr(torch, name, None)
        if dtype is None:
            pytest.skip(f"this torch has no {name}")
        state = {key: tensor.to(dtype) for key, tensor in state.items()}
    return state


def found(**states: State) -> list[tuple[str, list[str], list[str]]]:
    """Precision, copies and originals of each conversion."""
    sketches = {name: sketch_of_state(state) for name, state in states.items()}
    files = [Sketched(name, name, sketch_digest(sketch)) for name, sketch in sketches.items()]
    return [
        (one.precision, [file.name for file in one.copies], [file.name for file in one.originals])
        for one in Conversions().find(files, sketches.get)
    ]


@pytest.mark.parametrize(
    ("precision", "dtypes"),
    [
        ("bf16", ["bfloat16"]),
        ("bf16", ["float16", "bfloat16"]),
        ("bf16", ["bfloat16", "float32"]),
        ("fp8", ["float8_e4m3fn"]),
        ("fp8", ["bfloat16", "float8_e4m3fn"]),
        ("fp8", ["float8_e4m3fn", "float16"]),
        ("fp8", ["float8_e5m2"]),
        ("fp8", ["float16", "float8_e5m2", "bfloat16"]),
    ],
    ids=lambda value: value if isinstance(value, str) else " then ".join(value),
)
@pytest.mark.parametrize("source", ["float32", "float16"])
def test_a_copy_in_a_lower_precision(precision: str, dtypes: list[str], source: str) -> None:
    """Whatever it was rounded to before, and in whatever dtype it is stored now."""
    copy, original = cast(ORIGINAL, *dtypes), cast(ORIGINAL, source)
    assert found(other=kl_state(F2, 6), copy=copy, original=original) == [(precision, ["copy"], ["original"])]


def test_of_several_precisions_the_finest_is_the_original() -> None:
    bf16, fp8 = cast(ORIGINAL, "bfloat16"), cast(ORIGINAL, "float8_e4m3fn")
    assert found(fp8=fp8, bf16=bf16) == [("fp8", ["fp8"], ["bf16"])]
    copies = found(fp8=fp8, bf16=bf16, half=cast(ORIGINAL, "float16"), full=ORIGINAL)
    assert copies == [("fp8", ["fp8"], ["half", "full"]), ("bf16", ["bf16"], ["half", "full"])]


def changed(share: float) -> State:
    """A fine-tune or a merge that has this share of another VAE."""
    other = kl_state(F2, 9)
    return {key: (1 - share) * tensor + share * other[key] for key, tensor in ORIGINAL.items()}


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("share", [0.01, 0.05, 0.5, 1.0])
def test_a_copy_of_another_vae_is_none(dtype: str, share: float) -> None:
    assert found(original=ORIGINAL, other=cast(changed(share), dtype)) == []


def test_what_is_not_rounded_is_no_copy() -> None:
    assert found(full=ORIGINAL, half=cast(ORIGINAL, "float16"), near=changed(0.001)) == []
    assert found(bf16=cast(ORIGINAL, "bfloat16"), again=cast(ORIGINAL, "bfloat16")) == [], "identical"
    zeros = {key: torch.zeros_like(tensor) for key, tensor in ORIGINAL.items()}
    assert found(zeros=zeros, tiny={key: tensor + 1e-9 for key, tensor in zeros.items()}) == []


def test_a_sketch_that_is_stored_later_counts_then() -> None:
    sketches = {"a": sketch_of_state(ORIGINAL), "b": sketch_of_state(cast(ORIGINAL, "bfloat16"))}
    files = [Sketched(name, name, sketch_digest(sketch)) for name, sketch in sketches.items()]
    conversions = Conversions()
    known: dict = {}
    reads: list[str] = []

    def sketch_of(path: str):
        reads.append(path)
        return known.get(path)

    assert conversions.find(files, sketch_of) == []
    known.update(sketches)
    assert len(conversions.find(files, sketch_of)) == 1
    reads.clear()
    assert len(conversions.find(files, sketch_of)) == 1
    assert reads == [], "no two VAEs are compared twice"


# --- in a library ----------------------------------------------------------------------------------------------------


def fill(folder: Path) -> None:
    """An original, its copies in a checkpoint, a pickle and other names, and an identical one."""
    containers: dict[str, Callable[[Path], Path]] = {
        "original.safetensors": lambda path: write(path, ORIGINAL),
        "same.pt": lambda path: write_zip(path, cast(ORIGINAL, "float16")),
        "bf16.pt": lambda path: write_zip(path, cast(ORIGINAL, "bfloat16")),
        "diffusers.safetensors": lambda path: write(path, diffusers_names(cast(ORIGINAL, "bfloat16"), 2)),
        "model.safetensors": lambda path: write(
            path, UNET | SD1_TEXT | prefixed("first_stage_model.", cast(ORIGINAL, "float8_e4m3fn"))
        ),
        "other.safetensors": lambda path: write(path, kl_state(F2, 6)),
    }
    folder.mkdir(parents=True)
    for name, make in containers.items():
        make(folder / name)


def test_a_scan_names_converted_copies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "models")
    page = tmp_path / "o.html"
    main(["scan", str(tmp_path / "models"), "--no-probe", "--cache", str(tmp_path / "cache"), "--html", str(page)])
    out = capsys.readouterr().out
    ending = "A converted copy, judged from a sample of the weights."
    assert "Converted copies of VAEs: 2\n" in out
    bf16 = f"bf16.pt and diffusers.safetensors: the same VAE as original.safetensors and same.pt in bf16. {ending}"
    fp8 = f"model.safetensors: the same VAE as original.safetensors and same.pt in fp8. {ending}"
    assert f"  {bf16}\n" in out
    assert f"  {fp8}\n" in out
    assert bf16 in page.read_text(encoding="utf8")


def test_the_library_tells_converted_copies_from_identical_ones(tmp_path: Path) -> None:
    fill(tmp_path / "VAE")
    host = StandaloneHost(Folders(tmp_path / "data", vaes=(tmp_path / "VAE",)))
    list(Scan((), host.file_cache, listed=host.listing().files, probe=False).run())
    rows = {row.name: row for row in service_of(host).scans.page(sort="name").rows}
    assert (rows["bf16.pt"].precision, rows["bf16.pt"].same_as) == ("bf16", ("diffusers.safetensors",))
    assert rows["bf16.pt"].rounded_from == ("original.safetensors", "same.pt")
    assert (rows["model.safetensors"].precision, rows["model.safetensors"].contains) == ("fp8", ())
    assert rows["original.safetensors"].same_as == ("same.pt",)
    assert rows["original.safetensors"].rounded_to == (
        "bf16.pt (bf16)", "diffusers.safetensors (bf16)", "model.safetensors (fp8)",
    )  # fmt: skip
    assert not rows["other.safetensors"].precision
    host.file_cache.close()


def test_converted_copies_are_no_merges(tmp_path: Path) -> None:
    """Not even next to the other parent of a merge of the original."""
    a, b = (cast(kl_state(F2, seed), "float16") for seed in (1, 2))
    merged = cast({key: 0.7 * a[key].float() + 0.3 * b[key].float() for key in a}, "float16")
    states = {"a": a, "b": b, "a-bf16": cast(a, "bfloat16"), "a-fp8": cast(a, "float8_e4m3fn")}
    states |= {"m": merged, "m-bf16": cast(merged, "bfloat16"), "b-bf16": cast(b, "bfloat16")}
    for name, state in states.items():
        write(tmp_path / f"{name}.safetensors", state)
    cache = FileCache(tmp_path / "cache")
    records = list(Scan([tmp_path], cache, probe=False, jobs=1).run())
    cache.close()
    accused = {record.name for record in records if record.merge and record.merge.certain}
    assert accused == {"m.safetensors", "m-bf16.safetensors"}
    assert find_duplicates(records) == []
