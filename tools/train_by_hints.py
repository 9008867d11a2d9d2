"""Train a decoder of the sample set to decode as TAESD does, level by level.

Trained on photos alone, so small a decoder averages what it cannot know into a blur, with visible 8 x 8 blocks. TAESD's
decode of the same latent is a function of the latent, so nothing needs to be averaged. And TAESD and AutoencoderKL
change resolution at the same places: after each upsampling, a learned 1 x 1 convolution predicts TAESD's 64 features
from ours (a "hint": FitNets, arXiv 1412.6550), so every level has a teacher. The low levels are trained first, alone:
they cost a tenth, and have the most to learn. The photo itself becomes a second target in the end, so that white and
black reach the ends of the range.

    python -m tools.train_by_hints photo-a --photos PHOTOS --taesd TAESD --work WORK

The state is saved every 100 steps; the same call resumes. It ends with ``WORK/photo-a.safetensors`` in fp32, as
``tools.train_vaes`` has it; an encoder that is there already stays. 2,850 steps take one core about an hour and a half.

Crops of 128 pixels are mostly border: the zeros of the padding are part of every group norm, and a decoder trained on
them alone has 1.2 times the contrast at 512 pixels. So the weights in WORK are then trained on images of all sizes:

    python -m tools.train_by_hints photo-a --all-sizes 400 --photos PHOTOS --taesd TAESD --work WORK
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from tools import imaging, taesd_net
from tools.train_vaes import LOSSES, RECIPES, Recipe, fresh, load_model, with_open_ends
from vae_lab.autoencoders.kl.module import AutoencoderKL

log = logging.getLogger("train_by_hints")

TEACHER_CUTS = (8, 13, 18)  # TAESD's layers up to the convolution after each upsampling
TEACHER_WIDTH = 64
CROP, PHOTO_CROPS, CHARTS = 128, 3000, 600
LARGE, LARGE_PHOTOS, LARGE_CHARTS = 512, 240, 40
SIZES = ((512, 1), (256, 1), (128, 2), (256, 1))  # pixels and batch of each step in turn
SAVE_EVERY, SAVE_SLOWER = 100, 20
DECODER = ("decoder.", "post_quant_conv.")
ENCODER = ("encoder.", "quant_conv.")


@dataclass(frozen=True)
class Phase:
    """Steps in which the same levels are trained.

    Args:
        steps: their number.
        levels: how many, from the lowest resolution; 4 are all, to the image.
        batch: crops in a step.
    """

    steps: int
    levels: int
    batch: int


PHASES = (Phase(400, 1, 16), Phase(450, 2, 8), Phase(500, 3, 4), Phase(1500, 4, 2))


def orthogonal(update: Tensor, steps: int = 4) -> Tensor:
    """The nearest matrix with equal singular values, by Newton-Schulz iterations (Muon, Jordan 2024).

    Args:
        update: of a convolution's kernel, [O,I,h,w]; the matrix is [O,I*h*w].
        steps: iterations.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = update.reshape(len(update), -1)
    turned = x.shape[0] > x.shape[1]
    x = x.T if turned else x
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return (x.T if turned else x).reshape(update.shape)


class Muon:
    """Orthogonalised momentum for the kernels of convolutions, Adam for all other parameters."""

    def __init__(self, parameters: list[nn.Parameter], rate: float) -> None:
        self.kernels = [p for p in parameters if p.ndim == 4 and p.shape[0] > 8 and p.shape[1] > 4]
        self.momenta = [torch.zeros_like(p) for p in self.kernels]
        ids = {id(p) for p in self.kernels}
        self.adam = torch.optim.Adam([p for p in parameters if id(p) not in ids], betas=(0.9, 0.98))
        self.parameters, self.rate = parameters, rate

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """Take one step of ``factor`` times the learning rate, and forget the gradients."""
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for p, momentum in zip(self.kernels, self.momenta, strict=True):
            if p.grad is not None:
                momentum.mul_(0.95).add_(p.grad)
                rows, columns = p.shape[0], p[0].numel()
                scale = 0.2 * math.sqrt(max(rows, columns)) * math.sqrt(max(1, rows / columns))
                p.add_(orthogonal(p.grad + 0.95 * momentum), alpha=-self.rate * factor * scale)
        for group in self.adam.param_groups:
            group["lr"] = self.rate * factor
        self.adam.step()
        for p in self.parameters:
            p.grad = None


