"""``localizations/zh_CN.json`` has every text that the pages show, and nothing else.

The keys are collected from the sources: what templates and views pass to the catalogue (``vae_lab.messages``), strings
that begin with a capital letter, texts of scripts, and sentences that other modules put together with f-strings. The
last test renders pages in Chinese and looks for English.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jinja2 import nodes

from vae_lab import messages
from vae_lab.checkup.findings import STATUS_PHRASES, STATUS_TITLES, TITLES
from vae_lab.comparison.measures import EXPLANATIONS
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.ui.panels.accordion import build_accordion
from vae_lab.ui.panels.extras import build_extras
from vae_lab.ui.views import checkup as checkup_views
from vae_lab.ui.views import library as library_views
from vae_lab.ui.views import round_trip as round_trip_views
from vae_lab.ui.views.html import ENVIRONMENT

ROOT = Path(__file__).resolve().parents[2]
TRANSLATIONS: dict[str, str] = json.loads((ROOT / "localizations" / "zh_CN.json").read_text(encoding="utf8"))

UI = sorted(path for path in (ROOT / "vae_lab" / "ui").rglob("*.py") if path.name != "app.py")
FINDINGS = [  # modules that make findings and recommendations
    file
    for folder in ("checkup", "library")
    for file in sorted((ROOT / "vae_lab" / folder).glob("*.py"))
    if file.stem
    in ("checkup", "half_precision", "inspect", "judge", "latent_scale", "loading", "record", "recommend", "watch")
]
TEMPLATES = ROOT / "vae_lab" / "ui" / "views" / "templates"
SCRIPTS = sorted(file for ending in ("js", "mjs") for file in (ROOT / "javascript").rglob(f"*.{ending}"))
PACKAGE = sorted((ROOT / "vae_lab").rglob("*.py"))

# Alike in both languages, or a value that is written in settings and API calls as it is.
STAYS = {
    "VAE", "VAE Lab", "RGB", "RGBA", "CSV", "SSIM", "PSNR", "A, B", "L*", "C*", "A", "G", "S", "D", "L", "F",
    "CIEDE2000", "Automatic", "Built-in", "off", "warn", "redecode", "Shift + 1 … 9", "{status}: {title}",
    "{status}: {count}", "VAE: {status}", "SHA-256", "0", "1", "100", "0 %",
}  # fmt: skip
# Never seen on a page: names that programs need, and labels of hidden fields.
NOT_SHOWN = {"A", "Content-Type", "CORSMiddleware", "POST", "Arrow", "Picked", "Kind"}
PUT_IN = "\x1a"


# --- texts of the sources -------------------------------------------------------------------------------------------


class Texts(HTMLParser):
    """Collects text nodes and titles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.data = ""
        self.feed(html)
        self.close()
        self.flush()

    def flush(self) -> None:
        self.found.append(self.data.strip())
        self.data = ""

    def handle_starttag(self, tag, attrs):  # type: ignore[no-untyped-def]
        self.flush()
        self.found += [value for name, value in attrs if name in ("title", "placeholder") and value]

    def handle_endtag(self, tag):  # type: ignore[no-untyped-def]
        self.flush()

    def handle_data(self, data: str) -> None:
        self.data += data


def in_html(html: str) -> list[str]:
    return [text for text in Texts(html).found if PUT_IN not in text and re.search(r"[A-Za-z]{2}", text)]


def in_templates() -> Iterator[str]:
    """What the templates pass to ``t``, and that of the file that a comparison is shared as."""
    for file in (*TEMPLATES.glob("*.html"), ROOT / "vae_lab" / "service" / "share.html"):
        name, source = file.name, file.read_text(encoding="utf8")
        for call in ENVIRONMENT.parse(source).find_all(nodes.Call):
            if isinstance(call.node, nodes.Name) and call.node.name == "t":
                assert isinstance(call.args[0], nodes.Const), f"{name}: no text, but {call.args[0]}"
                yield call.args[0].value


def constants(node: ast.expr) -> Iterator[str]:
    """A text, or both of a choice of two."""
    if isinstance(node, ast.IfExp):
        yield from (*constants(node.body), *constants(node.orelse))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else PUT_IN for part in node.values)


