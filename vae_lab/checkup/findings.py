"""Findings about a VAE, and the verdict from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = [
    "BROKEN",
    "HEALTHY",
    "INFORMATION",
    "MISSING",
    "SUSPECT",
    "TITLES",
    "UNREADABLE",
    "Evidence",
    "Finding",
    "Verdict",
]

HEALTHY = "healthy"
INFORMATION = "information"
SUSPECT = "suspect"
MISSING = "missing"
BROKEN = "broken"
UNREADABLE = "unreadable"

_RANK = {INFORMATION: 0, SUSPECT: 1, MISSING: 2, BROKEN: 3, UNREADABLE: 4}

TITLES: Mapping[str, str] = {
    "grey": "Washed out",
    "flat": "Blank images",
    "black": "Black images",
    "nan": "Invalid values (NaN)",
    "fp16-overflow": "Exceeds half precision",
    "wrong-family": "Made for another model",
    "missing-keys": "Incomplete",
    "bad-shape": "Inconsistent shapes",
    "known-bad": "Known file",
    "merged": "Merged",
    "encoder-broken": "Encoder broken",
    "colour-cast": "Wrong colours",
    "noisy-or-patterned": "Noise or stripes",
    "missing": "No VAE inside",
    "unreadable": "Unreadable",
    "not-a-vae": "Not a VAE",
}
"""The title of every code."""


@dataclass(frozen=True)
class Evidence:
    """A measurement behind a finding.

    Attributes:
        name: what was measured, for display.
        value: the number.
        unit: such as ``L*``; "" for ratios.
        wanted: the expected value, as text.
    """

    name: str
    value: float
    unit: str = ""
    wanted: str = ""

    def __str__(self) -> str:
        number = f"{self.value:.2f}".rstrip("0").rstrip(".") if abs(self.value) < 1e6 else f"{self.value:.2g}"
        shown = f"{self.name} {number} {self.unit}".strip()
        return f"{shown} ({self.wanted})" if self.wanted else shown


@dataclass(frozen=True)
class Finding:
    """A fact about a VAE or an image.

    Attributes:
        code: a key of :data:`TITLES`.
        severity: ``information``, ``suspect``, ``missing``, ``broken`` or ``unreadable``.
        text: the problem, in a sentence for beginners.
        evidence: the measurements behind it.
        remedy: what to do, in a sentence; "" if there is nothing to do.
    """

    code: str
    severity: str
    text: str
    evidence: tuple[Evidence, ...] = ()
    remedy: str = ""

    @property
    def title(self) -> str:
        """A few words for a heading."""
        return TITLES[self.code]

    def to_json(self) -> dict[str, Any]:
        """Plain values for reports; see :meth:`from_json`."""
        return {
            "code": self.code,
            "severity": self.severity,
            "text": self.text,
            "evidence": [asdict(evidence) for evidence in self.evidence],
            "remedy": self.remedy,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Finding:
        """The inverse of :meth:`to_json`."""
        evidence = tuple(Evidence(**e) for e in stored["evidence"])
        return cls(stored["code"], stored["severity"], stored["text"], evidence, stored["remedy"])


@dataclass(frozen=True)
class Verdict:
    """All findings, worst first."""

    findings: tuple[Finding, ...] = field(default=())

    @classmethod
    def of(cls, findings: Iterable[Finding]) -> Verdict:
        """Sort ``findings``, the worst first."""
        return cls(tuple(sorted(findings, key=lambda finding: -_RANK[finding.severity])))

    @property
    def status(self) -> str:
        """``healthy``, ``suspect``, ``missing``, ``broken`` or ``unreadable``, from the worst finding."""
        worst = self.findings[0].severity if self.findings else INFORMATION
        return HEALTHY if worst == INFORMATION else worst

    @property
    def faults(self) -> tuple[Finding, ...]:
        """The findings that are more than information."""
        return tuple(finding for finding in self.findings if finding.severity != INFORMATION)

    def has(self, code: str) -> bool:
        """Whether there is a finding with this code."""
        return any(finding.code == code for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """``{"status", "findings"}``, as in ``inspect --json``."""
        return {"status": self.status, "findings": [finding.to_json() for finding in self.findings]}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Verdict:
        """The inverse of :meth:`to_json`."""
        return cls(tuple(Finding.from_json(finding) for finding in stored["findings"]))
