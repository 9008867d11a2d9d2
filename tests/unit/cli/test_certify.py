"""Reports for people who publish models: a certificate, and what continuous integration reads."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.unit.makers import F8, kl_state, write
from vae_lab.cli import main
from vae_lab.identity import file_sha256
from vae_lab.samples import SampleSet, build_sample_set


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> SampleSet:
    return build_sample_set(tmp_path_factory.mktemp("samples"))


def test_certificate_of_a_grey_merge(samples: SampleSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = samples.grey_merge
    among = [str(samples.healthy), str(samples.photo_b)]
    assert main(["certify", str(model), "-o", str(tmp_path), "--among", *among]) == 1
    page, data = (tmp_path / f"{model.name}.vae-lab.{ending}" for ending in ("html", "json"))
    assert capsys.readouterr().out.split("\n")[:2] == [str(page), str(data)]
    facts = json.loads(data.read_text(encoding="utf8"))
    assert (facts["file"], facts["verdict"]["status"], facts["size"]) == (model.name, "broken", model.stat().st_size)
    assert facts["sha256"] == file_sha256(model)
    assert [parent["name"] for parent in facts["merge"]["parents"]] == [samples.healthy.name, samples.photo_b.name]
    html = page.read_text(encoding="utf8")
    assert html.count("data:image/png") == 3
    assert "default-src 'none'" in html
    assert "<script" not in html
    for text in ("Washed out", facts["sha256"], facts["fingerprint"], "0.80"):
        assert text in html
    for text in (html, data.read_text(encoding="utf8")):
        assert str(model.parent) not in text, "nothing about this machine"
    before = page.read_bytes()
    assert main(["certify", str(model), "-o", str(tmp_path)]) == 2
    assert "already exists" in capsys.readouterr().err
    assert page.read_bytes() == before


def test_certificate_of_what_cannot_be_read(tmp_path: Path) -> None:
    """Names and reasons come from files."""
    model = tmp_path / "<b>x.safetensors"
    model.write_bytes(b"no weights")
    assert main(["certify", str(model)]) == 2
    html = model.with_name(f"{model.name}.vae-lab.html").read_text(encoding="utf8")
    assert "<b>x" not in html
    assert "&lt;b&gt;x" in html
    assert json.loads(model.with_name(f"{model.name}.vae-lab.json").read_text(encoding="utf8"))["sha256"] is None


def test_continuous_integration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = write(tmp_path / "100%, good: \x01.safetensors", kl_state(F8))
    bad = tmp_path / "bad\n::error::x.safetensors"
    bad.write_bytes(b"no weights")
    junit = tmp_path / "junit.xml"
    assert main(["inspect", "--no-probe", "--github", "--junit", str(junit), str(good), str(bad)]) == 2
    suite = ElementTree.parse(junit).getroot()
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "2", "failures": "0", "errors": "1", "skipped": "1"}
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases] == ["100%, good: \ufffd.safetensors", "bad\n::error::x.safetensors"]
    error = cases[1].find("error")
    assert error is not None
    assert str(error.get("message")).startswith("unreadable: ")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("::")]
    assert [line.split(" ")[0] for line in lines] == ["::warning", "::error"]
    assert lines[0].startswith("::warning title=100%25%2C good%3A \ufffd.safetensors%3A unchecked::")
    assert "%0A%3A%3Aerror%3A%3Ax" in lines[1]
    assert main(["inspect", "--no-probe", "--json", "--github", str(good)]) == 0
    out, err = capsys.readouterr()
    assert [json.loads(line)["path"] for line in out.splitlines()] == [str(good)], "JSON stays JSON"
    assert "::warning " in err
    assert main(["inspect", "--no-probe", "--junit", str(junit), str(good)]) == 2
    assert "already exists" in capsys.readouterr().err
    assert main(["inspect", "--no-probe", "--junit", str(junit), "--overwrite", str(good)]) == 0


def test_faults_are_failures(samples: SampleSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    junit = tmp_path / "junit.xml"
    assert main(["inspect", "--github", "--junit", str(junit), str(samples.grey_merge), str(samples.no_vae)]) == 1
    suite = ElementTree.parse(junit).getroot()
    assert suite.get("failures") == "2"
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("::")]
    assert "broken%3A Washed out::" in lines[0]
    assert lines[1].startswith(f"::error title={samples.no_vae.name}%3A missing")
