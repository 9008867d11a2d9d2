"""Feeds damaged files to every parser: ``python -m tools.fuzz --minutes 60``.

Good outcomes are a result or one of our errors, in one line. Anything else is a crash: its input is saved. While a
parser runs, whatever could execute something of a file, write elsewhere or reach a network is reported by the
interpreter itself (audit hooks), and files that would create a canary are among the inputs.

``--guided TARGET`` has atheris, if it is installed, choose the inputs by what they reach (``pip install atheris``).
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import io
import json
import os
import pickle
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType
from typing import Any, NoReturn

import safetensors.torch
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.property.mutations import mutated, weight_files
from tests.unit.makers import F2, diffusers_names, kl_state, taesd_state
from vae_lab.autoencoders.autoencoder import VaeFile
from vae_lab.errors import VaeLabError
from vae_lab.formats import Limits, MemorySource, open_weights
from vae_lab.host import infotext
from vae_lab.host.plan import Plan
from vae_lab.host.preferences import WEBUI_KEY, metadata_file, read_preference, with_preference
from vae_lab.images import check_image, read_image
from vae_lab.latents import Generation, get_family
from vae_lab.latents.files import latents_file, read_latents
from vae_lab.library import FileCache

_SLOW = 2.0  # seconds of CPU for a file of some kilobytes
_SLICE = 2.0  # seconds after which it is another target's turn
_LIMITS = Limits(expanded_bytes=2**20)
_INFOTEXT = (
    "a boat, <lora:x:1>\nNegative prompt: fog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, "
    'VAE hash: c6a580b13a, VAE: "a, b.pt", VAE Lab override: x.safetensors, VAE Lab override hash: 0011223344, '
    'Template: "a {b}", Version: v1.10.1'
)
_NAME = 'my, "own": VAE.pt'


@dataclass
class Target:
    """A parser.

    Attributes:
        name: for the table.
        parse: reads bytes.
        corpus: intact inputs, to be damaged.
        read, refused, crashed, slow: inputs so far, by outcome; slow ones are counted once more.
    """

    name: str
    parse: Callable[[bytes], object]
    corpus: Sequence[bytes]
    read: int = 0
    refused: int = 0
    crashed: int = 0
    slow: int = 0

    @property
    def inputs(self) -> int:
        return self.read + self.refused + self.crashed


# --- parsers ---------------------------------------------------------------------------------------------------------


def targets(folder: Path) -> list[Target]:
    """All parsers.

    Args:
        folder: in which they may write.
    """
    small = {"quant_conv.weight": torch.ones(8, 8, 1, 1), "loss.x": torch.ones(2)}
    vaes = (
        kl_state(F2),
        diffusers_names(kl_state(F2), levels=2),
        taesd_state(width=4),
        taesd_state(encoder=False, width=4),
    )
    files = dict(weight_files())
    return [
        *(Target(f"weights, {name}", _weights, [data, *_payloads(folder, name)]) for name, data in files.items()),
        Target("a VAE's structure and weights", _vae, [*map(safetensors.torch.save, (*vaes, small))]),
        Target("latents", _latents, list(_latents_files())),
        Target("images", _image, list(_images())),
        Target("generation parameters", _parameters, [_INFOTEXT.encode(), b"Steps: 1"]),
        Target("preferences of a checkpoint", _Preferences(folder), [b'{"description": "x", "vae": "a.pt"}', b"{}"]),
        Target("arguments of the script", _plan, [*map(_as_json, _plans())]),
        Target("cache of what is known about files", _Cache(folder), [_Cache.intact(folder)]),
    ]


def _weights(data: bytes) -> None:
    with open_weights(MemorySource(data), limits=_LIMITS) as file:
        for name, info in file.tensors.items():
            if info.flaw is None:
                tensor = file.read(name)
                assert (tensor.dtype, tuple(tensor.shape)) == (info.dtype, info.shape)
                file.read_flat(name, info.numel // 2, info.numel - info.numel // 2)


def _vae(data: bytes) -> None:
    with VaeFile(open_weights(MemorySource(data), limits=_LIMITS)) as file:
        state = file.state_dict()
        assert {name: tuple(tensor.shape) for name, tensor in state.items()} == file.shapes


def _latents(data: bytes) -> None:
    generation = read_latents(data, "latents.safetensors", 2**20)
    assert generation.latents.shape[1] == generation.family.latent_channels
    assert generation.label


def _latents_files() -> Iterator[bytes]:
    latents = torch.randn(1, 4, 2, 2)
    yield latents_file(Generation("g", latents, get_family("sd1"), "a boat", (_INFOTEXT,), "one.safetensors"))
    yield safetensors.torch.save({"latent_tensor": latents, "latent_format_version_0": torch.zeros(0)})
    yield safetensors.torch.save({"latents": latents[0].half()})


def _image(data: bytes) -> None:
    check_image(data)
    loaded = read_image(data)
    assert loaded.image.mode == "RGB"


def _images() -> Iterator[bytes]:
    picture = Image.effect_noise((24, 16), 60)
    info = PngInfo()
    info.add_text("parameters", _INFOTEXT)
    info.add_itxt("parameters", _INFOTEXT, zip=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    for form, mode, options in (
        ("PNG", "RGBA", {"pnginfo": info}),
        ("PNG", "P", {}),
        ("JPEG", "RGB", {"exif": exif}),
        ("WEBP", "RGB", {}),
        ("BMP", "RGB", {}),
        ("GIF", "P", {}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    ):
        buffer = io.BytesIO()
        picture.convert(mode).save(buffer, form, **options)
        yield buffer.getvalue()


def _parameters(data: bytes) -> None:
    text = data.decode("utf8", "replace")
    infotext.names_vae(text), infotext.decoded_by(text), infotext.vae_hash(text)
    written = infotext.with_override(text, _NAME, "0123456789")
    assert infotext.decoded_by(written)[1] == _NAME
    assert infotext.vae_hash(written) == infotext.VaeHash("0123456789", True, _NAME)


def _as_json(value: object) -> bytes:
    return json.dumps(value).encode()


def _plans() -> list[object]:
    return [
        ["x.pt", ["a", "b"], "warn"],
        [{"override": "x.pt", "compare": ["a"], "on_grey": "redecode", "fallback": True}],
        [None, [], None],
    ]


def _plan(data: bytes) -> None:
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        return  # the host answers that
    if isinstance(values, list):
        plan = Plan.from_args(values)
        assert isinstance(plan.override, str)


class _Preferences:
    """The JSON file next to a checkpoint."""

    def __init__(self, folder: Path) -> None:
        self.checkpoint = str(folder / "one.safetensors")

    def __call__(self, data: bytes) -> None:
        metadata_file(self.checkpoint).write_bytes(data)
        assert isinstance(read_preference(self.checkpoint, WEBUI_KEY), str)
        with_preference(self.checkpoint, WEBUI_KEY, "x.pt")


class _Cache:
    """The database of what is known about files; a damaged one is made anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "cache"
        self.vae = folder / "vae.safetensors"

    @staticmethod
    def intact(folder: Path) -> bytes:
        vae, cache = folder / "vae.safetensors", folder / "cache"
        vae.write_bytes(safetensors.torch.save(kl_state(F2)))
        FileCache(cache).identify(str(vae))
        return next(path for path in cache.iterdir() if path.is_file()).read_bytes()

    def __call__(self, data: bytes) -> None:
        name = next(path for path in self.folder.iterdir() if path.is_file())
        name.write_bytes(data)
        cache = FileCache(self.folder)
        cache.known(str(self.vae)), cache.checked(str(self.vae))


