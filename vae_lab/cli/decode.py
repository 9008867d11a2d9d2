"""``vae-lab decode``: decode latents from a file with several VAEs."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from vae_lab.cli.arguments import UNUSABLE, Commands, add_overwrite_option, add_vae_option, display_name
from vae_lab.cli.console import progress_bar
from vae_lab.cli.output import check_folder, write_comparison
from vae_lab.comparison import Candidate, compare_candidates
from vae_lab.decoding import decoder_of
from vae_lab.latents import load_latents

__all__ = ["add_decode"]


def add_decode(commands: Commands) -> None:
    """Add the command to the parser."""
    decode = commands.add_parser("decode", help="decode latents with several VAEs, side by side")
    decode.add_argument("latents", type=Path, help="a .safetensors file with one tensor [B,C,h,w] in model space")
    add_vae_option(decode)
    decode.add_argument(
        "-o", "--out", type=Path, required=True, metavar="FOLDER",
        help="folder for the images, sheet.png and comparison.json",
    )  # fmt: skip
    add_overwrite_option(decode)
    decode.set_defaults(function=_decode)


def _decode(args: argparse.Namespace) -> int:
    check_folder(args.out, overwrite=args.overwrite)
    generation = load_latents(args.latents)
    family = generation.family
    candidates = [Candidate(display_name(path, args.vae), partial(decoder_of, path, family)) for path in args.vae]
    with progress_bar("decoding", "image") as progress:
        comparison = compare_candidates(generation.latents, candidates, family, progress=progress)
    write_comparison(comparison, generation, args.out, overwrite=args.overwrite)
    return UNUSABLE if any(result.error for result in comparison) else 0
