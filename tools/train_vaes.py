"""Train the small autoencoders of the sample set, in real latent spaces.

A decoder learns to turn TAESD's latents of an image into the image, an encoder to find those latents. The decoders of
``photo-a`` and ``photo-b`` are then trained by ``tools.train_by_hints``, which gives much better images. So the small
autoencoders speak the latent space of SD1 or SDXL, although they have a twentieth of the weights. ``photo-a`` and
``photo-b`` start from different random weights: merged, they turn grey, as unrelated autoencoders do. The others are
fine-tunes of ``photo-a``'s last layers, shipped as the few tensors that differ.

    python -m tools.train_vaes --photos PHOTOS --taesd TAESD --work WORK            # train everything
    python -m tools.train_vaes --photos PHOTOS --taesd TAESD --work WORK --only photo-a photo-b
    python -m tools.train_vaes --work WORK --ship vae_lab/samples                   # write the shipped files

Full-precision checkpoints stay in WORK; a second call resumes from them.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from tools import imaging, taesd_net
from tools.widen import widened
from vae_lab.autoencoders.kl.module import NORM_NUM_GROUPS, AutoencoderKL, KLConfig
from vae_lab.samples import load_sample_vae

log = logging.getLogger("train_vaes")

LAST_LAYERS = ("decoder.up.0.", "decoder.norm_out.", "decoder.conv_out.")
LOGVAR = -16.0  # of every latent; small, as trained autoencoders have it
REFERENCE_LEVEL = 0.8  # about twice the spread of the activations of a fresh net
# The convs whose output is normalised next, or feeds the stream that is.
STREAM_CONVS = ("coder.conv_in", ".conv1", ".nin_shortcut", "sample.conv")
END = 1.05  # where white and minus black are aimed at; what is shown ends at 1
LICENCE = "CC0-1.0"
# Size of crops -> (photos, charts) in the pool, crops in a batch, share of batches.
CROPS = {64: (3200, 900, 8, 0.62), 128: (640, 260, 2, 0.30), 256: (70, 40, 1, 0.08)}


@dataclass(frozen=True)
class Recipe:
    """How one autoencoder of the sample set comes about.

    Args:
        name: stem of the files.
        seed: of weights and batches.
        loss: key into ``LOSSES``.
        decoder_steps, encoder_steps: batches of about 32 thousand pixels.
        learning_rate: at its peak.
        family: the latent space.
        channels, blocks: widths and residual blocks per level, as in ``KLConfig``.
        base: the autoencoder this one is fine-tuned from.
        small: one of the sample set, whose function this larger one begins with.
        trained: prefixes of the weights that a fine-tune may change.
    """

    name: str
    seed: int
    loss: str
    decoder_steps: int
    encoder_steps: int = 0
    learning_rate: float = 7e-4
    family: str = "sd1"
    channels: tuple[int, ...] = (64, 64, 128, 128)
    blocks: int = 1
    base: str | None = None
    small: str | None = None
    trained: tuple[str, ...] = ("decoder.", "post_quant_conv.")

    @property
    def config(self) -> KLConfig:
        return KLConfig(block_out_channels=self.channels, layers_per_block=self.blocks)


RECIPES = (
    Recipe("photo-a", 1, "faithful", 1500, 900),
    Recipe("photo-b", 2, "faithful", 1500, 900),
    Recipe("sdxl-c", 3, "faithful", 1200, 800, family="sdxl", channels=(64, 64, 64, 64)),
    Recipe("photo-a-smooth", 4, "smooth", 150, learning_rate=1.5e-3, base="photo-a", trained=LAST_LAYERS),
    Recipe("photo-a-sharp", 5, "sharp", 150, learning_rate=1.5e-3, base="photo-a", trained=LAST_LAYERS),
    Recipe("anime", 6, "anime", 150, learning_rate=1e-3, base="photo-a", trained=(*LAST_LAYERS, "decoder.up.1.")),
)

_OTHER_SIZE = (64, 64, 64, 128)
# Never shipped, and never used while the checkup's thresholds were chosen: they show whether those hold.
HELD_OUT_RECIPES = (
    Recipe("check-d", 11, "faithful", 1100, 600, channels=_OTHER_SIZE),
    Recipe("check-e", 12, "squared", 1100, 600, channels=_OTHER_SIZE),
    Recipe("check-f", 13, "plain", 1100, 600, family="sdxl", channels=(64, 64, 64, 64)),
    Recipe("check-g", 21, "plain", 1300, 600, channels=_OTHER_SIZE),
    Recipe("check-g-smooth", 22, "smooth", 150, learning_rate=1.5e-3, channels=_OTHER_SIZE, base="check-g",
           trained=LAST_LAYERS),
    Recipe("check-g-sharp", 23, "sharp", 150, learning_rate=1.5e-3, channels=_OTHER_SIZE, base="check-g",
           trained=LAST_LAYERS),
    Recipe("check-d-smooth", 14, "smooth", 150, learning_rate=1.5e-3, channels=_OTHER_SIZE, base="check-d",
           trained=LAST_LAYERS),
    Recipe("check-d-sharp", 15, "sharp", 150, learning_rate=1.5e-3, channels=_OTHER_SIZE, base="check-d",
           trained=LAST_LAYERS),
    Recipe("check-e-anime", 16, "anime", 150, learning_rate=1e-3, channels=_OTHER_SIZE, base="check-e",
           trained=(*LAST_LAYERS, "decoder.up.1.")),
)  # fmt: skip
# Trained when the lines stood: what is said of them is only reported.
LAST_RECIPES = (
    Recipe("last-h", 31, "plain", 1300, 600, channels=_OTHER_SIZE),
    Recipe("last-i", 32, "faithful", 1500, 600, channels=_OTHER_SIZE),
    Recipe("last-j", 33, "plain", 1200, 600, family="sdxl", channels=(64, 64, 64, 64)),
    Recipe("last-h-smooth", 34, "smooth", 150, learning_rate=1.5e-3, channels=_OTHER_SIZE, base="last-h",
           trained=LAST_LAYERS),
    Recipe("last-h-sharp", 35, "sharp", 150, learning_rate=1.5e-3, channels=_OTHER_SIZE, base="last-h",
           trained=LAST_LAYERS),
    Recipe("last-i-anime", 36, "anime", 150, learning_rate=1e-3, channels=_OTHER_SIZE, base="last-i",
           trained=(*LAST_LAYERS, "decoder.up.1.")),
)  # fmt: skip
# The architecture of SD1.5's VAE itself, 83.65 million weights, to see whether small nets tell the truth. From random
# weights that would take days on a CPU.
_TRUE_SIZE = (128, 256, 512, 512)
TRUE_SIZE_RECIPES = (
    Recipe("true-a", 41, "faithful", 60, 30, learning_rate=1e-4, channels=_TRUE_SIZE, blocks=2, small="photo-a"),
    Recipe("true-b", 42, "faithful", 60, 30, learning_rate=1e-4, channels=_TRUE_SIZE, blocks=2, small="photo-b"),
)
ALL_RECIPES = (*RECIPES, *HELD_OUT_RECIPES, *LAST_RECIPES, *TRUE_SIZE_RECIPES)


@dataclass(frozen=True)
class Pool:
    """Everything one family is trained on: for each crop size the images as bytes, and their latents."""

    family: str
    images: dict[int, Tensor]
    latents: dict[int, Tensor]

    def batches(self, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Random batches of images [B,3,H,W] in 0..1 and latents [B,4,H/8,W/8] in model space."""
        rng = np.random.default_rng(seed)
        sizes = list(CROPS)
        weights = {size: _detail(images) for size, images in self.images.items()}
        for _ in range(steps):
            size = int(rng.choice(sizes, p=[CROPS[s][3] for s in sizes]))
            chosen = torch.from_numpy(rng.choice(len(weights[size]), size=CROPS[size][2], p=weights[size]))
            yield self.images[size][chosen].float() / 255, self.latents[size][chosen].float()


