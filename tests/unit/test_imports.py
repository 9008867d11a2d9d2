"""Imports point one way, and the core needs neither a page nor a WebUI."""

from __future__ import annotations

import ast
import importlib.util
import pkgutil
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import vae_lab

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(vae_lab.__file__).parent

# What runs only inside a WebUI, and the pages.
NOT_CORE = (
    *("vae_lab.__main__", "vae_lab.extension", "vae_lab.webui"),
    *("vae_lab.ui.app", "vae_lab.ui.compat", "vae_lab.ui.pages", "vae_lab.ui.panels", "vae_lab.ui.tab"),
)


def core_modules() -> list[str]:
    found = ["vae_lab", *(module.name for module in pkgutil.walk_packages([str(PACKAGE)], "vae_lab."))]
    return [name for name in found if not any(name == out or name.startswith(f"{out}.") for out in NOT_CORE)]


def test_core_imports_neither_gradio_nor_the_webui_and_has_no_effects() -> None:
    """In a separate process, because this one may have imported them for other tests. Nothing is printed, no thread is
    left by the package, and torch computes as before.
    """
    names = core_modules()
    assert {"vae_lab.cli", "vae_lab.host.standalone", "vae_lab.formats.torch_zip"} <= set(names)
    code = f"""
import importlib, sys, threading, torch
before = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads(), torch.initial_seed()
import vae_lab
assert (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads(), torch.initial_seed()) == before
assert threading.active_count() == 1
for name in {names!r}:
    importlib.import_module(name)
    found = sorted({{"gradio", "modules", "diffusers", "transformers", "skimage"}} & set(sys.modules))
    assert not found, f"{{name}} imports {{found}}"
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", [name for name in core_modules() if importlib.util.find_spec(name)])
def test_all_names_everything_public(name: str) -> None:
    """``__all__`` is sorted, every name in it exists, and every name without underscore is in it."""
    module = __import__(name, fromlist=["*"])
    listed = getattr(module, "__all__", None)
    if listed is None:
        return
    assert sorted(set(listed)) == sorted(listed)
    for public in listed:
        assert hasattr(module, public), f"{name}.__all__ lists {public}, which is not there"


def test_public_names_of_the_package() -> None:
    assert isinstance(vae_lab.__all__, list)
    submodules = {module.name for module in pkgutil.iter_modules([str(PACKAGE)])}
    public = {name for name in vars(vae_lab) if not name.startswith("_")} - submodules
    assert set(vae_lab.__all__) == public | {"__version__"}


def test_errors_are_drawn_in_full() -> None:
    """errors.py shows the whole tree; a missing or misplaced class would mislead."""
    from vae_lab import errors

    drawn = [line for line in (errors.__doc__ or "").splitlines() if "──" in line]
    names = {line.split("── ")[1].split()[0] for line in drawn} | {"VaeLabError"}
    assert names == set(errors.__all__)
    parents = {name: getattr(errors, name).__bases__[0].__name__ for name in names}
    stack = ["VaeLabError"]
    for line in drawn:
        depth = (line.index("── ") - 5) // 4 + 1
        name = line.split("── ")[1].split()[0]
        assert parents[name] == stack[depth - 1], line
        stack[depth:] = [name]


# --- the contracts in pyproject.toml ---------------------------------------------------------------------------------

LINT = "from importlinter.cli import lint_imports; import sys; sys.exit(lint_imports(no_cache=True))"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the package that may be changed."""
    pytest.importorskip("importlinter")
    unneeded = shutil.ignore_patterns("*.safetensors", "*.jpg", "__pycache__")
    shutil.copytree(PACKAGE, tmp_path / "vae_lab", ignore=unneeded)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); {LINT}"
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)


def add(folder: Path, file: str, line: str) -> None:
    with (folder / "vae_lab" / file).open("a", encoding="utf8") as out:
        out.write(f"\n{line}\n")


def test_contracts_hold(checkout: Path) -> None:
    done = lint(checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    "violations",
    [
        {
            "formats/dtypes.py": "from vae_lab import state_dict",
            "autoencoders/base.py": "from vae_lab.comparison import compare",
            "host/plan.py": "import gradio",
            "latents/family.py": "import gradio.blocks",
            "library/cache.py": "import modules.shared",
            "ui/views/tables.py": "import gradio",
            "ui/compat.py": "from modules import shared",
            "probe_x.py": "import gradio",
            "probe_y.py": "import modules",
        },
    ],
    ids=["each kind"],
)
def test_violations_are_found(checkout: Path, violations: dict[str, str]) -> None:
    for file, line in violations.items():
        add(checkout, file, line)
    done = lint(checkout)
    assert done.returncode != 0
    broken = done.stdout[done.stdout.index("Broken contracts") :]
    for chain in (
        "vae_lab.formats is not allowed to import vae_lab.state_dict",
        "vae_lab.autoencoders is not allowed to import vae_lab.comparison",
        "vae_lab.host.plan -> gradio",
        "vae_lab.latents.family -> gradio",
        "vae_lab.library.cache -> modules",
        "vae_lab.ui.compat -> modules",
        "vae_lab.ui.views.tables -> gradio",
        "vae_lab.probe_x -> gradio",
        "vae_lab.probe_y -> modules",
    ):
        assert chain in broken, broken


