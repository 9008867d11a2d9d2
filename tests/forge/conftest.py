"""Tests in a real Forge: ``python3 run.py host --webui-dir DIR``, or pytest with Forge's own Python."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

from tests.forge.server import CPU_FLAGS, Forge
from tests.forge.widened import widened
from tests.host.conftest import built_in_state, install_extension
from vae_lab.samples import GREY_SHARE, build_sample_set, load_sample_vae

_PREFIX = "first_stage_model."


@pytest.fixture(scope="session")
def forge_dir(request: pytest.FixtureRequest) -> Path:
    """The user's Forge; the test is skipped without one."""
    folder = request.config.getoption("--webui-dir")
    if not folder or not (Path(folder) / "modules_forge").is_dir():
        pytest.skip("needs --webui-dir with a Forge")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def checkpoint(forge_dir: Path) -> Path:
    """One of the user's SD 1.5 checkpoints. Its VAE is not used: each of ours has a VAE that an image identifies."""
    found = sorted((forge_dir / "models" / "Stable-diffusion").glob("*.safetensors"), key=lambda p: p.stat().st_size)
    for path in found:
        with safetensors.safe_open(path, "pt") as file:
            names = set(file.keys())
        if {"model.diffusion_model.input_blocks.0.0.weight", f"{_PREFIX}decoder.conv_in.weight"} <= names:
            return path
    pytest.skip(f"no .safetensors checkpoint of SD 1.5 in {forge_dir}/models/Stable-diffusion")


def _certain(vae: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """With no spread in what it encodes to: Forge draws from it by no seed, and images would never be the same."""
    vae["quant_conv.weight"][4:] = 0.0
    vae["quant_conv.bias"][4:] = -30.0
    return vae


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """A healthy checkpoint, a grey one, and VAEs that differ in both halves, so that an image shows which one encoded
    and which one decoded it."""
    data = tmp_path_factory.mktemp("forge-data")
    models, vaes = data / "models" / "Stable-diffusion", data / "models" / "VAE"
    models.mkdir(parents=True)
    vaes.mkdir()
    install_extension(data)
    own = safetensors.torch.load_file(checkpoint)
    rest = {name: tensor for name, tensor in own.items() if not name.startswith(_PREFIX)}
    healthy = _certain(widened(load_sample_vae("photo-a")))
    merged = _certain(widened(built_in_state("photo-a", "photo-b", GREY_SHARE)))
    for name, vae in (("one", healthy), ("grey", merged)):
        state = rest | {f"{_PREFIX}{key}": tensor for key, tensor in vae.items()}
        safetensors.torch.save_file(state, models / f"{name}.safetensors")
    for name, factor in (("first", 0.8), ("second", 1.15)):
        changed = {key: tensor.clone() for key, tensor in healthy.items()}
        changed["decoder.conv_out.weight"] *= factor
        changed["encoder.conv_out.weight"] *= 2 - factor
        safetensors.torch.save_file(changed, vaes / f"{name}.safetensors")
    safetensors.torch.save_file(_certain(widened(load_sample_vae("photo-b"))), vaes / "photo-b.safetensors")
    samples = build_sample_set(tmp_path_factory.mktemp("samples"))
    shutil.copy(samples.sdxl, vaes / "xl.safetensors")
    safetensors.torch.save_file(load_sample_vae("photo-b"), vaes / "small.safetensors")
    (vaes / "broken.safetensors").write_bytes(b"not a VAE at all")
    return data


@pytest.fixture(scope="session")
def forge(forge_dir: Path, data_dir: Path, request: pytest.FixtureRequest) -> Iterator[Forge]:
    """One Forge for all tests. When they are over, its log must not have our errors."""
    flags = request.config.getoption("--webui-flags").split()
    if not torch.cuda.is_available():
        flags = [*CPU_FLAGS, *flags]
    running = Forge(forge_dir, data_dir, flags)
    try:
        running.select_checkpoint("one.safetensors")
        yield running
    finally:
        running.close()
    assert "vae_lab/" not in running.log, "no traceback goes through our files"


@pytest.fixture(scope="session")
def plain(forge: Forge) -> np.ndarray:
    """What Forge makes with nothing chosen, before any test."""
    return forge.generate().images[0]


@pytest.fixture(autouse=True)
def nothing_left_behind(forge: Forge, plain: np.ndarray) -> Iterator[None]:
    """After every test, Forge's VAE decodes exactly as before."""
    yield
    forge.set(vae_lab_external="Automatic", vae_lab_on_grey="warn")
    forge.select_checkpoint("one.safetensors")
    forge.choose_natively()
    (forge.data / "models" / "Stable-diffusion" / "one.json").unlink(missing_ok=True)
    made = forge.generate()
    assert np.array_equal(made.images[0], plain)
    assert "VAE Lab" not in made.infotexts[0]