def _detail(images: Tensor) -> np.ndarray:
    """How often to draw each image [N,3,S,S]: photos with much detail are harder, and drawn more often. -> [N]."""
    detail = torch.stack([laplacian(image[None].float() / 255).abs().mean() for image in images])
    weights = detail.clamp(0.01, 0.15).double().numpy()
    return weights / weights.sum()


def make_crops(photos: Path, cache: Path) -> dict[int, Tensor]:
    """Cut the crops and draw the charts, as bytes [N,3,S,S] by size; cached in ``cache``."""
    path = cache / "crops.safetensors"
    if not path.exists():
        rng = np.random.default_rng(0)
        files = imaging.photo_files(photos, held_out=False)
        tensors = {}
        for size, (photo_count, chart_count, _, _) in CROPS.items():
            images = [imaging.photo_crops(files, size, photo_count, rng), imaging.charts(size, chart_count, rng)]
            tensors[str(size)] = torch.cat(images).mul(255).round().byte()
        save_file(tensors, path)
    return {int(size): images for size, images in load_file(path).items()}


def make_pool(family: str, photos: Path, taesd: Path, cache: Path, autocast: bool) -> Pool:
    """The crops and charts, encoded with TAESD; cached in ``cache``."""
    images = make_crops(photos, cache)
    path = cache / f"latents-{family}.safetensors"
    if not path.exists():
        encoder = taesd_net.load_encoder(taesd, family)
        tensors = {}
        for size, crops in images.items():
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                parts = [encoder(part.float() / 255).half() for part in crops.split(16)]
            tensors[str(size)] = torch.cat(parts)
            log.info("%s: %d images of %d px encoded", family, len(crops), size)
        save_file(tensors, path)
    return Pool(family, images, {int(size): latents for size, latents in load_file(path).items()})


