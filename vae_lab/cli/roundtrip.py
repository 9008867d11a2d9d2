"""``vae-lab roundtrip``: encode and decode an image with several VAEs, and measure the loss."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from vae_lab.cli.arguments import UNUSABLE, Commands, add_overwrite_option, add_vae_option, at_least, display_name
from vae_lab.cli.console import progress_bar
from vae_lab.cli.output import check_folder, write_round_trip
from vae_lab.comparison import Coder, round_trip
from vae_lab.comparison.round_trip import coder_of
from vae_lab.images import LONGEST_SIDE, prepared, read_image

__all__ = ["add_roundtrip"]


def add_roundtrip(commands: Commands) -> None:
    """Add the command to the parser."""
    roundtrip = commands.add_parser("roundtrip", help="encode and decode an image with several VAEs: what is lost")
    roundtrip.add_argument("image", type=Path, help="a PNG, JPEG, WebP, BMP, GIF or TIFF file")
    add_vae_option(roundtrip)
    roundtrip.add_argument(
        "-o", "--out", type=Path, required=True, metavar="FOLDER",
        help="folder for the images, loss maps, sheet.png and roundtrip.json",
    )  # fmt: skip
    roundtrip.add_argument(
        "--longest", type=at_least(8), default=LONGEST_SIDE, metavar="PIXELS",
        help="downscale images whose longer side exceeds this (default: %(default)s)",
    )  # fmt: skip
    roundtrip.add_argument("--device", default="cpu", help="torch device, such as cuda (default: %(default)s)")
    add_overwrite_option(roundtrip)
    roundtrip.set_defaults(function=_roundtrip)


def _roundtrip(args: argparse.Namespace) -> int:
    check_folder(args.out, overwrite=args.overwrite)
    source = read_image(args.image)
    fit = prepared(source.image, args.longest)
    coders = [Coder(display_name(path, args.vae), partial(coder_of, path, device=args.device)) for path in args.vae]
    with progress_bar("encoding and decoding", "step") as progress:
        trip = round_trip(fit.image, coders, progress=progress)
    write_round_trip(trip, args.image.name, fit.remarks, args.out, overwrite=args.overwrite)
    return UNUSABLE if any(result.error for result in trip) else 0
