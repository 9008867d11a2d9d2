"""The files that a comparison and a round trip leave in a folder.

They get their names together: of two runs that write to one folder, all files are of one of them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from vae_lab.cli.arguments import check_outputs
from vae_lab.cli.console import say
from vae_lab.comparison import (
    Comparison,
    Decoded,
    RoundTrip,
    comparison_json,
    contact_sheet,
    measure_comparison,
    png_bytes,
)
from vae_lab.comparison.round_trip import LOSS_IN_WORDS, RoundTripped, as_decoded
from vae_lab.host.infotext import with_override
from vae_lab.latents import Generation
from vae_lab.latents.family import FAMILIES
from vae_lab.new_file import new_files
from vae_lab.text import as_text

__all__ = ["check_folder", "write_comparison", "write_round_trip"]

_ORIGINAL = "Original"
_SHEET, _COMPARISON, _ROUND_TRIP = "sheet.png", "comparison.json", "roundtrip.json"


def check_folder(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder with the results of an earlier run, before anything is computed.

    Raises:
        HostError: it has one of the files, and they must not be overwritten.
    """
    if out.is_dir():
        check_outputs([out / name for name in (_SHEET, _COMPARISON, _ROUND_TRIP)], overwrite=overwrite)


def write_comparison(comparison: Comparison, generation: Generation, out: Path, *, overwrite: bool = False) -> None:
    """Write each image, ``sheet.png`` and ``comparison.json``; report each VAE that failed on stderr."""
    out.mkdir(parents=True, exist_ok=True)
    sheet = np.asarray(contact_sheet(comparison, rows=[generation.title]))
    with new_files(out, overwrite=overwrite) as write:
        write(_SHEET, png_bytes(sheet, next(iter(generation.infotexts), "")))
        images = [_write_images(number, result, generation, write) for number, result in enumerate(comparison)]
        record = {"latents": generation.title, **comparison_json(comparison, measure_comparison(comparison), images)}
        write(_COMPARISON, _as_json(record))
    _report(comparison, out / _SHEET, out / _COMPARISON)


def _write_images(number: int, result: Decoded, generation: Generation, write: _Write) -> list[str]:
    """Names of the files, one for each image of the batch, with the VAE in the generation parameters."""
    names = []
    for i, image in enumerate(result.images if result.images is not None else []):
        name = f"{number:02d}-{i}.png"
        infotext = generation.infotexts[i] if i < len(generation.infotexts) else ""
        write(name, png_bytes(image, with_override(infotext, result.name, "") if infotext else ""))
        names.append(name)
    return names


def write_round_trip(trip: RoundTrip, name: str, remarks: Sequence[str], out: Path, *, overwrite: bool = False) -> None:
    """Write image and loss map of each VAE, ``sheet.png`` and ``roundtrip.json``; report failures on stderr.

    Args:
        trip: the results.
        name: of the image file.
        remarks: how the image was resized or cropped.
        out: the folder; created if missing.
        overwrite: replace files that exist there.

    Raises:
        OSError: a file cannot be written, or exists.
    """
    out.mkdir(parents=True, exist_ok=True)
    height, width = trip.original.shape[:2]
    notes = {_ORIGINAL: f"{width} x {height}"}
    notes |= {result.name: str(result.loss) for result in trip if result.loss is not None}
    columns = Comparison(FAMILIES["sd1"], as_decoded(trip, _ORIGINAL))  # the sheet does not show the family
    title = " · ".join([name, *remarks, LOSS_IN_WORDS])
    sheet = np.asarray(contact_sheet(columns, rows=[title], notes=notes))
    with new_files(out, overwrite=overwrite) as write:
        write(_SHEET, png_bytes(sheet))
        write("original.png", png_bytes(trip.original))
        rows = [_write_round_tripped(number, result, write) for number, result in enumerate(trip)]
        record = {"image": name, "size": [width, height], "remarks": list(remarks), "results": rows}
        write(_ROUND_TRIP, _as_json(record))
    _report(trip, out / _SHEET, out / _ROUND_TRIP)


def _write_round_tripped(number: int, result: RoundTripped, write: _Write) -> dict[str, Any]:
    row: dict[str, Any] = {"name": result.name, "family": result.family.id if result.family else None}
    row |= dict.fromkeys(("psnr", "ssim", "delta_e", "image", "loss_map"))
    if result.image is not None and result.loss is not None:
        row |= result.loss.to_json()
        row |= {"image": f"{number:02d}.png", "loss_map": f"{number:02d}-loss.png"}
        write(row["image"], png_bytes(result.image))
        write(row["loss_map"], png_bytes(result.loss.image))
    return row | {
        "encode_seconds": round(result.encode_seconds, 4),
        "decode_seconds": round(result.decode_seconds, 4),
        "finite": result.finite,
        "error": result.error or None,
    }


def _as_json(record: dict[str, Any]) -> bytes:
    # A name's bytes that are not UTF-8 become escapes, which are the same in JSON.
    return f"{as_text(json.dumps(record, indent=1, ensure_ascii=False))}\n".encode()


_Write: TypeAlias = Callable[[str, bytes], None]
"""Writes a file of this name."""


def _report(results: Iterable[Decoded | RoundTripped], *files: Path) -> None:
    for file in files:
        say(str(file))
    for result in results:
        if result.error:
            say(result.error, sys.stderr)
