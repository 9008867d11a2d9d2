"""The routes of Extract all and Deduplicate."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.unit import extract_tree
from tests.unit.extract_tree import WRITTEN, state_of
from vae_lab.api.routes import add_routes
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.library.hashes import hash_files
from vae_lab.service.service import service_of

URL = "/vae-lab/v1"
pytestmark = pytest.mark.skipif(os.name == "nt", reason="inodes are those of POSIX")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    models = extract_tree.scanned(tmp_path)
    shutil.copyfile(models / "VAE" / "mine.pt", models / "VAE" / "mine-copy.pt")
    host, _ = served(models)
    extract_tree.add_record(models / "VAE" / "mine-copy.pt", "vae", "external", state_of("external"), host.file_cache)
    hash_files(host.listing().files, host.file_cache)
    host.file_cache.close()
    return models


def served(models: Path) -> tuple[StandaloneHost, TestClient]:
    """A new process would have a new host, with the same folders. The host lives as long as it is referenced."""
    app, host = FastAPI(), StandaloneHost(Folders.of_models(models, models.parent / "data"))
    add_routes(app, host)
    return host, TestClient(app)


def test_extract(models: Path) -> None:
    _host, client = served(models)
    plan = client.get(f"{URL}/extract").json()
    assert {row["checkpoint"]: row["file"] for row in plan["vaes"] if not row["skipped"]} == WRITTEN
    done = client.post(f"{URL}/extract", json={"checkpoints": ["anything.safetensors"]}).json()
    (written,) = done["written"]
    assert (written["file"], written["report"]["verdict"]["status"]) == ("vae-anything.safetensors", "healthy")
    assert (models / "VAE" / written["file"]).is_file()
    names = [vae["name"] for vae in client.get(f"{URL}/vaes").json()["vaes"]]
    assert written["file"] in names


def test_dedupe_and_undo_after_a_restart(models: Path) -> None:
    one, two = models / "VAE" / "mine.pt", models / "VAE" / "mine-copy.pt"
    before = one.stat().st_ino, two.stat().st_ino, two.read_bytes()
    _host, client = served(models)
    (copy,) = client.get(f"{URL}/dedupe").json()["copies"]
    assert {copy["name"], copy["source"]} == {"mine.pt", "mine-copy.pt"}
    assert (one.stat().st_ino, two.stat().st_ino) == before[:2]
    done = client.post(f"{URL}/dedupe", json={}).json()
    assert (done["replaced"], done["skipped"]) == ([{"name": copy["name"], "source": copy["source"]}], [])
    assert done["reflinks"] or one.samefile(two)
    _host, client = served(models)
    (undo,) = client.get(f"{URL}/dedupe").json()["undo"]
    assert Path(undo["path"]).name == copy["name"]
    undone = client.post(f"{URL}/dedupe/undo", json={}).json()
    assert undone == {"restored": [undo["path"]], "refused": [], "cancelled": False}
    assert not one.samefile(two)
    assert one.read_bytes() == two.read_bytes() == before[2]


def test_not_while_another_task_is_running(models: Path) -> None:
    host, client = served(models)
    with service_of(host).runs.one_at_a_time():
        for path in ("extract", "dedupe"):
            assert client.get(f"{URL}/{path}").status_code == 200
        for path in ("extract", "dedupe", "dedupe/undo"):
            assert client.post(f"{URL}/{path}", json={}).status_code == 409
    assert not (models / "VAE" / "mine.pt").samefile(models / "VAE" / "mine-copy.pt")
