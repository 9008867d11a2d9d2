"""Weight files in folders: how they are found, named and recognised."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path

from vae_lab.text import as_text

__all__ = ["FileKey", "apart", "file_key", "find_weight_files", "is_vae_beside_checkpoint"]

WEIGHT_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
_VERSION = 1  # raise when what is stored of a file, or how it is found, changes

FileKey = tuple[int, str, int, int, int]
"""By what a file is known: path, size in bytes, and times of change in ns."""


def file_key(path: str) -> FileKey | None:
    """By what a file is known from one run to the next; None if it is not there. Reads nothing of it."""
    try:
        stat = Path(path).stat()
    except OSError:
        return None
    # VAEs are all of one size, and a copy can have the time of its original; that its entry changed is always told.
    return (_VERSION, str(Path(path).resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def find_weight_files(folders: Iterable[str | os.PathLike[str]]) -> Iterator[tuple[str, Path]]:
    """Yield (name, path) of all weight files below ``folders``, each file once, in the order of their names.

    The name is relative to its folder, so that files of one basename in different folders are kept apart; where
    two folders hold the same relative name, the later ones get the folder's name in front.
    """
    seen: set[Path] = set()
    names: set[str] = set()
    for folder in map(Path, folders):
        for path in sorted(_files_below(folder), key=lambda p: str(p).lower()):
            if path.suffix.lower() not in WEIGHT_SUFFIXES or not path.is_file() or path.resolve() in seen:
                continue
            seen.add(path.resolve())
            name = as_text(path.relative_to(folder).as_posix())
            if name in names:
                name = path.as_posix() if f"{folder.name}/{name}" in names else f"{folder.name}/{name}"
            names.add(name)
            yield name, path


def apart(vaes: Mapping[str, Path], checkpoints: Container[str]) -> dict[str, Path]:
    """``vaes``, in which one that is called as a checkpoint is has its folder's name in front."""
    found: dict[str, Path] = {}
    for name, path in vaes.items():
        in_folder = f"{path.parent.name}/{name}"
        free = in_folder if in_folder not in vaes else path.as_posix()
        found[free if name in checkpoints else name] = path
    return found


def is_vae_beside_checkpoint(path: Path) -> bool:
    """The WebUI takes files among the checkpoints for VAEs if they are called ``NAME.vae.EXT``."""
    return path.stem.lower().endswith(".vae") and path.suffix.lower() in WEIGHT_SUFFIXES


def _files_below(folder: Path) -> Iterator[Path]:
    """All files, in linked folders too, as the WebUI finds them; each folder once, so that circles end."""
    entered: set[str] = set()
    for name, folders, files in os.walk(folder, followlinks=True):
        if os.path.realpath(name) in entered:
            folders.clear()
            continue
        entered.add(os.path.realpath(name))
        yield from (Path(name) / file for file in files)
