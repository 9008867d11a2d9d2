"""Stand-alone hosts over the sample set: fixtures for the tests of the API, the panels and the pages.

A ``conftest.py`` that imports these names gives them to the tests in its folder.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vae_lab.comparison import Comparison
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.latents import Generation, save_latents
from vae_lab.latents.family import FAMILIES
from vae_lab.samples import SampleSet, build_sample_set, load_sample_latents

SCREENSHOTS = os.environ.get("VAE_LAB_SCREENSHOTS", "")


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> SampleSet:
    """The sample set, unpacked once for all tests of a worker; change nothing in it and make no hard links to it: the
    cache would no longer know the files.
    """
    return build_sample_set(tmp_path_factory.mktemp("samples"))


def small_latents(name: str, size: int, family: str = "sd1") -> torch.Tensor:
    """[1,4,size,size] out of the middle of a sample latent: decoding it takes a fraction of a second."""
    start = (64 - size) // 2
    return load_sample_latents(family)[name][:, :, start : start + size, start : start + size].contiguous()


@pytest.fixture(scope="session")
def latents_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small latents, by name: ``astronaut`` (a batch of two, with infotexts), ``brushes``, and ``later-sdxl``."""
    folder = tmp_path_factory.mktemp("latents")
    sd1, sdxl = FAMILIES["sd1"], FAMILIES["sdxl"]
    pair = torch.cat([small_latents("astronaut", 16), small_latents("brushes", 16)])
    texts = (
        "an astronaut, <b>bold</b>\nSteps: 20, Sampler: Euler, Seed: 1",
        "brushes\nSteps: 20, Sampler: Euler, Seed: 2",
    )
    save_latents(Generation("", pair, sd1, "Astronaut and brushes", texts), folder / "astronaut.safetensors")
    brushes = small_latents("brushes", 64 if SCREENSHOTS else 24)  # saved screenshots should show a whole image
    save_latents(Generation("", brushes, sd1, "Brushes"), folder / "brushes.safetensors")
    last = small_latents("astronaut", 16, "sdxl")
    save_latents(Generation("", last, sdxl, "SDXL"), folder / "later-sdxl.safetensors")
    return folder


MakeHost = Callable[..., StandaloneHost]


@pytest.fixture(scope="session")
def families_of_samples(samples: SampleSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data in which the families of the samples are known; detecting each takes a second."""
    data = tmp_path_factory.mktemp("known")
    host = StandaloneHost(Folders(data, (samples.healthy.parent,), (samples.smooth.parent,)))
    host.identify()
    for path in host.checkpoint_files().values():
        host.file_cache.identify(str(path))
    host.file_cache.close()
    return data


@pytest.fixture(scope="session")
def make_host(
    samples: SampleSet, latents_folder: Path, families_of_samples: Path, tmp_path_factory: pytest.TempPathFactory
) -> MakeHost:
    """Makes a host over the samples, with ``healthy`` in use, that shares no state with others.

    It knows the samples' families, unless it has to detect them first (``unknown_families``).
    """

    def make(
        vaes: Path | None = None, latents: Path | None = None, *, unknown_families: bool = False
    ) -> StandaloneHost:
        data = tmp_path_factory.mktemp("data")
        if not unknown_families:
            shutil.copytree(families_of_samples, data, dirs_exist_ok=True)
        folders = Folders(
            data=data,
            checkpoints=(samples.healthy.parent,),
            vaes=(vaes or samples.smooth.parent,),
            latents=(latents or latents_folder,),
        )
        host = StandaloneHost(folders)
        host.select_checkpoint(samples.healthy.name)
        return host

    return make


class RememberingHost(StandaloneHost):
    """Decodes each request once, and returns the same images when asked again."""

    made: dict[object, Comparison]

    def compare(self, generation_id, vaes, progress=None, cancelled=None, on_result=None):  # type: ignore[no-untyped-def]
        asked = (generation_id, *vaes)
        if asked not in self.made:
            self.made[asked] = super().compare(generation_id, vaes, progress, cancelled, on_result)
        return self.made[asked]


@pytest.fixture(scope="module")
def shared_host(make_host: MakeHost) -> StandaloneHost:
    """One host for the tests that leave no trace in it."""
    host = make_host()
    host.__class__, host.made = RememberingHost, {}
    return host


GREY = "grey.safetensors"


@pytest.fixture
def grey_host(samples: SampleSet, tmp_path: Path) -> StandaloneHost:
    """A host with one checkpoint, ``GREY`` in ``tmp_path/models``, into whose folder a test may write."""
    checkpoints = tmp_path / "models"
    checkpoints.mkdir()
    shutil.copy(samples.grey_merge, checkpoints / GREY)
    return StandaloneHost(Folders(tmp_path / "data", (checkpoints,), (samples.smooth.parent,)))
