"""Run the checkup and the watch on VAEs whose condition is known, and write docs/checkup-measurements.md.

    python -m tools.measure_checkup --photos PHOTOS --taesd TAESD --work WORK [--write docs/checkup-measurements.md]

The thresholds were chosen on the VAEs of the sample set, on TAESD's real weights, and on merges and damage made from
these; those of ``HELD_OUT`` have moved them since. The VAEs of ``LAST`` were trained after the thresholds were fixed:
the verdicts on them, and on merges and damage made from them, show whether the thresholds hold. WORK contains both,
as written by ``tools.train_vaes``.

What a VAE really loses is measured on the held-out photos, not on the chart: the slope of lightness and of colour of
the decoded photos on those of the same photos decoded by its main parent, at 1/16 of their size.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from skimage.color import rgb2lab
from torch import Tensor
from torch.nn import functional as F

from tools import imaging, taesd_net
from tools.pages import write_between
from tools.train_vaes import HELD_OUT_RECIPES, LAST_RECIPES, RECIPES, Recipe
from vae_lab.autoencoders import Autoencoder
from vae_lab.autoencoders.kl import AutoencoderKL, KLArchitecture
from vae_lab.autoencoders.taesd import TaesdArchitecture
from vae_lab.autoencoders.taesd.module import Taesd
from vae_lab.checkup import Checkup, check_weights, judge_output
from vae_lab.checkup.probe import Probe, Reading, probe
from vae_lab.latents.family import FAMILIES, Family
from vae_lab.samples import load_sample_vae

log = logging.getLogger("measure_checkup")

State = dict[str, Tensor]
SHARES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
SIZE = 160  # of the photo crops, in pixels
QUARTER, TENTH = 0.75, 0.9  # of contrast or colour kept: below is broken, below is at least suspect
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


@dataclass(frozen=True)
class Case:
    """One VAE, and what is known of it.

    Attributes:
        name: for the table.
        autoencoder: of the family whose latents it is given.
        parent: the faithful VAE that it was made from; itself for those.
        must: ``healthy`` or ``broken`` where that is certain by how it was made; "" where the photos decide.
        hint: the family of the checkpoint it is taken to be in.
    """

    name: str
    autoencoder: Autoencoder
    parent: Autoencoder
    must: str = ""
    hint: Family | None = None


def kl(state: State, recipe: Recipe, family: str | None = None) -> Autoencoder:
    """An autoencoder of these weights; taken to be of ``family``."""
    model = AutoencoderKL(recipe.config).eval().requires_grad_(False)
    model.load_state_dict({name: value.float() for name, value in state.items()})
    return Autoencoder(recipe.name, "", KLArchitecture(), model, FAMILIES[family or recipe.family], 4)


def taesd(folder: Path, family: str, decoder: State | None = None) -> Autoencoder:
    """TAESD's published weights, with another decoder where one is given."""
    model = Taesd(4, encoder=True, decoder=True).eval()
    stem = taesd_net.FILE_STEMS[family]
    halves = {half: load_file(folder / f"{stem}_{half}.safetensors") for half in ("encoder", "decoder")}
    halves["decoder"] = decoder or halves["decoder"]
    model.load_state_dict({f"taesd_{half}.{n}": v.float() for half, s in halves.items() for n, v in s.items()})
    return Autoencoder(stem, "", TaesdArchitecture(), model.requires_grad_(False), FAMILIES[family], 4)


def lerp(a: State, b: State, share: float, only: str = "") -> State:
    """(1 - share) a + share b; of the tensors that begin with ``only``."""
    return {n: torch.lerp(a[n].float(), b[n].float(), share) if n.startswith(only) else a[n].float() for n in a}


def changed(state: State, factor: float, *names: str) -> State:
    """``state`` with some tensors multiplied."""
    return {n: v.float() * factor if n in names else v.float() for n, v in state.items()}


def merges(
    a: str, b: str, states: dict[str, State], recipe: Recipe, parent: Autoencoder
) -> Iterator[tuple[str, Autoencoder, Autoencoder]]:
    for share in SHARES:
        yield f"{a} x {b}, {share:g}", kl(lerp(states[a], states[b], share), recipe), parent
    for share in (0.05, 0.1, 0.2, 0.3):
        yield f"{a} x {b}, {share:g}, decoder only", kl(lerp(states[a], states[b], share, "decoder."), recipe), parent


