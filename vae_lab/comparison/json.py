"""The JSON of a comparison, shared by the command line and the API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vae_lab.comparison.compare import Comparison
from vae_lab.comparison.measures import Measured

__all__ = ["comparison_json"]


def comparison_json(comparison: Comparison, measured: Measured, images: Sequence[Sequence[str]]) -> dict[str, Any]:
    """A comparison and its measures as plain values.

    Args:
        comparison: the results.
        measured: their measures.
        images: for each result, the file names or URLs of its images.
    """
    results = [
        {
            "name": result.name,
            "family": result.family.id if result.family else None,
            "seconds": round(result.seconds, 4),
            "error": result.error,
            "finite": result.finite,
            "in_strips": result.in_strips,
            "images": list(names),
            "measures": measured.of[result.name].to_json() if result.name in measured.of else None,
        }
        for result, names in zip(comparison, images, strict=True)
    ]
    return {
        "family": comparison.family.id,
        "cancelled": comparison.cancelled,
        "reference": measured.reference,
        "results": results,
    }