def test_core_writes_no_output() -> None:
    """print in a library ends up in somebody's pipe."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
            assert not called, f"{path}:{getattr(node, 'lineno', 0)}"


# --- nothing in a file is executed -----------------------------------------------------------------------------------

RUNS_CODE = {"_pickle", "cloudpickle", "dill", "diskcache", "joblib", "marshal", "pickle", "shelve"}
CALLS = {"__import__", "compile", "eval", "exec"}


def runs_code(text: str) -> list[int]:
    """Lines that import what unpickles, or call what executes: no file may reach such."""
    return sorted(
        {node.lineno for node in ast.walk(ast.parse(text)) if isinstance(node, ast.stmt | ast.expr) and _runs(node)}
    )


def _runs(node: ast.AST) -> bool:
    if isinstance(node, ast.Import):
        return any(name.name.split(".")[0] in RUNS_CODE for name in node.names)
    if isinstance(node, ast.ImportFrom):
        names = {name.name for name in node.names}
        return (node.module or "").split(".")[0] in RUNS_CODE or (node.module == "torch" and "load" in names)
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Name):
        return node.func.id in CALLS
    called = ast.unparse(node.func)
    pickles = any(keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False" for keyword in node.keywords)
    constants = {argument.value for argument in node.args if isinstance(argument, ast.Constant)}
    imports = called == "importlib.import_module" and bool(constants & RUNS_CODE)
    return called in ("torch.load", "torch.jit.load", "builtins.eval", "builtins.exec") or pickles or imports


def test_no_module_runs_what_is_in_a_file() -> None:
    found = {
        str(path): lines for path in PACKAGE.rglob("*.py") if (lines := runs_code(path.read_text(encoding="utf8")))
    }
    assert found == {}


@pytest.mark.parametrize(
    "line",
    [
        *(
            "import pickle",
            "import pickle as p",
            "from pickle import loads",
            "import os, shelve",
            "from marshal import loads",
        ),
        *("import diskcache", "from diskcache import Cache", "import dill", "import joblib", "import cloudpickle"),
        *("torch.load(path)", "torch.load(path, weights_only=True)", "from torch import load", "torch.jit.load(path)"),
        *("np.load(path, allow_pickle=True)", "numpy.load(path, allow_pickle=wanted)", "eval(text)", "exec(text)"),
        *("def f():\n    import pickle", "importlib.import_module('pickle')", "__import__('pickle')"),
    ],
)
def test_what_would_run_code_is_found(line: str) -> None:
    assert runs_code(f"x = 1\n{line}\n")


@pytest.mark.parametrize(
    "line", ["re.compile(x)", "model.eval()", "np.load(path)", "np.load(path, allow_pickle=False)", "json.load(file)"]
)
def test_what_runs_no_code_is_let_pass(line: str) -> None:
    assert runs_code(line) == []


@cache
def _top_level_names(file: Path) -> frozenset[str]:
    """Every name that a module defines or imports anywhere; enough to notice one that was moved or renamed."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
    return frozenset(found)


def wrong_imports(root: Path, *folders: str) -> list[str]:
    """``file:line name`` of each import of ours that names nothing."""
    wrong = []
    for file in sorted(path for folder in folders for path in (root / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not node.module or node.module.split(".")[0] not in folders:
                continue
            module = root.joinpath(*node.module.split("."))
            source = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
            names = _top_level_names(source) if source.exists() else frozenset()
            names |= {path.stem for path in module.glob("*") if path.is_dir() or path.suffix == ".py"}
            missing = [alias.name for alias in node.names if alias.name not in names]
            wrong += [f"{file.relative_to(root)}:{node.lineno} {node.module}.{name}" for name in missing]
    return wrong


def test_every_import_of_ours_names_something() -> None:
    """Also in the modules that only a WebUI can import, and in the tests that run there."""
    assert not wrong_imports(ROOT, "vae_lab", "tests", "tools")


def test_an_import_that_names_nothing_is_noticed(tmp_path: Path) -> None:
    package = tmp_path / "vae_lab"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "here.py").write_text("from vae_lab.gone import x\nfrom vae_lab.there import a, b\n")
    (package / "there.py").write_text("a = 1\n")
    assert wrong_imports(tmp_path, "vae_lab") == [
        "vae_lab/here.py:1 vae_lab.gone.x",
        "vae_lab/here.py:2 vae_lab.there.b",
    ]
