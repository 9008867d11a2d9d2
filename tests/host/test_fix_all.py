"""Fix all in the WebUI: its own preferences are written, decide the images, and are put back."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from tests.host.webui import WebUI, pixels

pytestmark = pytest.mark.host

COPIES = 57
JSON = {  # as other tools leave it, or not there
    "grey.json": b'{\r\n  "description": "a caf\xc3\xa9",\r\n  "vae": "gone.safetensors", "notes": [1, 2.50]}\r\n',
    "grey-00.json": b"{}",
}


@pytest.fixture
def library(webui: WebUI, data_dir: Path, grey_checkpoint: str) -> Iterator[Path]:
    """The WebUI's checkpoints, and many more with the broken VAE of one of them."""
    models = data_dir / "models" / "Stable-diffusion"
    copies = [models / f"grey-{number:02}.safetensors" for number in range(COPIES)]
    for copy in copies:
        os.link(models / grey_checkpoint, copy)
        if (models / "grey.yaml").exists():
            shutil.copy(models / "grey.yaml", copy.with_suffix(".yaml"))
    for name, content in JSON.items():
        (models / name).write_bytes(content)
    webui.sd_models.list_models()
    yield models
    for copy in copies:
        copy.unlink()
        copy.with_suffix(".yaml").unlink(missing_ok=True)
    for file in models.glob("*.json"):
        file.unlink()
    webui.sd_models.list_models()


def test_every_broken_checkpoint_at_once(webui: WebUI, library: Path) -> None:
    client = TestClient(webui.app)

    def ask(method: str, path: str, **body: Any) -> Any:
        answer = client.request(method, f"/vae-lab/v1/{path}", json=body or None)
        assert answer.status_code == 200, answer.text
        return answer.json()

    client.post("/vae-lab/v1/scan").raise_for_status()
    before = {file.name: file.read_bytes() for file in library.glob("*.json")}
    plan = ask("GET", "fixes")["checkpoints"]
    use = {row["checkpoint"]: row["vae"] for row in plan if row["action"] == "use"}
    greys = {f"grey-{number:02}.safetensors" for number in range(COPIES)} | {"grey.safetensors"}
    assert set(use) >= greys
    assert {"one.safetensors", "two.safetensors"}.isdisjoint(row["checkpoint"] for row in plan)
    assert {file.name: file.read_bytes() for file in library.glob("*.json")} == before, "a dry run"

    done = ask("POST", "fixes", checkpoints=sorted(greys))
    assert ({row["checkpoint"] for row in done["changed"]}, done["failed"]) == (greys, [])
    for name in ("grey.safetensors", "grey-31.safetensors"):
        webui.select_checkpoint("one.safetensors")
        webui.select_checkpoint(name)
        preferred = pixels(webui.generate())[0]
        assert webui.sd_vae.get_loaded_vae_name() == use[name]
        webui.choose_natively("None")  # the settings come before a checkpoint's preference
        own = pixels(webui.generate())[0]
        webui.choose_natively(use[name])
        assert np.array_equal(pixels(webui.generate())[0], preferred)
        assert not np.array_equal(own, preferred)
        webui.choose_natively("Automatic")
    webui.select_checkpoint("one.safetensors")

    undone = ask("POST", "fixes/undo", sure=True)
    assert (set(undone["restored"]), undone["refused"]) == (greys, [])
    assert {file.name: file.read_bytes() for file in library.glob("*.json")} == before
