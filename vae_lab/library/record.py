"""One file, looked at without regard to any other."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vae_lab.autoencoders import open_vae
from vae_lab.checkup import Finding, Report, Verdict, inspect_file
from vae_lab.checkup.findings import BROKEN, HEALTHY, MISSING, SUSPECT, UNREADABLE
from vae_lab.errors import FileError
from vae_lab.identity import Sketch, sketch_digest, sketch_of_file

__all__ = [
    "IDENTIFIED",
    "PROBED",
    "UNCHECKED",
    "UNFORESEEN",
    "WEIGHTS_READ",
    "WORST_FIRST",
    "ScanRecord",
    "digest_of",
    "failed",
    "record_of",
    "scan_file",
]

UNCHECKED = "unchecked"
"""Status of a file that was identified, but whose weights were not read: the scan was stopped before."""

WORST_FIRST = (UNREADABLE, BROKEN, MISSING, SUSPECT, UNCHECKED, HEALTHY)
"""Every status."""

IDENTIFIED, WEIGHTS_READ, PROBED = range(3)
"""How far a file was looked at; what a record's ``depth`` says."""

# What torch, numpy and Python raise when something in a file was foreseen by nobody. One file must not end a scan of
# ten thousand.
UNFORESEEN = (ArithmeticError, AttributeError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class ScanRecord:
    """What was found out about one file, in plain values: it can be pickled, stored, and sent to another machine.

    Attributes:
        path: the file, as it was found.
        name: relative to its folder, unique within a scan.
        size: bytes; 0 if it is not there.
        mtime: when it was changed, in seconds since 1970.
        file_id: the same for all hard links of one file; "" if unknown.
        kind, layout, family, hint, dtype, architecture, fingerprint, problem: as in :class:`vae_lab.checkup.Report`;
            ``family`` and ``hint`` are ids.
        sketch: digest of the VAE's sketch; "" if there is none, or if it has NaN.
        identity, verdict, merge, measured: as ``inspect --json`` prints them.
        bytes_read: of the file.
        seconds: for everything.
        depth: 0 identified, 1 all weights read, 2 the chart was put through them, or could not be.
        charts: PNG by name, where asked for; see :mod:`vae_lab.checkup`.
    """

    path: str
    name: str
    size: int = 0
    mtime: float = 0.0
    file_id: str = ""
    kind: str = ""
    layout: str = ""
    family: str = ""
    hint: str = ""
    dtype: str = ""
    architecture: str = ""
    fingerprint: str = ""
    problem: str = ""
    sketch: str = ""
    identity: Mapping[str, Any] | None = None
    verdict: Mapping[str, Any] = field(default_factory=lambda: Verdict().to_json())
    merge: Mapping[str, Any] | None = None
    measured: Sequence[Mapping[str, Any]] = ()
    bytes_read: int = 0
    seconds: float = 0.0
    depth: int = IDENTIFIED
    charts: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def status(self) -> str:
        """One of :data:`WORST_FIRST`."""
        status = self.verdict["status"]
        return UNCHECKED if status == HEALTHY and self.depth == IDENTIFIED else status

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found, worst first."""
        return Verdict.from_json(self.verdict).findings

    def to_json(self) -> dict[str, Any]:
        """One object, as :meth:`vae_lab.checkup.Report.to_json`, and the facts of the file; without charts."""
        return {
            "path": self.path,
            "name": self.name,
            "status": self.status,
            "size": self.size,
            "mtime": self.mtime,
            "kind": self.kind or None,
            "layout": self.layout or None,
            "family": self.family or None,
            "dtype": self.dtype or None,
            "fingerprint": self.fingerprint or None,
            "sketch": self.sketch or None,
            "identity": self.identity,
            "verdict": self.verdict,
            "merge": self.merge,
            "measured": self.measured,
            "bytes_read": self.bytes_read,
            "seconds": self.seconds,
        }


def scan_file(path: str | os.PathLike[str], *, probe: bool = True, charts: bool = False) -> ScanRecord:
    """Find out what VAE is in a file, and whether it is sound.

    A pure function of the file: it shares nothing, remembers nothing, and never raises for what is in the file, so that
    it can be mapped over processes and machines.

    Args:
        path: a file, or an address of one that :func:`vae_lab.inspect_file` can read.
        probe: whether to put the colour chart through the VAE.
        charts: whether the record shall hold what came out.
    """
    name = os.fspath(path)
    try:
        report = inspect_file(name, probe=probe)
        sketch = "" if report.problem else digest_of(_sketch(name))
    except FileError as error:  # it vanished in between
        report, sketch = failed(name, error.reason), ""
    except UNFORESEEN as error:
        report, sketch = failed(name, f"it could not be checked: {type(error).__name__}: {error}"), ""
    return record_of(report, sketch, PROBED if probe or report.problem else WEIGHTS_READ, charts)


def _sketch(path: str) -> Sketch:
    with open_vae(path) as file:
        return sketch_of_file(file)


def digest_of(sketch: Sketch | None) -> str:
    """For records: broken weights, and VAEs without a convolution, are not held against others."""
    return sketch_digest(sketch) if sketch is not None and len(sketch.values) and sketch.finite else ""


def failed(path: str, reason: str) -> Report:
    """The report on a file that could not be checked."""
    reason = " ".join(reason.split())
    finding = Finding("unreadable", UNREADABLE, f"{reason[:1].upper()}{reason[1:]}.")
    return Report(path, file_findings=(finding,), problem=reason)


def record_of(report: Report, sketch: str, depth: int, charts: bool = False) -> ScanRecord:
    """A report in plain values, with what the file system says of the file now.

    Args:
        report: on a file.
        sketch: see :func:`digest_of`.
        depth: how far the file was looked at.
        charts: whether to take them along.
    """
    facts = report.to_json()
    return ScanRecord(
        path=report.path,
        name=Path(report.path).name,
        **_stat(report.path),
        kind=report.kind,
        layout=report.layout,
        family=report.family_id,
        hint=report.hint_id,
        dtype=report.dtype,
        architecture=report.architecture,
        fingerprint=report.fingerprint,
        problem=report.problem,
        sketch=sketch,
        identity=facts["identity"],
        verdict=facts["verdict"],
        merge=facts["merge"],
        measured=facts["measured"],
        bytes_read=report.bytes_read,
        seconds=facts["seconds"],
        depth=depth,
        charts=dict(report.checkup.charts) if charts and report.checkup else {},
    )


def _stat(path: str) -> dict[str, Any]:
    try:
        stat = Path(path).stat()
    except (OSError, ValueError):
        return {}
    return {"size": stat.st_size, "mtime": stat.st_mtime, "file_id": f"{stat.st_dev}:{stat.st_ino}"}