def damage(state: State, recipe: Recipe) -> Iterator[tuple[str, Autoencoder]]:
    """Weights that are broken for certain."""
    out = ("decoder.conv_out.weight", "decoder.conv_out.bias")
    for factor in (0.0, 0.35, 0.5, 2.0, 2.5):
        yield f"conv_out x {factor:g}", kl(changed(state, factor, *out), recipe)
    yield "latents x 0.4", kl(changed(state, 0.4, "post_quant_conv.weight"), recipe)
    yield "all zero", kl({name: value.float() * 0 for name, value in state.items()}, recipe)
    nan = changed(state, 1.0)
    nan["decoder.up.1.block.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    yield "NaN in one weight", kl(nan, recipe)


def family_cases(names: list[str], states: dict[str, State], recipes: dict[str, Recipe]) -> Iterator[Case]:
    """Faithful VAEs, also in half precision, and harmless merges of relatives."""
    for name in names:
        own = kl(states[name], recipes[name])
        yield Case(name, own, own, "healthy")
        half = kl({n: v.half().float() for n, v in states[name].items()}, recipes[name])
        half.module.bfloat16()
        yield Case(f"{name}, in bfloat16", half, own, "healthy")


def chosen_on(folder: Path) -> Iterator[Case]:
    """The VAEs that the thresholds were chosen on."""
    recipes = {recipe.name: recipe for recipe in RECIPES}
    states = {name: load_sample_vae(name) for name in recipes}
    yield from family_cases(list(recipes), states, recipes)
    a = kl(states["photo-a"], recipes["photo-a"])
    for one, other in (("photo-a-smooth", "photo-a-sharp"), ("photo-a", "anime")):
        yield Case(f"{one} x {other}, 0.5", kl(lerp(states[one], states[other], 0.5), recipes["photo-a"]), a, "healthy")
    for family in ("sd1", "sdxl"):
        own = taesd(folder, family)
        yield Case(f"TAESD {FAMILIES[family].title}", own, own, "healthy")
    for name, made, parent in merges("photo-a", "photo-b", states, recipes["photo-a"], a):
        yield Case(name, made, parent)
    decoders = [load_file(folder / f"{taesd_net.FILE_STEMS[f]}_decoder.safetensors") for f in ("sd1", "sdxl")]
    for share in (0.02, 0.05, 0.1, 0.2, 0.3, 0.5):
        yield Case(f"TAESD x TAESDXL, {share:g}", taesd(folder, "sd1", lerp(*decoders, share)), taesd(folder, "sd1"))
    for name, made in damage(states["photo-a"], recipes["photo-a"]):
        yield Case(f"photo-a: {name}", made, a, "broken")
    encoder_only = lerp(
        lerp(states["photo-a"], states["photo-b"], 0.5, "encoder."), states["photo-b"], 0.5, "quant_conv."
    )
    yield Case("photo-a: encoder merged", kl(encoder_only, recipes["photo-a"]), a, "broken")
    yield Case(
        "sdxl-c in an SD1 checkpoint", kl(states["sdxl-c"], recipes["sdxl-c"], "sd1"), a, "broken", hint=FAMILIES["sd1"]
    )
    yield Case("photo-a in an SDXL checkpoint", replace(a, family=FAMILIES["sdxl"]), a, "broken", hint=FAMILIES["sdxl"])


@dataclass(frozen=True)
class Plan:
    """A set of trained VAEs, and what to make of them: pairs of names to merge, and names to damage.

    Attributes:
        relatives: what comes of these, half and half, must stay healthy; the third is their parent.
        strangers: of these every share is tried.
        sd1, sdxl: one each, to be put into checkpoints of the other family.
    """

    recipes: tuple[Recipe, ...]
    relatives: tuple[tuple[str, str, str], ...]
    strangers: tuple[tuple[str, str], ...]
    damaged: tuple[str, ...]
    sd1: str
    sdxl: str


HELD_OUT = Plan(
    HELD_OUT_RECIPES,
    relatives=(
        ("check-d-smooth", "check-d-sharp", "check-d"),
        ("check-e", "check-e-anime", "check-e"),
        ("check-g-smooth", "check-g-sharp", "check-g"),
    ),
    strangers=(("check-d", "check-e"), ("check-e", "check-g"), ("check-g", "check-d"), ("check-f", "sdxl-c")),
    damaged=("check-d", "check-e", "check-f"),
    sd1="check-e",
    sdxl="check-f",
)
LAST = Plan(
    LAST_RECIPES,
    relatives=(("last-h-smooth", "last-h-sharp", "last-h"), ("last-i", "last-i-anime", "last-i")),
    strangers=(("last-h", "last-i"), ("last-i", "last-h"), ("last-j", "sdxl-c")),
    damaged=("last-h", "last-i", "last-j"),
    sd1="last-h",
    sdxl="last-j",
)


def held_out(work: Path, plan: Plan) -> Iterator[Case]:
    """The VAEs of a plan, their merges, and the damaged ones."""
    recipes = {recipe.name: recipe for recipe in plan.recipes} | {"sdxl-c": RECIPES[2]}
    states = {recipe.name: load_file(work / f"{recipe.name}.safetensors") for recipe in plan.recipes}
    yield from family_cases(list(states), states, recipes)
    states["sdxl-c"] = load_sample_vae("sdxl-c")
    own = {name: kl(states[name], recipes[name]) for name in states}
    for one, other, parent in plan.relatives:
        made = kl(lerp(states[one], states[other], 0.5), recipes[one])
        yield Case(f"{one} x {other}, 0.5", made, own[parent], "healthy")
    for one, other in plan.strangers:
        for name, made, parent in merges(one, other, states, recipes[one], own[one]):
            yield Case(name, made, parent)
    for name in plan.damaged:
        for what, made in damage(states[name], recipes[name]):
            yield Case(f"{name}: {what}", made, own[name], "broken")
    for name, other in ((plan.sdxl, "sd1"), (plan.sd1, "sdxl")):
        family = FAMILIES[other]
        vae = replace(own[name], family=family)
        yield Case(f"{name} in an {family.title} checkpoint", vae, own[plan.sd1], "broken", hint=family)


# --- what is lost, by photos --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Photos:
    """Held-out photos [N,3,160,160], and their latents by family."""

    images: Tensor
    latents: dict[str, Tensor]


def load_photos(folder: Path, taesd_folder: Path) -> Photos:
    """The middle of every other held-out photo."""
    squares = []
    for path in imaging.photo_files(folder, held_out=True)[::2]:
        image = Image.open(path).convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        cut = image.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), Image.LANCZOS)
        squares.append(imaging.to_tensor(cut))
    images = torch.stack(squares)
    encoders = {family: taesd_net.load_encoder(taesd_folder, family) for family in taesd_net.SCALING}
    with torch.no_grad():
        return Photos(images, {family: encoder(images) for family, encoder in encoders.items()})


