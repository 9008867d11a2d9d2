"""What generating with VAE Lab installed must and must not change, in a real WebUI."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.host.cases import CASES, SCRIPTS, fresh, png
from tests.host.conftest import install_neighbour
from tests.host.webui import CPU_FLAGS, WebUI, pixels

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.host


@pytest.fixture(scope="session")
def baseline(webui_dir: Path, data_dir: Path, tmp_path_factory: pytest.TempPathFactory, request) -> Path:
    """Images of every case by the same WebUI without VAE Lab, in a separate process."""
    out = tmp_path_factory.mktemp("baseline")
    bare = tmp_path_factory.mktemp("bare-data")
    install_neighbour(bare)
    (bare / "models").symlink_to(data_dir / "models", target_is_directory=True)
    flags = request.config.getoption("--webui-flags").split()
    flags = flags if torch.cuda.is_available() else [*CPU_FLAGS, *flags]
    command = [sys.executable, "-m", "tests.host.baseline", str(webui_dir), str(bare), str(out), *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return out


@pytest.mark.parametrize("case", CASES)
def test_disabled_changes_no_byte(webui: WebUI, baseline: Path, case: str) -> None:
    made = [png(image) for image in webui.generate(**fresh(case)).images]
    expected = [(baseline / f"{case}-{i}.png").read_bytes() for i in range(len(made))]
    assert made == expected


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_run_as_without_us(webui: WebUI, baseline: Path, name: str) -> None:
    title, img2img, arguments = SCRIPTS[name]
    done = webui.run_script(title, arguments, **fresh("img2img" if img2img else "txt2img"))
    made = [png(image) for image in done.images]
    assert made == [(baseline / f"{name}-{i}.png").read_bytes() for i in range(len(made))]


@pytest.mark.parametrize("case", CASES)
def test_override_equals_the_hosts_own_setting(webui: WebUI, case: str) -> None:
    plain = pixels(webui.generate(**fresh(case)))
    weights = webui.vae_bytes()
    ours = pixels(webui.generate(lab={"override": "first.safetensors"}, **fresh(case)))
    assert webui.vae_bytes() == weights
    webui.choose_natively("first.safetensors")
    native = pixels(webui.generate(**fresh(case)))
    assert len(ours) == len(native)
    for mine, theirs, without in zip(ours, native, plain, strict=True):
        assert np.array_equal(mine, theirs)
        assert not np.array_equal(mine, without), "the other VAE must show"


def test_built_in_beats_the_hosts_setting(webui: WebUI) -> None:
    plain = pixels(webui.generate())
    webui.choose_natively("first.safetensors")
    ours = webui.generate(lab={"override": "Built-in"})
    assert np.array_equal(pixels(ours)[0], plain[0])
    assert "VAE Lab override: Built-in" in ours.info
    assert "VAE: first" not in ours.info


def test_infotext_names_the_vae_that_decoded(webui: WebUI) -> None:
    info = webui.generate(lab={"override": "second.safetensors"}).info
    assert "VAE Lab override: second.safetensors, VAE Lab override hash: " in info
    assert "VAE: second.safetensors" in info
    assert "VAE Lab" not in webui.generate().info


def test_an_axis_of_the_plot_chooses_vaes(webui: WebUI) -> None:
    weights = webui.vae_bytes()
    names = ["Automatic", "first.safetensors", "Built-in", "second.safetensors"]
    plot = webui.run_script("X/Y/Z plot", {"X type": "[VAE Lab] VAE", "X values": names})
    assert webui.vae_bytes() == weights
    cells = plot.images[1 : 1 + len(names)]
    for name, cell, infotext in zip(names, cells, plot.infotexts[1:], strict=False):
        webui.choose_natively({"Automatic": "Automatic", "Built-in": "None"}.get(name, name))
        assert np.array_equal(np.asarray(cell), pixels(webui.generate())[0]), name
        assert (f"VAE Lab override: {name}" in infotext) == (name != "Automatic")


def test_the_axis_refuses_names_that_are_not_there(webui: WebUI) -> None:
    with pytest.raises(RuntimeError, match="no VAE named third"):
        webui.run_script("X/Y/Z plot", {"X type": "[VAE Lab] VAE", "X values": ["third"]})
