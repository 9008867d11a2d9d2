"""A certificate: what the checkup of one file found, as a page and as JSON, to publish beside a model."""

from __future__ import annotations

import json
from typing import Any

from vae_lab.checkup import chart_png
from vae_lab.checkup.findings import STATUS_PHRASES
from vae_lab.library.record import FileRecord
from vae_lab.library.reports.templates import WAYS, template
from vae_lab.text import as_text
from vae_lab.version import __version__

__all__ = ["certificate_html", "certificate_json"]

_OF_THIS_MACHINE = ("path", "bytes_read", "seconds")


def certificate_json(record: FileRecord) -> str:
    """Identity, verdict, measurements and hashes, without anything about this machine."""
    facts = {key: value for key, value in record.to_json().items() if key not in _OF_THIS_MACHINE}
    plain: dict[str, Any] = {"vae_lab": __version__, "file": record.name, "size": record.size, **facts}
    return f"{as_text(json.dumps(plain, indent=1, ensure_ascii=False))}\n"


def certificate_html(record: FileRecord) -> str:
    """The same with the charts, as one page without scripts that loads nothing; everything from files is escaped."""
    family = record.family or record.model_family
    facts = {
        "Family": family.title if family else "",
        "Known as": record.identity.words if record.identity else "",
        "Precision": record.dtype,
        "Layout": record.layout,
        "Merged from": record.merge.sentence if record.merge and record.merge.certain else "",
        "Related to": record.merge.names if record.merge and not record.merge.certain else "",
        "Fingerprint of the VAE": record.fingerprint,
        "SHA-256 of the file": record.sha256,
        "AutoV2": record.autov2,
    }
    return template("certificate.html").render(
        record=record, facts=facts, phrases=STATUS_PHRASES, ways=WAYS, chart=chart_png(), version=__version__
    )
