"""The record of one file."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal

from vae_lab.checkup import Checkup, Finding, Verdict
from vae_lab.checkup.findings import BROKEN, HEALTHY, INFORMATION, UNCHECKED, UNREADABLE, Evidence, Status
from vae_lab.identity import KnownVae, Merge, Parent, Sketch, explain_merge, short
from vae_lab.latents.family import FAMILIES, Family

__all__ = ["MAX_PARENTS", "Depth", "FileRecord", "Kind", "explained", "failed", "file_facts"]

Kind = Literal["checkpoint", "vae", ""]
"""What a file contains; "" if unknown."""

MAX_PARENTS = 64
"""Possible parents of merges; only their sketches are in memory, at most 30 MB."""

_MERGED = "merged"
_CONTRAST = "contrast retained in a photo"  # the end of a name in ``measured``; that of the decoder alone comes first


class Depth(IntEnum):
    """How much of a file was examined."""

    LISTED = 0
    """The header, and a sample of the weights."""
    IDENTIFIED = 1
    """All weights of the VAE were read."""
    CHECKED = 2
    """The chart was decoded, or the file has no VAE that can be loaded."""


@dataclass(frozen=True)
class FileRecord:
    """What is known about one file, from its header only up to a full checkup.

    Attributes:
        path: the file, or its address without user, password and query.
        name: for display: the file's name, or in a scan its unique path relative to its folder.
        size: bytes; 0 if the file does not exist.
        mtime: modification time, in seconds since the epoch.
        file_id: the same for all hard links of one file; "" if unknown.
        kind: ``checkpoint`` or ``vae``; "" if unknown.
        layout: naming and prefix of its VAE, such as ``ldm (first_stage_model.)``.
        family_id: latent family according to the weights, else to the rest of the checkpoint; "" if neither shows it;
            None if not determined yet.
        hint_id: the family that the rest of a checkpoint suggests, or "".
        dtype: stored precision, such as ``fp16``.
        architecture: such as ``AutoencoderKL``, or "".
        fingerprint: 64 hex digits over the VAE's weights, or "".
        sketch: digest of the VAE's sketch; "" without one, or if it has NaN.
        problem: why no VAE can be loaded from the file, or "".
        checkup: of the weights, with the chart; None if the chart was not decoded.
        file_findings: findings about the file, not about its weights.
        identity: the published file, or the one that the weights suggest, or None.
        merge: what the VAE was merged from, if known.
        bytes_read: of the file; for a URL, bytes received.
        seconds: total duration.
        depth: how much of the file was examined.
        sha256: 64 hex digits over the whole file, or "" if not computed.
    """

    path: str
    name: str = ""
    size: int = 0
    mtime: float = 0.0
    file_id: str = ""
    kind: Kind = ""
    layout: str = ""
    family_id: str | None = None
    hint_id: str = ""
    dtype: str = ""
    architecture: str = ""
    fingerprint: str = ""
    sketch: str = ""
    problem: str = ""
    checkup: Checkup | None = None
    file_findings: tuple[Finding, ...] = ()
    identity: KnownVae | None = None
    merge: Merge | None = None
    bytes_read: int = 0
    seconds: float = 0.0
    depth: Depth = Depth.LISTED
    sha256: str = ""

    @property
    def autov2(self) -> str:
        """The first 10 digits of ``sha256``, or "": the WebUI's ``VAE hash``, and AutoV2 on Civitai."""
        return short(self.sha256)

    @property
    def exact_fingerprint(self) -> str:
        """The fingerprint if only equal weights have it: those stored in fp16, to which it rounds. Else ""."""
        return self.fingerprint if self.dtype == "fp16" else ""

    @property
    def family(self) -> Family | None:
        """The latent family, if known."""
        return FAMILIES.get(self.family_id or "")

    @property
    def model_family(self) -> Family | None:
        """The family of the latents that this VAE has to decode: the checkpoint's, else its own."""
        return FAMILIES.get(self.hint_id) or self.family

    @property
    def verdict(self) -> Verdict:
        """All findings, worst first."""
        return Verdict.of((*self.file_findings, *(self.checkup.findings if self.checkup else ())))

    @property
    def status(self) -> Status:
        """The verdict's status. A file that no image was measured of is ``unchecked``, never ``healthy``."""
        status = self.verdict.status
        return UNCHECKED if status == HEALTHY and not self.measured else status

    @property
    def can_replace(self) -> bool:
        """Whether it can replace a broken VAE: measured and healthy, whole, and for its family's usual latents."""
        limits = ("half", "other-latents", "family-uncertain")
        return self.status == HEALTHY and not any(self.verdict.has(code) for code in limits)

    @property
    def measured(self) -> tuple[Evidence, ...]:
        """The measurements behind the verdict."""
        return self.checkup.measured if self.checkup else ()

    @property
    def contrast_kept(self) -> float | None:
        """Share of a photo's contrast that is left after decoding; 1 is all of it. None if it was not measured."""
        kept = (evidence.value for evidence in self.measured if evidence.name.endswith(_CONTRAST))
        return next(kept, None)

    @property
    def charts(self) -> Mapping[str, bytes]:
        """PNG by name, if loaded; see :mod:`vae_lab.checkup`."""
        return self.checkup.charts if self.checkup else {}

    @property
    def published(self) -> bool:
        """Whether the file is a published VAE, byte for byte: an original, whatever else is on the disk."""
        return self.identity is not None and self.identity.match == "file"

    def can_be_parent_of(self, child: FileRecord) -> bool:
        """Whether ``child`` may have been merged from this file, by what is known of both.

        NaN in one parent is NaN in the merge, and nothing healthy comes from a broken parent.
        """
        if self.problem or self.verdict.has("nan"):
            return False
        return self.status != BROKEN or child.status == BROKEN

    def with_merge(self, merge: Merge | None) -> FileRecord:
        """The same record, with what the VAE was merged from. The status does not depend on it."""
        merge = None if self.published else merge
        others = tuple(finding for finding in self.file_findings if finding.code != _MERGED)
        bare = replace(self, merge=merge, file_findings=others)
        if merge is None or not merge.certain:
            return bare
        return replace(bare, file_findings=(*others, _merge_finding(merge, bare)))

    @property
    def finished(self) -> bool:
        """Whether the file was examined within its time; if not, the record must not be stored."""
        return not any(finding.code == "not-finished" for finding in self.file_findings)

    def with_charts(self, charts: Mapping[str, bytes]) -> FileRecord:
        """The same record with these charts; ``{}`` for none."""
        return replace(self, checkup=replace(self.checkup, charts=charts)) if self.checkup else self

    # --- JSON for users and other programs ---------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Plain values, as printed by ``inspect --json`` and returned by the API."""
        identity, merge = self.identity, self.merge
        parents = [
            {"name": parent.name, "weight": round(parent.weight, 4) if merge and merge.certain else None}
            for parent in (merge.parents if merge else ())
        ]
        return {
            "path": self.path,
            "kind": self.kind or None,
            "layout": self.layout or None,
            "family": self.family_id or None,
            "dtype": self.dtype or None,
            "fingerprint": self.fingerprint or None,
            "sha256": self.sha256 or None,
            "autov2": self.autov2 or None,
            "identity": identity
            and {
                "name": identity.name,
                "match": identity.match,
                "aliases": list(identity.aliases),
                "grade": identity.grade or None,
            },
            "verdict": _rounded(self.verdict.to_json() | {"status": self.status}),
            "merge": merge and {"parents": parents, "residual": round(merge.residual, 6), "direction": merge.direction},
            "measured": [_rounded(asdict(evidence)) for evidence in self.measured],
            "bytes_read": self.bytes_read,
            "seconds": round(self.seconds, 3),
        }

    def to_scan_json(self) -> dict[str, Any]:
        """As :meth:`to_json`, with facts about the file, as written by ``scan --jsonl``."""
        plain = self.to_json()
        return {
            "path": plain.pop("path"),
            "name": self.name,
            "status": self.status,
            "size": self.size,
            "mtime": self.mtime,
            **plain,
            "sketch": self.sketch or None,
        }

    # --- for the cache -------------------------------------------------------------------------------------------

    def to_cache(self) -> dict[str, Any]:
        """Everything but the charts as plain values; see :meth:`from_cache`."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        plain["depth"] = int(self.depth)
        plain["checkup"] = self.checkup.to_json() if self.checkup else None
        plain["file_findings"] = [finding.to_json() for finding in self.file_findings]
        plain["identity"] = asdict(self.identity) if self.identity else None
        plain["merge"] = asdict(self.merge) if self.merge else None
        return plain

    @classmethod
    def from_cache(cls, stored: Any) -> FileRecord:
        """Parse the result of :meth:`to_cache`. Every type is checked, because the cache is untrusted.

        Raises:
            ValueError: it has another shape.
        """
        try:
            plain = {name: stored[name] for name in _PLAIN}
            if not all(_FITS[name](value) for name, value in plain.items()):
                raise ValueError("a record with a value of another type")
            checkup, identity, merge = stored["checkup"], stored["identity"], stored["merge"]
            return cls(
                **{**plain, "depth": Depth(plain["depth"])},
                checkup=None if checkup is None else Checkup.from_json(checkup),
                file_findings=tuple(map(Finding.from_json, stored["file_findings"])),
                identity=None if identity is None else _identity(identity),
                merge=None if merge is None else _merge(merge),
            )
        except (KeyError, TypeError) as error:
            raise ValueError("not a record") from error


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_number(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _is_hex(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{0,64}", value) is not None


_FITS: dict[str, Callable[[Any], bool]] = {
    "path": _is_text,
    "name": _is_text,
    "size": _is_count,
    "mtime": _is_number,
    "file_id": _is_text,
    "kind": lambda value: value in ("checkpoint", "vae", ""),
    "layout": _is_text,
    "family_id": lambda value: value in (None, "", *FAMILIES),
    "hint_id": lambda value: value in ("", *FAMILIES),
    "dtype": _is_text,
    "architecture": _is_text,
    "fingerprint": _is_hex,
    "sketch": _is_hex,
    "problem": _is_text,
    "bytes_read": _is_count,
    "seconds": _is_number,
    "depth": lambda value: type(value) is int and value in list(Depth),
}
_PLAIN = tuple(field.name for field in fields(FileRecord) if field.name in _FITS)


def _identity(stored: Any) -> KnownVae:
    known = KnownVae(**{**stored, "aliases": tuple(stored["aliases"])})
    words = (known.name, *known.aliases, known.family, known.grade, known.note)
    if not all(map(_is_text, words)) or known.match not in ("file", "hint"):
        raise ValueError("not a published VAE")
    return known


def _merge(stored: Any) -> Merge:
    parents = tuple(Parent(**parent) for parent in stored["parents"])
    merge = Merge(parents, stored["residual"], stored["relatives"], stored["direction"])
    names = all(_is_text(parent.name) and _is_number(parent.weight) for parent in merge.parents)
    if not names or not _is_number(merge.residual) or not isinstance(merge.relatives, bool):
        raise ValueError("not a merge")
    if merge.direction not in ("certain", "open"):
        raise ValueError("not a merge")
    return merge


def _rounded(value: Any) -> Any:
    """Measurements as JSON values, rounded to four decimals."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


