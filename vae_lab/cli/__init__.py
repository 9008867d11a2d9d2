"""``python -m vae_lab``: the command line.

Exit codes: 0 all went well, 1 something was found that is not healthy, 2 something could not be read or the call was
wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from vae_lab.autoencoders import open_vae
from vae_lab.checkup.findings import HEALTHY, UNREADABLE
from vae_lab.cli.scan import add_scan
from vae_lab.comparison import (
    Candidate,
    Coder,
    Comparison,
    RoundTrip,
    compare_candidates,
    contact_sheet,
    measure_comparison,
    png_bytes,
    round_trip,
)
from vae_lab.comparison.round_trip import LOSS_IN_WORDS, as_decoded, coder_of
from vae_lab.decoding import decoder_of
from vae_lab.errors import FileError, VaeLabError
from vae_lab.formats import file_name, is_url, shown_name
from vae_lab.host.infotext import with_override
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.identity import Sketch, short, sketch_of_file
from vae_lab.images import LONGEST_SIDE, prepared, read_image
from vae_lab.latents import Generation, load_latents
from vae_lab.latents.family import FAMILIES
from vae_lab.library import FileRecord, inspect_file
from vae_lab.repair.checkpoint import bake, extract, strip
from vae_lab.service.background_checkup import BackgroundCheckup
from vae_lab.version import __version__

__all__ = ["main"]

_ORIGINAL = "Original"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    args = _parser().parse_args(arguments)
    try:
        return args.function(args)
    except VaeLabError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except OSError as error:  # a folder that cannot be written, a port that is taken
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m vae_lab", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    decode = commands.add_parser("decode", help="decode latents with several VAEs, side by side")
    decode.add_argument("latents", type=Path, help=".safetensors with one tensor [B,C,h,w] in model space")
    decode.add_argument(
        "--vae", type=_path_or_url, action="append", required=True, help="a VAE or a checkpoint; repeatable"
    )
    decode.add_argument("-o", "--out", type=Path, required=True, help="folder for images, sheet.png, comparison.json")
    decode.set_defaults(function=_decode)

    roundtrip = commands.add_parser(
        "roundtrip", help="an image through encode and decode of each VAE, and what is lost"
    )
    roundtrip.add_argument("image", type=Path, help="PNG, JPEG, WebP, BMP, GIF or TIFF")
    roundtrip.add_argument(
        "--vae", type=_path_or_url, action="append", required=True, help="a VAE or a checkpoint; repeatable"
    )
    roundtrip.add_argument(
        "-o", "--out", type=Path, required=True, help="folder for images, loss maps, sheet.png, roundtrip.json"
    )
    roundtrip.add_argument(
        "--longest", type=_side, default=LONGEST_SIDE, metavar="PIXELS",
        help="resample where a side is longer; by default %(default)s",
    )  # fmt: skip
    roundtrip.add_argument("--device", default="cpu", help="where to compute, such as cuda")
    roundtrip.set_defaults(function=_round_trip)

    inspect = commands.add_parser("inspect", help="tell which VAE is in a file, and whether it is sound")
    inspect.add_argument(
        "paths", type=_path_or_url, nargs="+", metavar="PATH", help="VAEs and checkpoints, or https addresses of them"
    )
    inspect.add_argument("--json", action="store_true", help="one JSON object for each file, a line each")
    inspect.add_argument("--no-probe", action="store_true", help="facts and structure alone, without decoding a chart")
    inspect.set_defaults(function=_inspect)

    _add_baking(commands)
    add_scan(commands)

    serve = commands.add_parser("serve", help="open VAE Lab as a page of its own")
    serve.add_argument("--models", type=Path, required=True, help="folder like the WebUI's models/, with latents/")
    serve.add_argument("--port", type=int, default=0, help="TCP port on this machine; by default a free one")
    serve.add_argument("--device", default="cpu", help="where to decode, such as cuda")
    serve.add_argument("--no-browser", action="store_true", help="do not open a browser")
    serve.set_defaults(function=_serve)

    demo = commands.add_parser("demo", help="the same on a sample set that comes with VAE Lab")
    demo.add_argument("--headless", action="store_true", help="write the comparison to OUT instead of opening a page")
    demo.add_argument("-o", "--out", type=Path, help="folder; by default a temporary one")
    demo.add_argument("--port", type=int, default=0, help="TCP port on this machine; by default a free one")
    demo.add_argument("--no-browser", action="store_true", help="do not open a browser")
    demo.set_defaults(function=_demo)
    return parser


def _add_baking(commands: Any) -> None:
    sources = {"checkpoint": "the checkpoint; it stays as it is", "vae": "a VAE, or a checkpoint whose VAE is meant"}
    for function, words, needed in (
        (bake, "put a VAE into a checkpoint", ("checkpoint", "vae")),
        (strip, "leave a checkpoint's VAE out", ("checkpoint",)),
        (extract, "take the VAE out of a checkpoint, as a file of its own", ("checkpoint",)),
    ):
        command = commands.add_parser(function.__name__, help=words)
        for name in needed:
            command.add_argument(name, type=Path, help=sources[name])
        command.add_argument("-o", "--out", type=Path, required=True, help="the new .safetensors file")
        command.set_defaults(function=_bake, baking=function, sources=needed)


def _bake(args: argparse.Namespace) -> int:
    sources = [getattr(args, name) for name in args.sources]
    with tqdm(desc=args.out.name, unit="B", unit_scale=True, disable=not sys.stderr.isatty()) as bar:
        args.baking(*sources, args.out, progress=_shown(bar))
    sys.stdout.write(f"{args.out}\n")
    return 0


def _decode(args: argparse.Namespace) -> int:
    generation = load_latents(args.latents)
    family = generation.family
    candidates = [Candidate(_label(path, args.vae), partial(decoder_of, path, family)) for path in args.vae]
    with tqdm(desc="decoding", unit="image", disable=not sys.stderr.isatty()) as bar:
        comparison = compare_candidates(generation.latents, candidates, family, progress=_shown(bar))
    _write(comparison, generation, args.out)
    return 2 if any(result.error for result in comparison) else 0


def _side(text: str) -> int:
    pixels = int(text)
    if pixels < 8:
        raise ValueError
    return pixels


def _round_trip(args: argparse.Namespace) -> int:
    image = read_image(args.image)
    fit = prepared(image.image, args.longest)
    coders = [Coder(_label(path, args.vae), partial(coder_of, path, device=args.device)) for path in args.vae]
    with tqdm(desc="there and back", unit="step", disable=not sys.stderr.isatty()) as bar:
        trip = round_trip(fit.image, coders, progress=_shown(bar))
    _write_round_trip(trip, args.image.name, fit.remarks, args.out)
    return 2 if any(result.error for result in trip) else 0


def _inspect(args: argparse.Namespace) -> int:
    codes = {HEALTHY: 0, UNREADABLE: 2}
    worst = 0
    paths = list(dict.fromkeys(args.paths))
    with tqdm(paths, desc="inspecting", unit="file", disable=args.json or not sys.stderr.isatty()) as bar:
        for path in bar:
            report = inspect_file(path, probe=not args.no_probe, relatives=_relatives(path, paths))
            worst = max(worst, codes.get(report.verdict.status, 1))
            text = json.dumps(report.to_json(), ensure_ascii=False) if args.json else _as_text(report)
            bar.write(text, file=sys.stdout)
    return worst


def _path_or_url(text: str) -> Path | str:
    """An address stays as it is: a path would lose one of its slashes."""
    return text if is_url(text) else Path(text)


def _relatives(path: Path | str, paths: Sequence[Path | str]) -> dict[str, Sketch]:
    """Sketches of the other files of the call: what one VAE was merged from may be among them."""
    return {_label(other, paths): sketch for other in paths if other != path and (sketch := _sketch(str(other)))}


@cache
def _sketch(path: str) -> Sketch | None:
    try:
        with open_vae(path) as file:
            return sketch_of_file(file)
    except FileError:
        return None


def _as_text(report: FileRecord) -> str:
    facts = [report.family.title if report.family else "family unknown", report.dtype, report.layout]
    if report.fingerprint:
        facts.append(short(report.fingerprint))
    lines = [f"{report.path}: {report.verdict.status}"]
    if report.layout:
        lines.append(f"  {' · '.join(filter(None, facts))}")
    if report.identity:
        lines.append(f"  this {'file ' if report.identity.match == 'file' else ''}is {report.identity.words}")
    for finding in report.verdict.findings:
        lines.append(f"  {finding.title} ({finding.code}, {finding.severity}): {finding.text}")
        if finding.evidence:
            lines.append(f"    {'; '.join(map(str, finding.evidence))}")
        if finding.remedy:
            lines.append(f"    {finding.remedy}")
    return "\n".join(lines)


def _label(path: Path | str, others: Sequence[Path | str]) -> str:
    """The file's name, or its whole path where two files have the same name."""
    name = file_name(path)
    return name if sum(file_name(other) == name for other in others) == 1 else shown_name(path)


