#!/usr/bin/env python3
"""One command for everything: ``python3 run.py demo``, ``… test``, ``… lint``, ``… bench``, ``… host --webui-dir DIR``.

Needs only Python 3.10 or newer. Creates ``.venv`` next to this file, installs the pinned packages there, and installs
nothing anywhere else.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent


def environment(gradio: int, *extra: str) -> Path:
    """The Python of a virtual environment with the pinned packages; made, or brought up to date, if needed."""
    folder = ROOT / (".venv" if gradio == 3 else f".venv-gradio{gradio}")
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    for name in (f"gradio{gradio}", *extra):
        pins = ROOT / "requirements" / f"{name}.txt"
        wanted = hashlib.sha256(pins.read_bytes()).hexdigest()
        stamp = folder / f"{name}.installed"
        if stamp.exists() and stamp.read_text() == wanted:
            continue
        if not python.exists():
            sys.stderr.write(f"making {folder.name}\n")
            venv.create(folder, with_pip=True)
        sys.stderr.write(f"installing requirements/{name}.txt into {folder.name}, which takes a few minutes\n")
        # The base pins are named again, so that an extra can never move them.
        files = [f"-r{ROOT / 'requirements' / f'gradio{gradio}.txt'}", f"-r{pins}"]
        subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *files], check=True)
        stamp.write_text(wanted)
    return python


def run(python: Path | str, *command: str, **variables: str) -> int:
    """Run a module of ours with ``python``; returns its exit code."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "GRADIO_ANALYTICS_ENABLED": "False"} | variables
    return subprocess.run([python, *command], cwd=ROOT, env=env, check=False).returncode


def demo(args: argparse.Namespace, rest: list[str]) -> int:
    """Open the stand-alone app on a sample set; with --headless, compare on it without a browser."""
    options = [*(["--headless"] if args.headless else []), *(["-o", str(Path(args.out).resolve())] if args.out else [])]
    return run(environment(args.gradio), "-m", "vae_lab", "demo", *options, *rest)


# What can differ with gradio 4 and the versions that Forge pins with it: FastAPI, pydantic, httpx.
# tests/unit/test_run.py fails when a test file that depends on them is missing here.
GRADIO_4_TESTS = (
    *("tests/browser", "tests/unit/api", "tests/unit/ui", "tests/unit/test_localization.py"),
    *("tests/unit/formats/test_remote.py", "tests/unit/service/test_hashes.py", "tests/contract/test_listing.py"),
    *("tests/unit/webui/test_any_part_missing.py", "tests/unit/webui/test_extras.py"),
)


def names_tests(rest: list[str]) -> bool:
    """Whether one of pytest's arguments is a file or a folder, so that only these tests run."""
    return any((ROOT / part.partition("::")[0]).exists() for part in rest)


