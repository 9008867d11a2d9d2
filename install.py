"""The WebUI runs this at every start: it installs what the host lacks and never changes what the host has."""

import importlib.metadata
import re
import tempfile
from pathlib import Path

import launch

_LIST = Path(__file__).parent / "requirements" / "install.txt"
_MODULES = {"pillow": "PIL", "scikit-image": "skimage"}  # import names, where they differ from the package's


def missing_requirements() -> list[str]:
    """Lines of the list whose package the host has neither under its name nor as a module."""
    lines = (line.partition("#")[0].strip() for line in _LIST.read_text(encoding="utf8").splitlines())
    missing = []
    for line in filter(None, lines):
        name = re.split(r"[<>=!~;\[\s]", line, maxsplit=1)[0]
        if not launch.is_installed(name) and not launch.is_installed(_MODULES.get(name, name)):
            missing.append(line)
    return missing


def installed_pins() -> list[str]:
    """``name==version`` of every package that the host has."""
    pins = {}
    for package in importlib.metadata.distributions():
        name, version = package.metadata["Name"], package.version
        # pip refuses a whole constraints file for one version that is not PEP 440.
        if name and re.fullmatch(r"\d+(\.\d+)*((a|b|rc|\.post|\.dev)\d+)*(\+[A-Za-z0-9.]+)?", version or ""):
            pins.setdefault(name.lower(), f"{name}=={version}")
    return sorted(pins.values())


def main() -> None:
    """Install each missing package with the host's versions as constraints."""
    missing = missing_requirements()
    if not missing:
        return
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("\n".join(installed_pins()), encoding="utf8")
        for requirement in missing:
            launch.run_pip(f'install "{requirement}" -c "{constraints}"', f"{requirement} for VAE Lab")


main()
