"""``vae-lab serve``: the stand-alone app over your folder of models."""

from __future__ import annotations

import argparse
from pathlib import Path

from vae_lab.cli.arguments import Commands, add_page_options
from vae_lab.cli.console import say
from vae_lab.errors import HostError
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.service.background_checkup import BackgroundCheckup

__all__ = ["add_serve", "serve_page"]


def add_serve(commands: Commands) -> None:
    """Add the command to the parser."""
    serve = commands.add_parser("serve", help="start the stand-alone app on your own models")
    serve.add_argument(
        "--models", type=Path, required=True, metavar="FOLDER",
        help="folder with Stable-diffusion/ and VAE/, like the WebUI's models/; saved latents in latents/",
    )  # fmt: skip
    serve.add_argument("--device", default="cpu", help="torch device, such as cuda (default: %(default)s)")
    add_page_options(serve)
    serve.set_defaults(function=_serve)


def _serve(args: argparse.Namespace) -> int:
    if not args.models.is_dir():
        raise HostError(f"{args.models} is not a folder. Pass a folder like the WebUI's models/ to --models.")
    host = StandaloneHost(Folders.of_models(args.models, webui=True), device=args.device)
    serve_page(host, port=args.port, listen=args.listen, open_browser=not args.no_browser)
    return 0


def serve_page(host: StandaloneHost, *, port: int, listen: bool, open_browser: bool) -> None:
    """Serve the app until the user stops it with Ctrl+C.

    Raises:
        HostError: the port is in use, or may not be used.
    """
    checkup = BackgroundCheckup(host)
    host.on_checkpoint_changed = checkup.checkpoint_changed
    checkup.checkpoint_changed()
    from vae_lab.ui.app import serve  # gradio takes seconds to import, and only these commands need it

    serve(host, port=port, listen=listen, open_browser=open_browser, announce=say)
