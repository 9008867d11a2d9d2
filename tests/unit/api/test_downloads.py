"""The routes of downloads, over HTTP, with a publisher that stands in for the published one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.publisher import Publisher, Request, refuses
from tests.sample_hosts import GREY
from vae_lab.api.routes import add_routes
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.samples import SampleSet
from vae_lab.service.service import service_of

URL, VAE = "/vae-lab/v1/download", "published.safetensors"


@pytest.fixture
def host(samples: SampleSet, publisher: Publisher, tmp_path: Path) -> StandaloneHost:
    """A host with a grey checkpoint and without any VAE, not even a folder for one."""
    models = tmp_path / "models"
    (models / "Stable-diffusion").mkdir(parents=True)
    shutil.copy(samples.grey_merge, models / "Stable-diffusion" / GREY)
    files = [publisher.publishes(), publisher.publishes("xl.safetensors", "sdxl", name="xl")]
    return StandaloneHost(Folders.of_models(models, tmp_path / "data"), published=files)


@pytest.fixture
def client(host: StandaloneHost) -> TestClient:
    app = FastAPI()
    add_routes(app, host)
    return TestClient(app)


@pytest.fixture
def vaes(tmp_path: Path) -> Callable[[], dict[str, bytes]]:
    """What is in the folder for VAEs, without what an interrupted download has left."""
    folder = tmp_path / "models" / "VAE"
    return lambda: {path.name: path.read_bytes() for path in folder.glob("*") if path.suffix != ".part"}


def test_a_broken_checkpoint_gets_a_healthy_vae(
    client: TestClient, host: StandaloneHost, publisher: Publisher, tmp_path: Path, vaes: Callable[[], dict[str, bytes]]
) -> None:
    assert client.get(URL, params={"checkpoint": GREY}).json() == {"vaes": []}, "its family is not known yet"
    host.inspect(GREY)
    assert host.recommendation(search=True) is None
    (offered,) = client.get(URL, params={"checkpoint": GREY}).json()["vaes"]
    size = len(publisher.content)
    assert offered["free"] > 0
    assert offered == {
        "name": "published", "family": "sd1", "address": publisher.publishes().address,
        "folder": str(tmp_path / "models" / "VAE"), "file": VAE, "size": size,
        "sha256": publisher.publishes().sha256, "needed": size, "free": offered["free"],
    }  # fmt: skip
    assert [each["name"] for each in client.get(URL).json()["vaes"]] == ["published", "xl"]
    assert not publisher.asked, "nothing is sent before the click"
    answer = client.post(URL, json={"vae": "published"}).json()
    assert (answer["file"], answer["vae"], answer["report"]["verdict"]["status"]) == (VAE, VAE, "healthy")
    assert vaes() == {VAE: publisher.content}
    recommended = host.recommendation()
    assert recommended is not None
    assert recommended.name == VAE
    assert client.get("/vae-lab/v1/bake", params={"checkpoint": GREY}).json()["vae"] == VAE
    assert [each["name"] for each in client.get("/vae-lab/v1/vaes").json()["vaes"]] == [VAE]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"vae": "https://localhost/other.safetensors"}, 404, "no published VAE named https://localhost/other"),
        ({"vae": "../published"}, 404, "can be downloaded"),
        ({}, 422, "vae"),
    ],
)
def test_nothing_else_is_downloaded(
    client: TestClient, publisher: Publisher, body: dict[str, str], status: int, said: str
) -> None:
    answer = client.post(URL, json=body)
    assert answer.status_code == status
    assert said in answer.json()["detail"]
    assert not publisher.asked


def test_no_page_of_another_site_can_start_one(client: TestClient, publisher: Publisher) -> None:
    assert client.post(URL, content=b'{"vae": "published"}', headers={"Content-Type": "text/plain"}).status_code == 415
    assert not publisher.asked


def test_a_login_is_needed_where_the_host_needs_one(host: StandaloneHost, publisher: Publisher) -> None:
    app = FastAPI()
    add_routes(app, host, {"me": "secret"})
    stranger = TestClient(app)
    assert stranger.get(URL).status_code == 401
    assert stranger.post(URL, json={"vae": "published"}).status_code == 401
    assert not publisher.asked
    assert stranger.get(URL, auth=("me", "secret")).status_code == 200


def test_the_reason_of_a_failure(
    client: TestClient, publisher: Publisher, vaes: Callable[[], dict[str, bytes]]
) -> None:
    publisher.faults = [refuses(404)]
    answer = client.post(URL, json={"vae": "published"})
    assert answer.status_code == 422
    assert answer.json()["detail"].endswith("there is no such file on the server (404)")
    assert vaes() == {}
    assert client.get(URL, params={"checkpoint": "nowhere"}).status_code == 404


def test_progress_in_bytes_and_cancel(
    client: TestClient, host: StandaloneHost, publisher: Publisher, vaes: Callable[[], dict[str, bytes]]
) -> None:
    seen = {}

    def then_cancels(request: Request) -> None:
        request.send_range(400_000)
        while not seen.get("done"):
            seen.update(client.get("/vae-lab/v1/progress").json())
        client.post("/vae-lab/v1/cancel")

    publisher.faults = [Request.send_range, then_cancels]
    answer = client.post(URL, json={"vae": "published"})
    assert answer.status_code == 409
    assert answer.json()["detail"].startswith("cancelled; ")
    assert answer.json()["detail"].endswith("are stored, and the next download resumes there")
    assert (seen["busy"], seen["unit"], seen["total"]) == (True, "bytes", len(publisher.content))
    assert vaes() == {}
    left = client.get(URL).json()["vaes"][0]["needed"]
    assert 0 < left < len(publisher.content)
    assert client.post(URL, json={"vae": "published"}).json()["file"] == VAE
    assert vaes() == {VAE: publisher.content}
    assert not service_of(host).runs.status.busy


def test_not_while_another_task_is_running(client: TestClient, host: StandaloneHost, publisher: Publisher) -> None:
    with service_of(host).runs.one_at_a_time():
        assert client.post(URL, json={"vae": "published"}).status_code == 409
    assert not publisher.asked


def test_a_host_without_a_folder_for_vaes(samples: SampleSet, publisher: Publisher, tmp_path: Path) -> None:
    host = StandaloneHost(Folders(tmp_path, (samples.healthy.parent,)), published=[publisher.publishes()])
    app = FastAPI()
    add_routes(app, host)
    answer = TestClient(app).post(URL, json={"vae": "published"})
    assert (answer.status_code, answer.json()["detail"]) == (409, "VAE Lab, stand-alone has no folder for VAEs")
