"""Finds files with the same VAE, and the disk space of the copies. Never deletes anything."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from vae_lab.identity.sketch import Sketch
from vae_lab.text import listed, sized

__all__ = ["DuplicateGroup", "HasVae", "already_contains", "contains_sentence", "find_duplicates", "sketch_digest"]

_LISTED_EVERYWHERE = (".safetensors", ".ckpt", ".pt")  # Forge and ComfyUI list further ones
_LOADED_EVERYWHERE = ("", "ldm")  # the WebUI loads no other names from a VAE file
_PRECISIONS = ("fp64", "fp32", "fp16")  # the finest first


class HasVae(Protocol):
    """The required facts about a file; a :class:`vae_lab.library.FileRecord` has them."""

    @property
    def path(self) -> str:
        """The file."""
        ...

    @property
    def name(self) -> str:
        """Its name for display."""
        ...

    @property
    def kind(self) -> str:
        """``checkpoint`` or ``vae``; "" if unknown."""
        ...

    @property
    def layout(self) -> str:
        """Naming and prefix of the VAE, such as ``ldm``; "" if unknown."""
        ...

    @property
    def dtype(self) -> str:
        """Stored precision, such as ``fp16``; "" if unknown."""
        ...

    @property
    def size(self) -> int:
        """Size in bytes."""
        ...

    @property
    def file_id(self) -> str:
        """The same for all hard links of one file; "" if unknown."""
        ...

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the VAE's weights, or "" if they were not read or there are none."""
        ...

    @property
    def sketch(self) -> str:
        """:func:`sketch_digest` of the VAE's sketch, or ""."""
        ...

    @property
    def problem(self) -> str:
        """Why the file's VAE cannot be used, or ""."""
        ...


class _Copy(NamedTuple):
    """The facts about a file that a group needs. Small, because there can be ten thousand."""

    path: str
    name: str
    external: bool
    size: int
    file_id: str
    fingerprint: str
    layout: str
    dtype: str
    is_link: bool = False
    hard_links: int = 1

    @classmethod
    def of(cls, record: HasVae) -> _Copy:
        return cls(
            record.path, record.name, record.kind == "vae", record.size, record.file_id, record.fingerprint,
            record.layout, record.dtype,
        )  # fmt: skip

    def on_disk(self) -> _Copy:
        """With what the file system says now."""
        try:
            return self._replace(is_link=Path(self.path).is_symlink(), hard_links=Path(self.path).stat().st_nlink)
        except (OSError, ValueError):  # a URL, or deleted since
            return self


@dataclass(frozen=True)
class DuplicateGroup:
    """Files with the same VAE.

    Attributes:
        fingerprint: of the weights; "" if only sketches were compared.
        sketch: digest of their sketch, or "".
        confirmed: whether all weights were compared, not only a sample.
        vaes: paths of the external VAE files, starting with the one to keep: a file that every host lists and loads,
            in the finest precision.
        checkpoints: paths of the checkpoints with this VAE built in.
        freeable_bytes: what deleting all external VAE files except the one to keep would free. Checkpoints do not
            count; nor do symbolic links, and files with a hard link that would stay.
        sentence: a description for display.
    """

    fingerprint: str
    sketch: str
    confirmed: bool
    vaes: tuple[str, ...]
    checkpoints: tuple[str, ...]
    freeable_bytes: int
    sentence: str

    @property
    def paths(self) -> tuple[str, ...]:
        """All files, the external VAEs first."""
        return (*self.vaes, *self.checkpoints)


def sketch_digest(sketch: Sketch) -> str:
    """32 hex digits over a sketch: the same for fp32 and fp16 copies of the same weights."""
    return hashlib.sha256(sketch.rounded_bytes()).hexdigest()[:32]


def find_duplicates(records: Iterable[HasVae]) -> list[DuplicateGroup]:
    """Group files by their VAE's weights, sorted by the size of the copies, largest first.

    Files whose weights were not read (in a scan that was stopped) are grouped by their sketch, unconfirmed. Files whose
    VAE cannot be used are in no group.

    Args:
        records: consumed one by one; a few hundred bytes of each stay in memory.
    """
    by_weights: dict[str, list[_Copy]] = {}
    sketched: dict[str, list[_Copy]] = {}
    sketch_of: dict[str, str] = {}
    for record in records:
        if record.problem or not (record.fingerprint or record.sketch):
            continue
        copy = _Copy.of(record)
        if record.fingerprint:
            by_weights.setdefault(record.fingerprint, []).append(copy)
            sketch_of.setdefault(record.fingerprint, record.sketch)
        else:
            sketched.setdefault(record.sketch, []).append(copy)
    groups = [_group(copies, digest, sketch_of[digest]) for digest, copies in by_weights.items() if len(copies) > 1]
    groups += _unconfirmed(sketched, by_weights, sketch_of)
    return sorted(groups, key=lambda group: (-group.freeable_bytes, -len(group.paths), group.paths))


