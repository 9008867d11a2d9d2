"""Repair merges of the sample set's VAEs in several ways, and put a table into docs/heal.md.

    python -m tools.measure_heal --photos PHOTOS --taesd TAESD [--write docs/heal.md] [--sheet docs/images/heal.jpg]

The methods are those of ``vae_lab.repair.heal``. They are fitted to the colour chart; what they are worth is measured
on held-out photos that are neither in the chart nor in the photo test. All numbers compare with what the main parent
makes of the same photos: the contrast that is kept (slope of lightness at 1/16 of the size, median), and PSNR in dB.
``decoder`` decodes reference latents, ``round trip`` encodes and decodes the photos.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tools import imaging, taesd_net
from tools.measure_checkup import State, kl, lab
from tools.measure_vaes import psnr
from tools.pages import write_between
from tools.train_vaes import RECIPES
from vae_lab.autoencoders import Autoencoder
from vae_lab.checkup import check_weights
from vae_lab.latents.chart import chart_image, chart_latents
from vae_lab.repair.heal import (
    PhotoDecodes,
    Reference,
    compare_on_photos,
    decode_photos,
    heal,
    reference,
    refit_last_layers,
)
from vae_lab.samples import GREY_SHARE, load_sample_latents, load_sample_vae

log = logging.getLogger("measure_heal")

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)
SIZE = 128  # of the photo crops, in pixels
NONE, TO_CHART, REFIT, REPAIR, BOTH = "none", "refit to the chart", "refit", "REPAIR", "REPAIR + refit"
METHODS = (NONE, TO_CHART, REFIT, REPAIR, BOTH)
SHOWN = ("cat", "mountains")
RECIPE = RECIPES[0]  # all VAEs used here have the structure of photo-a


@dataclass(frozen=True)
class Case:
    """A merge: VAEs of the sample set and their weights, the main one first, and how to repair it."""

    name: str
    parents: tuple[tuple[str, float], ...]
    methods: tuple[str, ...] = METHODS


def cases() -> Iterator[Case]:
    """Weighted sums and added differences of unrelated VAEs, and one of relatives."""
    for share in SHARES:
        yield Case(f"photo-a x photo-b, {share:g}", (("photo-a", 1 - share), ("photo-b", share)))
    for share in SHARES:
        parents = (("photo-a", 1.0), ("photo-b", share), ("photo-a-sharp", -share))
        yield Case(f"photo-a + {share:g} (photo-b - photo-a-sharp)", parents, (NONE, REFIT, REPAIR, BOTH))
    for share in (0.1, 0.2, 0.3):
        yield Case(f"photo-b x photo-a, {share:g}", (("photo-b", 1 - share), ("photo-a", share)), (BOTH,))
    yield Case("anime x photo-b, 0.2", (("anime", 0.8), ("photo-b", 0.2)), (NONE, BOTH))
    yield Case("photo-a x anime, 0.5 (relatives)", (("photo-a", 0.5), ("anime", 0.5)), (NONE, BOTH))


@dataclass(frozen=True)
class Photos:
    """Held-out photos [N,3,128,128], and their reference latents."""

    images: Tensor
    latents: Tensor


def load_photos(folder: Path, taesd: Path) -> Photos:
    """The middle of the held-out photos that are neither in the chart nor in the photo test."""
    squares, used = [], {photo.source for photo in imaging.DEMO_PHOTOS}
    for path in imaging.photo_files(folder, held_out=True):
        if path.stem in used:
            continue
        image = Image.open(path).convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        cut = image.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), Image.LANCZOS)
        squares.append(imaging.to_tensor(cut))
    images = torch.stack(squares)
    with torch.no_grad():
        return Photos(images, taesd_net.load_encoder(taesd, RECIPE.family)(images))


def decoded(vae: Autoencoder, photos: Photos) -> tuple[Tensor, Tensor]:
    """The reference latents decoded, and the photos encoded and decoded."""
    return vae.decode(photos.latents), vae.decode(vae.encode(photos.images))


def contrast(images: Tensor, wanted: Tensor) -> float:
    """Slope of lightness on that of ``wanted``: median over the images."""
    found, right = (lab(each)[..., 0] for each in (images, wanted))
    found, right = (each - each.mean((1, 2), keepdims=True) for each in (found, right))
    return float(np.median((found * right).sum((1, 2)) / np.square(right).sum((1, 2))))


def repaired(merged: Autoencoder, method: str, parents: list[tuple[Reference, float]]) -> Autoencoder:
    """A repaired copy, rounded to fp16 as it would be stored."""
    vae = replace(merged, module=deepcopy(merged.module))
    assert vae.family is not None
    if method == TO_CHART:
        latents = vae.family.to_vae_space(chart_latents()[vae.family.id])
        refit_last_layers(vae, Reference({}, chart_image() * 2 - 1, latents))
    elif method == REFIT:
        refit_last_layers(vae, parents[0][0])
    elif method in (REPAIR, BOTH):
        heal(vae, parents, refit=method == BOTH)
    for parameter in vae.module.parameters():
        parameter.data = parameter.data.half().float()
    return vae


def merge(states: dict[str, State], parents: tuple[tuple[str, float], ...]) -> Autoencoder:
    """Computed in fp32, rounded to fp16."""
    names = states[parents[0][0]]
    total = {name: sum(share * states[vae][name].float() for vae, share in parents) for name in names}
    return kl({name: torch.as_tensor(value).half() for name, value in total.items()}, RECIPE)


def rows(photos: Photos) -> Iterator[list[str]]:
    """A line of the table for each case and method."""
    known = {name for case in cases() for name, _ in case.parents}
    states = {name: load_sample_vae(name) for name in known}
    vaes = {name: kl(state, RECIPE) for name, state in states.items()}
    references = {name: reference(vae) for name, vae in vaes.items()}
    wanted = {
        name: (decoded(vaes[name], photos), decode_photos(vaes[name]))
        for name in {case.parents[0][0] for case in cases()}
    }
    yield measured("photo-b itself, against photo-a", "", vaes["photo-b"], *wanted["photo-a"], photos)
    for case in cases():
        merged, main = merge(states, case.parents), case.parents[0][0]
        parents = [(references[name], share) for name, share in case.parents]
        for method in case.methods:
            vae = repaired(merged, method, parents)
            yield measured(case.name, method, vae, *wanted[main], photos)


def measured(
    name: str, method: str, vae: Autoencoder, wanted: tuple[Tensor, Tensor], parent: PhotoDecodes, photos: Photos
) -> list[str]:
    """One line: held-out photos, the checkup, and the test on the sample photos."""
    cells = [name, method]
    for found, right in zip(decoded(vae, photos), wanted, strict=True):
        cells += [f"{contrast(found, right):.2f}", f"{psnr(found, right.clamp(0, 1)):.1f}"]
    verdict, passed = check_weights(vae).verdict, compare_on_photos(decode_photos(vae), parent).passed
    codes = ", ".join(finding.code for finding in verdict.faults)
    cells += [f"{verdict.status}{f' ({codes})' if codes else ''}", "passed" if passed else "failed"]
    log.info("%s", " | ".join(cells))
    return cells


def table(lines: list[list[str]]) -> str:
    """Markdown."""
    columns = [
        "merge", "repair", "decoder: contrast", "decoder: dB", "round trip: contrast", "round trip: dB", "checkup",
        "photo test",
    ]  # fmt: skip
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [columns, ["---"] * len(columns), *lines]) + "\n"


def sheet(path: Path, share: float) -> None:
    """Parts of two sample photos, decoded by a merge, by the repaired merge, and by its main parent."""
    states = {name: load_sample_vae(name) for name in ("photo-a", "photo-b")}
    vaes = {name: kl(state, RECIPE) for name, state in states.items()}
    merged = merge(states, (("photo-a", 1 - share), ("photo-b", share)))
    healed = repaired(merged, BOTH, [(reference(vaes["photo-a"]), 1 - share), (reference(vaes["photo-b"]), share)])
    photos = load_sample_latents()
    lines = [
        torch.cat([vae.decode(photos[name][..., 16:44, 16:44])[0] for vae in (merged, healed, vaes["photo-a"])], dim=2)
        for name in SHOWN
    ]
    imaging.to_image(torch.cat(lines, dim=1)).save(path, quality=88)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure repairs of grey merges.")
    parser.add_argument("--photos", type=Path, required=True, help="folder of collected photos (see tools/SOURCES.md)")
    parser.add_argument("--taesd", type=Path, required=True, help="folder with TAESD's safetensors files")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="the page to put the table into")
    parser.add_argument("--sheet", type=Path, help="also write an image of a merge, repaired")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(arguments.threads)
    lines = list(rows(load_photos(arguments.photos, arguments.taesd)))
    write_between(arguments.write, BEGIN, END, table(lines))
    if arguments.sheet:
        sheet(arguments.sheet, GREY_SHARE)


if __name__ == "__main__":
    main()
