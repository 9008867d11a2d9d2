"""A comparison decodes equal weights once, and says so of no others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.unit.makers import F8, SD1_TEXT, UNET, kl_state, prefixed, write
from vae_lab.autoencoders import VaeFile
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.latents import Generation, get_family


def test_copies_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only those stored in fp16: to which fingerprints round, so other copies may differ in the last bits."""
    half = {name: tensor.half() for name, tensor in kl_state(F8).items()}
    for folder in ("Stable-diffusion", "VAE"):
        (tmp_path / "models" / folder).mkdir(parents=True)
    built_in = {**UNET, **SD1_TEXT, **prefixed("first_stage_model.", half)}
    files = [
        write(tmp_path / "models" / "Stable-diffusion" / "one.safetensors", built_in),
        write(tmp_path / "models" / "VAE" / "copy.safetensors", half),
        write(tmp_path / "models" / "VAE" / "wide.safetensors", kl_state(F8)),
    ]
    host = StandaloneHost(Folders.of_models(tmp_path / "models", tmp_path / "data"))
    assert len({host.file_cache.identify(str(file)).fingerprint for file in files}) == 1
    host.generations.add(Generation("g", torch.randn(1, 4, 2, 2), get_family("sd1")))
    loaded: list[str] = []
    load = VaeFile.load
    monkeypatch.setattr(
        VaeFile, "load", lambda file, **options: loaded.append(Path(file.path).name) or load(file, **options)
    )
    comparison = host.compare("g", ["copy.safetensors", "wide.safetensors"])
    assert loaded == ["one.safetensors", "wide.safetensors"]
    assert [result.name for result in comparison] == ["Built-in", "copy.safetensors", "wide.safetensors"]
    assert np.array_equal(comparison["Built-in"].images, comparison["copy.safetensors"].images)