def _merge_finding(merge: Merge, record: FileRecord) -> Finding:
    """Information only: parents explain a verdict, they never make one."""
    evidence = tuple(Evidence(f"share of {parent.name}", parent.weight) for parent in merge.parents)
    evidence += (Evidence("unexplained remainder", 100 * merge.residual, "%", "at most 0.1 %"),)
    if merge.relatives:
        why = "They are fine-tunes of one VAE, which merge well."
    elif record.verdict.faults:
        why = "They were trained independently: their averaged weights are meaningless, so images turn grey."
    elif record.depth == Depth.CHECKED:
        why = "They were trained independently, but no fault was found in the result."
    else:
        why = "They were trained independently."
    return Finding(_MERGED, INFORMATION, f"The VAE is a merge: {merge.sentence}. {why}", evidence)


def explained(
    record: FileRecord, sketch: Sketch, candidates: Mapping[str, Sketch], known: Mapping[str, FileRecord]
) -> FileRecord:
    """The record of a file with what its VAE was merged from.

    Args:
        record: of the file, checked if possible.
        sketch: of its VAE.
        candidates: sketches of other files by name.
        known: what is known about some of them, by the same names.
    """
    if record.published:
        return record.with_merge(None)
    usable = {
        name: candidate
        for name, candidate in candidates.items()
        if name not in known or known[name].can_be_parent_of(record)
    }
    originals = {name for name, other in known.items() if other.published}
    return record.with_merge(explain_merge(sketch, usable, originals=originals))


def failed(path: str, reason: str) -> FileRecord:
    """The record of a file that could not be examined."""
    reason = " ".join(reason.split())
    finding = Finding("unreadable", UNREADABLE, f"{reason[:1].upper()}{reason[1:]}.")
    return FileRecord(
        path, family_id="", file_findings=(finding,), problem=reason, depth=Depth.CHECKED, **file_facts(path)
    )


def file_facts(path: str) -> dict[str, Any]:
    """Current facts from the file system: name, size, mtime, file_id."""
    name = os.path.basename(path)  # noqa: PTH119  a URL is not a path
    try:
        stat = Path(path).stat()
    except (OSError, ValueError):
        return {"name": name}
    file_id = f"{stat.st_dev}:{stat.st_ino}"
    return {"name": name, "size": stat.st_size, "mtime": stat.st_mtime, "file_id": file_id}
