"""Images to train and to measure on: crops of photos, synthetic colour charts, the photos of the demo.

An image is a tensor [3,H,W] in 0..1, sRGB.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


@dataclass(frozen=True)
class DemoPhoto:
    """One photo shown in the demo, and how it is cut from its source.

    Args:
        name: key of the latent and stem of the small JPEG.
        source: stem of the source among the collected photos.
        title: what a user reads.
        credit: author and licence.
        centre: x and y of the square cut, as fractions of the source.
        side: side of the cut as a fraction of the source's shorter side.
        fog: 0 (clear) to 1 (nothing but haze), laid over the image from top to bottom.
    """

    name: str
    source: str
    title: str
    credit: str
    centre: tuple[float, float] = (0.5, 0.5)
    side: float = 1.0
    fog: float = 0.0


DEMO_PHOTOS = (
    DemoPhoto("astronaut", "ski_astronaut", "Astronaut Eileen Collins", "NASA, public domain"),
    DemoPhoto("mountains", "l16_picosdeeuropa_by_Aitzol_Berasategi", "Picos de Europa",
              "Aitzol Berasategi, CC BY 4.0", centre=(0.6, 0.5)),
    DemoPhoto("brushes", "l16_Image_1A_by_freespace", "Paint brushes", "Trevor \"Freespace\", CC BY 4.0"),
    DemoPhoto("cat", "ski_chelsea", "Chelsea the cat", "Stefan van der Walt, CC0 1.0", centre=(0.5, 0.5)),
    DemoPhoto("night-rocket", "ski_rocket", "A rocket at nightfall", "SpaceX, public domain (CC0 1.0)",
              centre=(0.5, 0.5)),
    DemoPhoto("pagoda-in-fog", "skl_china", "A pagoda in fog (fog added)",
              "danielbuechele, CC BY 2.0, modified", centre=(0.42, 0.5), fog=0.62),
)  # fmt: skip

# Never trained on: the demo's photos, and some more to measure on.
HELD_OUT = tuple(photo.source for photo in DEMO_PHOTOS) + (
    "ski_coffee",
    "skl_flower",
    "l16_aitzgorri_by_Aitzol_Berasategi",
    "mate_LadyBird",
    "plasma_ColorfulCups_2560x1600",
    "plasma_EveningGlow_2560x1600",
)


def to_tensor(image: Image.Image) -> Tensor:
    """A PIL image -> [3,H,W] in 0..1."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255


def to_image(image: Tensor) -> Image.Image:
    """[3,H,W], clamped to 0..1 -> a PIL image."""
    array = image.detach().float().clamp(0, 1).mul(255).round().byte().permute(1, 2, 0)
    return Image.fromarray(array.numpy())


def photo_files(folder: Path, *, held_out: bool) -> list[Path]:
    """The collected photos, sorted by name; either the held-out ones or those for training."""
    files = (path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES)
    return [path for path in files if (path.stem in HELD_OUT) == held_out]


def demo_image(photo: DemoPhoto, folder: Path, size: int = 512) -> Tensor:
    """Cut, scale and, where asked for, veil one demo photo. -> [3,size,size]."""
    path = next(path for path in photo_files(folder, held_out=True) if path.stem == photo.source)
    image = Image.open(path).convert("RGB")
    side = round(min(image.size) * photo.side)
    left = min(max(round(image.width * photo.centre[0] - side / 2), 0), image.width - side)
    top = min(max(round(image.height * photo.centre[1] - side / 2), 0), image.height - side)
    square = image.crop((left, top, left + side, top + side)).resize((size, size), Image.LANCZOS)
    pixels = to_tensor(square)
    if photo.fog:
        # Haze is thicker far away, which in a landscape is the upper half.
        depth = torch.linspace(min(photo.fog + 0.12, 1), photo.fog - 0.12, size)[None, :, None]
        haze = torch.tensor([0.80, 0.82, 0.84])[:, None, None]
        pixels = pixels * (1 - depth) + haze * depth
    return pixels


def _scaled(image: Image.Image, long_side: int) -> Image.Image:
    factor = long_side / max(image.size)
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.LANCZOS)


