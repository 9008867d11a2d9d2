"""Run the checkup on VAEs of the true size of SD1.5's, and put a table into docs/checkup-measurements.md.

    python -m tools.measure_true_size [--work WORK] [--write docs/checkup-measurements.md]

The two VAEs are those of ``TRUE_SIZE_RECIPES``. Without a trained one in WORK, the one with which its training begins:
a small VAE of the sample set, widened, with one percent of noise on the weights of its convolutions.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from pathlib import Path

import torch

from tools.measure_checkup import State, kl, lerp, table_of_numbers
from tools.pages import write_between
from tools.train_vaes import TRUE_SIZE_RECIPES, Recipe, load_model
from vae_lab.checkup import check_weights
from vae_lab.checkup.probe import probe

log = logging.getLogger("measure_true_size")

BEGIN, END = "<!-- true size: begin -->", "<!-- true size: end -->"
SHARES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
NOISE = 0.01


def weights(recipe: Recipe, work: Path) -> State:
    """In fp16, as most VAEs are published."""
    state = load_model(recipe, work).state_dict()
    if not (work / f"{recipe.name}.safetensors").exists():
        generator = torch.Generator().manual_seed(recipe.seed)
        for value in state.values():
            if value.ndim == 4:
                value *= 1 + NOISE * torch.randn(value.shape, generator=generator)
    return {name: value.half() for name, value in state.items()}


def cases(a: State, b: State) -> Iterator[tuple[str, State, str]]:
    """Name, weights, and the verdict that is certain by how they were made, or ""."""
    yield "true-a", a, "healthy"
    yield "true-b", b, "healthy"
    for share in SHARES:
        yield f"true-a x true-b, {share:g}", lerp(a, b, share), "broken" if share >= 0.1 else ""
    yield "true-a x true-b, 0.3, decoder only", lerp(a, b, 0.3, "decoder."), "broken"
    faint = {name: value * 0.35 if "decoder.conv_out" in name else value for name, value in a.items()}
    yield "true-a, decoder.conv_out x 0.35", faint, "broken"
    nan = {name: value.clone() for name, value in a.items()}
    nan["decoder.up.1.block.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    yield "true-a, NaN in one weight", nan, "broken"
    yield "true-a, all zero", {name: value * 0 for name, value in a.items()}, "broken"


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work"), help="folder with the trained VAEs, if any")
    parser.add_argument("--write", type=Path, help="put the table into this file, between its two marks")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    first, second = TRUE_SIZE_RECIPES
    rows = []
    for name, state, wanted in cases(weights(first, arguments.work), weights(second, arguments.work)):
        autoencoder = kl(state, first)
        checkup = check_weights(autoencoder, None)
        codes = ", ".join(finding.code for finding in checkup.verdict.faults)
        verdict = f"{checkup.verdict.status}{f' ({codes})' if codes else ''}"
        right = not wanted or checkup.verdict.status == wanted
        rows.append((name, probe(autoencoder), wanted or "any", verdict if right else f"**{verdict}**"))
        log.info("%s: %s, must be %s", name, verdict, wanted or "any")
    write_between(arguments.write, BEGIN, END, table_of_numbers(rows) + "\n")


if __name__ == "__main__":
    main()
