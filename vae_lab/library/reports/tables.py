"""Reports on a scan as tables: JSON lines and CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import TextIO

from vae_lab.library.record import FileRecord
from vae_lab.text import as_json

__all__ = ["json_line", "write_csv", "write_jsonl"]

_COLUMNS = (
    *("status", "name", "path", "kind", "family", "dtype", "layout", "size", "modified", "fingerprint", "identity"),
    *("merge", "findings", "remedy", "sha256", "autov2"),
)


def json_line(record: FileRecord) -> str:
    """One line of JSON without a line break; ASCII only, so that no file name or terminal can break it."""
    return as_json(record.to_scan_json())


def write_jsonl(records: Iterable[FileRecord], out: TextIO) -> None:
    """Write one JSON object per file and line."""
    for record in records:
        out.write(f"{json_line(record)}\n")


def write_csv(records: Iterable[FileRecord], out: TextIO) -> None:
    """Write one row per file.

    Args:
        records: written in this order.
        out: opened with ``newline=""``. Values that a spreadsheet would read as formulas get a leading apostrophe.
    """
    writer = csv.writer(out)
    writer.writerow(_COLUMNS)
    for record in records:
        writer.writerow([_harmless(value) for value in _row(record)])


def _row(record: FileRecord) -> Sequence[object]:
    findings = record.verdict.findings
    return (
        record.status,
        record.name,
        record.path,
        record.kind,
        record.family_id or "",
        record.dtype,
        record.layout,
        record.size,
        _date(record.mtime),
        record.fingerprint,
        record.identity.words if record.identity else "",
        _merged(record),
        " ".join(finding.text for finding in findings),
        next((finding.remedy for finding in findings if finding.remedy), ""),
        record.sha256,
        record.autov2,
    )


def _harmless(value: object) -> object:
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        return f"'{value}"
    return value


def _date(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M") if seconds else ""
    except (OverflowError, ValueError, OSError):  # file systems have times beyond the year 9999
        return ""


def _merged(record: FileRecord) -> str:
    if not record.merge or not record.merge.certain:
        return ""
    return " + ".join(f"{parent.weight:.3f} {parent.name}" for parent in record.merge.parents)