def lab(images: Tensor) -> np.ndarray:
    """[B,3,H,W] in 0..1 -> CIELAB at 1/16 of the size, [B,H/16,W/16,3]."""
    small = F.avg_pool2d(torch.nan_to_num(images.float()).clamp(0, 1), 16)
    return rgb2lab(small.permute(0, 2, 3, 1).double().numpy())


def kept(decoded: Tensor, reference: Tensor) -> float:
    """What is kept of the contrast or of the colour of ``reference``, the lesser: medians over the images."""
    found, wanted = lab(decoded), lab(reference)
    a, b = (x[..., 0] - x[..., 0].mean((1, 2), keepdims=True) for x in (found, wanted))
    light = (a * b).sum((1, 2)) / np.square(b).sum((1, 2))
    colour = (found[..., 1:] * wanted[..., 1:]).sum((1, 2, 3)) / np.square(wanted[..., 1:]).sum((1, 2, 3))
    return float(min(np.median(light), np.median(colour)))


@lru_cache(maxsize=2)
def decoded_photos(vae: Autoencoder, photos: Photos) -> tuple[Tensor, Tensor]:
    """The photos' reference latents decoded, and the photos encoded and decoded, by one VAE."""
    assert vae.family is not None
    return vae.decode(photos.latents[vae.family.id]), vae.decode(vae.encode(photos.images))


def truth(case: Case, photos: Photos) -> tuple[float, float, float]:
    """What txt2img keeps of the photos, and what txt2img and img2img keep of what the parent makes of them."""
    ways = decoded_photos(case.autoencoder, photos)
    absolute = kept(ways[0], photos.images)
    if case.autoencoder is case.parent:
        return absolute, 1.0, 1.0
    txt2img, img2img = (kept(*pair) for pair in zip(ways, decoded_photos(case.parent, photos), strict=True))
    return absolute, txt2img, img2img


