"""One latent, many VAEs."""

from vae_lab.comparison.compare import Candidate, Comparison, Decoded, compare, compare_candidates
from vae_lab.comparison.measures import Measured, Measures, measure, measure_comparison
from vae_lab.comparison.pixels import png_bytes, to_pixels
from vae_lab.comparison.sheet import contact_sheet

__all__ = [
    "Candidate", "Comparison", "Decoded", "Measured", "Measures", "compare", "compare_candidates", "contact_sheet",
    "measure", "measure_comparison", "png_bytes", "to_pixels",
]  # fmt: skip