def _serve(args: argparse.Namespace) -> int:
    if not args.models.is_dir():
        sys.stderr.write(f"{args.models} is not a folder\n")
        return 2
    _open_page(StandaloneHost(Folders.of_models(args.models), device=args.device), args)
    return 0


def _open_page(host: StandaloneHost, args: argparse.Namespace) -> None:
    checkup = BackgroundCheckup(host)
    host.on_checkpoint_changed = checkup.checkpoint_changed
    checkup.checkpoint_changed()
    from vae_lab.ui.app import serve  # gradio takes seconds to import, and only these commands need it

    def announce(url: str) -> None:
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()

    serve(host, port=args.port, open_browser=not args.no_browser, announce=announce)


def _demo(args: argparse.Namespace) -> int:
    from vae_lab.samples import build_sample_set

    out = args.out or Path(tempfile.gettempdir()) / "vae-lab-demo"
    models = out / "models"
    build_sample_set(models)
    host = StandaloneHost(Folders.of_models(models))
    host.select_checkpoint("grey-merge.safetensors")
    if not args.headless:
        _open_page(host, args)
        return 0
    generation = host.generations.newest_first()[0]
    names = [entry.name for entry in host.identify()]
    with tqdm(desc="decoding", unit="image", disable=not sys.stderr.isatty()) as bar:
        comparison = host.compare(generation.id, names, _shown(bar))
    _write(comparison, generation, out)
    return 0 if comparison.decoded else 2  # one is refused on purpose: it is of another family