_NUMBERS: dict[str, Callable[[Reading], float]] = {
    "white - black": lambda reading: reading.contrast,
    "patches": lambda reading: reading.gain_l,
    "photo": lambda reading: reading.photo_gain_l,
    "colour": lambda reading: reading.colour_retained,
    "all": lambda reading: reading.overall,
}
"""The numbers that decide about a loss; see vae_lab/checkup/judge.py."""
_COLUMNS = (*_NUMBERS, *(f"own: {name}" for name in _NUMBERS))


# --- the tables ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One line of the table of VAEs.

    Attributes:
        absolute: what txt2img keeps of the contrast or colour of the photos themselves.
        txt2img, img2img: the same of what the parent makes of them.
    """

    case: Case
    absolute: float
    txt2img: float
    img2img: float
    checkup: Checkup
    probe: Probe

    @property
    def wanted(self) -> str:
        """The verdict that it must have."""
        if self.case.must == "healthy" and self.absolute < TENTH:
            return "any"
        if self.case.must:
            return self.case.must
        worst = min(self.txt2img, self.img2img)
        return "broken" if worst < QUARTER else "at least suspect" if worst < TENTH else "any"

    @property
    def right(self) -> bool:
        status = self.checkup.verdict.status
        return {
            "healthy": status == "healthy",
            "broken": status == "broken",
            "at least suspect": status != "healthy",
            "any": True,
        }[self.wanted]


def measure(case: Case, photos: Photos) -> Row:
    """The checkup of one VAE, and the truth."""
    kept_of = truth(case, photos)
    return Row(case, *kept_of, check_weights(case.autoencoder, case.hint), probe(case.autoencoder))


def table(rows: list[Row]) -> str:
    """Markdown."""
    columns = ["VAE", "of photos", "txt2img keeps", "img2img keeps", *_COLUMNS, "expected", "verdict"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row in rows:
        cells = [row.case.name, f"{row.absolute:.2f}", f"{row.txt2img:.2f}", f"{row.img2img:.2f}", *numbers(row.probe)]
        codes = ", ".join(finding.code for finding in row.checkup.verdict.faults)
        verdict = f"{row.checkup.verdict.status}{f' ({codes})' if codes else ''}"
        cells += [row.wanted, verdict if row.right else f"**{verdict}**"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def table_of_numbers(rows: list[tuple[str, Probe, str, str]]) -> str:
    """Markdown, without photos: name, probe, expected and found verdict of each VAE."""
    columns = ["VAE", *_COLUMNS, "expected", "verdict"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines += [f"| {' | '.join([name, *numbers(one), wanted, found])} |" for name, one, wanted, found in rows]
    return "\n".join(lines)


def numbers(one: Probe) -> list[str]:
    """The chart's numbers, by the decoder and by encoder and decoder."""
    return [
        "" if reading is None else f"{of(reading):.2f}"
        for reading in (one.reference, one.own)
        for of in _NUMBERS.values()
    ]


def margins(rows: list[Row]) -> str:
    """How low the healthy ones come in every number that decides."""
    healthy = [row for row in rows if row.wanted == "healthy"]
    lines = ["| number | decoder only, lowest | encoder and decoder, lowest |", "|---|---|---|"]
    for name, of in _NUMBERS.items():
        lowest = []
        for way in ("reference", "own"):
            readings = [(getattr(row.probe, way), row.case.name) for row in healthy]
            low, whose = min((of(reading), name) for reading, name in readings if reading is not None)
            lowest.append(f"{low:.2f} ({whose})")
        lines.append(f"| {name} | {' | '.join(lowest)} |")
    return "\n".join(lines)


def score(rows: list[Row]) -> str:
    """How many were judged right."""
    lines = ["| expected | VAEs | correct |", "|---|---|---|"]
    for wanted in ("healthy", "broken", "at least suspect"):
        those = [row for row in rows if row.wanted == wanted]
        lines.append(f"| {wanted} | {len(those)} | {sum(row.right for row in those)} |")
    return "\n".join(lines)


# --- the watch ----------------------------------------------------------------------------------------------------


def kinds(images: Tensor) -> dict[str, Tensor]:
    """Photos, and what is grey on purpose. [N,3,H,W] in 0..1 -> the same."""
    grey = (images * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True).expand_as(images)
    fog = torch.tensor([0.80, 0.82, 0.84])[:, None, None]
    flat = images.mean((2, 3), keepdim=True).expand_as(images)
    return {
        "normal": images,
        "fog, 60 %": images * 0.4 + fog * 0.6,
        "fog, 85 %": images * 0.15 + fog * 0.85,
        "night": (images**1.8) * 0.25,
        "black and white": grey,
        "contrast x 0.3": (images - 0.5) * 0.3 + 0.5,
        "contrast x 0.1": (images - 0.5) * 0.1 + 0.5,
        "colour x 0.25": grey + (images - grey) * 0.25,
        "flat colour": flat,
    }


