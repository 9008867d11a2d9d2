"""Make the chart's photo, and ``vae_lab/latents/chart_latents.safetensors``: the chart's latents in each family.

    python -m tools.make_charts --taesd DIR

DIR holds taesd_encoder.safetensors and taesdxl_encoder.safetensors (github.com/madebyollin/taesd, MIT).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import safetensors.torch
from PIL import Image

from vae_lab.autoencoders import open_vae
from vae_lab.latents.chart import COLUMNS, PATCH, chart_image
from vae_lab.samples import sample_photos

_ENCODERS = {"sd1": "taesd_encoder.safetensors", "sdxl": "taesdxl_encoder.safetensors"}
_DATA = Path(__file__).parent.parent / "vae_lab" / "latents"


def make_photo() -> None:
    """The upper half of the sample photo of the astronaut, as wide as the chart."""
    photo = Image.open(sample_photos()["astronaut"]).convert("RGB")
    upper = photo.crop((0, 0, photo.width, photo.height // 2))
    upper.resize((COLUMNS * PATCH, COLUMNS * PATCH // 2), Image.LANCZOS).save(_DATA / "chart_photo.png", optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--taesd", type=Path, required=True, help="folder with the TAESD encoders")
    folder = parser.parse_args().taesd
    _DATA.mkdir(exist_ok=True)
    make_photo()
    latents = {}
    for family, name in _ENCODERS.items():
        with open_vae(folder / name) as file:
            latents[family] = file.load(family=family).encode(chart_image()).half().contiguous()
    metadata = {"made_by": "tools/make_charts.py", "encoder": "TAESD (MIT)"}
    safetensors.torch.save_file(latents, _DATA / "chart_latents.safetensors", metadata)


if __name__ == "__main__":
    main()