def name_of(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def in_calls(path: Path) -> Iterator[str]:
    """What is passed to the catalogue, raised, or made a finding: ``PUT_IN`` stands for values."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("template", "reason", "text", "remedy"):
            yield from constants(node.value)
        elif isinstance(node, ast.Call) and name_of(node) in ("text", "HostError", "Finding", "Evidence"):
            wanted = {"Finding": (2, 4), "Evidence": (0, 3)}.get(name_of(node), (0,))
            yield from (text for i in wanted if i < len(node.args) for text in constants(node.args[i]))


def in_python(path: Path) -> Iterator[str]:
    """Strings that begin with a capital letter; none of docstrings, of f-strings, and of names that are exported."""
    tree = ast.parse(path.read_text(encoding="utf8"))
    no_texts: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            no_texts.update(map(id, node.values))
        elif isinstance(node, ast.Expr):
            no_texts.add(id(node.value))
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            no_texts.update(map(id, ast.walk(node)))
    for node in ast.walk(tree):
        if id(node) in no_texts or not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            continue
        if re.match("[A-Z]", node.value) and "<" not in node.value:
            yield node.value


def all_strings() -> Iterator[str]:
    """Of the whole package, joined where f-strings are: what a translation may be of."""
    for path in PACKAGE:
        tree = ast.parse(path.read_text(encoding="utf8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant | ast.JoinedStr):
                yield from constants(node)


def shape(template: str) -> str:
    """What a template has in common with the f-string that makes such a sentence."""
    return re.sub(r"\{\w+\}", PUT_IN, template)


def in_script(path: Path) -> list[str]:
    """What a script gives to ``t``, which translates it."""
    return re.findall(r'\bt\(\s*"([^"]*)"', path.read_text(encoding="utf8"))


SETTINGS = ROOT / "vae_lab" / "webui" / "generations.py"


def of_settings() -> Iterator[str]:
    """Explanations in the settings, which the WebUI puts into parentheses."""
    tree = ast.parse(SETTINGS.read_text(encoding="utf8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "info":
            yield f"({ast.literal_eval(node.args[0])})"


def of_the_first_page() -> Iterator[str]:
    """What to do without a latent, in each kind of WebUI."""
    for file in ("a1111.py", "files_only.py"):
        tree = ast.parse((ROOT / "vae_lab" / "webui" / file).read_text(encoding="utf8"))
        assigned = (node for node in ast.walk(tree) if isinstance(node, ast.Assign))
        yield next(ast.literal_eval(n.value) for n in assigned if ast.unparse(n.targets[0]).endswith("how_to_begin"))


# --- texts that are put together, and tables of words ---------------------------------------------------------------


def of_measures() -> Iterator[str]:
    for known in EXPLANATIONS.values():
        yield from (known.title, known.text)
    for _, title, explanation in round_trip_views._TIMES:
        yield from (title, explanation)


def of_tables() -> Iterator[str]:
    for title in TITLES.values():
        yield from (title, title[0].lower() + title[1:])
    yield from (*STATUS_TITLES.values(), *STATUS_PHRASES.values())
    yield from checkup_views.KINDS.values()
    yield from ("checkpoint in use", "family unknown", "not used", "largest", "smallest", messages.CLAUSE, "new")
    for table in (library_views._REPORTS,):
        yield from table.values()
    yield from (*library_views.STATUSES, *library_views.ORDERS)
    for _, shown, meaning in round_trip_views._STEPS:
        yield from (shown, meaning)
    yield from (evidence for evidence, *_ in measurements())


def measurements() -> Iterator[tuple[str, ...]]:
    """Rows of the table of all measurements."""
    tree = ast.parse((ROOT / "vae_lab" / "checkup" / "checkup.py").read_text(encoding="utf8"))
    function = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "_reading_numbers")
    rows = next(node for node in ast.walk(function) if isinstance(node, ast.Assign))
    assert isinstance(rows.value, ast.Tuple)
    for row in rows.value.elts:
        assert isinstance(row, ast.Tuple)
        yield tuple(str(part.value) for part in row.elts if isinstance(part, ast.Constant))


# --- texts of the pages ---------------------------------------------------------------------------------------------


def of_components(config: dict) -> Iterator[str]:
    """Labels, hints and buttons, which the WebUI translates in the browser."""
    for component in config["components"]:
        props = component["props"]
        yield from (props[name] for name in ("label", "placeholder", "info") if isinstance(props.get(name), str))
        if component["type"] == "button":
            yield props["value"]
        for choice in props.get("choices") or ():
            yield choice if isinstance(choice, str) else choice[0]


def of_pages(folder: Path) -> Iterator[str]:
    import gradio as gr

    from vae_lab.ui.tab import build_tab

    host = StandaloneHost(Folders(folder, (folder,), (folder,), (folder,)))
    yield from of_components(build_tab(host).get_config_file())
    with gr.Blocks(analytics_enabled=False) as blocks:
        build_accordion(host, "txt2img")
        build_extras(host, None)
    yield from of_components(blocks.get_config_file())


# --- the tests ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """All texts that need a translation, as templates or shapes of them."""
    texts = [text for path in (*UI, SETTINGS) for text in in_python(path)]
    texts += [text for path in (*UI, *FINDINGS) for text in in_calls(path)]
    texts += [text for path in SCRIPTS for text in in_script(path)]
    texts += [*in_templates(), *of_settings(), *of_the_first_page(), *of_measures(), *of_tables()]
    texts += of_pages(tmp_path_factory.mktemp("pages"))
    left_out = STAYS | NOT_SHOWN
    return {text.strip() for text in texts if not {text, text.strip()} & left_out and re.search("[A-Za-z]", text)}


def test_every_text_has_a_translation(shown: set[str]) -> None:
    shapes = set(map(shape, TRANSLATIONS))
    assert sorted(text for text in shown if shape(text) not in shapes) == []


def test_every_translation_belongs_to_a_text(shown: set[str]) -> None:
    shapes = {shape(text) for text in (*shown, *all_strings())}
    assert sorted(key for key in TRANSLATIONS if shape(key) not in shapes) == []


def test_translations_put_in_the_same_values() -> None:
    def values(text: str) -> list[str]:
        return sorted(set(re.findall(r"\{(\w+)\}", text)))

    # A translation may leave out what Chinese does not need, such as the unit of a count.
    assert [key for key, text in TRANSLATIONS.items() if values(text) != values(key)] == []


def test_no_translation_is_empty_or_still_english() -> None:
    assert [key for key, text in TRANSLATIONS.items() if not re.search("[\u4e00-\u9fff，。：（、]", text)] == []


def test_no_key_is_duplicated() -> None:
    pairs = json.loads((ROOT / "localizations" / "zh_CN.json").read_text(encoding="utf8"), object_pairs_hook=list)
    assert len(pairs) == len(TRANSLATIONS)


def test_no_key_can_be_taken_for_a_part_of_a_file_name() -> None:
    """The WebUI replaces whole text nodes, and names of files are broken into several at ``/``, ``_``, ``-``, ``.``"""
    assert [key for key in TRANSLATIONS if re.fullmatch(r"\S*[A-Za-z]\S*[/_.-]", key) and "{" not in key] == []
