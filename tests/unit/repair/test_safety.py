"""A bake that is killed, or whose disk becomes full, leaves the original as it was, and no half file."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.unit.makers import CONTAINERS, SD1_TEXT, UNET, diffusers_names, kl_state, prefixed, write
from vae_lab import bake, extract
from vae_lab.errors import UnreadableFile
from vae_lab.new_file import new_file
from vae_lab.samples import load_sample_vae

resource = pytest.importorskip("resource", reason="Windows has no limits for a process")

State = dict[str, Tensor]
ROOT = Path(__file__).resolve().parents[3]
PREFIX = "first_stage_model."
UNNAMED = re.compile(r"\.vae-lab-new-[0-9a-f]{16}\.part")


def mixed(state: State) -> State:
    """In three precisions, half of the tensors in bf16."""
    dtypes = (torch.float16, torch.bfloat16, torch.float32, torch.bfloat16)
    return {name: value.to(dtypes[i % 4]) for i, (name, value) in enumerate(state.items())}


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def stored(path: Path) -> dict[str, tuple[str, list[int], bytes]]:
    """Type, shape and bytes of each tensor, as they are in a safetensors file."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    return {
        name: (one["dtype"], one["shape"], content[start + one["data_offsets"][0] : start + one["data_offsets"][1]])
        for name, one in header.items()
    }


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A checkpoint of 11 MB, and a VAE that fits."""
    parts = {f"model.diffusion_model.middle_block.{i}.weight": torch.full((2**20,), i / 8).half() for i in range(3)}
    own = {name: torch.zeros_like(value) for name, value in load_sample_vae("photo-a").items()}
    state = UNET | SD1_TEXT | parts | prefixed(PREFIX, own)
    return write(tmp_path / "model.safetensors", state), write(tmp_path / "vae.safetensors", load_sample_vae("photo-a"))


# --- everything else stays as it is -----------------------------------------------------------------------------------

DONORS: dict[str, Callable[[Path, State], Path]] = {
    **CONTAINERS,
    "diffusers": lambda path, state: write(path, diffusers_names(state, 4)),
}


@pytest.mark.parametrize("donor", DONORS)
def test_mixed_precisions_stay_byte_for_byte(tmp_path: Path, donor: str) -> None:
    rest = {f"model.diffusion_model.{i}.weight": torch.randn(3, 5) for i in range(12)}
    own, other = mixed(load_sample_vae("photo-a")), mixed(load_sample_vae("photo-b"))
    path = write(tmp_path / "model.safetensors", mixed(rest) | UNET | SD1_TEXT | prefixed(PREFIX, own))
    vae = DONORS[donor](tmp_path / "vae", other)
    bake(path, vae, tmp_path / "out.safetensors")
    before, after = stored(path), stored(tmp_path / "out.safetensors")
    assert {name for name in before if before[name] != after[name]} <= {PREFIX + name for name in own}
    found = {name.removeprefix(PREFIX): value for name, value in load_file(tmp_path / "out.safetensors").items()}
    assert all(torch.equal(found[name], value.to(torch.bfloat16)) for name, value in other.items())


# --- a program that is killed -----------------------------------------------------------------------------------------


def test_until_it_is_whole_the_new_file_has_no_name(files: tuple[Path, Path], tmp_path: Path) -> None:
    """So whenever the program is killed, the original is intact, and there is one file that no host lists."""
    before, seen = [(path.read_bytes(), path.stat()) for path in files], []

    def look(done: int, total: int, _: str) -> None:
        seen.append(done / total)
        others = [name for name in names_in(tmp_path) if name not in (files[0].name, files[1].name)]
        if done < total:
            assert len(others) == 1
            assert UNNAMED.fullmatch(others[0])
        facts = [path.stat() for path in files]
        assert [(one.st_ino, one.st_mtime_ns, one.st_size) for one in facts] == [
            (one.st_ino, one.st_mtime_ns, one.st_size) for _, one in before
        ]

    bake(*files, tmp_path / "out.safetensors", progress=look)
    assert [path.read_bytes() for path in files] == [content for content, _ in before]
    assert sum(share < 0.9 for share in seen) > 50
    assert names_in(tmp_path) == ["model.safetensors", "out.safetensors", "vae.safetensors"]


def test_the_next_one_removes_what_a_killed_program_has_left(tmp_path: Path) -> None:
    """But no file that is being written, and none of another name."""
    vae = write(tmp_path / "vae.safetensors", kl_state())
    kept = [".vae-lab-0123456789abcdef.part", ".vae-lab-new-mine.part", "x.part"]
    for name in (*kept, ".vae-lab-new-0123456789abcdef.part"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / ".vae-lab-new-aaaaaaaaaaaaaaaa.part").symlink_to(vae)
    kept += [vae.name, ".vae-lab-new-aaaaaaaaaaaaaaaa.part"]
    with new_file(tmp_path / "other") as other:
        extract(vae, tmp_path / "out.safetensors")
        assert names_in(tmp_path) == sorted([*kept, Path(other.name).name, "out.safetensors"])
        other.write(b"whole")
    assert (tmp_path / "other").read_bytes() == b"whole"
    assert names_in(tmp_path) == sorted([*kept, "other", "out.safetensors"])


@pytest.mark.slow  # starts interpreters; the two tests above cover what it finds
def test_killed_at_random_moments(files: tuple[Path, Path], tmp_path: Path) -> None:
    big = {
        f"model.diffusion_model.middle_block.9.{i}.weight": torch.full((2**21,), i / 64).half() for i in range(32)
    }  # 128 MB
    write(files[0], load_file(files[0]) | big)
    originals = [zlib.crc32(path.read_bytes()) for path in files]
    out = tmp_path / "out.safetensors"
    whole, leftovers = _bake_for(None, *files, out), 0
    result = zlib.crc32(out.read_bytes())
    out.unlink()
    moments = random.Random(0)
    rounds = int(os.environ.get("VAE_LAB_KILLS", "4"))
    for _ in range(rounds):
        _bake_for(moments.uniform(0, whole), *files, out)
        assert [zlib.crc32(path.read_bytes()) for path in files] == originals
        assert not out.exists() or zlib.crc32(out.read_bytes()) == result
        others = set(names_in(tmp_path)) - {files[0].name, files[1].name, out.name}
        assert len(others) <= 1, "the one before was removed"
        assert all(UNNAMED.fullmatch(name) for name in others)
        leftovers += len(others)
        out.unlink(missing_ok=True)
    assert leftovers or rounds < 20, "some were killed while they wrote"
    _bake_for(None, *files, out)
    assert names_in(tmp_path) == ["model.safetensors", "out.safetensors", "vae.safetensors"]


def _bake_for(seconds: float | None, checkpoint: Path, vae: Path, out: Path) -> float:
    """Run ``vae-lab bake``, kill it so many seconds after it was loaded, or not; returns seconds from then to its end.

    Nothing depends on how fast it is: whatever it was doing when it was killed, the files must be as they should.
    """
    run = "import sys; from vae_lab.cli import main; print('ready', flush=True); sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", run, "bake", str(checkpoint), str(vae), "-o", str(out)]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        start = time.perf_counter()
        with suppress(subprocess.TimeoutExpired):
            assert process.wait(seconds) == 0
        process.kill()
    return time.perf_counter() - start


# --- a full disk ------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB, in memory."""
    folder = tmp_path / "small"
    folder.mkdir()
    with suppress(FileNotFoundError):
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", folder], capture_output=True)
        if done.returncode == 0:
            yield folder
            subprocess.run(["umount", folder], check=True)
            return
    pytest.skip("only root can mount a file system")


