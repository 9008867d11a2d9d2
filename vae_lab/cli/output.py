"""The files that a comparison and a round trip leave in a folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

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
from vae_lab.text import as_text

__all__ = ["write_comparison", "write_round_trip"]

_ORIGINAL = "Original"


def write_comparison(comparison: Comparison, generation: Generation, out: Path) -> None:
    """Write each image, ``sheet.png`` and ``comparison.json``; report each VAE that failed on stderr."""
    out.mkdir(parents=True, exist_ok=True)
    sheet = np.asarray(contact_sheet(comparison, rows=[generation.title]))
    (out / "sheet.png").write_bytes(png_bytes(sheet, next(iter(generation.infotexts), "")))
    images = [_write_images(number, result, generation, out) for number, result in enumerate(comparison)]
    record = {"latents": generation.title, **comparison_json(comparison, measure_comparison(comparison), images)}
    _write_record(record, out / "comparison.json")
    _report(comparison, out / "sheet.png", out / "comparison.json")


def _write_images(number: int, result: Decoded, generation: Generation, out: Path) -> list[str]:
    """Names of the files, one for each image of the batch, with the VAE in the generation parameters."""
    names = []
    for i, image in enumerate(result.images if result.images is not None else []):
        name = f"{number:02d}-{i}.png"
        infotext = generation.infotexts[i] if i < len(generation.infotexts) else ""
        (out / name).write_bytes(png_bytes(image, with_override(infotext, result.name, "") if infotext else ""))
        names.append(name)
    return names


def write_round_trip(trip: RoundTrip, name: str, remarks: Sequence[str], out: Path) -> None:
    """Write image and loss map of each VAE, ``sheet.png`` and ``roundtrip.json``; report failures on stderr.

    Args:
        trip: the results.
        name: of the image file.
        remarks: how the image was resized or cropped.
        out: the folder; created if missing.
    """
    out.mkdir(parents=True, exist_ok=True)
    height, width = trip.original.shape[:2]
    Image.fromarray(trip.original).save(out / "original.png")
    rows = [_write_round_tripped(number, result, out) for number, result in enumerate(trip)]
    notes = {_ORIGINAL: f"{width} x {height}"}
    notes |= {result.name: str(result.loss) for result in trip if result.loss is not None}
    columns = Comparison(FAMILIES["sd1"], as_decoded(trip, _ORIGINAL))  # the sheet does not show the family
    title = " · ".join([name, *remarks, LOSS_IN_WORDS])
    contact_sheet(columns, rows=[title], notes=notes).save(out / "sheet.png")
    record = {"image": name, "size": [width, height], "remarks": list(remarks), "results": rows}
    _write_record(record, out / "roundtrip.json")
    _report(trip, out / "sheet.png", out / "roundtrip.json")


def _write_round_tripped(number: int, result: RoundTripped, out: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"name": result.name, "family": result.family.id if result.family else None}
    row |= dict.fromkeys(("psnr", "ssim", "delta_e", "image", "loss_map"))
    if result.image is not None and result.loss is not None:
        row |= result.loss.to_json()
        row |= {"image": f"{number:02d}.png", "loss_map": f"{number:02d}-loss.png"}
        Image.fromarray(result.image).save(out / row["image"])
        Image.fromarray(result.loss.image).save(out / row["loss_map"])
    return row | {
        "encode_seconds": round(result.encode_seconds, 4),
        "decode_seconds": round(result.decode_seconds, 4),
        "finite": result.finite,
        "error": result.error or None,
    }


def _write_record(record: dict[str, Any], path: Path) -> None:
    # A name's bytes that are not UTF-8 become escapes, which are the same in JSON.
    path.write_text(as_text(json.dumps(record, indent=1, ensure_ascii=False)) + "\n", encoding="utf8")


def _report(results: Iterable[Decoded | RoundTripped], *files: Path) -> None:
    for file in files:
        say(str(file))
    for result in results:
        if result.error:
            say(result.error, sys.stderr)
