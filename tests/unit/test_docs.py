"""The documentation agrees with the product: links, commands, options, names, versions."""

from __future__ import annotations

import argparse
import datetime
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import vae_lab
from tests.unit.conftest import ROOT
from vae_lab.cli import build_parser

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
COMMAND_LINE = ROOT / "docs" / "command-line.md"


def prose(page: Path) -> str:
    """The text without code blocks."""
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf8"), flags=re.DOTALL)


def code_blocks(page: Path, language: str = "") -> list[str]:
    """The blocks in this language."""
    text = page.read_text(encoding="utf8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [block for kind, block in blocks if kind == language]


def links(page: Path) -> list[str]:
    """Targets of links and images."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))


def anchors(page: Path) -> set[str]:
    """As GitHub makes them from headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf8").split()) < 900
    assert len(re.findall(r"[\u4e00-\u9fff]", (ROOT / "README.zh-CN.md").read_text(encoding="utf8"))) < 1500


def test_chinese_readme_is_in_step() -> None:
    english, chinese = ROOT / "README.md", ROOT / "README.zh-CN.md"
    own = {"README.md", "README.zh-CN.md", "docs/guide.zh-CN.md"}
    assert [link for link in links(chinese) if link not in own] == [link for link in links(english) if link not in own]
    for mark in (r"^#+ ", r"^- ", r"^!\["):
        counts = [len(re.findall(mark, page.read_text(encoding="utf8"), re.MULTILINE)) for page in (english, chinese)]
        assert counts[1] - counts[0] == (1 if mark == "^- " else 0), f"{mark}: the Chinese one also links to its guide"
    code = [
        [line.partition("#")[0] for block in code_blocks(page) for line in block.splitlines()]
        for page in (english, chinese)
    ]
    assert code[0] == code[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page: Path) -> None:
    for link in links(page):
        if link.startswith("https://"):
            continue
        target, _, anchor = link.partition("#")
        file = page.parent / target if target else page
        assert file.is_file(), link
        assert not anchor or anchor in anchors(file), link


def test_every_page_can_be_found_from_the_readme() -> None:
    reached, pending = set(), [ROOT / "README.md"]
    while pending:
        page = pending.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        pending += [(page.parent / link.partition("#")[0]).resolve() for link in links(page) if "://" not in link]
    assert set(PAGES) <= reached


def test_issue_forms_and_workflow_are_valid_yaml() -> None:
    forms = sorted((ROOT / ".github").rglob("*.yml"))
    assert len(forms) >= 4
    for form in forms:
        assert isinstance(yaml.safe_load(form.read_text(encoding="utf8")), dict), form


def test_wrong_verdict_form_asks_for_the_numbers() -> None:
    text = (ROOT / ".github" / "ISSUE_TEMPLATE" / "wrong-verdict.yml").read_text(encoding="utf8")
    assert "inspect --json" in text


def test_changelog_is_dated() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf8")
    version, date = re.findall(r"^## \[([\d.]+)\] - (\S+)$", text, re.MULTILINE)[0]
    assert version == vae_lab.__version__
    assert datetime.date.fromisoformat(date)


# --- docs/command-line.md ---------------------------------------------------------------------------------------------


def commands() -> dict[str, argparse.ArgumentParser]:
    """Parsers by name."""
    (action,) = (action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
    return dict(action.choices)


def sections() -> dict[str, str]:
    """The text of the page by heading."""
    parts = re.split(r"^## (.*)$", COMMAND_LINE.read_text(encoding="utf8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_command_is_documented() -> None:
    assert list(sections()) == list(commands())


@pytest.mark.parametrize("name", commands())
def test_documented_options_are_those_of_the_command(name: str) -> None:
    documented = set()
    for row in re.findall(r"^\| `(-.*?) \| ", sections()[name], re.MULTILINE):
        documented |= set(re.findall(r"(?<!\S)`?(--?[a-z][a-z-]*)", row))
    options = {option for action in commands()[name]._actions for option in action.option_strings}
    assert documented == options - {"-h", "--help"}


def examples() -> Iterator[str]:
    """Calls of ``vae-lab`` in all pages."""
    for page in PAGES:
        text = page.read_text(encoding="utf8")
        yield from (line.partition("#")[0].strip() for line in re.findall(r"^vae-lab [^\n]*", text, re.MULTILINE))


@pytest.mark.parametrize("call", sorted(set(examples())))
def test_examples_are_right(call: str) -> None:
    args = build_parser().parse_args(shlex.split(call)[1:])
    assert callable(args.function)


def test_run_py_has_the_commands_of_the_pages() -> None:
    script = (ROOT / "run.py").read_text(encoding="utf8")
    for page in PAGES:
        for name in re.findall(r"python3 run\.py (\w+)", page.read_text(encoding="utf8")):
            assert f"def {name}(args" in script, f"{page.name}: {name}"


# --- docs/python.md ---------------------------------------------------------------------------------------------------


def test_python_examples_use_the_public_api() -> None:
    blocks = code_blocks(ROOT / "docs" / "python.md", "python")
    assert len(blocks) >= 3
    imported = set()
    for block in blocks:
        compile(block, "docs/python.md", "exec")
        for names in re.findall(r"^from vae_lab import (.*)$", block, re.MULTILINE):
            imported |= set(names.split(", "))
    assert imported <= set(vae_lab.__all__)
    assert {"compare", "inspect_file", "judge_output", "load_latents", "bake", "strip", "extract"} <= imported
