"""What is known of the files on a disk, remembered between runs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import diskcache

from vae_lab.autoencoders import open_vae
from vae_lab.errors import FileError
from vae_lab.families import FAMILIES, Family
from vae_lab.identity import fingerprint

__all__ = ["FactsCache", "VaeFacts", "find_weight_files", "is_vae_beside_checkpoint"]

WEIGHT_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
_VERSION = 1  # raise when what is stored, or how it is found, changes


@dataclass(frozen=True)
class VaeFacts:
    """What was found in one file.

    Attributes:
        family_id: latent family, or "" if the weights do not tell.
        fingerprint: of the VAE's weights, or "" if there is none.
        problem: why the file's VAE cannot be used, or "".
        architecture: such as ``AutoencoderKL``.
    """

    family_id: str = ""
    fingerprint: str = ""
    problem: str = ""
    architecture: str = ""

    @property
    def family(self) -> Family | None:
        """The latent family, where known."""
        return FAMILIES.get(self.family_id)


class FactsCache:
    """Facts by file. A file is known by path, size and times of change, so a replaced one is looked at anew."""

    def __init__(self, folder: Path) -> None:
        self._cache = diskcache.Cache(str(folder), eviction_policy="none")

    def known(self, path: str) -> VaeFacts | None:
        """What was found earlier, if the file has not changed since. Reads nothing of the file."""
        key = _key(path)
        stored = self._cache.get(key) if key else None
        return VaeFacts(**stored) if isinstance(stored, dict) else None

    def look(self, path: str) -> VaeFacts:
        """As :meth:`known`, reading the VAE's weights where needed. A bad file is a fact too, never an exception."""
        facts = self.known(path)
        if facts is None:
            key = _key(path)
            facts = _read_facts(path)
            if key and key == _key(path):  # else it was replaced in between
                self._cache.set(key, asdict(facts))
        return facts

    def close(self) -> None:
        """Give the cache's files back."""
        self._cache.close()


def _key(path: str) -> tuple[int, str, int, int, int] | None:
    try:
        stat = Path(path).stat()
    except OSError:
        return None
    # VAEs are all of one size, and a copy can have the time of its original; that its entry changed is always told.
    return (_VERSION, str(Path(path).resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def _read_facts(path: str) -> VaeFacts:
    try:
        with open_vae(path) as file:
            state = file.state_dict()
            family = file.load(state=state).family
            return VaeFacts(
                family_id=family.id if family else "",
                fingerprint=fingerprint(state),
                architecture=file.architecture.name,
            )
    except FileError as error:
        return VaeFacts(problem=error.reason)


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
            name = path.relative_to(folder).as_posix()
            if name in names:
                name = path.as_posix() if f"{folder.name}/{name}" in names else f"{folder.name}/{name}"
            names.add(name)
            yield name, path


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
