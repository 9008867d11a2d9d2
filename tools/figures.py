"""One line of the benchmark's table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One row of the table: what was measured, its baseline, both values, their unit, and the ratio to reach."""

    what: str
    against: str
    value: float
    against_value: float
    goal: float | None = None
    unit: str = "s"

    @property
    def ratio(self) -> float:
        return self.value / self.against_value

    @property
    def reached(self) -> bool:
        return self.goal is None or self.ratio <= self.goal

    def line(self) -> str:
        """A row of the table."""
        goal = "" if self.goal is None else f"at most {self.goal:.3g}"
        sides = (
            f"{self.what} ({self.value:.3g} {self.unit})",
            f"{self.against} ({self.against_value:.3g} {self.unit})",
        )
        return f"| {' | '.join(sides)} | {self.ratio:.3g} | {goal} |"
