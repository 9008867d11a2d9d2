"""A downloaded VAE in the WebUI: in its folder, in its own list, and in use, without a restart."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.host.webui import WebUI
from tests.publisher import Publisher
from vae_lab.extension import the_host

pytestmark = pytest.mark.host

FILE = "downloaded.safetensors"


def test_it_is_listed_and_can_be_preferred(
    webui: WebUI, data_dir: Path, grey_checkpoint: str, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(the_host(), "published", [publisher.publishes(FILE)])
    webui.select_checkpoint(grey_checkpoint)
    client = TestClient(webui.app)
    target = data_dir / "models" / "VAE" / FILE
    try:
        assert client.post("/vae-lab/v1/inspect", json={"names": [grey_checkpoint]}).status_code == 200
        (plan,) = client.get("/vae-lab/v1/download", params={"checkpoint": grey_checkpoint}).json()["vaes"]
        assert Path(plan["folder"], plan["file"]) == target
        answer = client.post("/vae-lab/v1/download", json={"vae": "published"}).json()
        assert (answer["vae"], answer["report"]["verdict"]["status"]) == (FILE, "healthy")
        assert target.read_bytes() == publisher.content
        assert Path(webui.sd_vae.vae_dict[FILE]) == target
        chosen = {"reach": "checkpoint", "vae": FILE, "checkpoint": grey_checkpoint}
        undo = client.post("/vae-lab/v1/choose", json=chosen).json()["undo_id"]
        assert client.get("/vae-lab/v1/active").json()["vae"] == FILE
        client.post("/vae-lab/v1/undo", json={"undo_id": undo})
    finally:
        target.unlink(missing_ok=True)
        webui.sd_vae.refresh_vae_list()
        the_host().listing(fresh=True)