def _shown(bar: Any) -> Any:
    def report(done: int, total: int, what: str) -> None:
        bar.total = total
        bar.set_postfix_str(what, refresh=False)
        bar.update(done - bar.n)

    return report


def _write(comparison: Comparison, generation: Generation, out: Path) -> None:
    """Write every image, the sheet and the JSON, and say why a VAE was refused."""
    out.mkdir(parents=True, exist_ok=True)
    sheet = np.asarray(contact_sheet(comparison, rows=[generation.title]))
    (out / "sheet.png").write_bytes(png_bytes(sheet, next(iter(generation.infotexts), "")))
    measured = measure_comparison(comparison)
    rows = []
    for number, result in enumerate(comparison):
        files = []
        for i, image in enumerate(result.images if result.images is not None else []):
            file = out / f"{number:02d}-{i}.png"
            text = generation.infotexts[i] if i < len(generation.infotexts) else ""
            file.write_bytes(png_bytes(image, with_override(text, result.name, "") if text else ""))
            files.append(file.name)
        rows.append(
            {
                "name": result.name,
                "family": result.family.id if result.family else None,
                "seconds": round(result.seconds, 4),
                "images": files,
                "finite": result.finite,
                "error": result.error or None,
                "measures": measured.of[result.name].to_json() if result.name in measured.of else None,
            }
        )
    record = {"latents": generation.title, "family": comparison.family.id}
    record |= {"reference": measured.reference or None, "results": rows}
    (out / "comparison.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf8")
    sys.stdout.write(f"{out / 'sheet.png'}\n{out / 'comparison.json'}\n")
    for result in comparison:
        if result.error:
            sys.stderr.write(f"{result.error}\n")


def _write_round_trip(trip: RoundTrip, name: str, remarks: Sequence[str], out: Path) -> None:
    """Write image and loss map of each VAE, the sheet and the JSON, and say why a VAE was refused."""
    out.mkdir(parents=True, exist_ok=True)
    height, width = trip.original.shape[:2]
    rows, notes = [], {_ORIGINAL: f"{width} x {height}"}
    Image.fromarray(trip.original).save(out / "original.png")
    for number, result in enumerate(trip):
        row: dict[str, Any] = {"name": result.name, "family": result.family.id if result.family else None}
        row |= dict.fromkeys(("psnr", "ssim", "delta_e", "image", "loss_map"))
        if result.image is not None and result.loss is not None:
            row |= result.loss.to_json()
            row |= {"image": f"{number:02d}.png", "loss_map": f"{number:02d}-loss.png"}
            Image.fromarray(result.image).save(out / row["image"])
            Image.fromarray(result.loss.image).save(out / row["loss_map"])
            notes[result.name] = str(result.loss)
        row |= {
            "encode_seconds": round(result.encode_seconds, 4),
            "decode_seconds": round(result.decode_seconds, 4),
            "finite": result.finite,
            "error": result.error or None,
        }
        rows.append(row)
    columns = Comparison(FAMILIES["sd1"], as_decoded(trip, _ORIGINAL))  # the family is not drawn: each has its own
    title = " · ".join([name, *remarks, LOSS_IN_WORDS])
    contact_sheet(columns, rows=[title], notes=notes).save(out / "sheet.png")
    record = {"image": name, "size": [width, height], "remarks": list(remarks), "results": rows}
    (out / "roundtrip.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf8")
    sys.stdout.write(f"{out / 'sheet.png'}\n{out / 'roundtrip.json'}\n")
    for result in trip:
        if result.error:
            sys.stderr.write(f"{result.error}\n")
