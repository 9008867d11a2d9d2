"""Build hook: the wheel also contains the style sheet, scripts and translations, for the stand-alone app.

A WebUI reads them from the root of the repository, so that is where they are; see ``vae_lab/ui/assets.py``.
"""

from pathlib import Path
from shutil import copy2, copytree, ignore_patterns

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class BuildWithAssets(build_py):
    """Copies the assets into ``vae_lab/ui/assets`` of a build; an editable install uses the checkout's."""

    def run(self) -> None:
        """Build the package, then add the assets."""
        super().run()
        if self.editable_mode:
            return
        assets = Path(self.build_lib) / "vae_lab" / "ui" / "assets"
        assets.mkdir(parents=True, exist_ok=True)
        copy2(ROOT / "style.css", assets)
        for folder in ("javascript", "localizations"):
            copytree(ROOT / folder, assets / folder, ignore=ignore_patterns("*.d.ts"), dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithAssets})
