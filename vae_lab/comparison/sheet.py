"""Draws a labelled contact sheet."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vae_lab.comparison.compare import Comparison, Decoded
from vae_lab.decoding import IN_STRIPS

__all__ = ["contact_sheet", "error_tile", "with_names"]

_GAP = 12
_MAX_PIXELS = 64_000_000  # of all images; more are downscaled, and the title says so
_MIN_COLUMN_WIDTH = 200
_PAPER = (255, 255, 255)
_INK = (20, 20, 20)
_QUIET = (110, 110, 110)
_ALARM = (176, 0, 32)

# The first with all characters is used: for Linux, Windows and macOS, then the same for Chinese.
_FONTS = ("DejaVuSans.ttf", "segoeui.ttf", "Helvetica.ttc", "msyh.ttc", "PingFang.ttc", "NotoSansCJK-Regular.ttc")

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def contact_sheet(
    comparison: Comparison,
    *,
    rows: Sequence[str] = (),
    max_columns: int = 6,
    notes: Mapping[str, str] | None = None,
) -> Image.Image:
    """Draw a column for each VAE and a row for each latent of the batch; without images, a column has the error.

    Images are drawn at full size, unless they exceed 64 megapixels.

    Args:
        comparison: the results.
        rows: parts of the title, such as the latents' titles.
        max_columns: VAEs per band.
        notes: text below the names, by name, instead of family and seconds.
    """
    results = comparison.results
    shown = next((r.images for r in results if r.images is not None), None)
    height, width = (256, 256) if shown is None else shown.shape[1:3]
    batch = 1 if shown is None else shown.shape[0]
    bands = [results[i : i + max_columns] for i in range(0, len(results), max_columns)]
    columns = max((len(band) for band in bands), default=1)
    scale = _scale(columns * len(bands) * batch, height, width)
    if scale < 1:
        height, width = max(int(height * scale), 1), max(int(width * scale), 1)
        rows = [*rows, f"images at {scale:.0%} of their size"]
    column = max(width, _MIN_COLUMN_WIDTH)
    title = _Text.set(" / ".join(rows), 16, columns * (column + _GAP) - _GAP)
    cells = {id(result): _Cell.of(result, column, (notes or {}).get(result.name)) for result in results}
    label = max((cell.label_height for cell in cells.values()), default=0)
    body = max([batch * (height + _GAP), *(cell.reason.height + 3 * _GAP for cell in cells.values())])
    top = title.height + _GAP if rows else _GAP
    sheet = Image.new("RGB", (columns * (column + _GAP) + _GAP, top + len(bands) * (label + body)), _PAPER)  # type: ignore[arg-type]  # Pillow 9.5 says int
    draw = ImageDraw.Draw(sheet)
    title.write(draw, (_GAP, 4), _QUIET)
    for b, band in enumerate(bands):
        for c, result in enumerate(band):
            x, y = _GAP + c * (column + _GAP), top + b * (label + body)
            cell = cells[id(result)]
            cell.name.write(draw, (x, y), _INK)
            cell.note.write(draw, (x, y + cell.name.height), _QUIET)
            if result.images is None:
                box = (x, y + label, x + column - 1, y + label + body - _GAP - 1)
                draw.rectangle(box, outline=_ALARM, width=2)
                cell.reason.write(draw, (x + _GAP, y + label + _GAP), _ALARM)
                continue
            for i, pixels in enumerate(result.images):
                place = (x, y + label + i * (height + _GAP))
                image = Image.fromarray(np.ascontiguousarray(pixels))
                sheet.paste(image if scale == 1 else image.resize((width, height), Image.Resampling.LANCZOS), place)
    return sheet


def _scale(images: int, height: int, width: int) -> float:
    """By how much the images must be downscaled; a narrow one also takes the width of a column."""
    scale = min(1.0, (_MAX_PIXELS / max(images * height * width, 1)) ** 0.5)
    if width * scale < _MIN_COLUMN_WIDTH:
        scale = min(scale, _MAX_PIXELS / max(images * height * _MIN_COLUMN_WIDTH, 1))
    return scale


def error_tile(reason: str, width: int, height: int) -> Image.Image:
    """An image of this size with a sentence instead of what could not be decoded."""
    tile = Image.new("RGB", (width, height), _PAPER)  # type: ignore[arg-type]  # Pillow 9.5 says int
    draw = ImageDraw.Draw(tile)
    draw.rectangle((0, 0, width - 1, height - 1), outline=_ALARM, width=2)
    sizes = (_Text.set(reason, size, max(width - 2 * _GAP, 1)) for size in (20, 16, 13, 11))
    fitting = (text for text in sizes if text.height <= height - 2 * _GAP)
    text = next(fitting, None) or _Text.set(reason, 9, max(width - 2 * _GAP, 1))
    text.write(draw, (_GAP, _GAP), _ALARM)
    return tile


def with_names(images: Sequence[Image.Image], names: Sequence[str]) -> list[Image.Image]:
    """Each image with its name above it. All results have the same size, that of the largest image or more."""
    width = max(_MIN_COLUMN_WIDTH, *(image.width for image in images))
    height = max(image.height for image in images)
    texts = [_Text.set(name, max(16, width // 42), width - 2 * _GAP) for name in names]
    top = max(text.height for text in texts) + _GAP
    framed = []
    for image, text in zip(images, texts, strict=True):
        frame = Image.new("RGB", (width, top + height), _PAPER)  # type: ignore[arg-type]  # Pillow 9.5 says int
        text.write(ImageDraw.Draw(frame), (_GAP, _GAP // 2), _INK)
        frame.paste(image, (0, top))
        framed.append(frame)
    return framed


@dataclass(frozen=True)
class _Text:
    """Text wrapped to a width. It is never truncated, so that no two names look the same."""

    lines: tuple[str, ...]
    font: _Font
    size: int

    @classmethod
    def set(cls, text: str, size: int, width: int) -> _Text:
        """Use ``size`` if the text fits in one line, else a smaller size and several lines."""
        font, text = _font_for(text, size)
        if font.getlength(text) > width:
            size -= 2
            font, text = _font_for(text, size)
        return cls(tuple(_wrapped(text, font, width)), font, size)

    @property
    def height(self) -> int:
        return len(self.lines) * (self.size + 4)

    def write(self, draw: ImageDraw.ImageDraw, at: tuple[int, int], ink: tuple[int, int, int]) -> None:
        for i, line in enumerate(self.lines):
            draw.text((at[0], at[1] + i * (self.size + 4)), line, fill=ink, font=self.font)


@dataclass(frozen=True)
class _Cell:
    """The texts of one result."""

    name: _Text
    note: _Text
    reason: _Text

    @classmethod
    def of(cls, result: Decoded, width: int, note: str | None) -> _Cell:
        if note is None:
            note = result.family.title if result.family else "family unknown"
            note += f" · {result.seconds:.2f} s" if result.images is not None else ""
        note += " · NaN or infinite values" if not result.finite else ""
        note += f" · {IN_STRIPS}" if result.in_strips else ""
        return cls(
            _Text.set(result.name, 16, width), _Text.set(note, 13, width), _Text.set(result.error, 14, width - 2 * _GAP)
        )

    @property
    def label_height(self) -> int:
        return self.name.height + self.note.height + 4


def _wrapped(text: str, font: _Font, width: int) -> list[str]:
    """Break text into lines between words, and within words that are wider than a line."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        while len(word) > width or font.getlength(word) > width:  # no letter is narrower than a pixel
            lengths = range(1, min(len(word), width) + 1)
            fits = max(bisect_right(lengths, width, key=lambda n, word=word: font.getlength(word[:n])), 1)
            lines[-1:] = [word[:fits], ""]
            word = word[fits:]  # what is left of it
        lines[-1] = word
    return [line for line in lines if line]


def _font_for(text: str, size: int) -> tuple[_Font, str]:
    """A font and the text, with characters that the font lacks as escapes, because boxes would all look the same."""
    fonts: list[_Font] = []
    for name in _FONTS:
        try:
            font = ImageFont.truetype(name, size)
        except OSError:
            continue
        fonts.append(font)
        if all(_has(font, letter) for letter in text):
            return font, text
    font = fonts[0] if fonts else ImageFont.load_default()
    letters = (letter if _has(font, letter) else letter.encode("ascii", "backslashreplace").decode() for letter in text)
    return font, "".join(letters)


def _has(font: _Font, letter: str) -> bool:
    if letter.isascii() and letter.isprintable():
        return True
    if isinstance(font, ImageFont.FreeTypeFont):
        return letter.isprintable() and _drawn(font, letter) != _drawn(font, "\U0010ffff")
    return letter.isprintable() and ord(letter) < 256  # Pillow's own before 10.1


def _drawn(font: _Font, letter: str) -> bytes:
    image = Image.new("L", (32, 32))
    ImageDraw.Draw(image).text((0, 0), letter, fill=255, font=font)
    return image.tobytes()
