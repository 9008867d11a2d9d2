"""A labelled sheet of pictures, side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vae_lab.comparison.compare import Comparison, Decoded

__all__ = ["contact_sheet"]

_GAP = 12
_LABEL = 46
_PAPER = (255, 255, 255)
_INK = (20, 20, 20)
_QUIET = (110, 110, 110)
_ALARM = (176, 0, 32)


def contact_sheet(comparison: Comparison, *, rows: Sequence[str] = (), most_columns: int = 6) -> Image.Image:
    """One column for each VAE, one row for each latent of the batch; a refused VAE shows its reason.

    Args:
        comparison: what to draw.
        rows: unused titles are left out; one for each latent of the batch.
        most_columns: after this many VAEs a new band begins.
    """
    results = comparison.results
    shown = next((r.pictures for r in results if r.pictures is not None), None)
    height, width = (256, 256) if shown is None else shown.shape[1:3]
    batch = 1 if shown is None else shown.shape[0]
    bands = [results[i : i + most_columns] for i in range(0, len(results), most_columns)]
    columns = max((len(band) for band in bands), default=1)
    band_height = _LABEL + batch * (height + _GAP)
    title = _LABEL // 2 if rows else 0
    sheet = Image.new("RGB", (columns * (width + _GAP) + _GAP, len(bands) * band_height + _GAP + title), _PAPER)
    draw = ImageDraw.Draw(sheet)
    if rows:
        _write(draw, (_GAP, 4), " / ".join(rows), columns * (width + _GAP), 16, _QUIET)
    for b, band in enumerate(bands):
        for c, result in enumerate(band):
            corner = (_GAP + c * (width + _GAP), title + b * band_height)
            _draw_column(sheet, draw, result, corner, (width, height))
    return sheet


def _draw_column(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, result: Decoded, corner: tuple[int, int], size: tuple[int, int]
) -> None:
    x, y = corner
    width, height = size
    _write(draw, (x, y + 6), result.name, width, 16, _INK)
    family = result.family.title if result.family else "family unknown"
    note = f"{family} · {result.seconds:.2f} s" if result.pictures is not None else family
    _write(draw, (x, y + 26), note, width, 13, _QUIET)
    if result.pictures is None:
        draw.rectangle((x, y + _LABEL, x + width - 1, y + _LABEL + height - 1), outline=_ALARM, width=2)
        _write_lines(draw, (x + 10, y + _LABEL + 10), result.error, width - 20)
        return
    for i, picture in enumerate(result.pictures):
        sheet.paste(Image.fromarray(np.ascontiguousarray(picture)), (x, y + _LABEL + i * (height + _GAP)))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError:
        return ImageFont.load_default()


def _write(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, width: int, size: int, ink: tuple[int, int, int]
) -> None:
    """Write one line, set smaller until it fits: a name must never be cut so that two look alike."""
    while size > 8 and draw.textlength(text, font=_font(size)) > width:
        size -= 1
    draw.text(at, text, fill=ink, font=_font(size))


def _write_lines(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, width: int) -> None:
    font = _font(14)
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and draw.textlength(longer, font=font) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    draw.multiline_text(at, "\n".join(lines), fill=_ALARM, font=font)
