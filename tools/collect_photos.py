"""Gather the photos listed in SOURCES.md from unpacked packages into one folder, as PNG of at most 900 px.

    python -m tools.collect_photos --packages UNPACKED --out PHOTOS

UNPACKED holds one folder for each source, named as in ``SOURCES``.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

log = logging.getLogger("collect_photos")

LONG_SIDE = 900
SUFFIXES = {".png", ".jpg", ".jpeg"}


@dataclass(frozen=True)
class Source:
    """One package: where its images lie, and how the collected ones are called.

    Args:
        folder: of the unpacked package.
        pattern: of the images in it.
        prefix: of the collected names.
        parent: how many folders up lies the name to use besides the file's; 0 for none.
        names: the stems to take; empty for all.
    """

    folder: str
    pattern: str
    prefix: str
    parent: int = 0
    names: tuple[str, ...] = ()


SOURCES = (
    Source("scikit-image", "skimage/data/*", "ski_",
           names=("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field", "motorcycle_left", "retina", "ihc")),
    Source("scikit-learn", "sklearn/datasets/images/*", "skl_"),
    Source("lomiri-wallpapers-16.04", "usr/share/backgrounds/*", "l16_"),
    Source("lomiri-wallpapers-20.04", "usr/share/backgrounds/*", "l20_"),
    Source("mate-backgrounds", "usr/share/backgrounds/mate/nature/*", "mate_"),
    Source("ukui-wallpapers", "usr/share/backgrounds/*", "ukui_"),
    Source("plasma-workspace-wallpapers", "usr/share/wallpapers/*/contents/images/*", "plasma_", parent=2),
)  # fmt: skip


def collect(packages: Path, out: Path) -> None:
    """Write every image once, scaled down; of a wallpaper in several sizes, the first by name."""
    out.mkdir(parents=True, exist_ok=True)
    for source in SOURCES:
        seen = set()
        for path in sorted((packages / source.folder).glob(source.pattern)):
            wanted = not source.names or path.stem in source.names
            # Links are other sizes of the same wallpaper; the smallest files are icons and previews.
            if not wanted or path.suffix.lower() not in SUFFIXES or path.is_symlink() or path.stat().st_size < 60_000:
                continue
            group = path.parents[source.parent].name if source.parent else path.stem
            if group in seen:
                continue
            seen.add(group)
            image = Image.open(path).convert("RGB")
            image.thumbnail((LONG_SIDE, LONG_SIDE), Image.LANCZOS)
            stem = f"{group}_{path.stem}" if source.parent else path.stem
            image.save(out / f"{source.prefix}{stem}.png")
        log.info("%s: %d images", source.folder, len(seen))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Gather the photos to train on and to show.")
    parser.add_argument("--packages", type=Path, required=True, help="folder of unpacked packages")
    parser.add_argument("--out", type=Path, required=True, help="where the images go")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    collect(arguments.packages, arguments.out)


if __name__ == "__main__":
    main()