# --- nothing is executed --------------------------------------------------------------------------------------------


class _Call:
    """Pickled as a call of any function."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def _calls(canary: Path) -> Iterator[_Call]:
    text = f"open({str(canary)!r}, 'w').close()"
    yield _Call(os.system, f"touch {canary}")
    yield _Call(eval, text)
    yield _Call(exec, text)
    yield _Call(Path.touch, canary)
    yield _Call(subprocess.getoutput, f"touch {canary}")


def _payloads(folder: Path, container: str) -> Iterator[bytes]:
    """Files that create the canary if their pickle is loaded."""
    name, _, protocol = container.rpartition("-")
    if not protocol.isdigit():
        return
    for call in _calls(folder / "canary"):
        buffer = io.BytesIO()
        content = {"state_dict": {"a": torch.ones(2)}, "b": call}
        zipped = name == "torch-zip"
        torch.save(content, buffer, pickle_protocol=int(protocol), _use_new_zipfile_serialization=zipped)
        yield buffer.getvalue()


def check_canary(folder: Path) -> None:
    """Each call really creates the canary when its pickle is loaded: else its absence would prove nothing.

    Raises:
        RuntimeError: one does not.
    """
    canary = folder / "canary"
    for call in _calls(canary):
        pickle.loads(pickle.dumps(call))
        if not canary.exists():
            raise RuntimeError(f"{call.call[0]} does not create the canary")
        canary.unlink()


@dataclass
class Watch:
    """Reports what no parser has to do.

    Attributes:
        active: whether a parser runs.
        seen: events, with what the interpreter says about them.
    """

    folder: Path
    active: bool = False
    seen: list[str] = field(default_factory=list)

    _FORBIDDEN = (
        *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen", "pickle.find_class"),
        *("socket.connect", "socket.getaddrinfo", "ctypes.dlopen", "shutil.rmtree"),
    )

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active:
            return
        writes = event == "open" and _writes(arguments) and not self._is_ours(arguments[0])
        imported = event == "import" and str(arguments[0]).split(".")[0] in ("posix", "nt", "subprocess", "builtins")
        if writes or imported or event in self._FORBIDDEN:
            self.seen.append(f"{event} {arguments!r:.200}")

    def _is_ours(self, path: object) -> bool:
        return isinstance(path, int) or str(self.folder) in os.fsdecode(path)  # type: ignore[arg-type]


def _writes(arguments: tuple[Any, ...]) -> bool:
    mode, flags = arguments[1], arguments[2]
    return (
        any(letter in mode for letter in "wax+") if isinstance(mode, str) else bool(flags & (os.O_WRONLY | os.O_RDWR))
    )


# --- the run ----------------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """Damaged inputs for every target, until the time is over."""

    targets: Sequence[Target]
    watch: Watch
    findings: Path
    crashes: dict[str, str] = field(default_factory=dict)

    def feed(self, target: Target, data: bytes) -> None:
        """Parse one input and count the outcome."""
        before, start = len(self.watch.seen), time.thread_time()
        self.watch.active = True
        try:
            target.parse(data)
            problem, target.read = "", target.read + 1
        except VaeLabError as error:
            target.refused += 1
            problem = "an error of several lines" if "\n" in str(error) else ""
        except Exception as error:
            target.crashed += 1
            frames = traceback.extract_tb(error.__traceback__)
            problem = f"{type(error).__name__}: {error} in {frames[-1].name}, line {frames[-1].lineno}".splitlines()[0]
        finally:
            self.watch.active = False
        seconds = time.thread_time() - start
        if seconds > _SLOW:
            target.slow += 1
            problem = problem or f"{seconds:.1f} s"
        if len(self.watch.seen) > before:
            problem = self.watch.seen[-1]
        if problem:
            self._save(target, data, problem)

    def _save(self, target: Target, data: bytes, problem: str) -> None:
        if problem in self.crashes:
            return
        self.findings.mkdir(parents=True, exist_ok=True)
        file = self.findings / hashlib.sha256(data).hexdigest()[:16]
        file.write_bytes(data)
        self.crashes[problem] = f"{target.name}: {problem} ({file})"
        sys.stderr.write(f"{self.crashes[problem]}\n")

    def until(self, deadline: float, choice: random.Random) -> None:
        """Every target in turn."""
        for target in self.targets:
            for data in target.corpus:
                self.feed(target, data)
        while time.monotonic() < deadline:
            for target in self.targets:
                end = min(time.monotonic() + _SLICE, deadline)
                while time.monotonic() < end:
                    data = choice.choice(target.corpus)
                    for _ in range(choice.choice((1, 1, 1, 2, 8))):
                        data = mutated(data, choice) if data else b""
                    self.feed(target, data)
            inputs = sum(target.inputs for target in self.targets)
            sys.stderr.write(f"{inputs:,} inputs, {len(self.crashes)} findings\n")


def table(targets: Sequence[Target]) -> str:
    """The counts, as Markdown."""
    rows = ["| Parser | Inputs | Read | Refused | Crashes | Over 2 s |", "|---|---|---|---|---|---|"]
    total = Target("**all**", lambda _: None, ())
    for target in targets:
        rows.append(_row(target))
        total.read, total.refused = total.read + target.read, total.refused + target.refused
        total.crashed, total.slow = total.crashed + target.crashed, total.slow + target.slow
    return "\n".join([*rows, _row(total)])


def _row(target: Target) -> str:
    counts = (target.inputs, target.read, target.refused, target.crashed, target.slow)
    return f"| {target.name} | {' | '.join(f'{count:,}' for count in counts)} |"


def guided(target: Target, watch: Watch, minutes: float, folder: Path) -> NoReturn:
    """Have atheris choose the inputs; it ends the process, with an error after the first crash."""
    import atheris

    folder.mkdir()
    for number, data in enumerate(target.corpus):
        (folder / f"seed-{number}").write_bytes(data)
    for each in gc.get_objects():  # of ours only: all of torch would take minutes
        if isinstance(each, FunctionType) and str(each.__module__).startswith("vae_lab."):
            atheris.instrument_func(each)

    def one(data: bytes) -> None:
        watch.active = True
        try:
            target.parse(data)
        except VaeLabError:
            pass
        finally:
            watch.active = False
        if watch.seen:
            raise RuntimeError(watch.seen[-1])

    atheris.Setup(["fuzz", str(folder), f"-max_total_time={int(60 * minutes)}", "-max_len=65536"], one)
    atheris.Fuzz()
    raise SystemExit(0)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="of all targets together")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers")
    parser.add_argument("--only", default="", help="targets whose names contain this")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"), help="folder for inputs with a finding")
    parser.add_argument("--guided", metavar="TARGET", help="one target, with atheris")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        check_canary(folder)
        chosen = [each for each in targets(folder) if (arguments.guided or arguments.only) in each.name]
        watch = Watch(folder)
        sys.addaudithook(watch)
        if arguments.guided:
            guided(chosen[0], watch, arguments.minutes, folder / "corpus")
        run = Run(chosen, watch, arguments.findings)
        run.until(time.monotonic() + 60 * arguments.minutes, random.Random(arguments.seed))
        executed = (folder / "canary").exists()
    lines = [table(chosen), "", *run.crashes.values()]
    lines.append("Something in a file was executed." if executed else "Nothing in a file was executed.")
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if executed or run.crashes else 0


if __name__ == "__main__":
    sys.exit(main())
