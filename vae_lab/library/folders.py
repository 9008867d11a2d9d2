"""Weight files in folders: how they are found, named and recognised. Each host says which folders: ``list_files``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from vae_lab.formats import is_url, shown_name
from vae_lab.text import as_text, natural_key

__all__ = [
    "FileKey", "Listing", "Walk", "file_key", "find_weight_files", "is_file", "is_folder", "is_vae_next_to_checkpoint",
    "own_vaes", "real_path",
]  # fmt: skip

WEIGHT_SUFFIXES = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin")
_VERSION = 1  # increase when the key changes

FileKey = tuple[int, str, int, int, int]
"""Key that recognises a file: path, size in bytes, and modification times in ns."""


def file_key(path: str) -> FileKey | None:
    """Key that recognises a file between runs; None if it does not exist. Does not read the file."""
    try:
        stat = Path(path).stat()
    except (OSError, ValueError):
        return None
    # All VAEs have one size, and a copy can have its original's mtime; but its ctime always changes.
    return (_VERSION, real_path(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def real_path(path: str | os.PathLike[str]) -> str:
    """The path without links. Unlike ``Path.resolve`` it has no error for a path that cannot be followed."""
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):
        return _absolute(path)


def is_file(path: Path) -> bool:
    """As ``Path.is_file``; False where the folder may not be entered."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """As ``Path.is_dir``; False where the folder above may not be entered."""
    try:
        return path.is_dir()
    except OSError:
        return False


@dataclass(frozen=True)
class Listing:
    """A snapshot of a host's files.

    Attributes:
        checkpoints: name -> file, in the host's order.
        vaes: name -> file of the external VAEs, in the host's order; no name is a checkpoint's.
        files: (name, path) of all weight files in the host's folders, as the library lists them.
    """

    checkpoints: Mapping[str, Path]
    vaes: Mapping[str, Path]
    files: Sequence[tuple[str, str]] = ()

    @classmethod
    def of(
        cls, checkpoints: Mapping[str, Path], vaes: Mapping[str, Path], files: Iterable[tuple[str, str]] = ()
    ) -> Listing:
        """A VAE that has the name of a checkpoint gets its folder's name in front."""
        names: dict[str, Path] = {}
        for name, path in vaes.items():
            in_folder = f"{path.parent.name}/{name}"
            free = in_folder if in_folder not in vaes else path.as_posix()
            names[free if name in checkpoints else name] = path
        return cls(checkpoints, names, tuple(files))

    def name_of(self, path: str | os.PathLike[str]) -> str:
        """Name of the VAE or checkpoint in a file; "" if the host does not list it."""
        return self._names.get(_absolute(path), "")

    @cached_property
    def _names(self) -> dict[str, str]:
        # By absolute path, without a disk access for each of ten thousand files.
        return {_absolute(path): name for name, path in {**self.checkpoints, **self.vaes}.items()}


class Walk:
    """Finds weight files below folders; walks each folder only once."""

    def __init__(self) -> None:
        self._found: dict[Path, list[tuple[Path, str]]] = {}

    def find(self, folders: Iterable[str | os.PathLike[str]]) -> Iterator[tuple[str, Path]]:
        """Yield (name, path) of all weight files below ``folders``, sorted by name.

        A file is listed once for each of its basenames: a link is a file of its own in the hosts' menus too, unless it
        has the same basename. The name is relative to its folder, so files with the same basename in different folders
        differ; where two folders have the same relative name, the later ones get the folder's name in front.
        """
        seen: set[tuple[str, str]] = set()
        names: set[str] = set()
        for folder in map(Path, folders):
            for path, resolved in self._below(folder):
                if (resolved, path.name) in seen:
                    continue
                seen.add((resolved, path.name))
                name = as_text(path.relative_to(folder).as_posix())
                if name in names:
                    name = path.as_posix() if f"{folder.name}/{name}" in names else f"{folder.name}/{name}"
                names.add(name)
                yield name, path

    def find_all(self, paths: Iterable[str | os.PathLike[str]]) -> Iterator[tuple[str, str]]:
        """As :meth:`find`: first files and addresses in ``paths``, then files in folders."""
        wanted = list(dict.fromkeys(os.fspath(path) for path in paths))
        folders = [path for path in wanted if not is_url(path) and is_folder(Path(path))]
        single: set[tuple[str, str]] = set()
        names: set[str] = set()
        for path in wanted:
            if path in folders:
                continue
            if is_url(path):
                yield shown_name(path), path
                continue
            name = Path(path).name
            if (real_path(path), name) in single:
                continue
            single.add((real_path(path), name))
            name = path if name in names else name
            names.add(name)
            yield name, path
        for name, path in self.find(folders):
            if not single or (real_path(path), path.name) not in single:
                yield (str(path) if name in names else name), str(path)

    def _below(self, folder: Path) -> list[tuple[Path, str]]:
        if folder not in self._found:
            files = sorted(_files_below(folder), key=lambda path: natural_key(str(path)))
            weights = (path for path in files if path.suffix.lower() in WEIGHT_SUFFIXES and is_file(path))
            self._found[folder] = [(path, real_path(path)) for path in weights]
        return self._found[folder]


def find_weight_files(folders: Iterable[str | os.PathLike[str]]) -> Iterator[tuple[str, Path]]:
    """As :meth:`Walk.find`, for folders that are only walked once."""
    return Walk().find(folders)


def is_vae_next_to_checkpoint(path: Path) -> bool:
    """Whether a file is called ``NAME.vae.EXT``, the WebUI's name for a VAE next to its checkpoint."""
    return path.stem.lower().endswith(".vae") and path.suffix.lower() in WEIGHT_SUFFIXES


def own_vaes(checkpoint: str, names: Iterable[str]) -> list[str]:
    """Those of ``names`` that are called ``NAME.vae.EXT``, as ``checkpoint`` is ``NAME.EXT``; same folder first."""
    own = _without_suffix(checkpoint)
    found = [(name, _without_suffix(name)) for name in names if is_vae_next_to_checkpoint(Path(name))]
    matching = [(name, path.with_suffix("")) for name, path in found if path.stem == own.name]
    return [name for name, path in sorted(matching, key=lambda each: each[1] != own)]


def _without_suffix(name: str) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/").casefold())
    return path.with_suffix("") if path.suffix in WEIGHT_SUFFIXES else path


def _absolute(path: str | os.PathLike[str]) -> str:
    return os.path.abspath(path)  # noqa: PTH100


def _files_below(folder: Path) -> Iterator[Path]:
    """All files, following links as the WebUI does; visits each folder once, so link cycles end."""
    entered: set[str] = set()
    for name, folders, files in os.walk(folder, followlinks=True):
        real = real_path(name)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        yield from (Path(name) / file for file in files)
