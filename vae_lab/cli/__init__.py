"""``vae-lab …`` and ``python -m vae_lab …``: the command line.

Exit codes: 0 all healthy, 1 something is not healthy, 2 a file could not be read or the command line is wrong,
3 nothing is known to be wrong but a VAE is of a kind that cannot be judged, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from vae_lab.cli.arguments import INTERRUPTED, UNUSABLE
from vae_lab.cli.bake import add_bake
from vae_lab.cli.certify import add_certify
from vae_lab.cli.console import say, set_up_console
from vae_lab.cli.decode import add_decode
from vae_lab.cli.dedupe import add_dedupe
from vae_lab.cli.demo import add_demo
from vae_lab.cli.download import add_download
from vae_lab.cli.extract import add_extract
from vae_lab.cli.fix import add_fix
from vae_lab.cli.heal import add_heal
from vae_lab.cli.inspect import add_inspect
from vae_lab.cli.roundtrip import add_roundtrip
from vae_lab.cli.scan import add_scan
from vae_lab.cli.serve import add_serve
from vae_lab.cli.strip import add_strip
from vae_lab.errors import VaeLabError
from vae_lab.version import __version__

__all__ = ["build_parser", "main"]

_COMMANDS = (
    add_inspect, add_scan, add_fix, add_download, add_certify, add_decode, add_roundtrip, add_bake, add_strip,
    add_extract, add_dedupe, add_heal, add_serve, add_demo,
)  # fmt: skip
_EPILOG = (
    "exit codes: 0 all healthy; 1 something is not healthy; 2 a file cannot be read, or the command is wrong; "
    "3 nothing is known to be wrong, but a VAE is of a kind that cannot be judged"
)


def main(arguments: Sequence[str] | None = None, *, prog: str = "vae-lab") -> int:
    """Run one command; returns the exit code.

    Args:
        arguments: of the command line; None for those of this process.
        prog: how the user called the program, for usage messages.
    """
    set_up_console()
    args = build_parser(prog).parse_args(arguments)
    try:
        return args.function(args)
    except VaeLabError as error:
        say(str(error), sys.stderr)
    except OSError as error:  # a folder that cannot be written, a full disk
        say(f"{error.filename}: {error.strerror}" if error.filename else str(error), sys.stderr)
    except KeyboardInterrupt:
        return INTERRUPTED
    return UNUSABLE


def build_parser(prog: str = "vae-lab") -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog=prog, description="Compare, check and manage Stable Diffusion VAEs.", epilog=_EPILOG
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add_command in _COMMANDS:
        add_command(commands)
    return parser
