"""The routes for latents from outside and for round trips, over HTTP."""

from __future__ import annotations

import base64
import io
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from tests.sample_hosts import MakeHost, small_latents
from tests.unit.api.conftest import launch
from tests.unit.api.test_routes import get, post
from vae_lab import load_autoencoder
from vae_lab.comparison import to_pixels
from vae_lab.errors import UnknownChoice
from vae_lab.host.standalone import StandaloneHost
from vae_lab.images import LoadedImage, prepared
from vae_lab.latents import Generation, latents_file, load_latents
from vae_lab.latents.family import FAMILIES
from vae_lab.samples import SampleSet, sample_photos
from vae_lab.service.service import Service, service_of


@pytest.fixture(scope="module")
def host(make_host: MakeHost) -> StandaloneHost:
    return make_host()


@pytest.fixture(scope="module")
def api(host: StandaloneHost) -> Iterator[str]:
    running = launch(host)
    yield f"{running.url}vae-lab/v1/"
    running.close()


def upload(url: str, data: bytes, kind: str = "application/octet-stream") -> tuple[int, dict]:
    request = urllib.request.Request(url, data, {"Content-Type": kind}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def image(name: str = "cat", size: tuple[int, int] = (40, 32)) -> bytes:
    buffer = io.BytesIO()
    with Image.open(sample_photos()[name]) as image:
        image.resize(size).save(buffer, "PNG")
    return buffer.getvalue()


def pixels(api: str, address: str) -> np.ndarray:
    status, kind, content = get(api.removesuffix("/vae-lab/v1/") + address)
    assert (status, kind) == (200, "image/png")
    return np.asarray(Image.open(io.BytesIO(content)))


# --- latents ---------------------------------------------------------------------------------------------------------


def test_upload_and_download(api: str, host: StandaloneHost, tmp_path: Path) -> None:
    made = Generation("x", small_latents("cat", 16), FAMILIES["sd1"], "Un été, 猫", ("a cat\nSteps: 1",))
    status, answer = upload(f"{api}latents?name=cat.safetensors", latents_file(made))
    assert status == 200
    assert (answer["family"], answer["size"], answer["infotexts"]) == ("sd1", [128, 128], ["a cat\nSteps: 1"])
    assert json.loads(get(api + "latents")[2])["latents"][0] == answer
    request = urllib.request.urlopen(f"{api}latents/{answer['id']}.safetensors", timeout=60)
    with request:
        disposition, data = request.headers["content-disposition"], request.read()
    assert disposition == "attachment; filename*=UTF-8''Un-%C3%A9t%C3%A9-%E7%8C%AB.safetensors"
    (tmp_path / "back.safetensors").write_bytes(data)
    back = load_latents(tmp_path / "back.safetensors")
    assert torch.equal(back.latents, made.latents)
    assert (back.title, back.infotexts) == (made.title, made.infotexts)
    status, kind, content = get(f"{api}latents/{answer['id']}.png")
    assert (status, kind) == (200, "image/png")
    expected = to_pixels(made.family.preview(made.latents))[0]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), expected)
    assert post(api + "compare", {"latents": answer["id"], "vaes": ["anime.vae.pt"]})[0] == 200


def test_paths_in_an_uploaded_file_are_never_followed(api: str, host: StandaloneHost, samples: SampleSet) -> None:
    made = Generation("x", small_latents("cat", 16), FAMILIES["sd1"])
    for checkpoint, stored in (
        ("healthy.safetensors", str(samples.healthy)),
        ("/etc/passwd", ""),
        (str(samples.no_vae), ""),
        ("gone.safetensors", ""),
    ):
        whole = save({"latents": made.latents}, {"family": "sd1", "checkpoint": checkpoint})
        status, answer = upload(f"{api}latents", whole)
        assert status == 200
        assert host.generations.get(answer["id"]).checkpoint == stored


@pytest.mark.parametrize(
    ("data", "kind", "status", "words"),
    [
        (b"hello", "application/octet-stream", 422, "not a .safetensors file"),
        (b"", "application/octet-stream", 422, "not a .safetensors file"),
        (b"x", "text/plain", 415, "application/octet-stream"),
        (b"x", "multipart/form-data; boundary=y", 415, "application/octet-stream"),
    ],
)
def test_bad_uploads(api: str, host: StandaloneHost, data: bytes, kind: str, status: int, words: str) -> None:
    before = [generation.id for generation in host.generations.newest_first()]
    got, answer = upload(f"{api}latents", data, kind)
    assert got == status
    assert words in answer["detail"]
    assert [generation.id for generation in host.generations.newest_first()] == before


def test_uploads_stay_within_the_limit_of_the_store(make_host: MakeHost) -> None:
    host = make_host()
    running = launch(host)
    try:
        host.generations.max_bytes = 3 * (4 * 16 * 16 * 4 + 100)  # with their titles
        url = f"{running.url}vae-lab/v1/latents"
        large = Generation("x", small_latents("cat", 32), FAMILIES["sd1"])
        before = [generation.id for generation in host.generations.newest_first()]
        assert upload(url, latents_file(large))[0] == 422
        assert [generation.id for generation in host.generations.newest_first()] == before, (
            "nothing had to make room for it"
        )
        assert upload(url, bytes(9 * 2**20))[0] == 413
        small = Generation("x", small_latents("cat", 16), FAMILIES["sd1"])
        for _ in range(4):
            assert upload(url, latents_file(small))[0] == 200
        assert len(host.generations.newest_first()) == 3
    finally:
        running.close()


