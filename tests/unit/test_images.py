"""Images from files: upright, within limits, and with one-line errors."""

from __future__ import annotations

import io
import random
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from vae_lab import images
from vae_lab.errors import MalformedFile, UnreadableFile, VaeLabError
from vae_lab.images import flattened, prepared, read_image

RED = (255, 0, 0)


def packed(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_of_size(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it has that many pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0" * 10)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_formats(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    image = read_image(packed(Image.new("RGB", (9, 7), RED), kind, **options), "red")
    assert (image.image.mode, image.image.size, image.name) == ("RGB", (9, 7), "red")
    assert image.image.getpixel((4, 4)) == RED


def test_file_gives_its_name(tmp_path: Path) -> None:
    Image.new("RGB", (9, 7), RED).save(tmp_path / "猫.jpg")
    assert read_image(tmp_path / "猫.jpg").name == "猫.jpg"


def test_parameters_of_a_png() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_itxt("parameters", "a cat, 猫\nSteps: 20\t\x07x")
    text.add_text("other", "ignored")
    assert read_image(packed(Image.new("RGB", (8, 8)), pnginfo=text)).infotext == "a cat, 猫\nSteps: 20  x"
    assert read_image(packed(Image.new("RGB", (8, 8)))).infotext == ""


def test_untrusted_parameters_are_cut() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_itxt("parameters", "a cat, " + "x" * 100_000, zip=True)
    found = read_image(packed(Image.new("RGB", (8, 8)), pnginfo=text)).infotext
    assert found == "a cat, " + "x" * (2**16 - 7)


def test_orientation_of_the_exif() -> None:
    image = Image.new("RGB", (40, 20))
    image.paste(RED, (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # the top is on the right: turn clockwise
    turned = read_image(packed(image, "PNG", exif=exif)).image
    assert turned.size == (20, 40)
    assert turned.getpixel((10, 5)) == RED
    assert turned.getpixel((10, 35)) == (0, 0, 0)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_is_white(mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 4, 8))
    data = packed(image.convert(mode)) if mode != "P" else packed(image, "GIF")
    flat = read_image(data).image
    assert flat.getpixel((6, 4)) == (255, 255, 255)
    assert flat.getpixel((1, 4)) == (0, 0, 0)


def test_half_transparent_is_mixed_with_white() -> None:
    assert flattened(Image.new("RGBA", (1, 1), (255, 0, 0, 128))).getpixel((0, 0)) == (255, 127, 127)


def test_sixteen_bits_of_grey_are_scaled_and_not_cut_off() -> None:
    grey = Image.fromarray((np.arange(64, dtype=np.uint16) * 1040).reshape(8, 8))
    assert read_image(packed(grey)).image.getpixel((7, 7)) == (255, 255, 255)
    assert read_image(packed(grey)).image.getpixel((0, 4))[0] == pytest.approx(32 * 1040 / 257, abs=1)


@pytest.mark.parametrize("mode", ["L", "1", "CMYK", "P", "YCbCr"])
def test_other_modes_become_rgb(mode: str) -> None:
    assert flattened(Image.new(mode, (8, 8))).mode == "RGB"


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(9000, 9000), (20_000, 20_000), (2**31 - 1, 2**31 - 1)])
def test_bombs_are_refused_before_they_are_unpacked(size: tuple[int, int]) -> None:
    with pytest.raises(MalformedFile, match=r"bomb\.png: the image (has .* the limit is 64 million|is too large)"):
        read_image(png_of_size(*size), "bomb.png")


def test_pillows_own_protection_is_on() -> None:
    assert Image.MAX_IMAGE_PIXELS is not None
    assert Image.MAX_IMAGE_PIXELS < 100_000_000


def test_a_large_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(images, "_MAX_BYTES", 100)
    (tmp_path / "large.png").write_bytes(bytes(101))
    with pytest.raises(MalformedFile, match=r"large\.png: images are limited to"):
        read_image(tmp_path / "large.png")


def test_text_that_unpacks_to_much_is_refused() -> None:
    bomb = chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"x" * 100_000_000))
    data = packed(Image.new("RGB", (8, 8)))
    with pytest.raises(UnreadableFile):
        read_image(data[:33] + bomb + data[33:])


@pytest.mark.parametrize("data", [b"", b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"], ids=len)
def test_what_is_no_image(data: bytes) -> None:
    with pytest.raises(UnreadableFile, match="story: not a readable PNG, JPEG, WebP, BMP, GIF or TIFF image"):
        read_image(data, "story")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match=r"gone\.png: No such file"):
        read_image(tmp_path / "gone.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, about damaged metadata
def test_damaged_files_give_a_image_or_our_error(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"exif": exif} if kind in ("PNG", "JPEG", "WEBP") else {}
    whole = packed(Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 9, 3), np.uint8)), kind, **options)
    chance = random.Random(0)
    for _ in range(300):
        data = bytearray(whole[: chance.randrange(len(whole))] if chance.random() < 0.2 else whole)
        for _ in range(chance.randrange(4)):
            if data:
                data[chance.randrange(len(data))] = chance.randrange(256)
        with suppress(VaeLabError):
            assert read_image(bytes(data), "x").image.mode == "RGB"


# --- made fit for a VAE ----------------------------------------------------------------------------------------------


def test_cropped_around_the_middle() -> None:
    image = Image.new("RGB", (21, 16))
    image.paste(RED, (2, 0, 18, 16))
    fit = prepared(image)
    assert fit.image.shape == (1, 3, 16, 16)
    assert torch.equal(fit.image[0, :, 5, 0], torch.tensor([1.0, 0.0, 0.0]))
    assert torch.equal(fit.image[0, :, 5, 15], torch.tensor([1.0, 0.0, 0.0]))
    assert fit.remarks == ("cropped to 16 x 16, multiples of 8",)


def test_longer_side_is_limited() -> None:
    fit = prepared(Image.new("RGB", (64, 1500)))
    assert fit.image.shape == (1, 3, 1024, 40)
    assert fit.remarks == ("downscaled from 64 x 1500 to 44 x 1024", "cropped to 40 x 1024, multiples of 8")


def test_fitting_images_stay_as_they_are() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    fit = prepared(Image.fromarray(pixels))
    assert fit.remarks == ()
    assert np.array_equal((fit.image[0].permute(1, 2, 0) * 255).round().numpy(), pixels)


@pytest.mark.parametrize(("size", "longest"), [((7, 100), 1024), ((1, 1), 1024), ((4096, 16), 1024)])
def test_too_little_is_left(size: tuple[int, int], longest: int) -> None:
    with pytest.raises(MalformedFile, match="pixels are too few: a VAE needs 8 x 8"):
        prepared(Image.new("RGB", size), longest)
