"""The route that says what a merge of checkpoints would have as its VAE."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from safetensors.torch import load_file, save_file

from vae_lab.api.routes import add_routes
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.samples import SampleSet, load_sample_vae
from vae_lab.service.service import service_of

URL = "/vae-lab/v1/merge-preview"


@pytest.fixture(scope="module")
def folder(samples: SampleSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints with photo-a, its relative, photo-b, no VAE, and a VAE of other layers."""
    folder = tmp_path_factory.mktemp("checkpoints")
    shutil.copy(samples.healthy, folder / "a.safetensors")
    shutil.copy(samples.no_vae, folder / "none.safetensors")
    for name, vae in (("relative", "photo-a-sharp"), ("b", "photo-b"), ("other", "sdxl-c")):
        own = {f"first_stage_model.{key}": value for key, value in load_sample_vae(vae).items()}
        save_file({**load_file(samples.no_vae), **own}, folder / f"{name}.safetensors")
    return folder


@pytest.fixture(scope="module")
def host(folder: Path, samples: SampleSet, tmp_path_factory: pytest.TempPathFactory) -> StandaloneHost:
    host = StandaloneHost(Folders(tmp_path_factory.mktemp("data"), (folder,), (samples.smooth.parent,)))
    host.inspect("a.safetensors")
    host.inspect(samples.smooth.name)
    return host


@pytest.fixture
def client(host: StandaloneHost) -> TestClient:
    app = FastAPI()
    add_routes(app, host)
    return TestClient(app)


def asked(client: TestClient, *names: str, method: str = "weighted-sum", multiplier: float = 0.3):  # type: ignore[no-untyped-def]
    body = {"checkpoints": [f"{name}.safetensors" for name in names], "method": method, "multiplier": multiplier}
    answer = client.post(URL, json=body)
    return answer.status_code, answer.json()


def test_unrelated_vaes_make_a_grey_one_and_the_remedy_is_named(client: TestClient, samples: SampleSet) -> None:
    status, answer = asked(client, "a", "b")
    assert status == 200
    assert (answer["status"], answer["title"]) == ("broken", "Washed out")
    assert answer["vae"] == samples.smooth.name
    assert "healthy" in answer["reason"]


def test_relatives_make_a_healthy_one(client: TestClient) -> None:
    assert asked(client, "a", "relative")[1]["status"] == "healthy"
    _, answer = asked(client, "a", "relative", "a", method="add-difference", multiplier=1.0)
    assert (answer["status"], answer["title"], answer["vae"]) == ("healthy", "", "")


@pytest.mark.parametrize(
    ("names", "method", "multiplier"),
    [
        (("a", "none"), "weighted-sum", 0.5),
        (("a", "b"), "weighted-sum", 0.0),
        (("a", "b", "b"), "add-difference", 1.0),
    ],
)
def test_a_keeps_its_vae(client: TestClient, names: tuple[str, ...], method: str, multiplier: float) -> None:
    assert asked(client, *names, method=method, multiplier=multiplier)[1]["status"] == "healthy"


@pytest.mark.parametrize(
    ("names", "method", "status", "said"),
    [
        (("a", "nowhere"), "weighted-sum", 404, "no checkpoint named nowhere"),
        (("a",), "weighted-sum", 409, "needs 2 checkpoints"),
        (("a", "b"), "add-difference", 409, "needs 3 checkpoints"),
        (("none", "a"), "weighted-sum", 422, "without a VAE"),
        (("a", "other"), "weighted-sum", 409, "different layers"),
        (("a", "b"), "no-method", 422, "method"),
    ],
)
def test_refusals(client: TestClient, names: tuple[str, ...], method: str, status: int, said: str) -> None:
    code, answer = asked(client, *names, method=method)
    assert (code, said in answer["detail"]) == (status, True), answer


def test_not_while_another_task_is_running(client: TestClient, host: StandaloneHost) -> None:
    with service_of(host).runs.one_at_a_time():
        assert asked(client, "a", "b")[0] == 409
