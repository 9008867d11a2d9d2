"""Reports: on a scan as JSON lines, CSV and a page; on a file as a certificate; for continuous integration."""

from vae_lab.library.reports.certificate import certificate_html, certificate_json
from vae_lab.library.reports.ci import github_annotations, junit_xml
from vae_lab.library.reports.page import Charts, write_html
from vae_lab.library.reports.tables import json_line, write_csv, write_jsonl

__all__ = [
    "Charts", "certificate_html", "certificate_json", "github_annotations", "json_line", "junit_xml", "write_csv",
    "write_html", "write_jsonl",
]  # fmt: skip
