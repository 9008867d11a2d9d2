"""The family of a file does not depend on which method detects it first."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.unit.makers import SD1_TEXT, UNET, prefixed, write
from vae_lab.host.choices import BUILT_IN
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.latents import Generation, save_latents
from vae_lab.latents.family import FAMILIES
from vae_lab.samples import load_sample_latents, load_sample_vae


@pytest.fixture
def host(tmp_path: Path) -> StandaloneHost:
    """A checkpoint for SD1 whose VAE is too broken to detect its family, and a latent of SDXL."""
    a, b = load_sample_vae("photo-a"), load_sample_vae("photo-b")
    merged = {name: torch.lerp(a[name].float(), b[name].float(), 0.5).half() for name in a}
    for folder in ("Stable-diffusion", "latents"):
        (tmp_path / folder).mkdir()
    state = {**UNET, **SD1_TEXT, **prefixed("first_stage_model.", merged)}
    write(tmp_path / "Stable-diffusion" / "m.safetensors", state)
    latents = load_sample_latents("sdxl")["astronaut"][:, :, 28:32, 28:32].contiguous()
    save_latents(Generation("g", latents, FAMILIES["sdxl"], title="x"), tmp_path / "latents" / "l.safetensors")
    return StandaloneHost(Folders.of_models(tmp_path, tmp_path / "data"))


@pytest.mark.parametrize("first", ["comparison", "checkup"])
def test_family_does_not_depend_on_what_was_asked_first(host: StandaloneHost, first: str) -> None:
    generation = host.generations.newest_first()[0].id
    for what in ("comparison", "checkup", "comparison") if first == "comparison" else ("checkup", "comparison"):
        if what == "checkup":
            record = host.inspect(BUILT_IN)
            assert (record.family_id, record.to_json()["family"]) == ("sd1", "sd1")
        else:
            (result,) = host.compare(generation, [])
            assert "is a VAE for SD1" in result.error
    path = str(host.file_of(BUILT_IN))
    assert host.file_cache.identify(path).family_id == host.file_cache.check(path).family_id == "sd1"