def _edges(error: Tensor) -> Tensor:
    """Mean error of steps to the next column; those between the blocks of 8 pixels, which the eye sees first, count
    more.
    """
    steps = error.diff(dim=-1).abs()
    return steps.mean() + steps[..., 7::8].mean()


def image_loss(output: Tensor, target: Tensor) -> Tensor:
    """Errors of values, edges, and coarse colours and levels. Both [B,3,H,W] in -1..1."""
    error = output - target
    coarse = F.avg_pool2d(error, 4)
    colour = (coarse - coarse.mean(1, keepdim=True)).abs().mean()
    edges = _edges(error) + _edges(error.transpose(-1, -2))
    return (
        error.abs().mean() + 0.5 * error.square().mean() + 0.3 * edges + F.avg_pool2d(coarse, 2).abs().mean() + colour
    )


class Lessons:
    """A decoder, its teacher, and what each step learns from.

    Args:
        model: whose decoder is trained.
        recipe: its own.
        taesd: folder of the teacher's weights.
    """

    def __init__(self, model: AutoencoderKL, recipe: Recipe, taesd: Path) -> None:
        self.model = model
        self.recipe = recipe
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(recipe.trained))
        self.teacher = taesd_net.load_decoder(taesd, recipe.family)
        self.scaling = taesd_net.SCALING[recipe.family]
        levels = [model.decoder.up[3 - i] for i in range(3)]
        self.hints = nn.ModuleList(nn.Conv2d(up.upsample.conv.out_channels, TEACHER_WIDTH, 1) for up in levels)

    def prefer(self, layout: torch.memory_format) -> None:
        """Keep weights in the layout that is faster: channels last, except for large images."""
        self.model.to(memory_format=layout)
        self.teacher.to(memory_format=layout)

    def parameters(self) -> list[nn.Parameter]:
        """All that is trained."""
        return [*(each for each in self.model.parameters() if each.requires_grad), *self.hints.parameters()]

    def image_loss(self, latents: Tensor, images: Tensor) -> Tensor:
        """Of a batch, by the decoded images alone, without hints. Arguments as of :meth:`loss`."""
        output = self.model.decode(latents / self.scaling)
        if self.recipe.base:
            return LOSSES[self.recipe.loss](output, images)
        with torch.no_grad():
            target = self.teacher(latents).clamp(0, 1) * 2 - 1
        return 2 * image_loss(output, target) + 0.5 * image_loss(output, with_open_ends(output, images))

    def loss(self, latents: Tensor, images: Tensor, levels: int, photo_weight: float) -> Tensor:
        """Of a batch.

        Args:
            latents: [B,4,h,w] in model space.
            images: [B,3,8h,8w] in -1..1.
            levels: see :class:`Phase`.
            photo_weight: 0..1, of the images themselves as a target, beside the teacher's.
        """
        decoder = self.model.decoder
        ours = decoder.mid(decoder.conv_in(self.model.post_quant_conv(latents / self.scaling)))
        theirs, cut, loss = latents, 0, latents.new_zeros(())
        for i in range(min(levels, 3)):
            ours = decoder.up[3 - i](ours)
            with torch.no_grad():
                theirs = self.teacher[cut : TEACHER_CUTS[i]](theirs)
            cut = TEACHER_CUTS[i]
            weight = 0.3 if levels == 4 else 1.0
            loss = loss + weight * F.mse_loss(self.hints[i](ours), theirs) / theirs.var()
        if levels < 4:
            return loss
        with torch.no_grad():
            target = self.teacher[cut:](theirs).clamp(0, 1) * 2 - 1
        output = decoder.conv_out(F.silu(decoder.norm_out(decoder.up[0](ours))))
        loss = loss + 2 * image_loss(output, target)
        if photo_weight:
            loss = loss + photo_weight * image_loss(output, with_open_ends(output, images))
        return loss


class EncoderLessons(Lessons):
    """An encoder, and TAESD's latents as what it learns from."""

    def __init__(self, model: AutoencoderKL, recipe: Recipe, taesd: Path) -> None:
        super().__init__(model, replace(recipe, trained=ENCODER), taesd)

    def image_loss(self, latents: Tensor, images: Tensor) -> Tensor:
        """Of a batch. Latents are cut from those of a larger image: without the border, which is another one there."""
        error = (self.model.encode(images) * self.scaling - latents)[..., 1:-1, 1:-1]
        return error.abs().mean() + error.square().mean()


