"""Measure every VAE of the sample set, and the grey merge, on held-out photos and on a chart of flat colours.

    python -m tools.measure_vaes --photos PHOTOS --taesd TAESD [--sheet SHEET.png]

``ref`` decodes reference latents (TAESD's, which every VAE of a family must understand), ``own`` goes through the
VAE's own encoder.

    psnr       dB against the source, mean over photos of 256 px
    taesd      dB against TAESD's decode of the same latents
    grid       mean step between neighbours across the edges of 8-pixel blocks over that elsewhere; about 1 in photos
    gainL      slope of the decoded on the source L*, both centred, at 1/8 of the size; 1 is right, grey is near 0
    gainC      the same for a* and b*, through the origin
    w-b        mean L* of the chart's white patches less that of its black ones; 100 is right
    sharp      mean |Laplacian| of the decoded image / that of the source
"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from skimage.color import rgb2lab
from torch import Tensor
from torch.nn import functional as F

from tools import imaging, taesd_net
from tools.train_vaes import RECIPES, laplacian
from vae_lab.autoencoders.kl.module import AutoencoderKL
from vae_lab.samples import GREY_SHARE, SHIPPED, load_sample_vae

log = logging.getLogger("measure_vaes")


@dataclass(frozen=True)
class Row:
    """What was measured on one VAE; see the module's docstring."""

    name: str
    psnr: float
    taesd: float
    grid: float
    gain_l: float
    gain_c: float
    sharp: float
    own_psnr: float
    own_gain_l: float
    chart_ref: float
    chart_own: float
    chart_ref_256: float
    chart_own_256: float


def lab(images: Tensor) -> Tensor:
    """[B,3,H,W] in 0..1 (clamped) -> CIELAB, [B,3,H,W]."""
    array = images.clamp(0, 1).permute(0, 2, 3, 1).double().numpy()
    return torch.from_numpy(rgb2lab(array)).permute(0, 3, 1, 2)


def gains(decoded: Tensor, source: Tensor) -> tuple[float, float]:
    """gainL and gainC, means over images. [B,3,H,W] both."""
    small, true = (lab(F.avg_pool2d(images.clamp(0, 1), 8)) for images in (decoded, source))
    centred, centred_true = (x[:, 0] - x[:, 0].mean((1, 2), keepdim=True) for x in (small, true))
    gain_l = (centred * centred_true).sum((1, 2)) / centred_true.square().sum((1, 2))
    gain_c = (small[:, 1:] * true[:, 1:]).sum((1, 2, 3)) / true[:, 1:].square().sum((1, 2, 3))
    return float(gain_l.mean()), float(gain_c.mean())


def psnr(decoded: Tensor, source: Tensor) -> float:
    """Mean over images, dB."""
    error = (decoded.clamp(0, 1) - source).square().mean((1, 2, 3))
    return float((-10 * error.log10()).mean())


def grid(decoded: Tensor) -> float:
    """How strong the edges of 8-pixel blocks are; see the module's docstring."""
    ratios = []
    for images in (decoded, decoded.transpose(-1, -2)):
        steps = images.clamp(0, 1).diff(dim=-1).abs().mean(dim=(0, 1, 2))
        on_edge = torch.arange(len(steps)) % 8 == 7
        ratios.append(steps[on_edge].mean() / steps[~on_edge].mean())
    return float(sum(ratios) / 2)


def sharpness(decoded: Tensor, source: Tensor) -> float:
    """Mean |Laplacian| of the decoded images over that of their sources."""
    return float(laplacian(decoded.clamp(0, 1)).abs().mean() / laplacian(source).abs().mean())


def white_less_black(decoded: Tensor, colours: Tensor, patch: int = 32) -> float:
    """L* of white less L* of black. ``decoded`` is [1,3,S,S], ``colours`` [N,3] in the order of its patches."""
    levels = F.avg_pool2d(lab(decoded)[:, :1], patch).flatten()
    return float(levels[colours.sum(1) == 3].mean() - levels[colours.sum(1) == 0].mean())


@dataclass(frozen=True)
class Bench:
    """Images [B,3,256,256], charts by size, the reference latents of both, and TAESD's decode, by family."""

    photos: Tensor
    charts: dict[int, tuple[Tensor, Tensor]]
    latents: dict[str, Tensor]
    taesd: dict[str, Tensor]
    chart_latents: dict[str, dict[int, Tensor]]


def make_bench(photos: Path, taesd: Path) -> Bench:
    """The middle squares of all held-out photos, at 256 px, and charts of 128 and 256 px."""
    squares = []
    for path in imaging.photo_files(photos, held_out=True):
        image = Image.open(path).convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        cut = image.crop((left, top, left + side, top + side)).resize((256, 256), Image.LANCZOS)
        squares.append(imaging.to_tensor(cut))
    stacked = torch.stack(squares)
    charts = {size: imaging.probe_chart(size) for size in (128, 256)}
    encoders = {family: taesd_net.load_encoder(taesd, family) for family in taesd_net.SCALING}
    with torch.no_grad():
        latents = {family: encoder(stacked) for family, encoder in encoders.items()}
        chart_latents = {
            family: {size: encoder(chart[None]) for size, (chart, _) in charts.items()}
            for family, encoder in encoders.items()
        }
        decoded = {}
        for family in taesd_net.SCALING:
            decoder = taesd_net.load_decoder(taesd, family)
            decoded[family] = torch.cat([decoder(part).clamp(0, 1) for part in latents[family].split(4)])
    return Bench(stacked, charts, latents, decoded, chart_latents)


