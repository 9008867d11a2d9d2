"""Fit ``vae_lab/latents/preview.safetensors``: what a latent should look like at 1/8 of its size.

    python -m tools.fit_estimates --photos PHOTOS --taesd TAESD [--work WORK]

The net (see ``vae_lab/latents/preview.py``) learns from TAESD's latents of the training photos and of charts, most of
them veiled, darkened, or robbed of contrast or colour: on such images a healthy VAE must not look broken. What it
should say is the mean of the source and of what TAESD makes of the latent, at 1/8. For latents that no encoder made,
with noise or another contrast, only TAESD's output is used as the target."""

from __future__ import annotations

import argparse
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from tools import imaging, taesd_net
from vae_lab.latents.family import FAMILIES
from vae_lab.latents.preview import CONVS, run_net

log = logging.getLogger("fit_estimates")

OUT = Path(__file__).parent.parent / "vae_lab" / "latents" / "preview.safetensors"
HIDDEN = 24  # channels
SEED = 7
LEARNING_RATE = 2e-3  # at its peak
# Size of crops -> (photos, charts) in the pool, images in a batch, share of batches.
CROPS = {128: (1300, 260, 24, 0.85), 256: (48, 12, 6, 0.15)}
FREE_SHARE = 0.15  # of the latents: those that no encoder made
LUMA = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
# Spread of L* that is still worth getting right; below, an 8-bit image and TAESD's own error blur everything.
SPREAD_FLOOR = 1.5


@dataclass(frozen=True)
class Pool:
    """Images of one size: latents [N,4,h,w] in model space, source and TAESD's decode at 1/8, [N,3,h,w]."""

    latents: Tensor
    source: Tensor
    decoded: Tensor
    encoded: Tensor
    """Whether the latent is an encoder's, and the source therefore means something. [N]"""

    @property
    def target(self) -> Tensor:
        """What the net should say, [N,3,h,w] in 0..1."""
        mean = (self.source + self.decoded) / 2
        return torch.where(self.encoded.bool()[:, None, None, None], mean, self.decoded)


def _fog(image: Tensor, rng: np.random.Generator) -> Tensor:
    haze = torch.from_numpy(rng.uniform(0.55, 0.95) + rng.uniform(-0.04, 0.04, 3)).float()[:, None, None]
    depth = torch.tensor(rng.uniform(0.3, 0.92)).float()
    if rng.random() < 0.4:
        slope = torch.linspace(-1, 1, image.shape[-1])[None, :, None] * rng.uniform(-0.25, 0.25)
        depth = (depth + slope.float()).clamp(0, 0.95)
    return image * (1 - depth) + haze * depth