def test_a_disk_without_room_is_not_written_to(files: tuple[Path, Path], small_disk: Path) -> None:
    (small_disk / "others").write_bytes(bytes(8 * 2**20))
    with pytest.raises(
        UnreadableFile, match=r"out\.safetensors: not enough disk space: 0\.01 GB needed, 0\.01 GB free"
    ):
        bake(*files, small_disk / "out.safetensors")
    assert names_in(small_disk) == ["others"]


def test_a_disk_that_becomes_full_meanwhile(files: tuple[Path, Path], small_disk: Path) -> None:
    before = files[0].read_bytes()

    def fill(done: int, *_: object) -> None:
        if done and not (small_disk / "others").exists():
            with suppress(OSError), (small_disk / "others").open("wb", buffering=0) as file:
                while file.write(bytes(2**16)):
                    pass

    with pytest.raises(UnreadableFile, match=r"out\.safetensors: could not be written: No space left on device"):
        bake(*files, small_disk / "out.safetensors", progress=fill)
    assert names_in(small_disk) == ["others"]
    assert files[0].read_bytes() == before


def test_a_file_that_must_not_be_so_large(files: tuple[Path, Path], tmp_path: Path) -> None:
    before, (soft, hard) = names_in(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, hard))
    try:
        with pytest.raises(UnreadableFile, match=r"out\.safetensors: could not be written: File too large"):
            bake(*files, tmp_path / "out.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names_in(tmp_path) == before