def measure(name: str, model: AutoencoderKL, family: str, bench: Bench) -> Row:
    """Everything about one VAE."""
    scaling = taesd_net.SCALING[family]

    def decode(latents: Tensor) -> Tensor:
        return torch.cat([model.decode(part / scaling) * 0.5 + 0.5 for part in latents.split(4)])

    def encode(images: Tensor) -> Tensor:
        return model.encode(images * 2 - 1) * scaling

    with torch.no_grad():
        ref, own = decode(bench.latents[family]), decode(encode(bench.photos))
        levels = {
            size: (
                white_less_black(decode(bench.chart_latents[family][size]), colours),
                white_less_black(decode(encode(chart[None])), colours),
            )
            for size, (chart, colours) in bench.charts.items()
        }
    gain_l, gain_c = gains(ref, bench.photos)
    return Row(
        name, psnr(ref, bench.photos), psnr(ref, bench.taesd[family]), grid(ref), gain_l, gain_c,
        sharpness(ref, bench.photos), psnr(own, bench.photos), gains(own, bench.photos)[0], *levels[128], *levels[256],
    )  # fmt: skip


def sample_models() -> dict[str, tuple[AutoencoderKL, str]]:
    """Every shipped VAE and the grey merge, with its family."""
    weights = {recipe.name: load_sample_vae(recipe.name) for recipe in RECIPES}
    a, b = weights["photo-a"], weights["photo-b"]
    recipes = {recipe.name: recipe for recipe in RECIPES}
    for share in (0.1, 0.15, GREY_SHARE):
        name = f"{1 - share:.2f} a + {share:.2f} b"
        weights[name] = {key: torch.lerp(a[key].float(), b[key].float(), share) for key in a}
        recipes[name] = recipes["photo-a"]
    models = {}
    for name, tensors in weights.items():
        model = AutoencoderKL(recipes[name].config).eval()
        model.load_state_dict({key: value.float() for key, value in tensors.items()})
        models[name] = (model, recipes[name].family)
    return models


def table(rows: list[Row]) -> str:
    """The rows as aligned text."""
    head = f"{'VAE':18}|  psnr taesd  grid gainL gainC sharp | own psnr gainL | w-b 128 ref   own | 256 ref   own"
    lines = [head, "-" * len(head)]
    lines += [
        f"{row.name:18}| {row.psnr:5.1f} {row.taesd:5.1f} {row.grid:5.2f} "
        f"{row.gain_l:5.2f} {row.gain_c:5.2f} {row.sharp:5.2f} |"
        f"    {row.own_psnr:5.1f} {row.own_gain_l:5.2f} |       {row.chart_ref:5.1f} {row.chart_own:5.1f} |"
        f"   {row.chart_ref_256:5.1f} {row.chart_own_256:5.1f}"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def contact_sheet(folder: Path, models: dict[str, tuple[AutoencoderKL, str]], path: Path, tile: int = 256) -> None:
    """Every demo latent decoded by every VAE: a row for each VAE, the sources on top."""
    latents = {"sd1": load_file(folder / "latents.safetensors"), "sdxl": load_file(folder / "latents-sdxl.safetensors")}
    names = list(latents["sd1"])
    sheet = Image.new("RGB", (tile * len(names), (tile + 16) * (len(models) + 1)))
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(names):
        sheet.paste(Image.open(folder / "photos" / f"{name}.jpg").resize((tile, tile)), (column * tile, 0))
    for row, (label, (model, family)) in enumerate(models.items(), 1):
        draw.text((4, row * (tile + 16) - 14), label, fill="white")
        for column, name in enumerate(names):
            if name in latents[family]:
                with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                    image = model.decode(latents[family][name] / taesd_net.SCALING[family])[0] * 0.5 + 0.5
                sheet.paste(imaging.to_image(image).resize((tile, tile)), (column * tile, row * (tile + 16)))
    sheet.save(path)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure the VAEs of the sample set.")
    parser.add_argument("--photos", type=Path, required=True, help="folder of collected photos (see tools/SOURCES.md)")
    parser.add_argument("--taesd", type=Path, required=True, help="folder with TAESD's safetensors files")
    parser.add_argument("--sheet", type=Path, help="also write a sheet of all demo images, decoded")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    bench = make_bench(arguments.photos, arguments.taesd)
    models = sample_models()
    rows = []
    for name, (model, family) in models.items():
        rows.append(measure(name, model, family, bench))
        log.info("measured %s", name)
    sys.stdout.write(table(rows))
    if arguments.sheet:
        contact_sheet(SHIPPED, models, arguments.sheet)


if __name__ == "__main__":
    main()