def test(args: argparse.Namespace, rest: list[str]) -> int:
    """The tests that need no WebUI and no GPU; with --gradio 4, those that can differ there."""
    cores = os.cpu_count() or 1
    workers = min(cores + 1, 4)  # browser tests wait more than they compute
    command = ["-m", "pytest", f"--numprocesses={workers}", "--dist=loadfile", "--durations=20"]
    left_out = ([] if args.all else ["slow"]) + (["static"] if args.gradio == 4 else [])
    if left_out:
        command += ["-m", " and ".join(f"not {marker}" for marker in left_out)]
    if args.gradio == 4 and not args.all and not names_tests(rest):
        command += GRADIO_4_TESTS
    command += rest
    # The workers share the cores; torch would take all of them in each.
    return run(environment(args.gradio, "test"), *command, OMP_NUM_THREADS=str(max(cores // workers, 1)))


def lint_scripts() -> int:
    """Eslint and the TypeScript checker on javascript/, where Node is installed; gives the exit code."""
    npm = shutil.which("npm")
    if npm is None:
        sys.stderr.write("javascript/ is not checked: Node is not installed\n")
        return 0
    wanted = hashlib.sha256((ROOT / "package-lock.json").read_bytes()).hexdigest()
    stamp = ROOT / "node_modules" / "lock.installed"
    if not stamp.exists() or stamp.read_text() != wanted:
        install = [npm, "ci", "--no-audit", "--no-fund", "--silent"]
        if subprocess.run(install, cwd=ROOT, check=False).returncode:
            sys.stderr.write("javascript/ is not checked: the packages in package.json cannot be installed\n")
            return 0
        stamp.write_text(wanted)
    return subprocess.run([npm, "run", "--silent", "lint"], cwd=ROOT, check=False).returncode


def lint(args: argparse.Namespace, _: list[str]) -> int:
    """ruff, the import contracts, pyright on the core, and eslint and tsc on the scripts."""
    python = environment(args.gradio, "test")
    lint_imports = "from importlinter.cli import lint_imports_command as c; c()"
    codes = [
        run(python, "-m", "ruff", "check", "."),
        run(python, "-m", "ruff", "format", "--check", "."),
        run(python, "-c", lint_imports),
        run(python, "-m", "pyright"),
        lint_scripts(),
    ]
    return max(codes)


def bench(args: argparse.Namespace, rest: list[str]) -> int:
    """Speed and memory, as ratios of two things measured side by side in one run."""
    return run(environment(args.gradio, "test"), "-m", "tools.bench", *rest)


def host(args: argparse.Namespace, rest: list[str]) -> int:
    """The host tests in your own WebUI, plain and with --medvram, with the WebUI's own Python."""
    webui = Path(args.webui_dir).resolve()
    own = (webui / "venv" / "bin" / "python", webui / "venv" / "Scripts" / "python.exe")
    python = args.webui_python or next((path for path in own if path.exists()), None)
    if python is None:
        sys.stderr.write(f"no venv in {webui}; name its Python with --webui-python\n")
        return 2
    tools = ROOT / ".host-tools"
    packages = ["pytest", "pluggy", "iniconfig", "pygments", "playwright", "pyee", "greenlet"]
    packages += ["tomli", "exceptiongroup"]  # pytest on Python 3.10 needs these two as well
    if not all((tools / name).exists() for name in packages):
        command = [python, "-m", "pip", "install", "-q", "--no-deps", "--upgrade", "--target", str(tools), *packages]
        subprocess.run(command, check=True)
    paths = os.pathsep.join([str(tools), str(ROOT)])
    forge = (webui / "modules_forge").is_dir()  # it manages memory itself, and has no --medvram
    suite = [] if names_tests(rest) else ["tests/forge" if forge else "tests/host"]
    command = ["-m", "pytest", *suite, "-W", "ignore", f"--webui-dir={webui}", *rest]
    codes = [
        run(python, *command, f"--webui-flags={flags}", PYTHONPATH=paths)
        for flags in (args.webui_flags, *([] if forge else [f"{args.webui_flags} --medvram".strip()]))
    ]
    return max(codes)


def main() -> int:
    """Read the command line; everything after ``--`` goes to the tool behind the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for function in (demo, test, lint, bench, host):
        command = commands.add_parser(function.__name__, help=function.__doc__)
        command.set_defaults(function=function)
        command.add_argument("--gradio", type=int, choices=(3, 4), default=3, help="3.41.2 (WebUI) or 4.40 (Forge)")
        if function is test:
            command.add_argument("--all", action="store_true", help="also the slow tests; with --gradio 4, every test")
        if function is demo:
            command.add_argument("--headless", action="store_true", help="write the comparison, open nothing")
            command.add_argument("-o", "--out", help="folder for the sheet and the JSON")
        if function is host:
            command.add_argument("--webui-dir", required=True, help="a WebUI 1.10.1 or a Forge that runs")
            command.add_argument("--webui-python", help="the Python it runs with")
            command.add_argument("--webui-flags", default="", help="flags that it needs")
    arguments = sys.argv[1:]
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    args = parser.parse_args(arguments[:cut])
    return args.function(args, arguments[cut + 1 :])


if __name__ == "__main__":
    sys.exit(main())
