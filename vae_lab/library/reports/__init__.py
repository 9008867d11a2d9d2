"""Reports on a scan: JSON lines, CSV, and a self-contained HTML page."""

from vae_lab.library.reports.page import Charts, write_html
from vae_lab.library.reports.tables import json_line, write_csv, write_jsonl

__all__ = ["Charts", "json_line", "write_csv", "write_html", "write_jsonl"]
