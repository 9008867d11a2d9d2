"""Two runs that write to one folder do not mix their results."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vae_lab.cli import output
from vae_lab.comparison import Comparison, png_bytes
from vae_lab.comparison.compare import Decoded
from vae_lab.latents import Generation
from vae_lab.latents.family import FAMILIES

SD1 = FAMILIES["sd1"]
NUMBER = 12


def a_comparison(level: int) -> Comparison:
    image = np.full((1, 16, 16, 3), level, np.uint8)
    return Comparison(SD1, tuple(Decoded(f"{level}-{number}", image, 0.1, family=SD1) for number in range(NUMBER)))


def test_all_files_are_of_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(2)

    def in_step(*image: object) -> bytes:
        """Both runs have come as far before either writes the file."""
        together.wait(60)
        return png_bytes(*image)  # type: ignore[arg-type]

    monkeypatch.setattr(output, "png_bytes", in_step)

    def run(level: int) -> None:
        generation = Generation("g", torch.zeros(1, 4, 2, 2), SD1, str(level))
        output.write_comparison(a_comparison(level), generation, tmp_path, overwrite=True)

    runs = [threading.Thread(target=run, args=(level,)) for level in (10, 200)]
    for each in runs:
        each.start()
    for each in runs:
        each.join()
    found = {json.loads((tmp_path / "comparison.json").read_text())["latents"]}
    for number in range(NUMBER):
        with Image.open(tmp_path / f"{number:02d}-0.png") as image:
            found.add(str(image.getpixel((0, 0))[0]))
    assert len(found) == 1
    assert len(list(tmp_path.iterdir())) == NUMBER + 2
