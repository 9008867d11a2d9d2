"""Everything that the host or gradio calls is guarded, so that no error of ours reaches them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import vae_lab
from tests.unit.webui.double import Double
from vae_lab.webui import parts

PACKAGE = Path(vae_lab.__file__).parent
TAKE_FUNCTIONS = ("OptionInfo", "AxisOption", "HTML")
"""What of the host's and of gradio's is given functions and calls them without a guard of its own."""
EVENTS = ("blur", "change", "click", "input", "select", "submit", "then", "upload")
SCRIPTS = ("scripts.Script", "ScriptPostprocessing")
CONSTANT = ("title", "show")
"""Methods of a script that compute nothing."""
RAISES = ("confirm",)
"""Of the X/Y/Z plot's axis: its error is how the plot learns of a wrong value."""


def unguarded(source: str) -> list[str]:
    """``line name`` of each function that is given to the host or gradio without ``for_host``."""
    tree = ast.parse(source)
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assigned = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }

    def is_guarded(value: ast.expr) -> bool:
        if isinstance(value, ast.Lambda):
            return False
        if isinstance(value, ast.Call) and "for_host" in ast.unparse(value.func):
            return True
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in functions:
            inner = [node for node in functions[value.func.id].body if isinstance(node, ast.Return)]
            return all(node.value is None or is_guarded(node.value) for node in inner)
        if isinstance(value, ast.Name) and value.id in functions:
            return value.id in RAISES or _has_guard(functions[value.id])
        return is_guarded(assigned[value.id]) if isinstance(value, ast.Name) and value.id in assigned else True

    return [f"{value.lineno} {ast.unparse(value)}" for value in _given(tree) if not is_guarded(value)] + [
        f"{method.lineno} {method.name}" for method in _hooks(tree) if not _has_guard(method)
    ]


def _given(tree: ast.AST) -> Iterator[ast.expr]:
    """Every value that the host or gradio may call; functions for ``script_callbacks`` are given in one place only."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("script_callbacks."):
            yield _plain(node)
        if not isinstance(node, ast.Call):
            continue
        values = [*node.args, *(keyword.value for keyword in node.keywords)]
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in TAKE_FUNCTIONS:
            yield from values
        elif name in EVENTS and isinstance(node.func, ast.Attribute):
            yield from (_plain(value) for value in values if isinstance(value, ast.Lambda | ast.Attribute))


def _plain(body: ast.expr) -> ast.Lambda:
    """A function without a guard."""
    return ast.Lambda(args=ast.arguments([], [], None, [], [], None, []), body=body, lineno=body.lineno)


def _hooks(tree: ast.AST) -> list[ast.FunctionDef]:
    scripts = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith(SCRIPTS) for base in node.bases)
    ]
    methods = [node for script in scripts for node in script.body if isinstance(node, ast.FunctionDef)]
    return [method for method in methods if method.name not in CONSTANT]


def _has_guard(function: ast.FunctionDef) -> bool:
    return any("for_host" in ast.unparse(decorator) for decorator in function.decorator_list)


FILES = [*PACKAGE.glob("webui/*.py"), *PACKAGE.glob("ui/panels/*.py"), PACKAGE / "extension.py", PACKAGE / "ui/tab.py"]


@pytest.mark.parametrize("file", sorted(FILES), ids=lambda file: file.stem)
def test_everything_that_the_host_calls_is_guarded(file: Path) -> None:
    assert unguarded(file.read_text(encoding="utf8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "script_callbacks.on_ui_tabs(tabs)",
        "script_callbacks.on_ui_tabs(lambda: [])",
        "shared.OptionInfo(1, 'x', y, lambda: {})",
        "def choices(): ...\nshared.OptionInfo(1, 'x', y, choices)",
        "def choices(): ...\nshared.OptionInfo(1, 'x', y, refresh=choices)",
        "refresh = lambda: host.listing()\nshared.OptionInfo(1, 'x', y, refresh=refresh)",
        "def apply(p, x, xs): ...\nplot.AxisOption('x', str, apply)",
        "def of(host):\n    def choices(): ...\n    return choices\nplot.AxisOption('x', str, choices=of(host))",
        "def line(): ...\ngr.HTML(line)",
        "button.click(self.on_click, [], [])",
        "button.click(lambda: 1)",
        "class S(scripts.Script):\n    def process(self, p): ...",
        "class S(scripts.Script):\n    def ui(self, is_img2img): ...",
        "class S(scripts_postprocessing.ScriptPostprocessing):\n    def process(self, pp): ...",
    ],
)
def test_what_is_not_guarded_is_found(source: str) -> None:
    assert len(unguarded(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "shared.OptionInfo(1, 'x', y, {'minimum': 1})",
        "@for_host('x')\ndef choices(): ...\nshared.OptionInfo(1, 'x', y, choices)",
        "refresh = for_host('x')(host.listing)\nshared.OptionInfo(1, 'x', y, refresh=refresh)",
        "connect(button.click, self.on_click, [], [])",
        "gr.HTML('text')",
        "class S(scripts.Script):\n    def title(self): ...\n    @for_host('x')\n    def process(self, p): ...",
    ],
)
def test_what_is_guarded_is_let_pass(source: str) -> None:
    assert unguarded(source) == []


# --- parts of the host -----------------------------------------------------------------------------------------------


DEEPER = ("shared.cmd_opts", "shared.opts", "shared.state", "sd_models.model_data")
"""Objects whose attributes differ between hosts as well."""


def parts_read(source: str) -> set[str]:
    """Names below ``modules`` that are read without asking whether the host has them."""
    tree, names, found = ast.parse(source), set[str](), set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "modules":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("modules."):
            found |= {f"{node.module.partition('.')[2]}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Load):
            continue
        owner, name = ast.unparse(node.value), ast.unparse(node)
        if owner in DEEPER or (owner in names and name not in DEEPER):
            found.add(name)
    return found


@pytest.mark.parametrize("file", sorted(PACKAGE.glob("webui/*.py")), ids=lambda file: file.stem)
def test_every_part_that_is_read_is_looked_for_at_the_start(file: Path) -> None:
    """Else a host without it fails later; what only some hosts have is read with ``part`` or ``getattr``."""
    needed = {*parts.NEEDED, *parts.NEEDED_IN_WEBUI, *parts.NEEDED_IN_FORGE}
    known = needed | {name.rpartition(".")[0] for name in needed}
    assert parts_read(file.read_text(encoding="utf8")) - known == set()


def test_every_part_is_taken_away_in_turn() -> None:
    names = {*Double("webui", Path("nowhere")).names, *Double("forge", Path("nowhere")).names}
    known = names | {"processing.Processed.js", "scripts.ScriptRunner.run"}
    known |= {f"shared.opts.{method}" for method in ("add_option", "save", "set")}
    assert {*parts.NEEDED, *parts.NEEDED_IN_WEBUI, *parts.NEEDED_IN_FORGE} - known == set()


def test_a_part_that_is_read_is_found() -> None:
    source = "from modules import devices, shared\nfrom modules.call_queue import lock\n"
    source += "shared.state.current_latent = None\ngetattr(shared.opts, 'x', 1)\nprint(devices.cpu, shared.opts.sd_vae)"
    assert parts_read(source) == {"call_queue.lock", "devices.cpu", "shared.opts.sd_vae"}
