"""Forge as users run it: a server process with VAE Lab among its extensions, driven over its API.

Nothing is written into the user's Forge: settings, extensions, models and outputs are in our own data folder.
"""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FLAGS = [
    *("--skip-prepare-environment", "--skip-version-check", "--skip-torch-cuda-test", "--no-download-sd-model"),
    "--api",
]
CPU_FLAGS = ["--always-cpu", "--cpu"]  # Forge's, and a later Forge Neo's


@dataclass(frozen=True)
class Made:
    """Result of a generation: images, and their generation parameters."""

    images: list[np.ndarray]
    infotexts: list[str]


class Forge:
    """A separate Forge process, with its log."""

    def __init__(self, folder: Path, data: Path, flags: list[str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.data = data
        self.log_file = data / "log.txt"
        # Its own scripts are outside of the data folder, and gradio 4 only serves allowed folders.
        places = ["--port", str(self.port), "--data-dir", str(data), "--gradio-allowed-path", str(folder)]
        environment = {key: value for key, value in os.environ.items() if key != "COMMANDLINE_ARGS"}
        with self.log_file.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "launch.py", *known(folder, [*FLAGS, *flags]), *places],
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._wait()

    def _wait(self, seconds: float = 300) -> None:
        end = time.monotonic() + seconds
        while "Startup time" not in self.log:
            assert self.process.poll() is None, self.log
            assert time.monotonic() < end, f"Forge did not start: {self.log[-3000:]}"
            time.sleep(0.5)

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf8", errors="replace")

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=60) as response:
            return json.load(response)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=600) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error

    def image(self, path: str) -> np.ndarray:
        with urllib.request.urlopen(self.url + path, timeout=60) as response:
            return np.asarray(Image.open(response))

    def generate(self, lab: Any = None, *, img2img: bool = False, **body: Any) -> Made:
        scripts = {"alwayson_scripts": {"VAE Lab": {"args": [lab]}}} if lab is not None else {}
        defaults = {"prompt": "a boat", "seed": 5, "steps": 1, "width": 64, "height": 64, "sampler_name": "Euler"}
        defaults |= {"cfg_scale": 1, "scheduler": "Automatic"}
        made = self.post(f"/sdapi/v1/{'img2img' if img2img else 'txt2img'}", defaults | scripts | body)
        images = [np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded)))) for encoded in made["images"]]
        return Made(images, json.loads(made["info"])["infotexts"])

    def set(self, **options: Any) -> None:
        self.post("/sdapi/v1/options", options)

    def choose_natively(self, *vaes: str) -> None:
        """As the menu "VAE / Text Encoder" does."""
        self.set(forge_additional_modules=list(vaes))

    def select_checkpoint(self, name: str) -> None:
        """As the menu "Checkpoint" does."""
        self.set(sd_model_checkpoint=name)

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(30)


def known(folder: Path, flags: list[str]) -> list[str]:
    """Those of ``flags`` that this Forge has: it refuses to start with others."""
    sources = [folder / "modules" / "cmd_args.py", folder / "backend" / "args.py"]
    known = "".join(source.read_text(encoding="utf8") for source in sources if source.exists())
    return [flag for flag in flags if not flag.startswith("--") or f'"{flag}"' in known]