@pytest.mark.parametrize("path", ["latents/g999.safetensors", "latents/g999.png"])
def test_latents_that_are_not_stored(api: str, path: str) -> None:
    status, _, content = get(api + path)
    assert status == 404
    assert "no longer stored" in json.loads(content)["detail"]


# --- round trips -----------------------------------------------------------------------------------------------------


def test_round_trip_gives_exact_images(api: str, samples: SampleSet) -> None:
    text = base64.b64encode(image(size=(43, 32))).decode()
    vaes = ["anime.vae.pt", "sdxl-c.safetensors", "gone.pt", "Built-in"]
    status, answer = post(api + "roundtrip", {"image": f"data:image/png;base64,{text}", "vaes": vaes})
    assert status == 200
    assert answer["size"] == [40, 32]
    assert answer["remarks"] == ["cropped to 40 x 32, multiples of 8"]
    assert answer["cancelled"] is False
    results = {result["name"]: result for result in answer["results"]}
    assert list(results) == ["Built-in", "anime.vae.pt", "sdxl-c.safetensors", "gone.pt"]
    assert results["gone.pt"]["images"] == {}
    assert results["gone.pt"]["psnr"] is None
    assert "gone.pt" in results["gone.pt"]["error"]
    original = pixels(api, answer["original"])
    fit = prepared(Image.open(io.BytesIO(image(size=(43, 32)))))
    np.testing.assert_array_equal(original, (fit.image[0].permute(1, 2, 0) * 255).round().numpy())
    anime = results["anime.vae.pt"]
    assert anime["psnr"] > 5
    assert 0 < anime["ssim"] < 1
    assert anime["delta_e"] > 0
    assert list(anime["images"]) == ["image", "loss", "rgb", *(f"channel-{i}" for i in range(4))]
    vae = load_autoencoder(samples.anime)
    latent = vae.encode(fit.image)
    np.testing.assert_array_equal(pixels(api, anime["images"]["image"]), to_pixels(vae.decode(latent))[0])
    rgb = to_pixels(FAMILIES["sd1"].preview(latent))[0]
    np.testing.assert_array_equal(pixels(api, anime["images"]["rgb"]), rgb)
    channel = pixels(api, anime["images"]["channel-2"])
    assert (channel.min(), channel.max(), channel.shape) == (0, 255, (4, 5, 3))
    assert pixels(api, anime["images"]["loss"]).shape == (32, 40, 3)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"image": "!!!"}, "this is not base64"),
        ({"image": base64.b64encode(b"a story").decode()}, "not a readable PNG, JPEG"),
        ({"image": ""}, "not a readable PNG, JPEG"),
        ({"vaes": []}, "body.image: "),
        ({"image": base64.b64encode(image(size=(7, 7))).decode()}, "too few"),
    ],
)
def test_bad_round_trips_are_one_line(api: str, body: dict, words: str) -> None:
    status, answer = post(api + "roundtrip", body)
    assert status == 422
    assert words in answer["detail"]
    assert "\n" not in answer["detail"]


def test_unknown_images(api: str, host: StandaloneHost) -> None:
    stored = service_of(host).round_trips.run(LoadedImage(Image.new("RGB", (16, 16))), [])
    base = f"{api}roundtrips/{stored.id}"
    assert get(f"{base}/0/image.png")[0] == 200
    for path in (
        "1/image.png",
        "-1/image.png",
        "0/channel-4.png",
        "0/channel--1.png",
        "0/channel-x.png",
        "0/x.png",
    ):
        assert get(f"{base}/{path}")[0] == 404, path
    assert get(f"{api}roundtrips/nothing/0/image.png")[0] == 404
    assert len(stored.id) >= 20


def test_longest_side(api: str) -> None:
    body = {"image": base64.b64encode(image(size=(160, 80))).decode(), "longest": 80}
    assert post(api + "roundtrip", body)[1]["size"] == [80, 40]
    assert post(api + "roundtrip", body | {"longest": 1})[1]["size"] == [64, 32]


def test_few_round_trips_are_stored(api: str, host: StandaloneHost, monkeypatch: pytest.MonkeyPatch) -> None:
    service = service_of(host)
    made = [service.round_trips.run(LoadedImage(Image.new("RGB", (16, 16))), []) for _ in range(5)]
    with pytest.raises(UnknownChoice, match="no longer stored"):
        service.round_trips.get(made[0].id)
    assert service.round_trips.get(made[1].id) is made[1]
    monkeypatch.setattr("vae_lab.service.round_trips._MAX_BYTES", made[0].nbytes)
    small = Service(host).round_trips
    first, second = (small.run(LoadedImage(Image.new("RGB", (16, 16))), []) for _ in range(2))
    assert small.get(second.id) is second
    with pytest.raises(UnknownChoice):
        small.get(first.id)


def test_one_run_at_a_time(api: str, host: StandaloneHost, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def waits(*args: object) -> None:
        begun.set()
        go_on.wait(60)
        raise UnknownChoice("enough")

    monkeypatch.setattr(host, "round_trip", waits, raising=False)
    body = {"image": base64.b64encode(image()).decode()}
    thread = threading.Thread(target=post, args=(api + "roundtrip", body))
    thread.start()
    try:
        assert begun.wait(60)
        status, answer = post(api + "roundtrip", body)
        assert status == 409
        assert "another task is running" in answer["detail"]
    finally:
        go_on.set()
        thread.join()
