"""Findings about a VAE, and the verdict from them.

The wording of a title or a status is here; the sentence of a finding is where it is made: ``judge.py``,
``half_precision.py``, ``checkup.py``, ``watch.py``, and ``library/inspect.py`` for files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

__all__ = [
    "BROKEN",
    "HEALTHY",
    "INFORMATION",
    "MISSING",
    "NOT_CHECKED",
    "NO_VAE",
    "STATUS_PHRASES",
    "STATUS_TITLES",
    "SUSPECT",
    "TITLES",
    "UNCHECKED",
    "UNREADABLE",
    "WORST_FIRST",
    "Evidence",
    "Finding",
    "Severity",
    "Status",
    "Verdict",
]

Severity = Literal["information", "no-vae", "not-checked", "suspect", "missing", "broken", "unreadable"]
"""How bad one finding is."""

Status = Literal["healthy", "no-vae", "unchecked", "not-checked", "suspect", "missing", "broken", "unreadable"]
"""What all findings on a file add up to."""

HEALTHY: Final = "healthy"
INFORMATION: Final = "information"
NOT_CHECKED: Final = "not-checked"
"""Of a VAE whose kind the checkup cannot judge; nothing is known to be wrong with it."""
NO_VAE: Final = "no-vae"
"""Of a file that has no VAE and needs none, such as a LoRA; nothing is wrong with it."""
SUSPECT: Final = "suspect"
MISSING: Final = "missing"
BROKEN: Final = "broken"
UNREADABLE: Final = "unreadable"
UNCHECKED: Final = "unchecked"
"""Status of a file whose weights were not read yet."""

WORST_FIRST: tuple[Status, ...] = (
    UNREADABLE,
    BROKEN,
    MISSING,
    SUSPECT,
    NOT_CHECKED,
    UNCHECKED,
    HEALTHY,
    NO_VAE,
)
"""Every status."""

STATUS_TITLES: Mapping[Status, str] = {
    UNREADABLE: "Unreadable",
    BROKEN: "Broken",
    MISSING: "No VAE inside",
    SUSPECT: "Suspect",
    NOT_CHECKED: "Cannot be judged",
    UNCHECKED: "Not checked yet",
    HEALTHY: "Healthy",
    NO_VAE: "Not a VAE",
}
"""Every status, as a badge shows it."""

STATUS_PHRASES: Mapping[Status, str] = {
    **{status: title.lower() for status, title in STATUS_TITLES.items()},
    MISSING: "without a VAE",
    NO_VAE: "not a VAE",
}
"""Every status, as it follows a number of files."""

_RANK = {INFORMATION: 0, NO_VAE: 1, NOT_CHECKED: 2, SUSPECT: 3, MISSING: 4, BROKEN: 5, UNREADABLE: 6}

_NO_FAULT = (INFORMATION, NO_VAE, NOT_CHECKED)

TITLES: Mapping[str, str] = {
    "grey": "Washed out",
    "pale": "Slightly pale",
    "flat": "Blank images",
    "black": "Black images",
    "nan": "Invalid values (NaN)",
    "fp16-overflow": "Exceeds half precision",
    "wrong-family": "Made for another model",
    "other-latents": "For other latents",
    "family-uncertain": "Family not certain",
    "not-checked": "Cannot be judged",
    "not-finished": "Not finished",
    "half": "Half a VAE",
    "host-shapes": "Hosts cannot load it",
    "second-vae": "A second VAE",
    "wrong-extension": "Wrong file extension",
    "all-zero": "Empty weights",
    "missing-keys": "Incomplete",
    "bad-shape": "Inconsistent shapes",
    "lost-data": "Part of the file is missing",
    "known-bad": "Known file",
    "merged": "Merged",
    "encoder-broken": "Encoder broken",
    "colour-cast": "Wrong colours",
    "noisy-or-patterned": "Noise or stripes",
    "missing": "No VAE inside",
    "unreadable": "Unreadable",
    "not-a-vae": "Not a VAE",
    "other-model": "Another kind of model",
    "needs-no-vae": "Needs no VAE",
    "other-kind": "Another kind of VAE",
    "shard": "Part of a model",
    "half-converted": "Mixed names",
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

    @classmethod
    def from_json(cls, stored: Any) -> Evidence:
        """What ``dataclasses.asdict`` gave.

        Raises:
            ValueError: it has another shape.
        """
        try:
            words = stored["name"], stored["unit"], stored["wanted"]
            value = float(stored["value"])
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError("not evidence") from error
        if not all(isinstance(word, str) for word in words):
            raise ValueError("not evidence")
        return cls(words[0], value, words[1], words[2])

    def __str__(self) -> str:
        number = f"{self.value:.2f}".rstrip("0").rstrip(".") if abs(self.value) < 1e6 else f"{self.value:.2g}"
        shown = f"{self.name} {number} {self.unit}".strip()
        return f"{shown} ({self.wanted})" if self.wanted else shown


@dataclass(frozen=True)
class Finding:
    """A fact about a VAE or an image.

    Attributes:
        code: a key of :data:`TITLES`.
        severity: ``information``, ``no-vae``, ``not-checked``, ``suspect``, ``missing``, ``broken`` or ``unreadable``.
        text: the problem, in a sentence for beginners.
        evidence: the measurements behind it.
        remedy: what to do, in a sentence; "" if there is nothing to do.
    """

    code: str
    severity: Severity
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
    def from_json(cls, stored: Any) -> Finding:
        """What :meth:`to_json` gave.

        Raises:
            ValueError: it has another shape.
        """
        try:
            words = [stored[name] for name in ("code", "severity", "text", "remedy")]
            evidence = tuple(map(Evidence.from_json, stored["evidence"]))
        except (KeyError, TypeError) as error:
            raise ValueError("not a finding") from error
        code, severity, text, remedy = words
        if not all(isinstance(word, str) for word in words) or code not in TITLES or severity not in _RANK:
            raise ValueError("not a finding")
        return cls(code, severity, text, evidence, remedy)


@dataclass(frozen=True)
class Verdict:
    """All findings, worst first."""

    findings: tuple[Finding, ...] = field(default=())

    @classmethod
    def of(cls, findings: Iterable[Finding]) -> Verdict:
        """Sort ``findings``, the worst first."""
        return cls(tuple(sorted(findings, key=lambda finding: -_RANK[finding.severity])))

    @property
    def status(self) -> Status:
        """``healthy``, or the severity of the worst finding if that is more than information."""
        worst = self.findings[0].severity if self.findings else INFORMATION
        return HEALTHY if worst == INFORMATION else worst

    @property
    def faults(self) -> tuple[Finding, ...]:
        """The findings that something is wrong."""
        return tuple(finding for finding in self.findings if finding.severity not in _NO_FAULT)

    @property
    def notable(self) -> tuple[Finding, ...]:
        """The faults, and that there is no VAE or that it could not be judged: what a verdict has to say first."""
        return tuple(finding for finding in self.findings if finding.severity != INFORMATION)

    def has(self, code: str) -> bool:
        """Whether there is a finding with this code."""
        return any(finding.code == code for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """``{"status", "findings"}``, as in ``inspect --json``."""
        return {"status": self.status, "findings": [finding.to_json() for finding in self.findings]}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Verdict:
        """What :meth:`to_json` gave."""
        return cls(tuple(map(Finding.from_json, stored["findings"])))