def flagged(case: Case, latents: Tensor) -> np.ndarray:
    """[N,2] of bool: for each latent whether its image is flagged as broken, with the VAE given and without."""
    family = case.autoencoder.family
    assert family is not None
    found = []
    for latent in latents.split(1):
        image = case.autoencoder.decode_unclamped(latent)
        verdicts = [judge_output(latent, image, family=family, autoencoder=vae) for vae in (case.autoencoder, None)]
        found.append([verdict.status == "broken" for verdict in verdicts])
    return np.array(found)


def watch_table(rows: list[Row], photos: Photos, taesd_folder: Path) -> str:
    """Flagged images by kind: of broken VAEs, which should be all, and of healthy ones, which must be none."""
    encoders = {family: taesd_net.load_encoder(taesd_folder, family) for family in taesd_net.SCALING}
    healthy = [row for row in rows if row.wanted == "healthy" and "bfloat16" not in row.case.name]
    # Those whose decoder is broken: an encoder leaves no trace in what txt2img decodes.
    broken = [
        row for row in rows
        if row.wanted == "broken" and ((row.case.must and "encoder" not in row.case.name) or row.txt2img < QUARTER)
    ]  # fmt: skip
    lines = [
        "| images | healthy VAEs: flagged | broken VAEs: flagged | healthy, VAE not given | broken, VAE not given |",
        "|---|---|---|---|---|",
    ]
    totals = np.zeros((4, 2), int)
    for kind, images in kinds(photos.images).items():
        with torch.no_grad():
            latents = {family: encoder(images) for family, encoder in encoders.items()}
        counts = []
        for those in (healthy, broken):
            results = [flagged(row.case, latents[row.case.autoencoder.family.id]) for row in those]
            joined = np.concatenate(results)
            counts += [(int(joined[:, way].sum()), len(joined)) for way in (0, 1)]
        order = [counts[0], counts[2], counts[1], counts[3]]
        totals += np.array(order)
        lines.append(f"| {kind} | " + " | ".join(f"{n} of {of}" for n, of in order) + " |")
        log.info("watch: %s done", kind)
    lines.append("| all | " + " | ".join(f"{n} of {of}" for n, of in totals.tolist()) + " |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Run the checkup on VAEs whose condition is known.")
    parser.add_argument("--photos", type=Path, required=True, help="folder of collected photos (see tools/SOURCES.md)")
    parser.add_argument("--taesd", type=Path, required=True, help="folder with TAESD's safetensors files")
    parser.add_argument("--work", type=Path, required=True, help="folder with the trained VAEs")
    parser.add_argument(
        "--sets", nargs="+", choices=("chosen", "held-out", "last"), default=["chosen", "held-out", "last"]
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only VAEs whose names contain one of these")
    parser.add_argument("--write", type=Path, help="put the tables into this file, between its two marks")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--no-watch", action="store_true", help="leave the watch out, which takes longest")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    torch.set_grad_enabled(False)
    photos = load_photos(arguments.photos, arguments.taesd)
    few = Photos(photos.images[::2], {family: latents[::2] for family, latents in photos.latents.items()})
    parts = []
    sets = {
        "chosen": ("Chosen on", chosen_on(arguments.taesd)),
        "held-out": ("Held out", held_out(arguments.work, HELD_OUT)),
        "last": ("Trained last", held_out(arguments.work, LAST)),
    }
    for title, cases in map(sets.__getitem__, arguments.sets):
        rows = []
        for case in cases:
            if arguments.only and not any(name in case.name for name in arguments.only):
                continue
            rows.append(measure(case, photos))
            log.info("%s: %s, must be %s", case.name, rows[-1].checkup.verdict.status, rows[-1].wanted)
        found = [f"### {title}", score(rows), margins(rows), table(rows)]
        log.info("%s", "\n\n".join(found))
        parts += found
        if not arguments.no_watch:
            parts.append(watch_table(rows, few, arguments.taesd))
    text = "\n\n".join(parts) + "\n"
    write_between(arguments.write, BEGIN, END, text)


if __name__ == "__main__":
    main()
