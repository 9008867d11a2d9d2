"""The routes of Fix all, on folders that a WebUI uses."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.unit import fix_tree
from tests.unit.fix_tree import USES, contents
from vae_lab.api.routes import add_routes
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.service.service import service_of

URL = "/vae-lab/v1/fixes"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return fix_tree.scanned(tmp_path)


def served(models: Path) -> tuple[StandaloneHost, TestClient]:
    """A new process would have a new host, with the same folders. The host lives as long as it is referenced."""
    app, host = FastAPI(), StandaloneHost(Folders.of_models(models, models.parent / "data", webui=True))
    add_routes(app, host)
    return host, TestClient(app)


def test_plan_apply_and_undo(models: Path) -> None:
    before = contents(models)
    _host, client = served(models)
    plan = client.get(URL).json()
    assert {row["checkpoint"]: row["vae"] for row in plan["checkpoints"] if row["action"] == "use"} == USES
    assert (plan["undo"], plan["unchecked"], plan["remark"]) == ([], 1, "")
    first = client.post(URL, json={"checkpoints": ["empty.safetensors"]}).json()
    assert first == {"changed": [{"checkpoint": "empty.safetensors", "vae": "plain.safetensors"}], "failed": []}
    rest = client.post(URL, json={}).json()
    assert {row["checkpoint"] for row in rest["changed"]} == USES.keys() - {"empty.safetensors"}
    _host, client = served(models)
    assert {row["checkpoint"] for row in client.get(URL).json()["undo"]} == USES.keys()
    undone = client.post(f"{URL}/undo", json={}).json()
    assert (sorted(undone["restored"]), undone["refused"]) == (sorted(USES), [])
    assert contents(models) == before
    assert client.post(f"{URL}/undo", json={}).status_code == 404


def test_not_while_another_task_is_running(models: Path) -> None:
    before = contents(models)
    host, client = served(models)
    with service_of(host).runs.one_at_a_time():
        assert client.get(URL).status_code == 200
        for path in (URL, f"{URL}/undo"):
            assert client.post(path, json={}).status_code == 409
    assert contents(models) == before


def test_a_choice_for_every_checkpoint_takes_precedence(models: Path) -> None:
    host = StandaloneHost(Folders.of_models(models, models.parent / "data"))
    host.use_always("Built-in")
    remark = service_of(host).fixes.plan().remark
    assert remark == "Built-in is chosen for every checkpoint and takes precedence."
