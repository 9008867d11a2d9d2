"""Speed and memory as ratios of two things measured side by side in one run: ``python3 run.py bench``.

Weights are random, in the real shapes of SD 1.5: what they are does not change what they cost. Every figure of time is
the median over rounds that do both things one after the other, so that a busy moment hits both.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from tools import bench_memory, bench_webui
from tools.figures import Figure
from tools.sd15 import write_checkpoint, write_vae
from vae_lab import bake, compare, inspect_file, load_autoencoder
from vae_lab.autoencoders import open_vae
from vae_lab.identity import sketch_of_file


def timed(action: Callable[[], object]) -> float:
    """Seconds that ``action`` takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def side_by_side(
    first: Callable[[], object],
    second: Callable[[], object],
    rounds: int,
    before: Callable[[], object] = lambda: None,
) -> tuple[float, float]:
    """Medians, in seconds, of both, ``before`` each not counted; each is done once before that for nothing."""

    def one(action: Callable[[], object]) -> float:
        before()
        return timed(action)

    one(first), one(second)
    pairs = [(one(first), one(second)) for _ in range(rounds)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def checkup(folder: Path, rounds: int) -> Iterator[Figure]:
    """The whole checkup of a file, reading included. The worst case: weights of no family, so that all are tried."""
    path = folder / "vae.safetensors"
    write_vae(path)
    vae = load_autoencoder(path, family="sd1")
    latents = torch.randn(1, 4, 32, 32)
    seconds = side_by_side(lambda: inspect_file(path), lambda: vae.decode(latents), rounds)
    yield Figure("checking one SD 1.5-sized VAE", "its own decode of 256 x 256 pixels", *seconds, goal=3.0)


def comparison(folder: Path, rounds: int) -> Iterator[Figure]:
    """What a comparison adds to the decodes that it consists of."""
    vaes = {}
    for seed, name in enumerate(("a", "b")):
        path = folder / f"{name}.safetensors"
        write_vae(path, seed)
        vaes[name] = load_autoencoder(path, family="sd1")
    latents = torch.randn(1, 4, 32, 32)
    seconds = side_by_side(
        lambda: compare(latents, vaes), lambda: [vae.decode(latents) for vae in vaes.values()], rounds
    )
    yield Figure("comparing 2 VAEs over a latent of 256 x 256 pixels", "2 plain decodes of it", *seconds, goal=1.05)


def identity(folder: Path, rounds: int) -> Iterator[Figure]:
    """A checkpoint of 2.1 GB: which VAE is in it, and what is read for that."""
    path = folder / "checkpoint.safetensors"
    in_vae = write_checkpoint(path)

    def look() -> int:
        with open_vae(path) as file:
            sketch_of_file(file)
            return file.weights.bytes_read

    def read_whole() -> None:
        with path.open("rb", buffering=0) as file:
            while file.read(2**24):
                pass

    what, whole = "identity of a checkpoint", "reading the file whole"
    if hasattr(os, "posix_fadvise"):
        cold = side_by_side(look, read_whole, rounds, lambda: forget(path))
        yield Figure(f"{what}, file not in memory", whole, *cold, goal=0.05)
    warm = side_by_side(look, read_whole, rounds)
    yield Figure(f"{what}, file in the system's memory", whole, *warm)
    read = look() / 1e6
    yield Figure(f"{what}: bytes read", "1.5 MB", read, 1.5, 1.0, "MB")
    checked = inspect_file(path).bytes_read / 1e6
    yield Figure("checkup of a checkpoint: bytes read", "the bytes of its VAE", checked, in_vae / 1e6, 1.01, "MB")


def baking(folder: Path, rounds: int) -> Iterator[Figure]:
    """A VAE into a copy of a checkpoint of 2.1 GB, read back and on the disk; the check that it fits is not in it."""
    path, vae, out = (folder / f"{name}.safetensors" for name in ("checkpoint", "vae", "out"))
    write_checkpoint(path)
    write_vae(vae)

    def copy() -> None:
        shutil.copyfile(path, out)
        with out.open("r+b") as file:
            os.fsync(file.fileno())

    seconds = side_by_side(
        lambda: bake(path, vae, out, family="sd1"), copy, rounds, lambda: out.unlink(missing_ok=True)
    )
    yield Figure("baking a VAE into a checkpoint of 2.1 GB", "a copy of that file", *seconds, goal=1.5)
    out.unlink()
    if bench_memory.AVAILABLE:
        yield bench_memory.baking(path, vae, out)


def forget(path: Path) -> None:
    """Take a file out of the system's memory, so that the disk is read."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def memory(folder: Path, _: int) -> Iterator[Figure]:
    """Peak memory of a decode, where the system reports one. It does not vary, so there are no rounds."""
    if bench_memory.AVAILABLE:
        yield from bench_memory.figures(folder)


BENCHMARKS = {"checkup": checkup, "identity": identity, "comparison": comparison, "memory": memory, "bake": baking}


def machine() -> str:
    """What this was measured on."""
    return f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each measurement")
    parser.add_argument("--only", nargs="*", choices=BENCHMARKS, default=list(BENCHMARKS), help="leave out the others")
    parser.add_argument("--webui-dir", type=Path, help="a WebUI 1.10.1 that runs: what needs one is measured too")
    parser.add_argument("--webui-python", help="the Python it runs with")
    arguments = parser.parse_args(argv)
    figures: list[Figure] = []
    for name in arguments.only:
        with tempfile.TemporaryDirectory() as folder:
            figures += BENCHMARKS[name](Path(folder), arguments.rounds)
    if arguments.webui_dir:
        webui = arguments.webui_dir.resolve()
        python = arguments.webui_python or str(webui / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python")
        with tempfile.TemporaryDirectory() as folder:
            figures += bench_webui.figures(python, webui, Path(folder), arguments.rounds)
    lines = [machine(), "", "| what | against | ratio | goal |", "|---|---|---|---|", *(f.line() for f in figures)]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0 if all(figure.reached for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
