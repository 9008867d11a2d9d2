"""Files that hold the same VAE, and what they take of the disk. Nothing is ever deleted by VAE Lab."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from vae_lab.identity.sketch import Sketch
from vae_lab.text import sized

__all__ = ["DuplicateGroup", "HasVae", "already_contains", "contains_sentence", "find_duplicates", "sketch_digest"]

_MOST_NAMED = 4  # files in a sentence


class HasVae(Protocol):
    """What has to be known of a file; a :class:`vae_lab.library.FileRecord` has it."""

    @property
    def path(self) -> str:
        """The file."""
        ...

    @property
    def name(self) -> str:
        """Its name, for people."""
        ...

    @property
    def kind(self) -> str:
        """``checkpoint`` or ``vae``; "" where that cannot be told."""
        ...

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    @property
    def file_id(self) -> str:
        """The same for all hard links of one file; "" if unknown."""
        ...

    @property
    def fingerprint(self) -> str:
        """Of the VAE's weights, or "" if they were not read, or there are none."""
        ...

    @property
    def sketch(self) -> str:
        """:func:`sketch_digest` of the VAE's sketch, or ""."""
        ...

    @property
    def problem(self) -> str:
        """Why no VAE can be taken from the file, or ""."""
        ...


class _Copy(NamedTuple):
    """Of one file, what a group needs: so little that ten thousand of them take a few megabytes."""

    path: str
    name: str
    external: bool
    size: int
    file_id: str
    fingerprint: str


@dataclass(frozen=True)
class DuplicateGroup:
    """Files with the same VAE in them.

    Attributes:
        fingerprint: of the weights; "" where sketches alone say so.
        sketch: digest of their sketch, or "".
        confirmed: every weight was compared, not a sample alone.
        vaes: paths of the external VAE files; the first is the one to keep, which is the largest.
        checkpoints: paths of the checkpoints that this VAE is built into.
        freeable_bytes: of all external VAE files but the one to keep. Checkpoints are never counted, and hard links of
            one file once.
        sentence: all that in words.
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
    """32 hex digits over a sketch: the same for copies of the same weights, in fp32 and fp16 alike."""
    return hashlib.sha256(sketch.to_bytes()).hexdigest()[:32]


def find_duplicates(records: Iterable[HasVae]) -> list[DuplicateGroup]:
    """Group files by their VAE's weights, those first whose copies take the most bytes.

    Files whose weights were not read (a scan that was stopped) are grouped by their sketch, unconfirmed. Files that no
    VAE can be taken from are in no group.

    Args:
        records: consumed one by one; a few hundred bytes of each are kept.
    """
    by_weights: dict[str, list[_Copy]] = {}
    sketched: dict[str, list[_Copy]] = {}
    sketch_of: dict[str, str] = {}
    for record in records:
        copy = _Copy(record.path, record.name, record.kind == "vae", record.size, record.file_id, record.fingerprint)
        if record.problem or not (record.fingerprint or record.sketch):
            continue
        if record.fingerprint:
            by_weights.setdefault(record.fingerprint, []).append(copy)
            sketch_of.setdefault(record.fingerprint, record.sketch)
        else:
            sketched.setdefault(record.sketch, []).append(copy)
    groups = [_group(copies, digest, sketch_of[digest]) for digest, copies in by_weights.items() if len(copies) > 1]
    groups += _unconfirmed(sketched, by_weights, sketch_of)
    return sorted(groups, key=lambda group: (-group.freeable_bytes, -len(group.paths), group.paths))


def already_contains(checkpoint: HasVae, vaes: Iterable[HasVae]) -> list[HasVae]:
    """Those of ``vaes`` whose weights are the ones built into ``checkpoint``: choosing them changes nothing."""
    if not checkpoint.fingerprint:
        return []
    return [vae for vae in vaes if vae.kind == "vae" and vae.fingerprint == checkpoint.fingerprint]


def contains_sentence(checkpoint: HasVae, vaes: Iterable[HasVae]) -> str:
    """:func:`already_contains` in words, or "" if there is none."""
    contained = already_contains(checkpoint, vaes)
    if not contained:
        return ""
    names = _listed([vae.name for vae in contained], "and")
    one = "it" if len(contained) == 1 else "any of them"
    return f"{checkpoint.name} already contains {names}: choosing {one} changes nothing."


def _unconfirmed(
    sketched: dict[str, list[_Copy]], by_weights: dict[str, list[_Copy]], sketch_of: dict[str, str]
) -> list[DuplicateGroup]:
    """Groups of files that were sketched only, each with one whose weights are known, if its sketch is the same."""
    known = {sketch_of[digest]: min(copies, key=_to_keep) for digest, copies in by_weights.items()}
    groups = []
    for sketch, copies in sketched.items():
        whole = [*copies, known[sketch]] if sketch in known else copies
        if len(whole) > 1:
            groups.append(_group(whole, "", sketch))
    return groups


def _group(copies: Sequence[_Copy], fingerprint: str, sketch: str) -> DuplicateGroup:
    vaes = sorted((copy for copy in copies if copy.external), key=_to_keep)
    checkpoints = sorted((copy for copy in copies if not copy.external), key=lambda copy: copy.path)
    sizes = {copy.file_id or copy.path: copy.size for copy in vaes}
    freeable = sum(sizes.values()) - (vaes[0].size if vaes else 0)
    return DuplicateGroup(
        fingerprint=fingerprint,
        sketch=sketch,
        confirmed=bool(fingerprint),
        vaes=tuple(copy.path for copy in vaes),
        checkpoints=tuple(copy.path for copy in checkpoints),
        freeable_bytes=freeable,
        sentence=_sentence(vaes, checkpoints, freeable, bool(fingerprint)),
    )


def _to_keep(copy: _Copy) -> tuple[bool, int, str]:
    # Of an fp32 and an fp16 copy the larger has bits that the other has lost.
    return (not copy.external, -copy.size, copy.path)


def _sentence(vaes: Sequence[_Copy], checkpoints: Sequence[_Copy], freeable: int, confirmed: bool) -> str:
    same = "the same VAE" if confirmed else "the same VAE, as far as a sample of the weights tells"
    parts = []
    if len(vaes) > 1:
        room = (
            f"keeping {vaes[0].name} alone would free {sized(freeable)}"
            if freeable
            else "they are one file on the disk, so there is nothing to free"
        )
        parts.append(f"{_listed([copy.name for copy in vaes], 'and')} are {same}: {room}.")
    if checkpoints and vaes:
        contain = "contains" if len(checkpoints) == 1 else "contain"
        names = _listed([copy.name for copy in checkpoints], "and")
        unsure = "" if confirmed else ", as far as a sample of the weights tells"
        parts.append(f"{names} already {contain} {vaes[0].name}{unsure}: choosing it there changes nothing.")
    elif checkpoints:
        parts.append(f"{_listed([copy.name for copy in checkpoints], 'and')} have {same} inside.")
    return " ".join(parts)


def _listed(names: Sequence[str], joint: str) -> str:
    if len(names) > _MOST_NAMED:
        return f"{', '.join(names[: _MOST_NAMED - 1])} {joint} {len(names) - _MOST_NAMED + 1} more"
    # The same weights in two folders often have the same name, too.
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {joint} {names[-1]}"
