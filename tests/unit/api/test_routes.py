"""The routes under ``/vae-lab/v1/``, over HTTP."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import threading
import time
import urllib.error
import urllib.request
from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from tests.sample_hosts import MakeHost
from tests.unit.api.conftest import launch
from vae_lab import compare, load_autoencoder
from vae_lab.api.routes import add_routes
from vae_lab.comparison import Comparison
from vae_lab.errors import HostError
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.samples import SampleSet
from vae_lab.service.service import service_of

HANG = 60.0
"""Seconds after which a wait for an event fails; far longer than anything takes."""


def get(url: str) -> tuple[int, str, bytes]:
    return _answer(urllib.request.Request(url))


def post(url: str, body: object = None) -> tuple[int, object]:
    data = json.dumps(body).encode() if body is not None else b""
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method="POST")
    status, _, content = _answer(request)
    return status, json.loads(content)


def _answer(request: urllib.request.Request) -> tuple[int, str, bytes]:
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.status, answer.headers["content-type"], answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["content-type"], error.read()


@pytest.fixture(scope="module")
def api(shared_url: str) -> str:
    return f"{shared_url}vae-lab/v1/"


def test_lists(api: str, shared_host: StandaloneHost) -> None:
    vaes = json.loads(get(api + "vaes")[2])["vaes"]
    assert [vae["name"] for vae in vaes] == [entry.name for entry in shared_host.vaes()]
    assert set(vaes[0]) == {"name", "label", "family", "problem"}
    latents = json.loads(get(api + "latents")[2])["latents"]
    assert [latent["family"] for latent in latents] == ["sd1", "sd1", "sdxl"]
    assert latents[0]["size"] == [128, 128]
    assert latents[0]["images"] == 2
    assert latents[0]["infotexts"][1].startswith("brushes")


def test_compare_gives_exact_images(api: str, shared_url: str, shared_host: StandaloneHost, samples: SampleSet) -> None:
    generation = shared_host.generations.newest_first()[0]
    names = ["anime.vae.pt", "sdxl-c.safetensors", "anime.vae.pt", "nowhere.pt", "Built-in"]
    status, answer = post(api + "compare", {"latents": generation.id, "vaes": names})
    assert status == 200
    assert answer["family"] == "sd1"
    assert answer["cancelled"] is False
    results = {result["name"]: result for result in answer["results"]}
    assert list(results) == ["Built-in", "anime.vae.pt", "sdxl-c.safetensors", "nowhere.pt"]
    assert results["sdxl-c.safetensors"]["images"] == []
    assert "is a VAE for SDXL" in results["sdxl-c.safetensors"]["error"]
    assert results["nowhere.pt"]["error"] == "no VAE named nowhere.pt"
    assert results["anime.vae.pt"]["error"] == ""
    assert results["anime.vae.pt"]["seconds"] > 0
    expected = compare(
        generation.latents,
        {"Built-in": load_autoencoder(samples.healthy), "anime.vae.pt": load_autoencoder(samples.anime)},
    )
    for name in ("Built-in", "anime.vae.pt"):
        got = [get(shared_url.rstrip("/") + url) for url in results[name]["images"]]
        assert [kind for _, kind, _ in got] == ["image/png"] * 2
        images = np.stack([np.asarray(Image.open(io.BytesIO(content))) for _, _, content in got])
        np.testing.assert_array_equal(images, expected[name].images)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"latents": "g999", "vaes": []}, 404, "generation g999 is no longer stored"),
        ({"vaes": []}, 422, "body.latents: "),
        ({"latents": "g1", "vaes": "all"}, 422, "body.vaes: "),
        (["latents"], 422, "body"),
    ],
)
def test_errors_are_one_line(api: str, body: object, status: int, words: str) -> None:
    got, answer = post(api + "compare", body)
    assert got == status
    assert isinstance(answer["detail"], str)
    assert words in answer["detail"]
    assert "\n" not in answer["detail"]


@pytest.mark.parametrize("path", ["images/nothing/0.png", "images/nothing/x.png"])
def test_unknown_images(api: str, path: str) -> None:
    status, _, content = get(api + path)
    assert status in (404, 422)
    assert isinstance(json.loads(content)["detail"], str)


def test_a_image_number_out_of_range(api: str, shared_host: StandaloneHost) -> None:
    stored = service_of(shared_host).comparisons.compare(shared_host.generations.newest_first()[0].id, [])
    assert get(f"{api}images/{stored.id}/1.png")[0] == 200
    for number in ("2", "-1"):
        assert get(f"{api}images/{stored.id}/{number}.png")[0] == 404


class SlowHost(StandaloneHost):
    """Compares until it is cancelled; ``started`` is set once it has reported its progress."""

    started: threading.Event

    def compare(self, generation_id, vaes, progress=None, cancelled=None, on_result=None):  # type: ignore[no-untyped-def]
        progress(1, 5, "slow.pt")
        self.started.set()
        while not cancelled():
            time.sleep(0.01)
        return Comparison(self.generations.get(generation_id).family, (), cancelled=True)


@pytest.fixture
def slow(make_host: MakeHost) -> StandaloneHost:
    host = make_host()
    host.__class__, host.started = SlowHost, threading.Event()
    return host


def test_one_comparison_at_a_time_with_progress_and_cancel(slow: StandaloneHost) -> None:
    running = launch(slow)
    api = f"{running.url}vae-lab/v1/"
    answers: list[object] = []
    body = {"latents": slow.generations.newest_first()[0].id, "vaes": []}
    quiet = {"busy": False, "done": 0, "total": 0, "what": "", "seconds": 0.0, "results": 0, "unit": "steps"}
    try:
        assert json.loads(get(api + "progress")[2]) == quiet
        assert post(api + "cancel")[1] == {"cancelled": False}
        first = threading.Thread(target=lambda: answers.append(post(api + "compare", body)))
        first.start()
        assert slow.started.wait(HANG)
        progress = json.loads(get(api + "progress")[2])
        assert progress.pop("seconds") > 0
        assert progress == {"busy": True, "done": 1, "total": 5, "what": "slow.pt", "results": 0, "unit": "steps"}
        status, refused = post(api + "compare", body)
        assert status == 409
        assert "another task is running" in refused["detail"]
        assert post(api + "cancel")[1] == {"cancelled": True}
        first.join(HANG)
        assert answers[0][1]["cancelled"] is True
        assert json.loads(get(api + "progress")[2]) == quiet
    finally:
        slow.generations.clear()
        running.close()


# --- the library -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_library(make_host: MakeHost, samples: SampleSet, tmp_path_factory: pytest.TempPathFactory) -> StandaloneHost:
    """One VAE under two names, and sixty files that are no VAE."""
    host, folder = make_host(), tmp_path_factory.mktemp("small")
    shutil.copy(samples.sdxl, folder / "one.safetensors")
    os.link(folder / "one.safetensors", folder / "other.safetensors")
    (folder / "bad-00.pt").write_bytes(b"not a VAE at all")
    for i in range(1, 60):
        os.link(folder / "bad-00.pt", folder / f"bad-{i:02}.pt")
    host.folders = Folders(data=host.folders.data, vaes=(folder,))
    host.listing(fresh=True)
    return host


def test_scan_and_library(small_library: StandaloneHost) -> None:
    running = launch(small_library)
    api = f"{running.url}vae-lab/v1/"
    try:
        before = json.loads(get(api + "library")[2])
        assert before == {"rows": [], "total": 0, "pages": 1, "page": 0}
        status, first = post(api + "scan")
        assert status == 200
        counts = {"unreadable": 60, "healthy": 2}
        assert (first["files"], first["counts"], first["unknown"]) == (62, counts, 0)
        assert first["complete"] is True
        assert (first["groups"], first["copies"], first["freeable_bytes"]) == (1, 1, 0)
        assert (first["scanned"], first["read"]) == (62, 2)  # the others are names of the same files
        assert first["bytes_read"] > 2_000_000
        again = post(api + "scan")[1]
        assert (again["scanned"], again["read"], again["bytes_read"]) == (62, 0, 0)
        page = json.loads(get(api + "library?page=1")[2])
        assert (len(page["rows"]), page["total"], page["pages"], page["page"]) == (12, 62, 2, 1)
        assert page["rows"][-1]["name"] == "other.safetensors"
        found = json.loads(get(api + "library?filter=ONE&status=healthy&sort=duplicates")[2])
        (row,) = found["rows"]
        assert (row["name"], row["same_as"], row["family"]) == ("one.safetensors", ["other.safetensors"], "SDXL")
        for query in ("status=ill", "sort=beauty", "page=x"):
            status, _, content = get(f"{api}library?{query}")
            assert status in (404, 422)
            assert "\n" not in json.loads(content)["detail"]
    finally:
        running.close()


def test_reports_of_the_library(small_library: StandaloneHost) -> None:
    service_of(small_library).scans.scan()
    running = launch(small_library)
    api = f"{running.url}vae-lab/v1/"
    try:
        status, kind, content = get(api + "library.jsonl")
        assert (status, kind.split(";")[0]) == (200, "application/x-ndjson")
        lines = [json.loads(line) for line in content.decode().splitlines()]
        assert len(lines) == 62
        assert lines[0]["status"] == "unreadable"
        status, kind, content = get(api + "library.csv")
        assert kind.startswith("text/csv")
        assert len(list(csv.reader(io.StringIO(content.decode(), newline="")))) == 63
        status, kind, content = get(api + "library.html")
        assert kind.startswith("text/html")
        assert b"other.safetensors" in content
        assert get(api + "library.exe")[0] == 404
    finally:
        running.close()


def test_a_scan_is_one_run_among_the_others(small_library: StandaloneHost, monkeypatch: pytest.MonkeyPatch) -> None:
    service = service_of(small_library)
    refused: list[str] = []

    def report(done: int, total: int, what: str) -> None:
        if not refused:
            with pytest.raises(HostError) as error:
                service.checkups.identify()
            refused.append(str(error.value))
            assert service.runs.status.busy
            assert service.runs.cancel()

    monkeypatch.setattr(service.runs, "report", report)
    summary = service.scans.scan()
    assert "another task is running" in refused[0]
    assert not summary.complete
    assert summary.scanned == 0
    assert not service.runs.status.busy


def test_only_the_last_comparisons_are_stored(
    api: str, shared_host: StandaloneHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation = shared_host.generations.newest_first()[0]
    monkeypatch.setattr(shared_host, "compare", lambda *_: Comparison(generation.family), raising=False)
    service = service_of(shared_host)
    ids = [service.comparisons.compare(generation.id, []).id for _ in range(9)]
    assert len(set(ids)) == 9
    with pytest.raises(Exception, match="no longer stored"):
        service.comparisons.get(ids[0])
    assert service.comparisons.get(ids[1]).id == ids[1]


def test_adding_the_routes_twice_replaces_them(make_host: MakeHost) -> None:
    app, host = FastAPI(), make_host()
    add_routes(app, host)
    once = len(app.routes)
    add_routes(app, host)
    assert len(app.routes) == once


def test_panel_and_api_share_one_service(make_host: MakeHost) -> None:
    one, other = make_host(), make_host()
    assert service_of(one) is service_of(one)
    assert service_of(one) is not service_of(other)


@pytest.mark.parametrize(
    ("login", "status"), [(None, 401), (("me", "wrong"), 401), (("you", "secrét"), 401), (("me", "secret"), 200)]
)
def test_routes_ask_for_a_password_where_there_is_no_page(
    make_host: MakeHost, login: tuple[str, str] | None, status: int
) -> None:
    app = FastAPI()
    add_routes(app, make_host(), {"me": "secret"})
    headers = {} if login is None else {"Authorization": f"Basic {b64encode(':'.join(login).encode()).decode()}"}
    client = TestClient(app)
    answers = [client.get("/vae-lab/v1/latents", headers=headers), client.post("/vae-lab/v1/cancel", headers=headers)]
    assert [answer.status_code for answer in answers] == [status, status]


@pytest.mark.parametrize(
    "media_type", [None, "text/plain", "text/plain; charset=application/json", "multipart/form-data"]
)
def test_a_page_of_another_site_chooses_nothing(make_host: MakeHost, media_type: str | None) -> None:
    """A browser sends these without asking us first; ``None`` is a body of no declared type."""
    app, host = FastAPI(), make_host()
    add_routes(app, host)
    client = TestClient(app)
    headers = {"Content-Type": media_type} if media_type else {}
    bodies = {"choose": {"reach": "always", "vae": "anime.vae.pt"}, "undo": {"undo_id": "x"}, "fixes": {}}
    for path, body in {**bodies, "fixes/undo": {}}.items():
        answer = client.post(f"/vae-lab/v1/{path}", content=json.dumps(body).encode(), headers=headers)
        assert (answer.status_code, answer.json()) == (415, {"detail": "send the body as application/json"})
    assert host.decision().source == "host"


def test_choose_and_undo(make_host: MakeHost) -> None:
    app, host = FastAPI(), make_host()
    add_routes(app, host)
    client = TestClient(app)
    before = host.decision()
    chosen = client.post("/vae-lab/v1/choose", json={"reach": "checkpoint", "vae": "anime.vae.pt"}).json()
    assert chosen["message"] == host.decision().reason
    assert host.decision().vae == "anime.vae.pt"
    undone = client.post("/vae-lab/v1/undo", json={"undo_id": chosen["undo_id"]})
    assert (undone.status_code, host.decision()) == (200, before)
    again = client.post("/vae-lab/v1/undo", json={"undo_id": chosen["undo_id"]})
    assert (again.status_code, again.json()) == (404, {"detail": "There is nothing to undo"})


# --- requests and names out of the ordinary ---------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["inspect", "compare", "roundtrip"])
@pytest.mark.parametrize(("names", "reason"), [(["x"] * 201, "201 names"), (["x" * 1001], "a name of more than 1,000")])
def test_requests_have_limits(shared_url: str, route: str, names: list[str], reason: str) -> None:
    body = {"names": names} if route == "inspect" else {"latents": "x", "image": "x", "vaes": names}
    status, answer = post(f"{shared_url}vae-lab/v1/{route}", body)
    assert status == 422
    assert answer["detail"].startswith(reason)


def test_an_image_is_not_decoded_while_another_task_runs(
    shared_host: StandaloneHost, shared_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("vae_lab.api.sources.read_image", decode)
    with service_of(shared_host).runs.one_at_a_time():
        assert post(f"{shared_url}vae-lab/v1/roundtrip", {"image": b64encode(b"x").decode()})[0] == 409


@pytest.mark.skipif(os.name == "nt", reason="file names are always text there")
def test_file_names_that_are_not_utf8(tmp_path: Path) -> None:
    for folder in ("Stable-diffusion", "VAE"):
        (tmp_path / folder).mkdir()
        Path(os.fsdecode(bytes(tmp_path / folder) + b"/odd\xff.pt")).write_bytes(b"no weights")
    app = FastAPI()
    host = StandaloneHost(Folders.of_models(tmp_path))
    add_routes(app, host)
    client = TestClient(app, raise_server_exceptions=False)
    prefix = "/vae-lab/v1/"
    assert client.post(f"{prefix}scan").status_code == 200
    service_of(host).runs.idle.wait(HANG)
    answers = [client.get(f"{prefix}{route}") for route in ("vaes", "checkpoints", "active", "library", "latents")]
    answers += [client.post(f"{prefix}inspect", json={"names": [answers[0].json()["vaes"][0]["name"]]})]
    answers += [client.post(f"{prefix}inspect", json={"names": ["Built-in"]})]
    assert [answer.status_code for answer in answers] == [200] * len(answers)
    unknown = client.post(
        f"{prefix}inspect", content='{"names": ["\\udcff"]}', headers={"Content-Type": "application/json"}
    )
    assert unknown.status_code in (404, 422)
    assert "odd\\udcff" in answers[-2].json()["reports"][0]["path"]
