"""What continuous integration systems read: JUnit XML, and annotations of GitHub Actions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from vae_lab.checkup.findings import HEALTHY, NO_VAE, NOT_CHECKED, SUSPECT, UNCHECKED, UNREADABLE
from vae_lab.library.record import FileRecord
from vae_lab.text import as_text

__all__ = ["github_annotations", "junit_xml"]

_PASSED = (HEALTHY, NO_VAE)
_SKIPPED = (NOT_CHECKED, UNCHECKED)
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(reports: Mapping[str, FileRecord]) -> bytes:
    """A test suite with a case for each file, by name: a fault is a failure, an unreadable file an error."""
    records = reports.values()
    suite = Element("testsuite", name="vae-lab inspect", tests=str(len(reports)))
    suite.set("failures", str(sum(_kind(record) == "failure" for record in records)))
    suite.set("errors", str(sum(_kind(record) == "error" for record in records)))
    suite.set("skipped", str(sum(_kind(record) == "skipped" for record in records)))
    for name, record in reports.items():
        case = SubElement(suite, "testcase", classname="vae", name=_xml_text(name), time=f"{record.seconds:.3f}")
        kind = _kind(record)
        if kind:
            SubElement(case, kind, message=_xml_text(_headline(record))).text = _xml_text(_text(record))
    indent(suite)
    return tostring(suite, encoding="utf-8", xml_declaration=True) + b"\n"


def github_annotations(reports: Mapping[str, FileRecord]) -> Iterable[str]:
    """A workflow command of GitHub Actions for each file that is not healthy."""
    for name, record in reports.items():
        kind = _kind(record)
        if kind:
            level = "warning" if kind == "skipped" or record.status == SUSPECT else "error"
            title, message = _escaped(f"{name}: {_headline(record)}"), _escaped(_text(record))
            yield f"::{level} title={title.replace(':', '%3A').replace(',', '%2C')}::{message}"


def _kind(record: FileRecord) -> str:
    """``failure``, ``error``, ``skipped`` or, for a file that passes, ""."""
    if record.status in _PASSED:
        return ""
    return "error" if record.status == UNREADABLE else "skipped" if record.status in _SKIPPED else "failure"


def _headline(record: FileRecord) -> str:
    notable = record.verdict.notable
    return f"{record.status}: {notable[0].title}" if notable else record.status


def _text(record: FileRecord) -> str:
    return "\n".join(f"{finding.text} {finding.remedy}".strip() for finding in record.verdict.notable)


def _xml_text(text: str) -> str:
    """XML has no way to write some control characters."""
    return _NOT_IN_XML.sub("\ufffd", as_text(text))


def _escaped(text: str) -> str:
    text = as_text(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return "".join(char if char.isprintable() else "\ufffd" for char in text)
