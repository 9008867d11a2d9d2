"""Contents of reports, and escaping of hostile file names."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable
from html.parser import HTMLParser

import pytest

from vae_lab.checkup import Checkup
from vae_lab.checkup.findings import BROKEN, INFORMATION, STATUS_PHRASES, STATUS_TITLES, Evidence, Finding
from vae_lab.identity import KnownVae, Merge, Parent, find_duplicates
from vae_lab.library import WORST_FIRST, Depth, FileRecord
from vae_lab.library.reports import json_line, write_csv, write_html, write_jsonl

EVIL = '"><script>alert(1)</script>\x1b[2J&amp;'
MEASURED = Checkup("sd1", (), (Evidence("white", 70.0),))
PNG = b"\x89PNG not really"


def record(name: str = "a.pt", *findings: Finding, **facts: object) -> FileRecord:
    defaults: dict[str, object] = {
        "kind": "vae",
        "family_id": "sd1",
        "size": 1000,
        "mtime": 1e9,
        "depth": Depth.CHECKED,
        "file_id": name,
    }
    return FileRecord(f"/{name}", name, file_findings=findings, **(defaults | facts))  # type: ignore[arg-type]


def broken(name: str = "b.pt", text: str = "Images are grey.", **facts: object) -> FileRecord:
    finding = Finding("grey", BROKEN, text, (Evidence("white", 70.0, "L*", "100"),), "Choose another.")
    return record(name, finding, **({"fingerprint": "f" * 64, "checkup": MEASURED} | facts))


def healthy(name: str, fingerprint: str = "e" * 64) -> FileRecord:
    return record(name, fingerprint=fingerprint, checkup=MEASURED)


# --- JSON lines and CSV ----------------------------------------------------------------------------------------------


def test_jsonl_is_one_object_a_line() -> None:
    out = io.StringIO()
    write_jsonl([broken("b\n.pt"), record("猫.pt", checkup=MEASURED)], out)
    rows = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(row["name"], row["status"]) for row in rows] == [("b\n.pt", "broken"), ("猫.pt", "healthy")]
    assert rows[0]["verdict"]["findings"][0]["code"] == "grey"
    assert rows[1]["fingerprint"] is None
    assert not any(isinstance(value, bytes) for value in rows[0].values())


def test_json_has_no_nan_and_any_name() -> None:
    line = json_line(
        broken("\udcff.pt", checkup=Checkup("", (), (Evidence("a", float("nan")), Evidence("b", float("inf")))))
    )
    row = json.loads(line, parse_constant=pytest.fail)
    assert [one["value"] for one in row["measured"]] == [None, None]
    assert row["name"] == "\udcff.pt"
    assert line.isascii()


def rows(records: Iterable[FileRecord]) -> list[dict[str, str]]:
    out = io.StringIO(newline="")
    write_csv(records, out)
    return list(csv.DictReader(io.StringIO(out.getvalue(), newline="")))


def test_csv_is_a_row_a_file() -> None:
    merge = Merge((Parent("x", 0.8), Parent("y", 0.2)), 0.0, relatives=False)
    table = rows([broken('say "hi", b.pt', merge=merge, identity=KnownVae("nai.vae", (), "sd1", "A")), record()])
    assert table[0]["name"] == 'say "hi", b.pt'
    assert (table[0]["status"], table[0]["size"], table[0]["modified"]) == ("broken", "1000", "2001-09-09 01:46")
    assert table[0]["merge"] == "0.800 x + 0.200 y"
    assert (table[0]["identity"], table[0]["remedy"]) == ("nai.vae", "Choose another.")
    assert table[0]["findings"] == "Images are grey."
    assert table[1]["findings"] == ""


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_no_formula_gets_into_a_spreadsheet(start: str) -> None:
    name = f'{start}HYPERLINK("http://x","y").pt'
    (row,) = rows([broken(name, text=f"{start}1+1")])
    assert row["name"] == f"'{name}"
    assert row["findings"] == f"'{start}1+1"


# --- the page --------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Tags and text; counts what is opened and closed."""

    VOID = ("meta", "link", "input", "img", "br")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def page(records: list[FileRecord], **options: object) -> Page:
    out = io.StringIO()
    write_html(records, out, **options)  # type: ignore[arg-type]
    found = Page(out.getvalue())
    assert found.open == [], "every tag is closed"
    return found


def charts(_: FileRecord) -> dict[str, bytes]:
    return {"decoded": PNG, "round trip": PNG}