@dataclass
class State:
    """What a later call resumes from.

    Attributes:
        step: steps taken.
        mean: moving average of the weights since the last phase began, which is what is kept in the end.
    """

    step: int
    mean: dict[str, Tensor] | None


def load_state(path: Path, lessons: Lessons, optimiser: Muon) -> State:
    """Continue where the file was saved, or begin."""
    if not path.exists():
        return State(0, None)
    saved = torch.load(path, weights_only=True)
    lessons.model.load_state_dict(saved["model"])
    lessons.hints.load_state_dict(saved["hints"])
    optimiser.adam.load_state_dict(saved["adam"])
    for momentum, value in zip(optimiser.momenta, saved["momenta"], strict=True):
        momentum.copy_(value)
    return State(saved["step"], saved["mean"])


def save_state(path: Path, lessons: Lessons, optimiser: Muon, state: State) -> None:
    """Write the file as a whole, or not at all."""
    saved = {
        "model": lessons.model.state_dict(), "hints": lessons.hints.state_dict(), "adam": optimiser.adam.state_dict(),
        "momenta": optimiser.momenta, "step": state.step, "mean": state.mean,
    }  # fmt: skip
    torch.save(saved, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def train(lessons: Lessons, images: Tensor, latents: Tensor, seed: int, rate: float, last: int, path: Path) -> None:
    """Train to the end, and leave the average of the weights in the model.

    Args:
        lessons: see there.
        images: uint8 [N,3,H,W].
        latents: [N,4,H/8,W/8] in model space.
        seed: of the batches.
        rate: of learning, at its peak.
        last: steps of the last phase.
        path: of the saved state.
    """
    optimiser = Muon(lessons.parameters(), rate)
    state = load_state(path, lessons, optimiser)
    phases = (*PHASES[:-1], Phase(last, PHASES[-1].levels, PHASES[-1].batch))
    starts = np.cumsum([0, *(phase.steps for phase in phases)])
    started, resumed = time.monotonic(), state.step
    while state.step < starts[-1]:
        number = int(np.searchsorted(starts, state.step, side="right")) - 1
        phase, inside = phases[number], state.step - int(starts[number])
        is_last = phase is phases[-1]
        if inside == 0 or state.step == resumed:
            lessons.prefer(torch.contiguous_format if is_last else torch.channels_last)
        generator = torch.Generator().manual_seed(1000 * seed + state.step)
        chosen = torch.randint(len(images), (phase.batch,), generator=generator)
        photo_weight = min(1.0, max(0.0, 2 * inside / phase.steps - 0.5)) if is_last else 0.0
        batch = latents[chosen].float(), images[chosen].float() / 127.5 - 1
        loss = lessons.loss(*batch, phase.levels, photo_weight)
        loss.backward()
        decay = max(0.02, min(1.0, 2 * (1 - inside / phase.steps))) if is_last else 1.0
        optimiser.step(min(1.0, (inside + 1) / 40) * decay)
        state.step += 1
        if is_last:
            _average(state, lessons.model, inside)
        if state.step % SAVE_EVERY == 0:
            passed = time.monotonic() - started
            log.info("step %d of %d, loss %.4f, %.0f s", state.step, starts[-1], loss.item(), passed)
            save_state(path, lessons, optimiser, state)
    if state.mean is not None:
        lessons.model.load_state_dict(state.mean)


def train_all_sizes(
    lessons: Lessons, images: Tensor, latents: Tensor, seed: int, rate: float, steps: int, path: Path
) -> None:
    """Train on cuts of all of :data:`SIZES`, and leave the average of the weights in the model.

    Args: as of :func:`train`; images are [N,3,512,512].
    """
    optimiser = Muon(lessons.parameters(), rate)
    state = load_state(path, lessons, optimiser)
    lessons.prefer(torch.contiguous_format)
    started = time.monotonic()
    while state.step < steps:
        size, batch = SIZES[state.step % len(SIZES)]
        rng = np.random.default_rng((seed, state.step))
        pairs = []
        for chosen in rng.integers(len(images), size=batch):
            top, left = rng.integers((LARGE - size) // 8 + 1, size=2)
            cut = slice(top, top + size // 8), slice(left, left + size // 8)
            pixels = slice(8 * top, 8 * top + size), slice(8 * left, 8 * left + size)
            pairs.append((latents[chosen][:, cut[0], cut[1]], images[chosen][:, pixels[0], pixels[1]]))
        cuts, targets = (torch.stack(part).float() for part in zip(*pairs, strict=True))
        loss = lessons.image_loss(cuts, targets / 127.5 - 1)
        loss.backward()
        optimiser.step(min(1.0, (state.step + 1) / 20) * max(0.02, 1 - state.step / steps))
        _average(state, lessons.model, state.step)
        state.step += 1
        if state.step % SAVE_SLOWER == 0:
            log.info("step %d of %d, loss %.4f, %.0f s", state.step, steps, loss.item(), time.monotonic() - started)
            save_state(path, lessons, optimiser, state)
    if state.mean is not None:
        lessons.model.load_state_dict(state.mean)


def _average(state: State, model: AutoencoderKL, inside: int) -> None:
    weights = model.state_dict()
    if state.mean is None:
        state.mean = {name: value.clone() for name, value in weights.items()}
    for name, value in weights.items():
        state.mean[name].lerp_(value, 1 - min(0.998, (inside + 1) / (inside + 10)))


def make_batches(
    family: str, photos: Path, taesd: Path, work: Path, size: int, photo_count: int, chart_count: int
) -> tuple[Tensor, Tensor]:
    """Crops of photos and charts, uint8 [N,3,size,size], and TAESD's latents of them, fp16; cached in ``work``."""
    path = work / f"hints-{family}-{size}.safetensors"
    if not path.exists():
        rng = np.random.default_rng(5)
        files = imaging.photo_files(photos, held_out=False)
        parts = [imaging.photo_crops(files, size, photo_count, rng), imaging.charts(size, chart_count, rng)]
        images = torch.cat(parts).mul(255).round().byte()
        encoder = taesd_net.load_encoder(taesd, family)
        with torch.no_grad():
            latents = torch.cat([encoder(part.float() / 255).half() for part in images.split(2048 // size)])
        save_file({"images": images, "latents": latents}, path)
    pool = load_file(path)
    return pool["images"], pool["latents"]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train a decoder of the sample set by TAESD's features.")
    parser.add_argument("name", choices=[recipe.name for recipe in RECIPES])
    parser.add_argument("--photos", type=Path, required=True, help="folder of collected photos (see tools/SOURCES.md)")
    parser.add_argument("--taesd", type=Path, required=True, help="folder with TAESD's safetensors files")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and cached crops")
    parser.add_argument("--rate", type=float, default=1.5e-3, help="learning rate at its peak")
    parser.add_argument("--last", type=int, default=PHASES[-1].steps, help="steps of the last phase")
    parser.add_argument("--all-sizes", type=int, metavar="STEPS", help="train what is in WORK on images of all sizes")
    parser.add_argument("--encoder", action="store_true", help="with --all-sizes: the encoder instead of the decoder")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)
    recipe = next(recipe for recipe in RECIPES if recipe.name == arguments.name)
    pool = (arguments.photos, arguments.taesd, arguments.work)
    if arguments.all_sizes:
        half = EncoderLessons if arguments.encoder else Lessons
        lessons = half(load_model(recipe, arguments.work), recipe, arguments.taesd)
        images, latents = make_batches(recipe.family, *pool, LARGE, LARGE_PHOTOS, LARGE_CHARTS)
        state = arguments.work / f"{recipe.name}.{'encoder' if arguments.encoder else 'sizes'}.pt"
        train_all_sizes(lessons, images, latents, recipe.seed, arguments.rate, arguments.all_sizes, state)
    else:
        lessons = Lessons(fresh(recipe), recipe, arguments.taesd)
        images, latents = make_batches(recipe.family, *pool, CROP, PHOTO_CROPS, CHARTS)
        state = arguments.work / f"{recipe.name}.state.pt"
        train(lessons, images, latents, recipe.seed, arguments.rate, arguments.last, state)
    model = lessons.model
    trained = {
        name: value
        for name, value in model.state_dict().items()
        if name.startswith(ENCODER if arguments.encoder else DECODER)
    }
    whole = load_model(recipe, arguments.work).state_dict() | trained
    save_file(
        {name: value.contiguous() for name, value in whole.items()}, arguments.work / f"{recipe.name}.safetensors"
    )


if __name__ == "__main__":
    main()
