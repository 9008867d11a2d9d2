"""Bake: write a copy of a checkpoint with another VAE built in, and check the copy."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vae_lab.errors import Cancelled, HostError, UnknownChoice
from vae_lab.host.base import Host
from vae_lab.latents.family import Family
from vae_lab.library import FileRecord
from vae_lab.new_file import is_taken
from vae_lab.repair import bake
from vae_lab.service.runs import Runs

__all__ = ["BakePlan", "BakeService", "Baked", "family_of", "free_file_name"]

_SUFFIX = ".safetensors"
_MAX_STEM = 120  # characters of a proposed name; file systems allow 255 bytes
_FORBIDDEN = frozenset('<>:"/\\|?*')


@dataclass(frozen=True)
class BakePlan:
    """What would be done.

    Attributes:
        checkpoint: name of the checkpoint.
        vaes: names of the VAEs that may fit: the recommended one first.
        vae: the one to build in; "" without any.
        reason: why it is recommended, as text that follows its name and a colon; "" if it is not.
        file: proposed name of the new file, in the checkpoint's folder.
        needed, free: bytes on that disk.
    """

    checkpoint: str
    vaes: Sequence[str]
    vae: str
    reason: str
    file: str
    needed: int
    free: int


@dataclass(frozen=True)
class Baked:
    """The new file.

    Attributes:
        path: where it is.
        name: of the new checkpoint in the host's lists.
        record: what was found when it was checked.
    """

    path: Path
    name: str
    record: FileRecord


class BakeService:
    """Plans and writes copies. Thread-safe.

    Args:
        host: of the files.
        runs: of the host; a bake is one of them.
    """

    def __init__(self, host: Host, runs: Runs) -> None:
        self._host = host
        self._runs = runs

    def plan(self, checkpoint: str, vae: str = "") -> BakePlan:
        """What would be done, by what is known of the files; reads none.

        Args:
            checkpoint: its name.
            vae: name of the VAE; "" for the recommended one, or the first that may fit.

        Raises:
            UnknownChoice: no checkpoint, or no VAE, has that name.
            HostError: the file is gone.
        """
        host, path = self._host, self._checkpoint(checkpoint)
        if vae:
            self._vae(vae)
        record = host.file_cache.known(str(path))
        family = record.model_family if record else None
        records = {name: host.file_cache.known(str(file)) for name, file in host.vae_files().items()}
        fitting = [
            name
            for name, each in records.items()
            if each is None or (not each.problem and (family is None or each.family in (None, family)))
        ]
        found = host.known_recommendation(checkpoint)
        first = [found.name] if found else []
        vaes = list(dict.fromkeys([*first, *fitting]))
        chosen = vae or next(iter(vaes), "")
        reason = found.reason if found and found.name == chosen else ""
        try:
            needed, free = path.stat().st_size, shutil.disk_usage(path.parent).free
        except OSError as error:
            raise HostError(f"{path}: {error.strerror or error}") from error
        return BakePlan(checkpoint, vaes, chosen, reason, free_file_name(path, chosen), needed, free)

    def bake(self, checkpoint: str, vae: str, file: str = "") -> Baked:
        """Write the copy next to the checkpoint, which is not changed, and check it.

        Args:
            checkpoint: its name.
            vae: name of the VAE to build in.
            file: name of the new file; "" for the proposed one.

        Raises:
            UnknownChoice: no checkpoint, or no VAE, has that name.
            HostError: the name cannot be used, or another task is running.
            VaeLabError: the VAE does not fit, the copy cannot be written, or the user cancelled; there is no new file.
        """
        path = self._checkpoint(checkpoint)
        donor = self._vae(vae)
        out = path.with_name(_checked_name(file or free_file_name(path, vae)))
        if is_taken(out):
            raise HostError(f"{out.name} already exists; choose another name")
        with self._runs.one_at_a_time():
            try:
                family = family_of(self._host, donor)
                bake(path, donor, out, family=family, progress=self._report, cancelled=self._runs.cancelled)
            except Cancelled as error:
                raise HostError("cancelled; no file was written") from error
            listing = self._host.listing(fresh=True)
            names = {str(found): name for name, found in listing.checkpoints.items()}
            name = names.get(str(out), "")
            return Baked(out, name, self._host.inspect(name) if name else self._host.file_cache.check(str(out)))

    def _report(self, done: int, total: int, _: str) -> None:
        self._runs.report(done, total, "", unit="bytes")

    def _checkpoint(self, name: str) -> Path:
        path = self._host.checkpoint_files().get(name)
        if path is None:
            raise UnknownChoice(f"no checkpoint named {name}")
        return path

    def _vae(self, name: str) -> Path:
        path = self._host.vae_file(name)
        if path is None:
            raise UnknownChoice(f"no VAE named {name}")
        return path


def family_of(host: Host, vae: Path) -> Family | None:
    """The family that a VAE's weights show, as :func:`bake` takes it."""
    record = host.file_cache.identify(str(vae))
    return None if record.hint_id else record.family  # the rest of a checkpoint may be of another one


def free_file_name(checkpoint: Path, vae: str) -> str:
    """Such as ``model-my-vae.safetensors``: of both files, and not taken."""
    donor = Path(vae).name
    for ending in (_SUFFIX, ".ckpt", ".pt", ".pth", ".bin", ".sft", ".vae"):
        donor = donor.removesuffix(ending)
    stem = f"{checkpoint.stem[:_MAX_STEM]}-{donor[:_MAX_STEM] or 'vae'}"
    name, number = f"{stem}{_SUFFIX}", 2
    while os.path.lexists(checkpoint.with_name(name)):
        name, number = f"{stem}-{number}{_SUFFIX}", number + 1
    return name


def _checked_name(file: str) -> str:
    """The name with its ending.

    Raises:
        HostError: it is none that a file in this folder can have on every system.
    """
    name = file.strip()
    name = name if name.lower().endswith((_SUFFIX, ".sft")) else f"{name}{_SUFFIX}"
    if name.startswith(".") or not name.isprintable() or _FORBIDDEN & set(name):
        raise HostError(f"{file!r} cannot be the name of a file; use letters, digits, spaces, - and _")
    if len(name.encode("utf8", "surrogateescape")) > 255:
        raise HostError("the name is too long for a file")
    return name
