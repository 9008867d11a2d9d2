"""Compares VAEs: decodes one latent with each, or encodes and decodes one image with each."""

from vae_lab.comparison.compare import Candidate, Comparison, Decoded, compare, compare_candidates
from vae_lab.comparison.json import comparison_json
from vae_lab.comparison.measures import Measured, Measures, measure, measure_comparison
from vae_lab.comparison.pixels import png_bytes, to_pixels
from vae_lab.comparison.round_trip import Coder, RoundTrip, RoundTripped, round_trip
from vae_lab.comparison.sheet import contact_sheet, error_tile

__all__ = [
    "Candidate", "Coder", "Comparison", "Decoded", "Measured", "Measures", "RoundTrip", "RoundTripped", "compare",
    "compare_candidates", "comparison_json", "contact_sheet", "error_tile", "measure", "measure_comparison",
    "png_bytes", "round_trip", "to_pixels",
]  # fmt: skip
