"""Checks the health of VAEs and of the images they decode."""

from vae_lab.checkup.checkup import (
    CHECKUP_VERSION,
    DECODED,
    ROUND_TRIP,
    Checkup,
    chart_png,
    check_decoder,
    check_weights,
    identity_key,
)
from vae_lab.checkup.findings import TITLES, Evidence, Finding, Verdict
from vae_lab.checkup.watch import Glance, glance, judge_output

__all__ = [
    "CHECKUP_VERSION",
    "DECODED",
    "ROUND_TRIP",
    "TITLES",
    "Checkup",
    "Evidence",
    "Finding",
    "Glance",
    "Verdict",
    "chart_png",
    "check_decoder",
    "check_weights",
    "glance",
    "identity_key",
    "judge_output",
]
