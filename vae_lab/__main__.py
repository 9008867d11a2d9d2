"""``python -m vae_lab``."""

import sys

from vae_lab.cli import main

sys.exit(main(prog="python -m vae_lab"))
