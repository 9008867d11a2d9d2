"""Speed and memory as ratios of two things measured side by side in one run: ``python3 run.py bench``.

Weights are random, in the real shapes of SD1.5's VAE (83.65 M): what they are does not change what they cost. Every
figure is the median over rounds that do both things one after the other, so that a busy moment hits both.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from vae_lab import inspect_file, load_autoencoder
from vae_lab.autoencoders.kl import AutoencoderKL, KLConfig


@dataclass(frozen=True)
class Figure:
    """One line of the table: what, held against what, their seconds, and how much is allowed."""

    what: str
    against: str
    seconds: float
    against_seconds: float
    goal: float

    @property
    def ratio(self) -> float:
        return self.seconds / self.against_seconds


def timed(action: Callable[[], object]) -> float:
    """Seconds that ``action`` takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def side_by_side(first: Callable[[], object], second: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Medians, in seconds, of both; each is done once before that for nothing."""
    first(), second()
    pairs = [(timed(first), timed(second)) for _ in range(rounds)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def write_vae(path: Path) -> None:
    """A VAE of SD1.5's true size, fp16, with random weights that keep activations in range."""
    torch.manual_seed(0)
    state = AutoencoderKL(KLConfig()).state_dict()
    save_file({name: value.half().contiguous() for name, value in state.items()}, path)


def checkup(folder: Path, rounds: int) -> Figure:
    """The whole checkup of a file, reading included. The worst case: weights of no family, so that all are tried."""
    path = folder / "vae.safetensors"
    write_vae(path)
    vae = load_autoencoder(path, family="sd1")
    latents = torch.randn(1, 4, 32, 32)
    seconds = side_by_side(lambda: inspect_file(path), lambda: vae.decode(latents), rounds)
    return Figure("checking one SD1.5-sized VAE", "its own decode of 256 x 256 pixels", *seconds, goal=3.0)


def machine() -> str:
    """What this was measured on."""
    return f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each measurement")
    rounds = parser.parse_args(argv).rounds
    with tempfile.TemporaryDirectory() as folder:
        figures = [checkup(Path(folder), rounds)]
    lines = [machine(), "", "| what | against | ratio | goal |", "|---|---|---|---|"]
    for figure in figures:
        what = f"{figure.what} ({figure.seconds:.2f} s)"
        against = f"{figure.against} ({figure.against_seconds:.2f} s)"
        lines.append(f"| {what} | {against} | {figure.ratio:.2f} | at most {figure.goal:g} |")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0 if all(figure.ratio <= figure.goal for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