def test_page_has_a_row_a_file() -> None:
    found = page(
        [
            broken(),
            record(checkup=MEASURED),
            record("c.pt", Finding("known-bad", INFORMATION, "This file is X."), checkup=MEASURED),
        ]
    )
    body = [attrs for attrs in found.all("tr") if attrs]
    assert [attrs["data-status"] for attrs in body] == ["broken", "healthy", "healthy"]
    assert "3 files scanned" in found.text
    assert "This file is X." in found.text
    assert "Choose another." in found.text
    assert "SD1" in found.text


def test_page_needs_nothing_else() -> None:
    found = page([broken(), healthy("h.pt")], charts=charts, duplicates=find_duplicates([broken(), broken("c")]))
    for _, attrs in found.tags:
        for name in ("src", "href"):
            assert str(attrs.get(name) or "data:").startswith(("data:", "#"))
    assert not re.search(r"https?://|@import|url\((?!data:)", found.html)
    assert "prefers-color-scheme:dark" in found.html


def test_what_comes_from_files_is_escaped() -> None:
    evil = broken(EVIL, text=EVIL, kind=EVIL, dtype=EVIL, identity=KnownVae(EVIL, (), "sd1", "A"), hint_id="sd1")
    found = page([evil], charts=charts, duplicates=find_duplicates([evil, broken(f"2{EVIL}")]), title=EVIL)
    assert len(found.all("script")) == 1
    assert "alert(1)</script>" not in found.html
    assert "&amp;amp;" in found.html, "and what looks escaped is escaped again"


def test_names_that_are_no_text() -> None:
    out = io.StringIO()
    write_html([broken("\udcff.pt")], out)
    assert out.getvalue().encode("utf8").count(b">\\udcff.pt<"), "shown, and can be written"


def test_charts_of_what_is_not_healthy_and_of_one_that_is() -> None:
    records = [
        *(broken("b1.pt"), broken("b2.pt"), broken("c.pt", fingerprint="c" * 64)),
        *(healthy("h1.pt"), healthy("h2.pt"), healthy("other.pt", "d" * 64)),
        record("nothing.pt"),
    ]
    asked: list[str] = []

    def counted(one: FileRecord) -> dict[str, bytes]:
        asked.append(one.name)
        return charts(one)

    found = page(records, charts=counted)
    assert asked == ["b1.pt", "c.pt", "h1.pt"], "each VAE once, whatever its files are called"
    assert len(found.all("img")) == 6
    assert "b1.pt, b2.pt" in found.text
    anchors = {attrs["id"] for attrs in found.all("section")}
    links = [str(attrs["href"])[1:] for attrs in found.all("a")]
    assert set(links) == anchors
    assert len(links) == 5
    before = [attrs for attrs in found.all("div") if attrs.get("class") == "before"]
    assert len(before) == 3
    assert found.html.count("image/png") == 7, "the chart that goes in is embedded once"


def test_page_without_charts() -> None:
    found = page([broken()])
    assert found.all("section") == []
    assert found.all("img") == []


def test_page_does_not_grow_without_end() -> None:
    records = [broken(f"{i}.pt", fingerprint=f"{i:064d}"[::-1]) for i in range(300)]
    found = page(records, charts=charts)
    assert len(found.all("section")) == 200
    assert "Only the first 200" in found.text
    many = page([broken(f"{i}.pt") for i in range(300)], charts=charts)
    assert "and 280 more" in many.text


def test_page_tells_duplicates() -> None:
    groups = find_duplicates([broken("a.pt"), broken("b.pt")])
    found = page([broken("a.pt"), broken("b.pt")], duplicates=groups)
    assert "keeping only a.pt would free 1.0 kB" in found.text
    assert "VAE Lab deletes nothing" in found.text


def test_page_of_nothing() -> None:
    assert "0 files scanned" in page([]).text


def test_every_status_has_words() -> None:
    assert all(STATUS_PHRASES[status] and STATUS_TITLES[status] for status in WORST_FIRST)


def test_page_is_written_piece_by_piece() -> None:
    """Ten thousand files take no more memory than ten: written rows are released before the next is made."""
    written: list[int] = []

    class Out(io.StringIO):
        def write(self, text: str) -> int:
            written.append(len(text))
            return len(text)

        def writelines(self, pieces: Iterable[str]) -> None:
            for piece in pieces:
                self.write(piece)

    longest: list[int] = []
    for count in (10, 500):
        written.clear()
        write_html([broken(f"{i}.pt") for i in range(count)], Out())
        longest.append(max(written))
    assert longest[0] == longest[1]
    assert len(written) > 500
