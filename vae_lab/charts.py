"""Deprecated since 0.2: this module is :mod:`vae_lab.latents.chart` now."""

from vae_lab.latents.chart import CHART_COLOURS, COLUMNS, PATCH, PHOTO_TOP, chart_image, chart_latents

__all__ = ["CHART_COLOURS", "COLUMNS", "PATCH", "PHOTO_TOP", "chart_image", "chart_latents"]
