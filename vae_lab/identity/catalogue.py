"""Published facts about VAE and checkpoint files, by hash; and what their names hint at.

A hash identifies a file, not its weights: the same weights exist in other containers, precisions and layouts. Of a few
well-known VAEs a number over the weights is published as well, which is a hint and never a proof. Facts that are not
certain enough (grade C) are never given.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vae_lab.errors import Cancelled
from vae_lab.formats import LocalFile, is_url

__all__ = [
    "KnownCheckpoint",
    "KnownVae",
    "Style",
    "Verdict",
    "file_sha256",
    "hinted_vae",
    "known_as",
    "known_checkpoint",
    "known_file",
    "known_vae",
    "legacy_hash",
    "style_of_checkpoint",
    "suits",
    "weight_scalar",
]

Style = Literal["anime", "realistic"]
Verdict = Literal["broken", "reported grey", "good", "remark"]

_FACTS = Path(__file__).parent / "known_files.json"
_LEGACY_START, _LEGACY_LENGTH = 0x100000, 0x10000
_PIECE = 2**22
_SD_WEIGHTS = 83_653_863
_SCALAR_UNIT = 17870.7051

# What VAEs and checkpoints of such names are for. This is our own judgement, from what their authors publish them as
# and what their images look like; no source says so file by file. A word counts where a word of the name begins with
# it, a short one only where it is all of it: "nai" is a model, "naive" is not.
_ANIME_VAES = ("anime", "nai", "novelai", "orangemix", "anything")
_REALISTIC_VAES = (frozenset({"mse"}), frozenset({"ft", "ema"}))  # "ema" alone says how weights were averaged
_ANIME_CHECKPOINTS = (
    *("anything", "anime", "orange", "abyssorange", "nai", "novelai", "waifu", "counterfeit", "pastel", "meina"),
    *("eimis", "animagine", "illustrious", "noobai", "hassaku", "kohaku", "trinart", "manga", "toon"),
)
_REALISTIC_CHECKPOINTS = (
    *("realistic", "photo", "realism", "epicrealism", "deliberate", "realvis", "cyberrealistic", "absolutereality"),
    *("epicphotogasm", "juggernaut"),
)
_SHORT = 3  # letters


@dataclass(frozen=True)
class KnownVae:
    """A published VAE file, or what a VAE's weights hint at.

    Attributes:
        name: what it is called.
        aliases: names under which the very same file is handed on.
        family: id of its latent family, see :mod:`vae_lab.latents.family`.
        grade: ``A``, two sources or the publisher's own code; ``B``, one source; "" of a hint.
        note: what else is known, or "".
        match: ``file`` where the file itself is known; ``hint`` where only a number over its weights agrees.
    """

    name: str
    aliases: tuple[str, ...]
    family: str
    grade: str
    note: str = ""
    match: str = "file"

    @property
    def words(self) -> str:
        """The name, with what it is worth."""
        return known_as(self.name, self.match)


@dataclass(frozen=True)
class KnownCheckpoint:
    """A published checkpoint file.

    Attributes:
        name: what it is called.
        grade: as in :class:`KnownVae`.
        built_in_vae: what is said of the VAE in it.
    """

    name: str
    grade: str
    built_in_vae: str

    @property
    def verdict(self) -> Verdict:
        """What ``built_in_vae`` comes to; ``remark`` if it is neither praise nor complaint, but worth reading."""
        words = self.built_in_vae.lower()
        if words.startswith("broken"):
            return "broken"
        if words.startswith("reported grey"):
            return "reported grey"
        return "good" if words.startswith(("good", "reported good")) else "remark"


def known_as(name: str, match: str) -> str:
    """A published name, with what it is worth."""
    return name if match == "file" else f"possibly {name} (a hint from its weights)"


def hinted_vae(state: Mapping[str, Tensor]) -> KnownVae | None:
    """The well-known VAE of SD's size whose published number these weights have, within 1; None if there is none.

    A single number, which a linear merge moves almost linearly: other weights may have it too.

    Args:
        state: a VAE in canonical form, in any precision.
    """
    if sum(value.numel() for value in state.values()) != _SD_WEIGHTS:
        return None
    number = weight_scalar(state)
    facts = json.loads(_FACTS.read_text(encoding="utf-8"))["weight_level_scalars"]["values"]
    name = next((name for name, known in facts.items() if abs(known - number) <= 1), None)
    return KnownVae(name, (), "sd1", "", match="hint") if name else None


@torch.no_grad()
def weight_scalar(state: Mapping[str, Tensor]) -> int:
    """The published number over encoder and decoder; see ``weight_level_scalars`` in ``data/known_files.json``."""
    total = sum(
        # sigmoid(x) - 1/2, of weights as fp16 has them
        (value.cpu().half().float() / 2).tanh_().sum(dtype=torch.float64).item() / 2
        for name, value in state.items()
        if name.startswith(("encoder.", "decoder."))
    )
    number = int(abs(total / _SCALAR_UNIT - 1) * 10_000)
    while number >= 10_000:
        number -= 5_000
    return number


def known_vae(sha256: str) -> KnownVae | None:
    """The VAE file with this hash (64 hex digits), if it is a published one."""
    return _vaes().get(sha256.lower())


def known_checkpoint(sha256: str, legacy: str | None = None) -> KnownCheckpoint | None:
    """The checkpoint file with this hash (64 hex digits), if it is a published one.

    Of a few files only the first 16 digits are published; for those ``legacy`` must agree, where it is given.
    """
    digest = sha256.lower()
    for entry in _entries("checkpoint_files"):
        prefix = entry.get("autov2_prefix")
        by_prefix = prefix is not None and len(digest) == 64 and digest.startswith(prefix)
        if entry.get("sha256") == digest or (by_prefix and legacy in (None, entry.get("legacy"))):
            return KnownCheckpoint(entry["name"], entry["grade"], entry["built_in_vae"])
    return None


def known_file(
    path: str | os.PathLike[str], cancelled: Callable[[], bool] | None = None
) -> KnownVae | KnownCheckpoint | None:
    """What is published about a file, if anything.

    The whole file is read only if its old hash, for which 64 KiB are read, is that of a published file, or its size
    that of one whose old hash is not known. Published files of which neither is known are found by sha256 only.
    Nothing is said of a file behind an address: it would have to be downloaded.

    Raises:
        UnreadableFile: the file cannot be read.
        Cancelled: ``cancelled`` said so.
    """
    if is_url(path):
        return None
    with closing(LocalFile(path)) as source:
        size = source.size
    legacy = legacy_hash(path)
    entries = (*_entries("vae_files"), *_entries("checkpoint_files"))
    if not any(entry["legacy"] == legacy if "legacy" in entry else entry.get("bytes") == size for entry in entries):
        return None
    digest = file_sha256(path, cancelled)
    return known_vae(digest) or known_checkpoint(digest, legacy)


def legacy_hash(path: str | os.PathLike[str]) -> str:
    """The old hash of the WebUI: 8 hex digits over 64 KiB at 1 MiB. Other files can have the same: it proves nothing.

    Raises:
        UnreadableFile: the file cannot be read.
    """
    with closing(LocalFile(path)) as source:
        length = min(max(source.size - _LEGACY_START, 0), _LEGACY_LENGTH)
        data = source.read_at(_LEGACY_START, length) if length else b""
    return hashlib.sha256(data).hexdigest()[:8]


def file_sha256(path: str | os.PathLike[str], cancelled: Callable[[], bool] | None = None) -> str:
    """64 hex digits over the whole file: seconds for each gigabyte. ``cancelled`` is asked every 4 MiB.

    Raises:
        UnreadableFile: the file cannot be read.
        Cancelled: ``cancelled`` said so.
    """
    digest = hashlib.sha256()
    with closing(LocalFile(path)) as source:
        for start in range(0, source.size, _PIECE):
            if cancelled and cancelled():
                raise Cancelled("cancelled")
            digest.update(source.read_at(start, min(_PIECE, source.size - start)))
    return digest.hexdigest()


def suits(name: str) -> Style | None:
    """What images a VAE of this file name is made for; a hint from its name, no more."""
    words = _words(name)
    return _one_of(_names(words, _ANIME_VAES), any(phrase <= words for phrase in _REALISTIC_VAES))


def style_of_checkpoint(name: str) -> Style | None:
    """What images a checkpoint of this file name makes; a hint from its name, no more."""
    words = _words(name)
    return _one_of(_names(words, _ANIME_CHECKPOINTS), _names(words, _REALISTIC_CHECKPOINTS))


def _one_of(anime: bool, realistic: bool) -> Style | None:
    """A name that says both says nothing."""
    if anime == realistic:
        return None
    return "anime" if anime else "realistic"


def _names(words: set[str], wanted: tuple[str, ...]) -> bool:
    return any(word == start or (len(start) > _SHORT and word.startswith(start)) for word in words for start in wanted)


def _words(name: str) -> set[str]:
    """The runs of letters in a file's name, also those that only capitals set apart: ``AbyssOrangeMix2``."""
    stem = name.replace("\\", "/").rpartition("/")[2]
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", stem)
    return set(re.findall(r"[a-z]+", f"{stem} {parted}".lower()))


@cache
def _vaes() -> dict[str, KnownVae]:
    return {
        entry["sha256"]: KnownVae(
            name=entry["name"],
            aliases=tuple(entry.get("aliases", ())),
            family=entry["family"],
            grade=entry["grade"],
            note=entry.get("note", ""),
        )
        for entry in _entries("vae_files")
        if "sha256" in entry
    }


@cache
def _entries(table: str) -> tuple[dict[str, Any], ...]:
    """The rows of one table that may be shown."""
    facts = json.loads(_FACTS.read_text(encoding="utf-8"))
    return tuple(entry for entry in facts[table] if entry["grade"] in ("A", "B"))
