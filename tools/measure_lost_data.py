"""Damage sample VAEs as downloads do, and prune healthy ones, to see which of them are reported as incomplete.

    python -m tools.measure_lost_data --taesd TAESD --work WORK [--write docs/checkup-measurements.md]

*N of M* is how often a part was reported that overlaps the damaged bytes. *Rejected* files are not read at all, because
headers between the tensors are damaged, or have values that are not finite; both are reported as broken elsewhere.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tools import taesd_net
from tools.pages import write_between
from vae_lab.autoencoders import VaeFile, open_vae
from vae_lab.autoencoders.kl.module import AutoencoderKL, KLConfig
from vae_lab.errors import FileError
from vae_lab.formats import MemorySource, open_weights
from vae_lab.samples import load_sample_vae
from vae_lab.state_dict import LostData, find_lost_data

log = logging.getLogger("measure_lost_data")

State = dict[str, Tensor]
Damage = Callable[[bytearray, int, np.random.Generator], tuple[int, int]]

SAMPLES = ("photo-a", "photo-b", "photo-a-smooth", "photo-a-sharp", "anime", "sdxl-c")
LENGTHS = (4096, 16_384, 50_000, 800_000)
PLACES = 40
PAGE = 4096
BEGIN, END = "<!-- lost data: begin -->", "<!-- lost data: end -->"
SMALL = KLConfig(block_out_channels=(32, 32, 32, 32), layers_per_block=1)
MIDDLE = KLConfig(block_out_channels=(64, 128, 256, 256), layers_per_block=2)
SD = KLConfig(block_out_channels=(128, 256, 512, 512), layers_per_block=2)


# --- damaged files --------------------------------------------------------------------------------------------------


def as_safetensors(state: State, path: Path) -> Path:
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    return path


def as_torch(state: State, path: Path) -> Path:
    torch.save({"state_dict": state}, path)
    return path


FORMATS: dict[str, tuple[torch.dtype, Callable[[State, Path], Path]]] = {
    "safetensors, fp16": (torch.float16, as_safetensors),
    "safetensors, fp32": (torch.float32, as_safetensors),
    "torch zip, fp16": (torch.float16, as_torch),
}


def _place(data: bytearray, length: int, rng: np.random.Generator, step: int) -> int:
    """A place in the data; the first 64 kB have headers and pickles, the last the directory of a zip."""
    return int(rng.integers(65_536 // step, (len(data) - length - 65_536) // step)) * step


def zeros(data: bytearray, length: int, rng: np.random.Generator) -> tuple[int, int]:
    start = _place(data, length, rng, 1)
    data[start : start + length] = bytes(length)
    return start, start + length


def aligned_zeros(data: bytearray, length: int, rng: np.random.Generator) -> tuple[int, int]:
    start = _place(data, length, rng, 512)
    data[start : start + length] = bytes(length)
    return start, start + length


def one_byte(data: bytearray, length: int, rng: np.random.Generator) -> tuple[int, int]:
    start = _place(data, length, rng, 512)
    data[start : start + length] = b"\x20" * length
    return start, start + length


def twice(data: bytearray, length: int, rng: np.random.Generator) -> tuple[int, int]:
    start = source = _place(data, length, rng, PAGE)
    while abs(source - start) < length:
        source = _place(data, length, rng, PAGE)
    data[start : start + length] = data[source : source + length]
    return start, start + length


DAMAGE: dict[str, Damage] = {
    "zeros": zeros,
    "zeros, at multiples of 512": aligned_zeros,
    "bytes 0x20, at multiples of 512": one_byte,
    "a piece twice, at multiples of 4096": twice,
}


def outcome(data: bytes, start: int, end: int) -> str:
    """``right`` (the reported parts overlap the damaged one), ``wrong``, ``rejected`` or ``unnoticed``."""
    try:
        with VaeFile(open_weights(MemorySource(data, "damaged"))) as file:
            found = find_lost_data(file.weights, file.layout, file.state_dict())
    except FileError:  # not readable any more, or not finite: broken for another reason
        return "rejected"
    if not found:
        return "unnoticed"
    hits = [any(a < end and b > start for a, b in [(part.start, part.end), part.copy_of or (0, 0)]) for part in found]
    return "right" if all(hits) else "wrong"


def damaged_rows(work: Path, places: int, formats: list[str]) -> Iterator[str]:
    yield f"| file | damage | {' | '.join(f'{length:,} bytes' for length in LENGTHS)} |"
    yield "|---|---|" + "---|" * len(LENGTHS)
    for title, (dtype, save) in ((title, FORMATS[title]) for title in formats):
        contents = [
            save({k: v.to(dtype) for k, v in load_sample_vae(name).items()}, work / "sound.bin").read_bytes()
            for name in SAMPLES
        ]
        for number, (kind, damage) in enumerate(DAMAGE.items()):
            cells = []
            for length in LENGTHS:
                rng = np.random.default_rng((number, length))
                results = []
                for place in range(places):
                    data = bytearray(contents[place % len(contents)])
                    results.append(_one(data, damage, length, rng))
                cells.append(_cell(results))
            yield f"| {title} | {kind} | {' | '.join(cells)} |"
            log.info("%s, %s: %s", title, kind, cells)


def _one(data: bytearray, damage: Damage, length: int, rng: np.random.Generator) -> str:
    start, end = damage(data, length, rng)
    return outcome(bytes(data), start, end)


def _cell(results: list[str]) -> str:
    rejected = results.count("rejected")
    cell = f"{results.count('right')} of {len(results)}"
    cell += f", {rejected} rejected" if rejected else ""
    return cell + (f", {results.count('wrong')} **wrong**" if "wrong" in results else "")


# --- healthy files --------------------------------------------------------------------------------------------------


def _convolutions(state: State) -> Iterator[tuple[str, Tensor]]:
    for name, value in state.items():
        if value.ndim == 4:
            yield name, value


def _changed(state: State, change: Callable[[Tensor, torch.Generator], None]) -> State:
    generator = torch.Generator().manual_seed(0)
    result = {name: value.float().clone() for name, value in state.items()}
    for _, value in _convolutions(result):
        change(value, generator)
    return result


def _weights_at_random(share: float) -> Callable[[Tensor, torch.Generator], None]:
    def change(value: Tensor, generator: torch.Generator) -> None:
        value[torch.rand(value.shape, generator=generator) < share] = 0

    return change


def _smallest(share: float) -> Callable[[Tensor, torch.Generator], None]:
    def change(value: Tensor, _: torch.Generator) -> None:
        count = int(value.numel() * share)
        value.view(-1)[value.abs().flatten().argsort()[:count]] = 0

    return change


def _outputs(share: float) -> Callable[[Tensor, torch.Generator], None]:
    def change(value: Tensor, generator: torch.Generator) -> None:
        value[torch.rand(len(value), generator=generator) < share] = 0

    return change


def _inputs(share: float) -> Callable[[Tensor, torch.Generator], None]:
    def change(value: Tensor, generator: torch.Generator) -> None:
        value[:, torch.rand(value.shape[1], generator=generator) < share] = 0

    return change


def _kernels(share: float) -> Callable[[Tensor, torch.Generator], None]:
    def change(value: Tensor, generator: torch.Generator) -> None:
        value[torch.rand(value.shape[:2], generator=generator) < share] = 0

    return change


def _blocks(share: float, outputs: int, inputs: int) -> Callable[[Tensor, torch.Generator], None]:
    def change(value: Tensor, generator: torch.Generator) -> None:
        mask = torch.rand((-(-value.shape[0] // outputs), -(-value.shape[1] // inputs)), generator=generator) < share
        mask = mask.repeat_interleave(outputs, 0).repeat_interleave(inputs, 1)
        value[mask[: value.shape[0], : value.shape[1]]] = 0

    return change


def _n_of_m(value: Tensor, _: torch.Generator) -> None:
    count = value.numel() // 4 * 4
    groups = value.view(-1)[:count].view(-1, 4)
    groups.scatter_(1, groups.abs().argsort(1)[:, :2], 0.0)


def _outputs_and(other: Callable[[Tensor, torch.Generator], None]) -> Callable[[Tensor, torch.Generator], None]:
    def change(value: Tensor, generator: torch.Generator) -> None:
        _outputs(0.3)(value, generator)
        other(value, generator)

    return change


def _first_half(value: Tensor, _: torch.Generator) -> None:
    """As a network that was widened with zeros."""
    value[len(value) // 2 :] = 0
    value[:, max(1, value.shape[1] * 5 // 11) :] = 0


def _block_diagonal(value: Tensor, _: torch.Generator) -> None:
    rows, columns = value.shape[0] // 2, value.shape[1] // 2
    value[:rows, columns:] = 0
    value[rows:, :columns] = 0


def _identity(value: Tensor, _: torch.Generator) -> None:
    torch.nn.init.dirac_(value)


def _triangle(value: Tensor, _: torch.Generator) -> None:
    mask = torch.ones(value.shape[:2]).tril().bool()
    value[~mask] = 0


def _weak_outputs(value: Tensor, generator: torch.Generator) -> None:
    """Channels that training has nearly switched off, so that half precision rounds part of their weights to zero."""
    value *= 10 ** (-9 * torch.rand((len(value), 1, 1, 1), generator=generator))


def _weak_inputs(value: Tensor, generator: torch.Generator) -> None:
    value *= 10 ** (-9 * torch.rand((1, value.shape[1], 1, 1), generator=generator))


def _few_survivors(value: Tensor, generator: torch.Generator) -> None:
    """Dead channels with single weights left."""
    dead = torch.rand(len(value), generator=generator) < 0.3
    keep = torch.rand(value.shape, generator=generator) < 0.0005
    value[dead[:, None, None, None] & ~keep] = 0


def _copied_channels(value: Tensor, _: torch.Generator) -> None:
    """As a network that was widened with copies of its channels."""
    half = len(value) // 2
    value[half : 2 * half] = value[:half].clone()
    inputs = value.shape[1] // 3
    value[:, inputs : 2 * inputs] = value[:, :inputs].clone()


PRUNED: dict[str, Callable[[Tensor, torch.Generator], None]] = {
    "random weights, 50 %": _weights_at_random(0.5),
    "random weights, 90 %": _weights_at_random(0.9),
    "random weights, 99 %": _weights_at_random(0.99),
    "smallest weights, 50 %": _smallest(0.5),
    "smallest weights, 90 %": _smallest(0.9),
    "smallest weights, 99 %": _smallest(0.99),
    "2 of 4 weights": _n_of_m,
    "output channels, 30 %": _outputs(0.3),
    "input channels, 30 %": _inputs(0.3),
    "input channels, 90 %": _inputs(0.9),
    "output and input channels": _outputs_and(_inputs(0.3)),
    "output channels and random weights": _outputs_and(_weights_at_random(0.5)),
    "output channels and 1 % of weights": _outputs_and(_weights_at_random(0.01)),
    "output channels and kernels": _outputs_and(_kernels(0.3)),
    "output channels and 2 of 4 weights": _outputs_and(_n_of_m),
    "kernels, 50 %": _kernels(0.5),
    "kernels, 90 %": _kernels(0.9),
    "kernels, 99 %": _kernels(0.99),
    "blocks of 32 x 32 channels, 50 %": _blocks(0.5, 32, 32),
    "blocks of 1 x 32 channels, 70 %": _blocks(0.7, 1, 32),
    "blocks of 1 x 128 channels, 2 %": _blocks(0.02, 1, 128),
    "blocks of 1 x 4 channels, 90 %": _blocks(0.9, 1, 4),
    "output channels and blocks of 1 x 4": _outputs_and(_blocks(0.02, 1, 4)),
    "widened with zeros": _first_half,
    "two groups (block diagonal)": _block_diagonal,
    "identity convolutions": _identity,
    "triangular": _triangle,
    "weak output channels": _weak_outputs,
    "weak input channels": _weak_inputs,
    "dead channels with single weights": _few_survivors,
    "copied channels": _copied_channels,
}
CASTS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16} | {
    name: getattr(torch, dtype)
    for name, dtype in (("fp8 e4m3", "float8_e4m3fn"), ("fp8 e5m2", "float8_e5m2"))
    if hasattr(torch, dtype)
}


def _zero_initialised(state: State) -> State:
    """Convolutions that begin at zero, and biases and norms as a new network has them."""
    result = {name: value.float().clone() for name, value in state.items()}
    for name, value in result.items():
        if name.endswith(("conv_out.weight", "proj_out.weight", "conv2.weight", ".bias")):
            value.zero_()
        elif ".norm" in name and name.endswith(".weight"):
            value.fill_(1.0)
    return result


def _quantised(state: State) -> State:
    """Rounded to 16 levels per channel, as a VAE that was quantised to 4 bits and expanded again."""
    result = {}
    for name, value in state.items():
        value = value.float()
        if value.ndim == 4:
            scale = value.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12) / 7
            value = (value / scale).round() * scale
        result[name] = value
    return result


def healthy(taesd: Path, big: bool) -> Iterator[tuple[str, State]]:
    """Title of a kind, and weights."""
    for name in SAMPLES:
        yield "samples", load_sample_vae(name)
    for family in ("sd1", "sdxl"):
        for half in ("encoder", "decoder"):
            yield "TAESD", load_file(taesd / f"{taesd_net.FILE_STEMS[family]}_{half}.safetensors")
    for seed in range(3):
        torch.manual_seed(seed)
        yield "new", AutoencoderKL(SMALL).state_dict()
    torch.manual_seed(0)
    states = [AutoencoderKL(SMALL).state_dict(), load_sample_vae("photo-a"), load_sample_vae("sdxl-c")]
    if big:
        states.append(AutoencoderKL(MIDDLE).state_dict())
    for state in states:
        yield "zero-initialised convolutions, new biases and norms", _zero_initialised(state)
        yield "quantised to 4 bits", _quantised(state)
        for title, change in PRUNED.items():
            yield title, _changed(state, change)


def reported(state: State, dtype: torch.dtype, path: Path) -> list[LostData]:
    with open_vae(as_safetensors({k: v.to(dtype) for k, v in state.items()}, path)) as file:
        return find_lost_data(file.weights, file.layout, file.state_dict(check_finite=False))


def healthy_rows(taesd: Path, work: Path, big: bool) -> Iterator[str]:
    counts: dict[str, dict[str, list[int]]] = {}
    for title, state in healthy(taesd, big):
        for cast, dtype in CASTS.items():
            found = reported(state, dtype, work / "healthy.safetensors")
            cell = counts.setdefault(title, {}).setdefault(cast, [0, 0])
            cell[0] += bool(found)
            cell[1] += 1
            if found:
                log.warning("FALSE ALARM %s %s: %s", title, cast, found[:3])
        log.info("%s: %s", title, counts[title])
    yield f"| healthy VAEs | {' | '.join(CASTS)} |"
    yield "|---|" + "---|" * len(CASTS)
    for title, by_cast in counts.items():
        cells = [f"{wrong} of {total}" if not wrong else f"**{wrong}** of {total}" for wrong, total in by_cast.values()]
        yield f"| {title} | {' | '.join(cells)} |"


# --- time -----------------------------------------------------------------------------------------------------------


def seconds(work: Path) -> str:
    """Of reading a VAE as large as SD's in fp32, and of looking for lost parts; the best of five."""
    path = as_safetensors(AutoencoderKL(SD).state_dict(), work / "large.safetensors")
    size = path.stat().st_size / 1e8
    times = []
    for _ in range(5):
        with open_vae(path) as file:
            start = time.perf_counter()
            state = file.state_dict()
            middle = time.perf_counter()
            find_lost_data(file.weights, file.layout, state)
            times.append((middle - start, time.perf_counter() - middle))
    reading, looking = (1000 * min(column) / size for column in zip(*times, strict=True))
    return (
        f"Time per 100 MB of a VAE as large as SD's in fp32, cached by the system, one thread: {reading:.0f} ms to "
        f"read it and to check that it is finite, {looking:.0f} ms to look for missing parts."
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Which damaged and which healthy VAEs are reported as incomplete.")
    parser.add_argument("--taesd", type=Path, required=True, help="folder with TAESD's safetensors files")
    parser.add_argument("--work", type=Path, required=True, help="folder for temporary files")
    parser.add_argument("--places", type=int, default=PLACES, help="places per length")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS), help="of the damaged files")
    parser.add_argument("--small", action="store_true", help="leave out the larger VAEs")
    parser.add_argument("--parts", nargs="+", default=["damaged", "healthy", "time"])
    parser.add_argument("--write", type=Path, help="put the tables into this file, between its two marks")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    arguments.work.mkdir(parents=True, exist_ok=True)
    parts = []
    if "damaged" in arguments.parts:
        parts.append("\n".join(damaged_rows(arguments.work, arguments.places, arguments.formats)))
    if "healthy" in arguments.parts:
        parts.append("\n".join(healthy_rows(arguments.taesd, arguments.work, not arguments.small)))
    if "time" in arguments.parts:
        parts.append(seconds(arguments.work))
    text = "\n\n".join(parts) + "\n"
    write_between(arguments.write, BEGIN, END, text)


if __name__ == "__main__":
    main()
