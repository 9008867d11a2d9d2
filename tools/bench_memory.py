"""The part of the benchmark that looks at memory: how much more a process had at its peak than before the task.

python -m tools.bench_memory TASK FILE…    runs a task of ``TASKS`` on the VAEs in the files and prints its bytes
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from tools.figures import Figure
from tools.sd15 import write_vae
from vae_lab import bake, load_autoencoder
from vae_lab.comparison import Candidate, compare_candidates
from vae_lab.decoding import Decoder, decoder_of
from vae_lab.latents.family import FAMILIES

AVAILABLE = sys.platform == "linux"
_ROOT = Path(__file__).resolve().parents[1]
_VAES = 5
_BATCH = 8


def figures(folder: Path) -> Iterator[Figure]:
    """What a large image and a large comparison take."""
    files = [folder / f"{number}.safetensors" for number in range(_VAES)]
    for number, file in enumerate(files):
        write_vae(file, number)
    whole, strips = _peak("whole", files[:1]), _peak("strips", files[:1])
    yield Figure("memory to decode 1024 x 1024 pixels in strips, on the CPU", "as a whole", strips, whole, unit="MB")
    one, all_of_them = _peak("one", files[:1]), _peak("batch", files)
    what = f"memory to compare {_VAES} VAEs over {_BATCH} latents of 256 x 256 pixels"
    yield Figure(what, "1 VAE over 1 of them", all_of_them, one, 1.25, "MB")


def baking(checkpoint: Path, vae: Path, out: Path) -> Figure:
    """What a bake takes, however large the checkpoint is."""
    return Figure("memory to bake that", "300 MB", _peak("bake", [checkpoint, vae, out]), 300.0, 1.0, "MB")


def _peak(task: str, files: Sequence[Path]) -> float:
    """MB that a process of its own takes for a task."""
    command = [sys.executable, "-m", "tools.bench_memory", task, *map(str, files)]
    return int(subprocess.run(command, cwd=_ROOT, check=True, capture_output=True, text=True).stdout) / 1e6


def _decode(file: Path, decode: Callable[[Decoder, torch.Tensor], object]) -> None:
    decode(Decoder.of(load_autoencoder(file, family="sd1")), torch.randn(1, 4, 128, 128))


def _compare(files: Sequence[Path], batch: int) -> None:
    family = FAMILIES["sd1"]
    candidates = [Candidate(file.name, partial(decoder_of, file, family)) for file in files]
    found = compare_candidates(torch.randn(batch, 4, 32, 32), candidates, family)
    assert len(found.decoded) == len(files), [result.error for result in found]


TASKS: dict[str, Callable[[Sequence[Path]], None]] = {
    "whole": lambda files: _decode(files[0], lambda decoder, latent: decoder.whole(latent)),
    "strips": lambda files: _decode(files[0], lambda decoder, latent: decoder.in_strips(latent)),
    "one": lambda files: _compare(files, 1),
    "bake": lambda files: bake(files[0], files[1], files[2], family="sd1"),
    "batch": lambda files: _compare(files, _BATCH),
}


def _memory(what: str) -> int:
    """Bytes of this process: ``VmRSS``, now, or ``VmHWM``, at its peak."""
    lines = Path("/proc/self/status").read_text(encoding="utf8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:"))


if __name__ == "__main__":
    before = _memory("VmRSS")
    TASKS[sys.argv[1]]([Path(name) for name in sys.argv[2:]])
    sys.stdout.write(str(_memory("VmHWM") - before))