def _soft(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Low contrast, around any level; now and then around a colour."""
    level = torch.full((3, 1, 1), rng.uniform(0.08, 0.92))
    if rng.random() < 0.25:
        level = torch.from_numpy(rng.random(3)).float()[:, None, None]
    return level.float() + (image - 0.5) * float(np.exp(rng.uniform(np.log(0.08), np.log(0.6))))


def hard_image(image: Tensor, rng: np.random.Generator) -> Tensor:
    """One image [3,S,S] turned into one that is hard to judge, at random; a quarter stay as they are."""
    kind = rng.random()
    grey = (image * LUMA).sum(0, keepdim=True)
    if kind < 0.22:
        changed = _fog(image, rng)
    elif kind < 0.44:
        changed = _soft(image if rng.random() < 0.6 else grey.expand_as(image), rng)
    elif kind < 0.56:
        changed = image ** rng.uniform(1.0, 2.0) * rng.uniform(0.1, 0.5)
    elif kind < 0.64:
        changed = grey.expand_as(image)
    elif kind < 0.70:
        changed = grey + (image - grey) * rng.uniform(0.1, 0.5)
    elif kind < 0.76:
        changed = imaging.stylised(image[None])[0]
    else:
        changed = image
    if rng.random() < 0.12:
        texture = torch.from_numpy(rng.standard_normal(image.shape)).float()
        changed = changed + texture * rng.uniform(0.01, 0.06)
    # Images have 8 bits, and what is lost by that is lost to everybody.
    return changed.clamp(0, 1).mul(255).round().div(255)


def free_latents(latents: Tensor, rng: np.random.Generator) -> Tensor:
    """Latents [4,h,w] as sampling may leave them: noisy, of another contrast, shifted."""
    noise = torch.from_numpy(rng.standard_normal(latents.shape)).float() * rng.uniform(0.02, 0.25)
    shift = torch.from_numpy(rng.standard_normal((4, 1, 1))).float() * 0.1
    return latents * rng.uniform(0.6, 1.35) + noise + shift


def make_images(photos: Path) -> dict[int, Tensor]:
    """Size -> photos and charts made hard, [N,3,S,S] in 0..1; the same for every family."""
    rng = np.random.default_rng(SEED)
    files = imaging.photo_files(photos, held_out=False)
    made = {}
    for size, (photo_count, chart_count, _, _) in CROPS.items():
        plain = [*imaging.photo_crops(files, size, photo_count, rng), *imaging.charts(size, chart_count, rng)]
        made[size] = torch.stack([hard_image(image, rng) for image in plain])
    return made


def make_pool(images: Tensor, taesd: Path, family: str) -> Pool:
    """Encode images [N,3,S,S] with TAESD, free some of the latents, and decode them again."""
    encoder, decoder = taesd_net.load_encoder(taesd, family), taesd_net.load_decoder(taesd, family)
    rng = np.random.default_rng(SEED)
    encoded = torch.from_numpy(rng.random(len(images)) >= FREE_SHARE)
    latents, decoded = [], []
    with torch.no_grad():
        for start in range(0, len(images), 4):
            found = encoder(images[start : start + 4])
            kept = encoded[start : start + 4]
            found = torch.stack([z if keep else free_latents(z, rng) for z, keep in zip(found, kept, strict=True)])
            with torch.autocast("cpu", torch.bfloat16):
                image = decoder(found).float().clamp(0, 1)
            latents.append(found)
            decoded.append(F.avg_pool2d(image, 8))
    return Pool(torch.cat(latents), F.avg_pool2d(images, 8), torch.cat(decoded), encoded.float())


def load_pools(photos: Path, taesd: Path, family: str, work: Path | None) -> dict[int, Pool]:
    """The pools by size of crop; cached in ``work``, if given."""
    path = work / f"estimates-{family}.safetensors" if work else None
    if path and path.exists():
        tensors = load_file(path)
        return {size: Pool(**{n: tensors[f"{size}.{n}"] for n in Pool.__dataclass_fields__}) for size in CROPS}
    pools = {size: make_pool(images, taesd, family) for size, images in make_images(photos).items()}
    log.info("%s: pools are made", family)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({f"{s}.{n}": t.contiguous() for s, pool in pools.items() for n, t in vars(pool).items()}, path)
    return pools


def lab(rgb: Tensor) -> Tensor:
    """sRGB [B,3,h,w] -> CIELAB, same shape; defined beyond 0..1 too, so that the loss has a gradient there."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb.clamp(min=0.04) + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.43395, 0.37622, 0.18983], [0.21267, 0.71516, 0.07217], [0.01776, 0.10947, 0.87277]]  # white is 1
    xyz = torch.einsum("bchw,xc->bxhw", linear, torch.tensor(to_xyz))
    f = torch.where(xyz > 0.008856, xyz.clamp(min=0.008) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def loss_of(output: Tensor, target: Tensor) -> Tensor:
    """What counts is L* relative to its spread in each image, then its slope, then colour. [B,3,h,w] both."""
    said, true = lab(output), lab(target)
    light, true_light = said[:, 0], true[:, 0]
    spread = true_light.var((1, 2)) + SPREAD_FLOOR**2
    error = light - true_light
    relative = error.square().mean((1, 2)) / spread
    level = error.mean((1, 2)).abs() / 10
    # The watch regresses the image's L* on ours: a slope that is off for one kind of images is a false alarm.
    centred = light - light.mean((1, 2), keepdim=True)
    true_centred = true_light - true_light.mean((1, 2), keepdim=True)
    product = (centred * true_centred).mean((1, 2)) + SPREAD_FLOOR**2
    slope = product / (centred.square().mean((1, 2)) + SPREAD_FLOOR**2)
    colour = (said[:, 1:] - true[:, 1:]).square().mean((1, 2, 3)) / 15**2
    whole = error.square().mean((1, 2)) / 15**2
    return (relative + 0.3 * level + 0.5 * (slope - 1).square() + colour + whole).mean()


def fresh_weights(family: str) -> dict[str, Tensor]:
    """The linear map as the skip, and convolutions that add next to nothing at first."""
    generator = torch.Generator().manual_seed(SEED)
    rows = torch.tensor(FAMILIES[family].latent_rgb)
    widths = [FAMILIES[family].latent_channels, *[HIDDEN] * (CONVS - 1), 3]
    weights = {"skip.weight": rows[:-1].T[:, :, None, None].clone()}
    for index in range(CONVS):
        size = (widths[index + 1], widths[index], 3, 3)
        gain = 1.4 if index < CONVS - 1 else 0.05
        weights[f"conv{index}.weight"] = torch.randn(size, generator=generator) * gain / (widths[index] * 9) ** 0.5
        weights[f"conv{index}.bias"] = torch.zeros(widths[index + 1])
    weights[f"conv{CONVS - 1}.bias"] += rows[-1]
    return {name: value.contiguous().requires_grad_() for name, value in weights.items()}


def fit(family: str, pools: dict[int, Pool], steps: int) -> dict[str, Tensor]:
    """Train the net of one family: Adam, one cycle. -> its weights, fp32."""
    rng = np.random.default_rng(SEED)
    weights = fresh_weights(family)
    optimiser = torch.optim.Adam(list(weights.values()), lr=LEARNING_RATE, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps + 1, pct_start=0.1)
    targets = {size: pool.target for size, pool in pools.items()}
    sizes, shares = list(CROPS), [share for *_, share in CROPS.values()]
    started, mean = time.monotonic(), 0.0
    for step in range(1, steps + 1):
        size = int(rng.choice(sizes, p=shares))
        chosen = torch.from_numpy(rng.integers(len(targets[size]), size=CROPS[size][2]))
        loss = loss_of(run_net(pools[size].latents[chosen], weights), targets[size][chosen])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(weights.values()), 1.0)
        optimiser.step()
        schedule.step()
        mean = loss.item() if step == 1 else 0.98 * mean + 0.02 * loss.item()
        if step % 500 == 0 or step == steps:
            log.info("%s: step %d of %d, loss %.4f, %.0f s", family, step, steps, mean, time.monotonic() - started)
    return {name: value.detach() for name, value in weights.items()}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Fit the nets that say what a latent should look like.")
    parser.add_argument("--photos", type=Path, required=True, help="folder of collected photos (see tools/SOURCES.md)")
    parser.add_argument("--taesd", type=Path, required=True, help="folder with TAESD's safetensors files")
    parser.add_argument("--work", type=Path, help="keep the encoded images here for the next time")
    parser.add_argument("--steps", type=int, default=12000)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(arguments.threads)
    shipped = {}
    for family in taesd_net.SCALING:
        pools = load_pools(arguments.photos, arguments.taesd, family, arguments.work)
        weights = fit(family, pools, arguments.steps)
        shipped |= {f"{family}.{name}": value.half().contiguous() for name, value in weights.items()}
    metadata = {"made_by": "tools/fit_estimates.py", "latents": "encoded with TAESD (MIT)", "space": "model"}
    save_file(shipped, arguments.out, metadata=metadata)
    log.info("%s: %.1f kB", arguments.out.name, arguments.out.stat().st_size / 1e3)


if __name__ == "__main__":
    main()