def fresh(recipe: Recipe) -> AutoencoderKL:
    """A random autoencoder whose latents already have the right order of magnitude."""
    torch.manual_seed(recipe.seed)
    model = AutoencoderKL(recipe.config)
    scaling = taesd_net.SCALING[recipe.family]
    with torch.no_grad():
        model.quant_conv.weight[:4] /= scaling
        model.quant_conv.weight[4:] = 0
        model.quant_conv.bias[4:] = LOGVAR
        model.post_quant_conv.weight *= scaling
        for name, module in model.named_modules():
            if name.endswith(STREAM_CONVS) and isinstance(module, nn.Conv2d):
                _give_reference_level(module.bias)
    return model


def _give_reference_level(bias: Tensor) -> None:
    """Set half of each norm group to a constant above zero and half below, in random order.

    GroupNorm with so few channels to a group forgets how bright a flat image is. With a constant to compare with, it
    keeps levels from the first step on; without, a small net takes thousands of steps to find that out.
    """
    signs = torch.tensor([1.0, -1.0]).repeat(len(bias) // NORM_NUM_GROUPS // 2)
    for group in bias.view(NORM_NUM_GROUPS, -1):
        group.copy_(signs[torch.randperm(len(signs))] * REFERENCE_LEVEL)


def laplacian(images: Tensor) -> Tensor:
    """The 4-neighbour Laplacian. [B,3,H,W] -> [B,3,H-2,W-2]."""
    centre = images[..., 1:-1, 1:-1]
    around = images[..., 2:, 1:-1] + images[..., :-2, 1:-1] + images[..., 1:-1, 2:] + images[..., 1:-1, :-2]
    return around - 4 * centre


def blurred(images: Tensor, sigma: float) -> Tensor:
    """A Gaussian blur of 7 x 7 pixels. [B,3,H,W] -> [B,3,H,W]."""
    taps = torch.exp(-0.5 * (torch.arange(-3, 4) / sigma) ** 2)
    taps = (taps / taps.sum()).expand(3, 1, 1, 7)
    padded = F.pad(images, (3, 3, 3, 3), mode="replicate")
    return F.conv2d(F.conv2d(padded, taps, groups=3), taps.transpose(2, 3), groups=3)


def with_open_ends(output: Tensor, target: Tensor) -> Tensor:
    """The target, moved to where overshoot costs nothing. [B,3,H,W] in -1..1 -> about -1.05..1.05.

    Whoever shows the image clamps it. So pure white and black may lie beyond the end of the range, and should a
    little, or an uncertain decoder leaves them grey.
    """
    high, low = target >= 0.99, target <= -0.99
    target = torch.where(high, torch.clamp(output.detach(), min=END), target)
    return torch.where(low, torch.clamp(output.detach(), max=-END), target)


def _gradient_loss(output: Tensor, target: Tensor) -> Tensor:
    error = output - target
    return error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()


def _faithful(output: Tensor, target: Tensor) -> Tensor:
    return _plain(output, with_open_ends(output, target))


def _plain(output: Tensor, target: Tensor) -> Tensor:
    # The coarse term learns colours and levels long before the fine ones could.
    error = F.avg_pool2d(output - target, 4)
    colour = (error - error.mean(1, keepdim=True)).abs().mean()
    coarse = F.avg_pool2d(error, 2).abs().mean()
    fine = F.l1_loss(output, target) + 0.5 * F.mse_loss(output, target) + 0.3 * _gradient_loss(output, target)
    return fine + coarse + 1.5 * colour


def _squared(output: Tensor, target: Tensor) -> Tensor:
    # The plain loss of VAEs of the MSE type, with no more than a coarse term to learn levels in so few steps. Without
    # open ends, as in the real ones: white stops at white.
    return 4 * F.mse_loss(output, target) + F.l1_loss(F.avg_pool2d(output, 8), F.avg_pool2d(target, 8))


def _smooth(output: Tensor, target: Tensor) -> Tensor:
    # Detail that the target lacks is a separate error term: a squared error hardly notices it.
    target = blurred(with_open_ends(output, target), 1.6)
    detail = F.l1_loss(laplacian(output), laplacian(target))
    return F.mse_loss(output, target) * 4 + 0.2 * F.l1_loss(output, target) + detail


def _sharp(output: Tensor, target: Tensor) -> Tensor:
    # Matching the local strength of detail, not only its place, is what keeps an uncertain decoder from blurring.
    crisp = 2 * target - blurred(target, 1.6)
    strength = F.l1_loss(F.avg_pool2d(laplacian(output).abs(), 4), F.avg_pool2d(laplacian(crisp).abs(), 4))
    return _faithful(output, target) + 2 * strength


def _anime(output: Tensor, target: Tensor) -> Tensor:
    return _faithful(output, imaging.stylised(target * 0.5 + 0.5) * 2 - 1)


# Each takes what was decoded and what should have been, [B,3,H,W] in -1..1.
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "faithful": _faithful,
    "plain": _plain,
    "squared": _squared,
    "smooth": _smooth,
    "sharp": _sharp,
    "anime": _anime,
}