def already_contains(checkpoint: HasVae, vaes: Iterable[HasVae]) -> list[HasVae]:
    """The ``vaes`` with the same weights as the VAE built into ``checkpoint``: choosing them changes nothing."""
    if not checkpoint.fingerprint:
        return []
    return [vae for vae in vaes if vae.kind == "vae" and vae.fingerprint == checkpoint.fingerprint]


def contains_sentence(checkpoint: HasVae, vaes: Iterable[HasVae]) -> str:
    """:func:`already_contains` as a sentence, or "" if there is none."""
    contained = already_contains(checkpoint, vaes)
    if not contained:
        return ""
    names = listed([vae.name for vae in contained])
    one = "it" if len(contained) == 1 else "any of them"
    return f"{checkpoint.name} already contains {names}: choosing {one} changes nothing."


def _unconfirmed(
    sketched: dict[str, list[_Copy]], by_weights: dict[str, list[_Copy]], sketch_of: dict[str, str]
) -> list[DuplicateGroup]:
    """Groups of files with only a sketch, each with one of the same sketch whose weights were read, if there is any."""
    confirmed = {sketch_of[digest]: min(copies, key=_to_keep) for digest, copies in by_weights.items()}
    groups = []
    for sketch, copies in sketched.items():
        members = [*copies, confirmed[sketch]] if sketch in confirmed else copies
        if len(members) > 1:
            groups.append(_group(members, "", sketch))
    return groups


def _group(copies: Sequence[_Copy], fingerprint: str, sketch: str) -> DuplicateGroup:
    external = [copy for copy in copies if copy.external]
    vaes = sorted((copy.on_disk() for copy in external) if len(external) > 1 else external, key=_to_keep)
    checkpoints = sorted((copy for copy in copies if not copy.external), key=lambda copy: copy.path)
    freeable = _freeable(vaes)
    return DuplicateGroup(
        fingerprint=fingerprint,
        sketch=sketch,
        confirmed=bool(fingerprint),
        vaes=tuple(copy.path for copy in vaes),
        checkpoints=tuple(copy.path for copy in checkpoints),
        freeable_bytes=freeable,
        sentence=_sentence(vaes, checkpoints, freeable, bool(fingerprint)),
    )


def _to_keep(copy: _Copy) -> tuple[object, ...]:
    """Sorts the file to keep first. A link is of no use without its file, and an fp16 copy has lost bits of fp32."""
    suffix = Path(copy.path).suffix.lower()
    return (
        not copy.external,
        copy.is_link,
        suffix not in _LISTED_EVERYWHERE or copy.layout not in _LOADED_EVERYWHERE,
        _PRECISIONS.index(copy.dtype) if copy.dtype in _PRECISIONS else len(_PRECISIONS),
        suffix != _LISTED_EVERYWHERE[0],
        -copy.size,
        copy.path,
    )


def _freeable(vaes: Sequence[_Copy]) -> int:
    """What deleting all but the first would free: only files none of whose hard links stay."""
    places: dict[str, list[_Copy]] = {}
    for copy in vaes:
        if not copy.is_link:
            places.setdefault(copy.file_id or copy.path, []).append(copy)
    return sum(links[0].size for links in places.values() if vaes[0] not in links and len(links) >= links[0].hard_links)


def _sentence(vaes: Sequence[_Copy], checkpoints: Sequence[_Copy], freeable: int, confirmed: bool) -> str:
    same = "the same VAE" if confirmed else "the same VAE, according to a sample of their weights"
    parts = []
    if len(vaes) > 1:
        room = ""  # files on a server
        if freeable:
            room = f": keeping only {vaes[0].name} would free {sized(freeable)}"
        elif vaes[0].size:
            room = ": they are links, so there is nothing to free"
        parts.append(f"{listed([copy.name for copy in vaes])} are {same}{room}.")
    if checkpoints and vaes:
        contain = "contains" if len(checkpoints) == 1 else "contain"
        names = listed([copy.name for copy in checkpoints])
        unsure = "" if confirmed else ", according to a sample of their weights"
        parts.append(f"{names} already {contain} {vaes[0].name}{unsure}: choosing it there changes nothing.")
    elif checkpoints:
        parts.append(f"{listed([copy.name for copy in checkpoints])} contain {same}.")
    return " ".join(parts)
