"""Tests in a real WebUI: ``python3 run.py host --webui-dir DIR``, or pytest with the WebUI's own Python."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tests.host import neighbour
from tests.host.webui import CPU_FLAGS, WebUI, boot
from tests.publisher import publisher
from vae_lab.samples import GREY_SHARE, load_sample_vae

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def webui_dir(request: pytest.FixtureRequest) -> Path:
    """The user's WebUI; the test is skipped without one."""
    folder = request.config.getoption("--webui-dir")
    if not folder:
        pytest.skip("needs --webui-dir")
    if (Path(folder) / "modules_forge").is_dir():
        pytest.skip("Forge has its own tests, in tests/forge")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def small_checkpoint(webui_dir: Path) -> Path:
    """The smallest checkpoint with a VAE in the WebUI's model folder: the tests generate many images with it."""
    found = sorted((webui_dir / "models" / "Stable-diffusion").glob("*.safetensors"), key=lambda p: p.stat().st_size)
    for path in found:
        with safetensors.safe_open(path, "pt") as file:
            if any(name.startswith("first_stage_model.decoder") for name in file.keys()):  # noqa: SIM118
                return path
    pytest.skip(f"no .safetensors checkpoint with a VAE in {webui_dir}/models/Stable-diffusion")


def install_extension(data: Path) -> None:
    """VAE Lab, as "Install from URL" would put it there, without the history."""
    left_out = shutil.ignore_patterns(".*", "tests", "docs", "tools", "__pycache__")
    shutil.copytree(ROOT, data / "extensions" / "sd-webui-vae-lab", ignore=left_out)


def install_neighbour(data: Path) -> None:
    """Another extension next to ours; the WebUI without ours has it too."""
    folder = data / "extensions" / "neighbour" / "scripts"
    folder.mkdir(parents=True)
    (folder / "neighbour.py").write_text(neighbour.SOURCE, encoding="utf8")


def built_in(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The VAE of a checkpoint, without prefix."""
    prefix = "first_stage_model."
    state = safetensors.torch.load_file(checkpoint)
    return {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}


def built_in_state(a: str, b: str, share: float) -> dict[str, torch.Tensor]:
    """A merge of two sample VAEs."""
    first, second = load_sample_vae(a), load_sample_vae(b)
    return {name: torch.lerp(value.float(), second[name].float(), share).half() for name, value in first.items()}


def fits_samples(checkpoint: Path) -> bool:
    """Whether the checkpoint's VAE has the sample VAEs' architecture: only those can be shown to be grey."""
    own, sample = built_in(checkpoint), load_sample_vae("photo-a")
    return {name: tensor.shape for name, tensor in own.items()} == {name: t.shape for name, t in sample.items()}


@pytest.fixture
def grey_checkpoint(data_dir: Path, small_checkpoint: Path) -> str:
    """Name of a checkpoint whose built-in VAE is a grey merge; photo-b.safetensors is a healthy VAE for it."""
    if not fits_samples(small_checkpoint):
        pytest.skip(f"the VAE of {small_checkpoint.name} has another architecture than the sample VAEs")
    return "grey.safetensors"


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory, small_checkpoint: Path) -> Path:
    """Models made from the user's small checkpoint, and this extension. Two VAEs that differ from the built-in one in
    both halves, so that an image shows which one encoded and which one decoded it."""
    data = tmp_path_factory.mktemp("webui-data")
    models, vaes = data / "models" / "Stable-diffusion", data / "models" / "VAE"
    models.mkdir(parents=True)
    vaes.mkdir()
    install_extension(data)
    install_neighbour(data)
    state = safetensors.torch.load_file(small_checkpoint)
    vae = built_in(small_checkpoint)
    for name, factor in (("first", 0.8), ("second", 1.15)):
        changed = {key: tensor.clone() for key, tensor in vae.items()}
        changed["decoder.conv_out.weight"] *= factor
        changed["encoder.conv_out.weight"] *= 2 - factor
        safetensors.torch.save_file(changed, vaes / f"{name}.safetensors")
    config = small_checkpoint.with_suffix(".yaml")
    for name in ("one", "two", "without"):
        own = dict(state)
        if name == "two":
            own["first_stage_model.decoder.conv_out.bias"] = own["first_stage_model.decoder.conv_out.bias"] + 0.1
        if name == "without":
            own = {key: tensor for key, tensor in own.items() if not key.startswith("first_stage_model.")}
        safetensors.torch.save_file(own, models / f"{name}.safetensors")
        if config.exists():
            shutil.copy(config, models / f"{name}.yaml")
    if fits_samples(small_checkpoint):
        merged = built_in_state("photo-a", "photo-b", GREY_SHARE)
        halves = ("", "encoder.")  # both of them, or only the encoder
        for name, part in zip(("grey", "half"), halves, strict=True):
            mixed = {f"first_stage_model.{key}": value for key, value in merged.items() if key.startswith(part)}
            safetensors.torch.save_file(state | mixed, models / f"{name}.safetensors")
            if config.exists():
                shutil.copy(config, models / f"{name}.yaml")
        other = load_sample_vae("photo-b")
        safetensors.torch.save_file(other, vaes / "photo-b.safetensors")
        unrelated = {f"first_stage_model.{key}": value for key, value in other.items()}
        safetensors.torch.save_file(state | unrelated, models / "unrelated.safetensors")
        if config.exists():
            shutil.copy(config, models / "unrelated.yaml")
    # The same stem shares the configuration file, so the WebUI loads this one into the model that it has already, and
    # keeps the VAE that is in it. In the legacy format: the WebUI's unpickler refuses what newer torch writes.
    torch.save({"state_dict": own}, models / "one.ckpt", _use_new_zipfile_serialization=False)
    return data


@pytest.fixture(scope="session")
def webui(webui_dir: Path, data_dir: Path, request: pytest.FixtureRequest) -> WebUI:
    """One WebUI for all tests, with VAE Lab installed; its log must stay free of our errors."""
    flags = request.config.getoption("--webui-flags").split()
    if not torch.cuda.is_available():
        flags = [*CPU_FLAGS, *flags]
    return boot(webui_dir, data_dir, flags)


@pytest.fixture(autouse=True)
def nothing_left_behind(webui: WebUI) -> Iterator[None]:
    """After every test, the host's VAE is bit for bit unchanged."""
    from modules import devices

    webui.select_checkpoint("one.safetensors")
    webui.choose_natively("Automatic")
    before, dtype = webui.vae_bytes(), devices.dtype_vae
    yield
    webui.select_checkpoint("one.safetensors")
    webui.choose_natively("Automatic")
    assert webui.vae_bytes() == before
    assert devices.dtype_vae == dtype