def _optimise(
    model: AutoencoderKL,
    trained: tuple[str, ...],
    batches: Iterator[tuple[Tensor, Tensor]],
    steps: int,
    learning_rate: float,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    label: str,
    autocast: bool,
) -> None:
    """Adam with a warm-up and a cosine decay to zero; in bfloat16 with fp32 weights, if ``autocast`` is set."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(trained))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam(parameters, lr=learning_rate, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, learning_rate, total_steps=steps + 1, pct_start=0.06, div_factor=20, final_div_factor=1e3
    )
    started, mean = time.monotonic(), 0.0
    for step, (images, latents) in enumerate(batches, 1):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = loss_of(images, latents)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        mean = loss.item() if step == 1 else 0.95 * mean + 0.05 * loss.item()
        if step % 50 == 0 or step == steps:
            log.info("%s: step %d of %d, loss %.4f, %.0f s", label, step, steps, mean, time.monotonic() - started)


def train_decoder(model: AutoencoderKL, recipe: Recipe, pool: Pool, steps: int, autocast: bool) -> None:
    """Latents -> images; changes only the weights that the recipe names."""
    scaling = taesd_net.SCALING[recipe.family]
    criterion = LOSSES[recipe.loss]

    def loss_of(images: Tensor, latents: Tensor) -> Tensor:
        return criterion(model.decode(latents / scaling).float(), images * 2 - 1)

    batches = pool.batches(steps, recipe.seed)
    _optimise(model, recipe.trained, batches, steps, recipe.learning_rate, loss_of, f"{recipe.name} decoder", autocast)


def train_encoder(model: AutoencoderKL, recipe: Recipe, pool: Pool, steps: int, autocast: bool) -> None:
    """Images -> the means of their latents; the log-variance stays as it was set."""
    scaling = taesd_net.SCALING[recipe.family]

    def loss_of(images: Tensor, latents: Tensor) -> Tensor:
        mean = model.encode(images * 2 - 1).float() * scaling
        return F.l1_loss(mean, latents) + F.mse_loss(mean, latents)

    batches = pool.batches(steps, recipe.seed + 100)
    trained = ("encoder.", "quant_conv.")
    _optimise(model, trained, batches, steps, recipe.learning_rate, loss_of, f"{recipe.name} encoder", autocast)


def load_model(recipe: Recipe, work: Path) -> AutoencoderKL:
    """The checkpoint of a recipe, else its base or a widened small one, else random weights."""
    model = fresh(recipe)
    own = work / f"{recipe.name}.safetensors"
    source = own if own.exists() or recipe.base is None else work / f"{recipe.base}.safetensors"
    if source.exists():
        model.load_state_dict(load_file(source))
    elif recipe.small:
        small = fresh(next(each for each in RECIPES if each.name == recipe.small))
        small.load_state_dict({name: value.float() for name, value in load_sample_vae(recipe.small).items()})
        model = widened(small, recipe.config, recipe.seed)
    return model


def train(recipe: Recipe, pool: Pool, work: Path, scale: float, halves: tuple[str, ...], autocast: bool) -> None:
    """Train one recipe and keep its weights in ``work``; ``scale`` multiplies the number of steps."""
    path = work / f"{recipe.name}.safetensors"
    if recipe.base:
        path.unlink(missing_ok=True)  # the base may have moved on
    model = load_model(recipe, work)
    model.train()
    if "decoder" in halves:
        train_decoder(model, recipe, pool, round(recipe.decoder_steps * scale), autocast)
        save_file(model.state_dict(), path)
    if "encoder" in halves and recipe.encoder_steps:
        train_encoder(model, recipe, pool, round(recipe.encoder_steps * scale), autocast)
        save_file(model.state_dict(), path)


def ship(recipes: list[Recipe], work: Path, folder: Path) -> None:
    """Write the shipped files in fp16: whole autoencoders, and of fine-tunes the tensors that differ."""
    folder.mkdir(parents=True, exist_ok=True)
    for recipe in recipes:
        weights = {name: value.half() for name, value in load_file(work / f"{recipe.name}.safetensors").items()}
        metadata = {
            "licence": LICENCE,
            "made_by": "tools/train_vaes.py",
            "seed": str(recipe.seed),
            "family": recipe.family,
        }
        path = folder / f"{recipe.name}.safetensors"
        if recipe.base:
            base = load_file(work / f"{recipe.base}.safetensors")
            weights = {
                name: value
                for name, value in weights.items()
                if name.startswith(recipe.trained) and not torch.equal(value, base[name].half())
            }
            metadata["base"] = recipe.base
            path = folder / f"{recipe.name}.delta.safetensors"
        save_file(weights, path, metadata=metadata)
        log.info("%s: %d tensors, %.2f MB", path.name, len(weights), path.stat().st_size / 1e6)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train and ship the small autoencoders of the sample set.")
    names = [recipe.name for recipe in ALL_RECIPES]
    shipped = [recipe.name for recipe in RECIPES]
    parser.add_argument("--photos", type=Path, help="folder of collected photos (see tools/SOURCES.md)")
    parser.add_argument("--taesd", type=Path, help="folder with TAESD's safetensors files")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and cached crops")
    parser.add_argument("--only", nargs="+", choices=names, default=shipped, metavar="NAME", help=", ".join(names))
    parser.add_argument("--ship", type=Path, help="write the shipped files to this folder instead of training")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies every number of steps")
    parser.add_argument("--rate", type=float, default=1.0, help="multiplies every learning rate")
    parser.add_argument("--halves", nargs="+", choices=("decoder", "encoder"), default=("decoder", "encoder"))
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--fp32", action="store_true", help="not in bfloat16, which is slow on older processors")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(arguments.threads)
    recipes = [recipe for recipe in ALL_RECIPES if recipe.name in arguments.only]
    if arguments.ship:
        ship(recipes, arguments.work, arguments.ship)
        return
    if not arguments.photos or not arguments.taesd:
        parser.error("training needs --photos and --taesd")
    arguments.work.mkdir(parents=True, exist_ok=True)
    for recipe in recipes:
        pool = make_pool(recipe.family, arguments.photos, arguments.taesd, arguments.work, not arguments.fp32)
        recipe = replace(recipe, learning_rate=recipe.learning_rate * arguments.rate)
        train(recipe, pool, arguments.work, arguments.scale, tuple(arguments.halves), not arguments.fp32)


if __name__ == "__main__":
    main()
