"""Make the demo's latents and small photos, with TAESD's encoder.

    python -m tools.make_latents --photos PHOTOS --taesd TAESD --out vae_lab/samples

Writes ``latents.safetensors`` (SD1, every demo photo), ``latents-sdxl.safetensors`` (two of them) and
``photos/*.jpg``. Latents are [1,4,64,64], fp32, in model space, of photos of 512 x 512 pixels.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import torch
from safetensors.torch import save_file

from tools import imaging, taesd_net

log = logging.getLogger("make_latents")

FILES = {
    "sd1": ("latents.safetensors", tuple(photo.name for photo in imaging.DEMO_PHOTOS)),
    "sdxl": ("latents-sdxl.safetensors", ("astronaut", "brushes")),
}


def make(photos: Path, taesd: Path, out: Path) -> None:
    """Write everything to ``out``; the same photos always give the same files."""
    (out / "photos").mkdir(parents=True, exist_ok=True)
    demo = {photo.name: photo for photo in imaging.DEMO_PHOTOS}
    images = {name: imaging.demo_image(photo, photos) for name, photo in demo.items()}
    for name, image in images.items():
        path = out / "photos" / f"{name}.jpg"
        imaging.small_jpeg(imaging.to_image(image), path)
        log.info("%s: %.1f kB", path.name, path.stat().st_size / 1e3)
    for family, (file, names) in FILES.items():
        encoder = taesd_net.load_encoder(taesd, family)
        with torch.no_grad():
            latents = {name: encoder(images[name][None]).contiguous() for name in names}
        sources = {name: {"title": demo[name].title, "source": demo[name].credit} for name in names}
        metadata = {"family": family, "space": "model", "photos": json.dumps(sources, sort_keys=True)}
        save_file(latents, out / file, metadata=metadata)
        log.info("%s: %d latents", file, len(latents))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Make the demo's latents and small photos.")
    parser.add_argument("--photos", type=Path, required=True, help="folder of collected photos (see tools/SOURCES.md)")
    parser.add_argument("--taesd", type=Path, required=True, help="folder with TAESD's safetensors files")
    parser.add_argument("--out", type=Path, required=True, help="the samples folder")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    make(arguments.photos, arguments.taesd, arguments.out)


if __name__ == "__main__":
    main()