def _colour_changed(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Vary brightness, contrast and saturation, so that a decoder learns levels and not habits."""
    kind = rng.integers(5)
    grey = image.mean(0, keepdim=True)
    if kind == 0:
        changed = image ** float(np.exp(rng.uniform(-0.7, 0.7)))
    elif kind == 1:
        changed = grey + (image - grey) * float(rng.uniform(0.0, 2.2))
    elif kind == 2:
        changed = (image - 0.5) * float(rng.uniform(0.3, 1.7)) + 0.5
    elif kind == 3:
        changed = image[torch.from_numpy(rng.permutation(3))]
    else:
        changed = image * 0.5 + torch.from_numpy(rng.random(3)).float()[:, None, None] * 0.5
    return changed.clamp(0, 1)


def photo_crops(files: list[Path], size: int, count: int, rng: np.random.Generator) -> Tensor:
    """Random crops at several scales, mirrored and recoloured at random. -> [count,3,size,size]."""
    crops = []
    per_file = -(-count // len(files))
    for path in files:
        image = Image.open(path).convert("RGB")
        scaled = [_scaled(image, side) for side in (900, 620, 420)]
        for _ in range(per_file):
            chosen = scaled[rng.integers(3)]
            if min(chosen.size) < size:
                chosen = scaled[0]
            if min(chosen.size) < size:
                grown = size / min(chosen.size)
                chosen = chosen.resize((math.ceil(chosen.width * grown), math.ceil(chosen.height * grown)))
            left = int(rng.integers(chosen.width - size + 1))
            top = int(rng.integers(chosen.height - size + 1))
            crop = to_tensor(chosen.crop((left, top, left + size, top + size)))
            crop = crop.flip(-1) if rng.random() < 0.5 else crop
            crops.append(_colour_changed(crop, rng) if rng.random() < 0.35 else crop)
    order = rng.permutation(len(crops))[:count]
    return torch.stack([crops[i] for i in order])


def _colour(rng: np.random.Generator) -> Tensor:
    """A colour, often black, white, a grey or a fully saturated one. -> [3,1,1]."""
    kind = rng.random()
    if kind < 0.16:
        value = np.zeros(3)
    elif kind < 0.34:
        value = np.ones(3)
    elif kind < 0.48:
        value = np.full(3, rng.random())
    elif kind < 0.65:
        value = rng.integers(0, 2, 3).astype(float)
    else:
        value = rng.random(3)
    return torch.from_numpy(value).float()[:, None, None]


def patches(size: int, patch: int, rng: np.random.Generator) -> Tensor:
    """A checkerboard of flat random colours. -> [3,size,size]."""
    cells = size // patch
    colours = torch.stack([_colour(rng)[:, 0, 0] for _ in range(cells * cells)], 1).reshape(3, cells, cells)
    return colours.repeat_interleave(patch, 1).repeat_interleave(patch, 2)


def charts(size: int, count: int, rng: np.random.Generator) -> Tensor:
    """Synthetic images: patches, flat fields, ramps, halves, discs. -> [count,3,size,size]."""
    made = []
    position = torch.linspace(0, 1, size)
    for _ in range(count):
        kind = rng.random()
        if kind < 0.5:
            chart = patches(size, int(rng.choice([side for side in (16, 32, 32, 64) if side <= size])), rng)
        elif kind < 0.62:
            chart = _colour(rng).expand(3, size, size).clone()
        elif kind < 0.76:
            across = position if rng.random() < 0.5 else position.flip(0)
            chart = _colour(rng) + (_colour(rng) - _colour(rng)) * across.expand(1, size, size)
        elif kind < 0.88:
            split = position.expand(1, size, size) < rng.uniform(0.2, 0.8)
            chart = torch.where(split, _colour(rng), _colour(rng))
        else:
            y, x = torch.meshgrid(position, position, indexing="ij")
            centre = rng.random(2)
            disc = ((x - centre[0]) ** 2 + (y - centre[1]) ** 2).sqrt()[None] < rng.uniform(0.1, 0.6)
            chart = torch.where(disc, _colour(rng), _colour(rng))
        made.append((chart if rng.random() < 0.5 else chart.transpose(1, 2)).clamp(0, 1))
    return torch.stack(made)


def probe_chart(size: int, patch: int = 32) -> tuple[Tensor, Tensor]:
    """The chart that levels are measured on: black, white, greys and colours in flat patches.

    Returns:
        The image [3,size,size], and for each patch, row by row, its colour [N,3].
    """
    corners = [(r, g, b) for r in (0, 1) for g in (0, 1) for b in (0, 1)]
    soft = [(0.8, 0.5, 0.4), (0.3, 0.4, 0.7), (0.4, 0.6, 0.3), (0.25, 0.25, 0.25), (0.5, 0.5, 0.5), (0.75, 0.75, 0.75)]
    colours = torch.tensor(corners + soft + [(0, 0, 0), (1, 1, 1)], dtype=torch.float32)
    cells = (size // patch) ** 2
    # A stride coprime to 16 spreads neighbours, and repeats every colour equally often.
    order = torch.tensor([(i * 5 + i // 16 * 3) % 16 for i in range(cells)])
    chosen = colours[order]
    grid = chosen.T.reshape(3, size // patch, size // patch)
    return grid.repeat_interleave(patch, 1).repeat_interleave(patch, 2), chosen


def stylised(images: Tensor) -> Tensor:
    """The look of the anime sample: more contrast and more saturation, greys stay grey. [B,3,H,W] -> same."""
    contrast = images + 0.55 * images * (1 - images) * (2 * images - 1)
    luma = (contrast * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    return (luma + (contrast - luma) * 1.6).clamp(0, 1)


def small_jpeg(image: Image.Image, path: Path, limit: int = 40_000) -> None:
    """Write a JPEG as good as fits into ``limit`` bytes; a soft blur first if nothing else helps."""
    for candidate in (image, image.filter(ImageFilter.GaussianBlur(0.6))):
        for quality in range(92, 48, -4):
            candidate.save(path, quality=quality, optimize=True, progressive=True)
            if path.stat().st_size <= limit:
                return
