"""Checks the health of VAEs and of the images they decode."""

from vae_lab.checkup.findings import TITLES, Evidence, Finding, Verdict
from vae_lab.checkup.recommend import Recommendation, recommend
from vae_lab.checkup.report import Memory, Report, identity_key, inspect_file
from vae_lab.checkup.watch import Glance, glance, judge_output
from vae_lab.checkup.weights import DECODED, ROUND_TRIP, Checkup, chart_png, check_decoder, check_weights

__all__ = [
    "DECODED",
    "ROUND_TRIP",
    "TITLES",
    "Checkup",
    "Evidence",
    "Finding",
    "Glance",
    "Memory",
    "Recommendation",
    "Report",
    "Verdict",
    "chart_png",
    "check_decoder",
    "check_weights",
    "glance",
    "identity_key",
    "inspect_file",
    "judge_output",
    "recommend",
]
