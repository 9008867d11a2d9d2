"""``vae-lab demo``: the stand-alone app, or one comparison, on the sample set."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from vae_lab.cli.arguments import UNUSABLE, Commands, add_overwrite_option, add_page_options
from vae_lab.cli.console import progress_bar
from vae_lab.cli.output import check_folder, write_comparison
from vae_lab.cli.serve import serve_page
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.samples import build_sample_set

__all__ = ["add_demo"]


def add_demo(commands: Commands) -> None:
    """Add the command to the parser."""
    demo = commands.add_parser("demo", help="start the stand-alone app on the sample set")
    demo.add_argument("--headless", action="store_true", help="write one comparison to FOLDER and start no app")
    demo.add_argument(
        "-o", "--out", type=Path, metavar="FOLDER", help="folder for all files (default: a temporary one)"
    )
    add_overwrite_option(demo)
    add_page_options(demo)
    demo.set_defaults(function=_demo)


def _demo(args: argparse.Namespace) -> int:
    out = args.out or Path(tempfile.gettempdir()) / "vae-lab-demo"
    overwrite = args.overwrite or args.out is None
    if args.headless:
        check_folder(out, overwrite=overwrite)
    models = out / "models"
    build_sample_set(models)
    host = StandaloneHost(Folders.of_models(models, webui=True))
    host.select_checkpoint("grey-merge.safetensors")
    if not args.headless:
        serve_page(host, port=args.port, listen=args.listen, open_browser=not args.no_browser)
        return 0
    generation = host.generations.newest_first()[0]
    names = [entry.name for entry in host.identify()]
    with progress_bar("decoding", "image") as progress:
        comparison = host.compare(generation.id, names, progress)
    write_comparison(comparison, generation, out, overwrite=overwrite)
    return 0 if comparison.decoded else UNUSABLE  # one VAE is refused on purpose: it belongs to another family
