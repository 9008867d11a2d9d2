"""The wheel: installed outside the checkout it has its data, its commands and its page; and ``install.py``."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
import types
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from tests.unit.conftest import ROOT
from vae_lab import __version__

SOURCES = ("vae_lab", "javascript", "localizations", "requirements")
FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "style.css")
REQUIREMENTS = ROOT / "requirements" / "install.txt"


def requirements() -> list[str]:
    """The lines of the list."""
    lines = REQUIREMENTS.read_text(encoding="utf8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def pip(*arguments: str | Path) -> None:
    """Without a network."""
    command = [sys.executable, "-m", "pip", *map(str, arguments), "--no-deps", "--no-index", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: a build leaves files in its folder."""
    folder = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    out = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-build-isolation", "-w", out, folder)
    (file,) = out.iterdir()
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed package and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    pip("install", "--target", folder, wheel)
    return folder


def run_outside(installed: Path, folder: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run Python in ``folder`` with the installed package, and without the checkout, on its path."""
    settings = {"PYTHONPATH": str(installed), "PYTHONIOENCODING": "utf8", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=folder, env=os.environ | settings, capture_output=True,
        text=True, encoding="utf8", check=False,
    )  # fmt: skip
    assert str(ROOT) not in done.stderr, done.stderr
    return done


def test_every_data_file_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = [path for path in (ROOT / "vae_lab").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {path.relative_to(ROOT).as_posix() for path in package} <= names
    assets = [ROOT / "style.css", *(ROOT / "javascript").rglob("*.*js"), *(ROOT / "localizations").rglob("*.json")]
    assert {f"vae_lab/ui/assets/{path.relative_to(ROOT).as_posix()}" for path in assets} <= names
    assert not [name for name in names if name.endswith(".d.ts")], "types that only developers need"
    assert {name.partition("/")[0] for name in names} == {"vae_lab", f"sd_webui_vae_lab-{__version__}.dist-info"}


def test_metadata_of_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        folder = f"sd_webui_vae_lab-{__version__}.dist-info"
        metadata = Parser().parsestr(archive.read(f"{folder}/METADATA").decode())
        scripts = archive.read(f"{folder}/entry_points.txt").decode()
    assert metadata["Version"] == __version__
    needed = {line for line in metadata.get_all("Requires-Dist", []) if "extra" not in line}
    assert {line.replace(" ", "") for line in needed} == set(map(normalised, requirements()))
    assert "vae-lab = vae_lab.cli:main" in scripts


def normalised(requirement: str) -> str:
    """With its conditions in setuptools' order."""
    name = requirement.rstrip("<>=0123456789.,")
    return name + ",".join(sorted(requirement.removeprefix(name).split(",")))


# ``python -m vae_lab`` in a process that first says where it reads the page's scripts and style sheet.
OUTSIDE = """
import runpy, sys
from vae_lab.ui import assets
print(assets.__file__, assets.folder(), sep="\\n")
runpy.run_module("vae_lab", run_name="__main__", alter_sys=True)
"""


# Over two seconds: a Python process imports torch from files that are not compiled yet, and decodes the chart.
def test_inspect_and_assets_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    sample = installed / "vae_lab" / "samples" / "photo-a.safetensors"
    done = run_outside(installed, tmp_path, "-c", OUTSIDE, "inspect", "--json", sample)
    assert (done.returncode, done.stderr) == (0, "")
    file, folder, line = done.stdout.splitlines()
    report = json.loads(line)
    assert (report["path"], report["verdict"]["status"]) == (str(sample), "healthy")
    assert Path(file).is_relative_to(installed)
    assert Path(folder) == installed / "vae_lab" / "ui" / "assets"
    assert (Path(folder) / "style.css").read_bytes() == (ROOT / "style.css").read_bytes()
    assert (Path(folder) / "javascript" / "vae_lab.mjs").is_file()


# --- install.py ------------------------------------------------------------------------------------------------------


def run_install(monkeypatch: pytest.MonkeyPatch, *, lacking: set[str]) -> list[tuple[str, list[str]]]:
    """Commands for pip, and the constraints of each, in a host that lacks these packages and modules."""
    calls = []

    def run_pip(command: str, description: str) -> None:
        install, _, constraints = command.partition(" -c ")
        calls.append((install, Path(constraints.strip('"')).read_text(encoding="utf8").splitlines()))
        assert description.endswith("for VAE Lab")

    launch = types.ModuleType("launch")
    launch.is_installed = lambda name: name not in lacking
    launch.run_pip = run_pip
    monkeypatch.setitem(sys.modules, "launch", launch)
    runpy.run_path(str(ROOT / "install.py"))
    return calls


def test_nothing_is_installed_that_the_host_has(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_install(monkeypatch, lacking=set()) == []


def test_a_package_under_another_name_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as pillow-simd."""
    assert run_install(monkeypatch, lacking={"pillow", "scikit-image"}) == []


def test_only_what_is_missing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = run_install(monkeypatch, lacking={"scikit-image", "skimage", "tqdm"})
    assert [command for command, _ in calls] == ['install "scikit-image>=0.21"', 'install "tqdm"']


def test_the_host_keeps_its_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    ((_, constraints),) = run_install(monkeypatch, lacking={"tqdm"})
    pins = {line.partition("==")[0].lower(): line.partition("==")[2] for line in constraints}
    assert {"numpy", "torch", "pillow", "gradio"} <= set(pins)
    import numpy

    assert pins["numpy"] == numpy.__version__


def test_install_imports_only_the_standard_library() -> None:
    code = (
        "import sys, types; sys.modules['launch'] = launch = types.ModuleType('launch')\n"
        "launch.is_installed = lambda name: True\n"
        "import runpy; runpy.run_path('install.py')\n"
        "roots = {name.partition('.')[0] for name in sys.modules}\n"
        "print(sorted(roots - set(sys.stdlib_module_names) - {'launch', '__main__', '__mp_main__'}))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
