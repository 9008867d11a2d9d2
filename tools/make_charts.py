"""Make ``vae_lab/data/chart_latents.safetensors``: the colour chart's latents in each family.

    python tools/make_charts.py --taesd DIR

DIR holds taesd_encoder.safetensors and taesdxl_encoder.safetensors (github.com/madebyollin/taesd, MIT).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import safetensors.torch

from vae_lab.autoencoders import open_vae
from vae_lab.charts import chart_image

_ENCODERS = {"sd1": "taesd_encoder.safetensors", "sdxl": "taesdxl_encoder.safetensors"}
_OUT = Path(__file__).parent.parent / "vae_lab" / "data" / "chart_latents.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--taesd", type=Path, required=True, help="folder with the TAESD encoders")
    folder = parser.parse_args().taesd
    latents = {}
    for family, name in _ENCODERS.items():
        with open_vae(folder / name) as file:
            latents[family] = file.load(family=family).encode(chart_image()).half().contiguous()
    _OUT.parent.mkdir(exist_ok=True)
    safetensors.torch.save_file(latents, _OUT, {"made_by": "tools/make_charts.py", "encoder": "TAESD (MIT)"})


if __name__ == "__main__":
    main()
