"""Published facts about VAE and checkpoint files by hash, and hints from their names.

A hash identifies a file, not its weights: the same weights exist in other containers, dtypes and layouts. For a few
well-known VAEs, a number computed from the weights is published too, which is a hint but no proof. Facts that are not
certain enough (grade C) are never returned.
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
    "PublishedVae",
    "Style",
    "Verdict",
    "file_sha256",
    "hinted_vae",
    "known_as",
    "known_checkpoint",
    "known_file",
    "known_vae",
    "known_vae_by_short_hash",
    "legacy_hash",
    "published_vaes",
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

# The style of VAEs and checkpoints with these names: our own judgement from their authors' descriptions and images, not
# from a source for each file. A keyword matches a word that begins with it, a short one only the whole word: "nai" is a
# model, "naive" is not.
_ANIME_VAES = ("anime", "nai", "novelai", "orangemix", "anything")
_REALISTIC_VAES = (frozenset({"mse"}), frozenset({"ft", "ema"}))  # "ema" by itself only says that weights were averaged
_ANIME_CHECKPOINTS = (
    *("anything", "anime", "orange", "abyssorange", "nai", "novelai", "waifu", "counterfeit", "pastel", "meina"),
    *("eimis", "animagine", "illustrious", "noobai", "hassaku", "kohaku", "trinart", "manga", "toon"),
)
_REALISTIC_CHECKPOINTS = (
    *("realistic", "photo", "realism", "epicrealism", "deliberate", "realvis", "cyberrealistic", "absolutereality"),
    *("epicphotogasm", "juggernaut"),
)
_SHORT = 3  # letters
_SHORT_HASH = 10  # digits, as the WebUI and Civitai show


@dataclass(frozen=True)
class KnownVae:
    """A published VAE file, or the VAE that a file's weights suggest.

    Attributes:
        name: its usual name.
        aliases: other names of the same file.
        family: id of its latent family, see :mod:`vae_lab.latents.family`.
        grade: ``A``, two sources or the publisher's own code; ``B``, one source; "" for a hint.
        note: further facts, or "".
        match: ``file`` if the file's hash is known; ``hint`` if only a number computed from its weights matches.
    """

    name: str
    aliases: tuple[str, ...]
    family: str
    grade: str
    note: str = ""
    match: str = "file"

    @property
    def words(self) -> str:
        """The name, marked if it is only a hint."""
        return known_as(self.name, self.match)


@dataclass(frozen=True)
class KnownCheckpoint:
    """A published checkpoint file.

    Attributes:
        name: its usual name.
        grade: as in :class:`KnownVae`.
        built_in_vae: a published statement about its VAE.
    """

    name: str
    grade: str
    built_in_vae: str

    @property
    def verdict(self) -> Verdict:
        """The category of ``built_in_vae``; ``remark`` if it is neither positive nor negative."""
        text = self.built_in_vae.lower()
        if text.startswith("broken"):
            return "broken"
        if text.startswith("reported grey"):
            return "reported grey"
        return "good" if text.startswith(("good", "reported good")) else "remark"


@dataclass(frozen=True)
class PublishedVae:
    """A published VAE file that can be downloaded.

    Attributes:
        name: its usual name.
        family: id of its latent family.
        file: the name that it gets on the user's disk.
        address: an https URL.
        size: bytes.
        sha256: 64 hex digits.
    """

    name: str
    family: str
    file: str
    address: str
    size: int
    sha256: str


def known_as(name: str, match: str) -> str:
    """A published name, marked if it is only a hint."""
    return name if match == "file" else f"possibly {name} (a hint from its weights)"


def hinted_vae(state: Mapping[str, Tensor]) -> KnownVae | None:
    """The well-known VAE of SD's size whose published number is within 1 of that of these weights, or None.

    It is a single number, and almost linear in the weights, so other weights may match too.

    Args:
        state: a VAE in canonical form, of any dtype.
    """
    if sum(value.numel() for value in state.values()) != _SD_WEIGHTS:
        return None
    number = weight_scalar(state)
    facts = json.loads(_FACTS.read_text(encoding="utf-8"))["weight_level_scalars"]["values"]
    name = next((name for name, known in facts.items() if abs(known - number) <= 1), None)
    return KnownVae(name, (), "sd1", "", match="hint") if name else None


@torch.no_grad()
def weight_scalar(state: Mapping[str, Tensor]) -> int:
    """The published number for encoder and decoder; see ``weight_level_scalars`` in ``known_files.json``."""
    total = sum(
        # sigmoid(x) - 1/2, of weights rounded to fp16
        (value.cpu().half().float() / 2).tanh_().sum(dtype=torch.float64).item() / 2
        for name, value in state.items()
        if name.startswith(("encoder.", "decoder."))
    )
    number = int(abs(total / _SCALAR_UNIT - 1) * 10_000)
    while number >= 10_000:
        number -= 5_000
    return number


def known_vae(sha256: str) -> KnownVae | None:
    """The published VAE file with this hash (64 hex digits), or None."""
    return _vaes().get(sha256.lower())


def known_vae_by_short_hash(digest: str) -> KnownVae | None:
    """The published VAE file whose hash begins so, or None; with at least 10 hex digits, as the WebUI writes."""
    found = [known for full, known in _vaes().items() if full.startswith(digest.lower())]
    return found[0] if len(found) == 1 and len(digest) >= _SHORT_HASH else None


def known_checkpoint(sha256: str, legacy: str | None = None) -> KnownCheckpoint | None:
    """The published checkpoint file with this hash (64 hex digits), or None.

    For a few files, only the first 16 digits are published; then ``legacy``, if given, must match too.
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
    """The published facts about a file, or None.

    Reads 64 KiB for the old hash. Reads the whole file only if a published file has this old hash, or has no known old
    hash but this size. Published files with neither are found by :func:`known_vae` and :func:`known_checkpoint` only.
    Returns None for a URL, because the file would have to be downloaded.

    Raises:
        UnreadableFile: the file cannot be read.
        Cancelled: ``cancelled`` returned True.
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
    """The WebUI's old hash: 8 hex digits over 64 KiB at 1 MiB. Different files can have the same, so it proves nothing.

    Raises:
        UnreadableFile: the file cannot be read.
    """
    with closing(LocalFile(path)) as source:
        length = min(max(source.size - _LEGACY_START, 0), _LEGACY_LENGTH)
        data = source.read_at(_LEGACY_START, length) if length else b""
    return hashlib.sha256(data).hexdigest()[:8]


def file_sha256(path: str | os.PathLike[str], cancelled: Callable[[], bool] | None = None) -> str:
    """64 hex digits over the whole file; takes seconds per gigabyte. ``cancelled`` is called every 4 MiB.

    Raises:
        UnreadableFile: the file cannot be read.
        Cancelled: ``cancelled`` returned True.
    """
    digest = hashlib.sha256()
    with closing(LocalFile(path)) as source:
        for start in range(0, source.size, _PIECE):
            if cancelled and cancelled():
                raise Cancelled("cancelled")
            digest.update(source.read_at(start, min(_PIECE, source.size - start)))
    return digest.hexdigest()


def published_vaes() -> tuple[PublishedVae, ...]:
    """The published VAE files of which address, size and hash are known, the recommended one of each family first."""
    return tuple(
        PublishedVae(entry["name"], entry["family"], size=entry["bytes"], sha256=entry["sha256"], **entry["download"])
        for entry in _entries("vae_files")
        if "download" in entry
    )


def suits(name: str) -> Style | None:
    """The style of images that a VAE with this file name is for; only a hint."""
    words = _words(name)
    return _style(_contains(words, _ANIME_VAES), any(phrase <= words for phrase in _REALISTIC_VAES))


def style_of_checkpoint(name: str) -> Style | None:
    """The style of images that a checkpoint with this file name makes; only a hint."""
    words = _words(name)
    return _style(_contains(words, _ANIME_CHECKPOINTS), _contains(words, _REALISTIC_CHECKPOINTS))


def _style(anime: bool, realistic: bool) -> Style | None:
    """The style, or None if both or neither match."""
    if anime == realistic:
        return None
    return "anime" if anime else "realistic"


def _contains(words: set[str], keywords: tuple[str, ...]) -> bool:
    return any(word == key or (len(key) > _SHORT and word.startswith(key)) for word in words for key in keywords)


def _words(name: str) -> set[str]:
    """The words in a file's name, also if only capitals separate them: ``AbyssOrangeMix2``."""
    stem = name.replace("\\", "/").rpartition("/")[2]
    separated = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", stem)
    return set(re.findall(r"[a-z]+", f"{stem} {separated}".lower()))


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
    """The rows of a table with a grade of A or B."""
    facts = json.loads(_FACTS.read_text(encoding="utf-8"))
    return tuple(entry for entry in facts[table] if entry["grade"] in ("A", "B"))
