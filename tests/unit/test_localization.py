"""``localizations/zh_CN.json`` has every fixed text that the pages show, and nothing else.

The WebUI replaces whole text nodes, titles and placeholders in the browser. So a text counts here if it stands in the
sources as a whole: a string that begins with a capital letter, or a piece of text between two HTML tags without
anything put in. Sentences with names or numbers in them stay English, and so do ``aria-label`` and ``alt``, which the
WebUI does not look at.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import product
from pathlib import Path

import pytest

from vae_lab.checkup.findings import STATUS_PHRASES, STATUS_TITLES, TITLES
from vae_lab.comparison.measures import EXPLANATIONS
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.samples import build_sample_set
from vae_lab.ui.panels.accordion import build_accordion
from vae_lab.ui.views import checkup as checkup_views
from vae_lab.ui.views import library as library_views
from vae_lab.ui.views import numbers as numbers_views
from vae_lab.ui.views import round_trip as round_trip_views

ROOT = Path(__file__).resolve().parents[2]
TRANSLATIONS: dict[str, str] = json.loads((ROOT / "localizations" / "zh_CN.json").read_text(encoding="utf8"))

PAGES = [*sorted((ROOT / "vae_lab" / "ui").rglob("*.py")), ROOT / "vae_lab" / "extension.py"]
CHECKUP = [ROOT / "vae_lab" / "checkup" / f"{name}.py" for name in ("judge", "report", "watch", "weights")]

# Alike in both languages, or a value that is written in settings and API calls as it is.
STAYS = {
    "VAE", "VAE Lab", "RGB", "RGBA", "CSV", "SSIM", "PSNR", "A, B", "L*", "C*", "A", "G", "S", "D", "L", "F",
    "CIEDE2000", "Automatic", "Built-in", "off", "warn", "redecode", "Shift + 1 … 9",
}  # fmt: skip
# Never seen on a page: names that programs need, labels of hidden fields, texts for screen readers.
NOT_SHOWN = {"A", "CORSMiddleware", "POST", "Arrow", "Picked row", "Picked VAE", "Picked latent", "The original"}
# Parts of sentences that get a name or a number put in and stay English as a whole.
PARTS = {
    "Use", "One VAE is", "Built-in VAE ", "These are relatives, which can be merged without harm.",
    "These were trained independently: their weights average to nothing useful, and images turn grey.",
}  # fmt: skip
# What the host puts in: names of files, sizes, times, titles of images, the reason for a choice.
OF_THE_HOST = re.compile(r"\w\.(safetensors|ckpt|pt)\b|\d ?x ?\d|\d\d:\d\d|Astronaut|Built-in: | into /")
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


def in_python(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf8"))
    no_texts: set[int] = set()  # docstrings, parts of f-strings, names that are exported
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            no_texts.update(map(id, node.values))
        elif isinstance(node, ast.Expr):
            no_texts.add(id(node.value))
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            no_texts.update(map(id, ast.walk(node)))
    for node in ast.walk(tree):
        if id(node) in no_texts:
            continue
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else PUT_IN for part in node.values]
            html = "".join(map(str, parts))
            yield from in_html(html) if "</" in html else ()
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if "</" in node.value:
                yield from in_html(node.value)
            elif re.match("[A-Z]", node.value) and "<" not in node.value:
                yield node.value


def in_script(path: Path) -> list[str]:
    source = re.sub(r"^\s*//.*$|\s//\s.*$", "", path.read_text(encoding="utf8"), flags=re.MULTILINE)
    texts = re.findall(r'(?<!"aria-label": )"([A-Z][^"]*)"', source)
    keys = re.search(r"const HELP = \[(.*?)\n    \];", source, flags=re.DOTALL)
    if keys:
        texts += [text for text in re.findall(r'"([^"]*)"', keys[1]) if re.search(r"[A-Za-z]{2}|and", text)]
    targets = re.findall(r'label: "([^"]*)"', source)
    return [*texts, *(target for target in targets if target != "img2img")]


def of_settings() -> Iterator[str]:
    """Explanations in the settings, which the WebUI puts into parentheses."""
    tree = ast.parse((ROOT / "vae_lab" / "extension.py").read_text(encoding="utf8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "info":
            yield f"({ast.literal_eval(node.args[0])})"


def of_the_first_page() -> str:
    tree = ast.parse((ROOT / "vae_lab" / "host" / "a1111.py").read_text(encoding="utf8"))
    assigned = (node for node in ast.walk(tree) if isinstance(node, ast.Assign))
    return next(ast.literal_eval(node.value) for node in assigned if ast.unparse(node.targets[0]) == "how_to_begin")


# --- texts that are put together, and tables of words ---------------------------------------------------------------


def of_badges() -> Iterator[str]:
    """Such as ``Broken: washed out``, and the same on a card and below the choice of a VAE."""
    never = ("missing", "unreadable", "not-a-vae", "fp16-overflow")
    faults = [title[0].lower() + title[1:] for code, title in TITLES.items() if code not in never]
    for status, fault in product(("Broken", "Suspect"), faults):
        yield f"{status}: {fault}"
        yield f"VAE {status.lower()}: {fault}"
        yield f"Built-in VAE {status.lower()}: {fault}"
        yield f"Built-in VAE {status.lower()}: {fault}, not used now"


def of_measures() -> Iterator[str]:
    for known in EXPLANATIONS.values():
        yield known.title
        yield f"{known.title}."
        yield known.text.format(reference="the built-in VAE")
    for known in map(EXPLANATIONS.__getitem__, round_trip_views._LOSSES):
        yield known.text.format(reference="the original")
    for _, title, text in round_trip_views._TIMES:
        yield from (title, f"{title}.", text)


def of_tables() -> Iterator[str]:
    yield from TITLES.values()
    yield from (*STATUS_TITLES.values(), *STATUS_PHRASES.values())
    yield from checkup_views._KINDS.values()
    yield "checkpoint in use"
    yield from library_views._REPORTS.values()
    yield from (*library_views.STATUSES, *library_views.ORDERS, *library_views._COLUMNS)
    yield from numbers_views._SIGNS
    yield from (words for _, words, _ in round_trip_views._STEPS if not words.isdigit())
    yield from (meaning for _, _, meaning in round_trip_views._STEPS)


# --- texts of the pages ---------------------------------------------------------------------------------------------


def of_components(config: dict) -> Iterator[str]:
    for component in config["components"]:
        props = component["props"]
        yield from (props[name] for name in ("label", "placeholder", "info") if isinstance(props.get(name), str))
        if component["type"] == "button":
            yield props["value"]
        for choice in props.get("choices") or ():
            yield choice if isinstance(choice, str) else choice[0]
        if component["type"] == "html" and props.get("value"):
            yield from in_html(props["value"].replace("<wbr>", "").replace("<br>", " "))


def of_pages(folder: Path) -> Iterator[str]:
    """Of a page without any file, of one on the sample set, and of the accordion."""
    import gradio as gr

    from vae_lab.ui.tab import build_tab

    samples = build_sample_set(folder / "samples")
    full = Folders(folder / "full", (samples.healthy.parent,), (samples.smooth.parent,), (samples.folder,))
    nothing = folder / "nothing"
    for folders in (full, Folders(folder / "empty", (nothing,), (nothing,), (nothing,))):
        host = StandaloneHost(folders)
        yield from of_components(build_tab(host).get_config_file())
        with gr.Blocks(analytics_enabled=False) as blocks:
            build_accordion(host, "txt2img")
        yield from of_components(blocks.get_config_file())


# --- the tests ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    texts = [text for path in (*PAGES, *CHECKUP) for text in in_python(path)]
    texts += [text for path in sorted((ROOT / "javascript").glob("*.js")) for text in in_script(path)]
    texts += [*of_settings(), of_the_first_page(), *of_badges(), *of_measures(), *of_tables()]
    texts += [text for text in of_pages(tmp_path_factory.mktemp("pages")) if not OF_THE_HOST.search(text)]
    left_out = STAYS | NOT_SHOWN | PARTS
    return {text.strip() for text in texts if not {text, text.strip()} & left_out}


def test_every_fixed_text_has_a_translation(shown: set[str]) -> None:
    assert sorted(shown - TRANSLATIONS.keys()) == []


def test_every_translation_belongs_to_a_text(shown: set[str]) -> None:
    assert sorted(TRANSLATIONS.keys() - shown) == []


def test_no_translation_is_empty_or_still_english() -> None:
    assert [key for key, text in TRANSLATIONS.items() if not re.search("[\u4e00-\u9fff]", text)] == []


def test_no_key_is_there_twice() -> None:
    pairs = json.loads((ROOT / "localizations" / "zh_CN.json").read_text(encoding="utf8"), object_pairs_hook=list)
    assert len(pairs) == len(TRANSLATIONS)
