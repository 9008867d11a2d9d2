"""The routes of Bake, over HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.sample_hosts import GREY
from vae_lab import inspect_file
from vae_lab.api.routes import add_routes
from vae_lab.host.standalone import StandaloneHost
from vae_lab.service import bakes
from vae_lab.service.service import service_of

URL = "/vae-lab/v1/bake"
SMOOTH, XL = "photo-a-smooth.safetensors", "sdxl-c.safetensors"


@pytest.fixture
def host(grey_host: StandaloneHost) -> StandaloneHost:
    return grey_host


@pytest.fixture
def client(host: StandaloneHost) -> TestClient:
    app = FastAPI()
    add_routes(app, host)
    return TestClient(app)


def files(tmp_path: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (tmp_path / "models").iterdir()}


def test_a_grey_checkpoint_becomes_a_healthy_copy(client: TestClient, host: StandaloneHost, tmp_path: Path) -> None:
    before = files(tmp_path)[GREY]
    host.inspect(GREY)
    host.inspect(SMOOTH)
    host.file_cache.identify(str(host.file_of(XL)))
    plan = client.get(URL, params={"checkpoint": GREY}).json()
    assert plan["vae"] == plan["vaes"][0] == SMOOTH
    assert "healthy" in plan["reason"]
    assert XL not in plan["vaes"], "another family"
    assert plan["file"] == "grey-photo-a-smooth.safetensors"
    assert plan["needed"] == len(before)
    assert plan["free"] > 0
    answer = client.post(URL, json={"checkpoint": GREY, "vae": SMOOTH}).json()
    assert (answer["file"], answer["checkpoint"]) == (plan["file"], plan["file"])
    assert answer["report"]["verdict"]["status"] == "healthy"
    after = files(tmp_path)
    assert after.keys() == {GREY, plan["file"]}
    assert after[GREY] == before
    donor = inspect_file(host.file_of(SMOOTH)).fingerprint
    assert inspect_file(tmp_path / "models" / plan["file"]).fingerprint == donor
    assert client.get(URL, params={"checkpoint": GREY}).json()["file"] == "grey-photo-a-smooth-2.safetensors"


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"checkpoint": "nowhere", "vae": SMOOTH}, 404, "no checkpoint named nowhere"),
        ({"checkpoint": GREY, "vae": "nowhere"}, 404, "no VAE named nowhere"),
        ({"checkpoint": GREY, "vae": XL}, 422, "it would produce garbage"),
        ({"checkpoint": GREY, "vae": SMOOTH, "file": GREY}, 409, "already exists"),
        ({"checkpoint": GREY, "vae": SMOOTH, "file": "../grey"}, 409, "cannot be the name of a file"),
        ({"checkpoint": GREY, "vae": SMOOTH, "file": "a\\b"}, 409, "cannot be the name of a file"),
        ({"checkpoint": GREY, "vae": SMOOTH, "file": "a\nb"}, 409, "cannot be the name of a file"),
        ({"checkpoint": GREY, "vae": SMOOTH, "file": ".hidden"}, 409, "cannot be the name of a file"),
        ({"checkpoint": GREY, "vae": SMOOTH, "file": "a" * 300}, 409, "too long"),
        ({"checkpoint": GREY}, 422, "vae"),
    ],
)
def test_refusals_write_nothing(
    client: TestClient, tmp_path: Path, body: dict[str, str], status: int, said: str
) -> None:
    before = files(tmp_path)
    answer = client.post(URL, json=body)
    assert answer.status_code == status
    assert said in answer.json()["detail"]
    assert files(tmp_path) == before


def test_progress_in_bytes_and_cancel(
    client: TestClient, host: StandaloneHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(tmp_path)
    runs, seen = service_of(host).runs, []
    write = bakes.bake

    def cancelled_in_the_middle(*args, progress, **options):  # type: ignore[no-untyped-def]
        def report(done: int, total: int, name: str) -> None:
            progress(done, total, name)
            seen.append(client.get("/vae-lab/v1/progress").json())
            if done > total / 4:
                client.post("/vae-lab/v1/cancel")

        write(*args, progress=report, **options)

    monkeypatch.setattr(bakes, "bake", cancelled_in_the_middle)
    answer = client.post(URL, json={"checkpoint": GREY, "vae": SMOOTH})
    assert (answer.status_code, answer.json()["detail"]) == (409, "cancelled; no file was written")
    assert {(each["unit"], each["busy"]) for each in seen} == {("bytes", True)}
    assert len(before[GREY]) / 2 < seen[-1]["total"] < len(before[GREY]) * 2
    assert files(tmp_path) == before
    assert not runs.status.busy


def test_not_while_another_task_is_running(client: TestClient, host: StandaloneHost, tmp_path: Path) -> None:
    before = files(tmp_path)
    with service_of(host).runs.one_at_a_time():
        assert client.post(URL, json={"checkpoint": GREY, "vae": SMOOTH}).status_code == 409
    assert files(tmp_path) == before
