"""The part of the benchmark that needs a WebUI: ``python3 run.py bench --webui-dir DIR``.

Two WebUIs are booted, one with VAE Lab and one without, with a checkpoint of SD 1.5's true size and two VAEs. They are
asked in turn, so that the two sides of a ratio ran in the same minutes.

    WEBUI_PYTHON -m tools.bench_webui WEBUI DATA    one of the two; runs the commands it reads, one per line
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from tools.figures import Figure
from tools.sd15 import write_checkpoint, write_vae

_MARK = "BENCH "
_VAES = ("first.safetensors", "second.safetensors")
_IMAGE = {"steps": 20, "width": 256, "height": 256}
_ROOT = Path(__file__).resolve().parents[1]


class _Booted:
    """A WebUI in a process of its own."""

    def __init__(self, python: str, webui: Path, data: Path) -> None:
        command = [python, "-m", "tools.bench_webui", str(webui), str(data)]
        self._log = data / "log.txt"
        with self._log.open("w", encoding="utf8") as log:
            self._process = subprocess.Popen(
                command, cwd=_ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )
        self._answer()

    def seconds(self, task: str) -> float:
        """Have it do a task of ``_tasks``."""
        assert self._process.stdin is not None
        self._process.stdin.write(task + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> float:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(_MARK):
                return json.loads(line.removeprefix(_MARK))
        self._process.wait()
        raise RuntimeError(f"the WebUI ended:\n{self._log.read_text(encoding='utf8')[-3000:]}")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


def figures(python: str, webui: Path, folder: Path, rounds: int) -> Iterator[Figure]:
    """What takes how long.

    Args:
        python: the WebUI's own.
        webui: its folder; nothing is written into it.
        folder: where 5 GB may be written.
        rounds: how often each is done; the plot, which takes minutes, once.
    """
    ours, bare = folder / "with", folder / "bare"
    models = ours / "models"
    (models / "Stable-diffusion").mkdir(parents=True)
    (models / "VAE").mkdir()
    bare.mkdir()
    write_checkpoint(models / "Stable-diffusion" / "one.safetensors", text=False)
    for seed, name in enumerate(_VAES):
        write_vae(models / "VAE" / name, seed)
    (bare / "models").symlink_to(models, target_is_directory=True)
    left_out = shutil.ignore_patterns(".*", "tests", "docs", "tools", "__pycache__")
    shutil.copytree(_ROOT, ours / "extensions" / "sd-webui-vae-lab", ignore=left_out)
    with_lab, without = _Booted(python, webui, ours), _Booted(python, webui, bare)
    try:
        with_lab.seconds("image"), with_lab.seconds("compare")
        compared = statistics.median(with_lab.seconds("compare") for _ in range(rounds))
        plot = without.seconds("plot")
        what = f"comparing {len(_VAES) + 1} VAEs over a latent of 256 x 256 pixels"
        yield Figure(what, "the plot's axis VAE, the same images at 20 steps", compared, plot, 1 / 20)
        yield _in_turn(
            "another external VAE, by VAE Lab", lambda: with_lab.seconds("override"),
            "by Settings > SD VAE", lambda: without.seconds("reload"), rounds, None,
        )  # fmt: skip
        yield _in_turn(
            "the same external VAE for the next image, by VAE Lab", lambda: with_lab.seconds("again"),
            "another one", lambda: with_lab.seconds("override"), rounds, 0.02,
        )  # fmt: skip
        yield _in_turn(
            "one step of 128 x 128 pixels with VAE Lab installed", lambda: with_lab.seconds("step"),
            "the same without it", lambda: without.seconds("step"), 4 * rounds, 1.02,
        )  # fmt: skip
    finally:
        with_lab.close()
        without.close()


def _in_turn(
    what: str, first: Callable[[], float], against: str, second: Callable[[], float], rounds: int, goal: float | None
) -> Figure:
    first(), second()
    pairs = [(first(), second()) for _ in range(rounds)]
    return Figure(what, against, *(statistics.median(side) for side in zip(*pairs, strict=True)), goal)


def _tasks(webui_dir: Path, data: Path) -> dict[str, Callable[[], object]]:
    from tests.host.webui import CPU_FLAGS, boot

    flags = ["--disable-nan-check", "--no-hashing"]
    webui = boot(webui_dir, data, flags if torch.cuda.is_available() else [*CPU_FLAGS, *flags])
    turns = {"override": 0, "reload": 0}

    def next_vae(task: str) -> str:
        turns[task] += 1
        return _VAES[turns[task] % 2]

    def compare() -> None:
        from vae_lab.extension import the_background_checkup, the_host

        the_background_checkup().wait(600)
        host = the_host()
        found = host.compare(host.generations.newest_first()[0].id, _VAES)
        assert len(found.decoded) == len(_VAES) + 1, [result.error for result in found]

    def override(vae: str) -> None:
        from vae_lab.extension import the_host
        from vae_lab.webui.weight_swap import VaeSwap

        weights = the_host().weights(vae)
        with VaeSwap(webui.model.first_stage_model) as swap:
            swap.put(weights.load(), weights.path)

    return {
        "image": lambda: webui.generate(width=256, height=256, steps=1),
        "step": lambda: webui.generate(steps=1),
        "compare": compare,
        "override": lambda: override(next_vae("override")),
        "again": lambda: override(_VAES[turns["override"] % 2]),
        "reload": lambda: webui.choose_natively(next_vae("reload")),
        "plot": lambda: webui.run_script("X/Y/Z plot", {"X type": "VAE", "X values": ["None", *_VAES]}, **_IMAGE),
    }


def main(webui_dir: Path, data: Path) -> None:
    tasks = _tasks(webui_dir, data)

    def answer(seconds: float) -> None:
        sys.__stdout__.write(f"\n{_MARK}{json.dumps(seconds)}\n")  # type: ignore[union-attr]
        sys.__stdout__.flush()  # type: ignore[union-attr]

    answer(0.0)
    for line in sys.stdin:
        start = time.perf_counter()
        tasks[line.strip()]()
        answer(time.perf_counter() - start)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
