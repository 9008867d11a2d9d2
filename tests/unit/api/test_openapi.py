"""``/openapi.json`` and ``docs/api.md`` are correct: they have every route, and every answer matches."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.routing import APIRoute
from PIL import Image

from tests.sample_hosts import MakeHost
from tests.unit.api.conftest import launch
from tests.unit.api.test_routes import HANG, SlowHost
from vae_lab.api.routes import PREFIX
from vae_lab.comparison import Measures
from vae_lab.host.standalone import StandaloneHost
from vae_lab.identity import PublishedVae
from vae_lab.samples import SampleSet, sample_photos

BLINKS = "/blinks/{comparison_id}.{kind}"
PAGE = Path(__file__).resolve().parents[3] / "docs" / "api.md"
TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}


class Published:
    """A server, and what it publishes about itself. Every answer that is asked for is checked against that."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        with urllib.request.urlopen(f"{self.url}/openapi.json", timeout=300) as answer:
            self.document: dict[str, Any] = json.load(answer)
        self.paths = {path: item for path, item in self.document["paths"].items() if path.startswith(f"{PREFIX}/")}
        self.seen: set[tuple[str, str, int]] = set()

    def ask(
        self,
        method: str,
        template: str,
        body: object = None,
        query: str = "",
        raw: bytes | None = None,
        sent_as: str = "application/octet-stream",
        **names: object,
    ) -> Any:
        """(status, answer); the answer of a documented status, media type and form."""
        path = template.format(**{key: urllib.parse.quote(str(value)) for key, value in names.items()})
        data = json.dumps(body).encode() if body is not None else (b"" if method == "post" else None)
        kind = "application/json" if raw is None else sent_as
        request = urllib.request.Request(
            self.url + PREFIX + path + query,
            data if raw is None else raw,
            {"Content-Type": kind},
            method=method.upper(),
        )
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                status, kind, content = answer.status, answer.headers["content-type"], answer.read()
        except urllib.error.HTTPError as error:
            with error:
                status, kind, content = error.code, error.headers["content-type"], error.read()
        kind = kind.partition(";")[0]
        documented = self.paths[PREFIX + template][method]["responses"][str(status)]["content"]
        assert kind in documented, (template, status, kind)
        self.seen.add((PREFIX + template, method, status))
        if kind != "application/json":
            assert documented[kind]["schema"] == {"type": "string", "format": "binary"}
            return status, content
        found = json.loads(content, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
        self.check(found, documented[kind]["schema"], template)
        return status, found

    def check(self, value: object, schema: dict[str, Any], where: str) -> None:
        """The part of JSON schema that FastAPI publishes; an unknown keyword fails."""
        known = {
            "$ref", "allOf", "anyOf", "type", "nullable", "properties", "required", "additionalProperties", "items",
            "title", "description", "default",
        }  # fmt: skip
        assert set(schema) <= known, (where, schema)
        if value is None and schema.get("nullable"):
            return
        if "$ref" in schema:
            self.check(value, self.document["components"]["schemas"][schema["$ref"].rpartition("/")[2]], where)
        for part in schema.get("allOf", ()):
            self.check(value, part, where)
        if "anyOf" in schema:
            assert any(self.fits(value, part) for part in schema["anyOf"]), (where, value, schema)
        if "type" in schema:
            kind = schema["type"]
            assert isinstance(value, TYPES[kind]), (where, value, schema)
            assert kind == "boolean" or not isinstance(value, bool), (where, value, schema)
        if isinstance(value, dict):
            self.check_object(value, schema, where)
        if isinstance(value, list):
            for i, item in enumerate(value):
                self.check(item, schema.get("items", {}), f"{where}[{i}]")

    def check_object(self, value: dict[str, Any], schema: dict[str, Any], where: str) -> None:
        properties = schema.get("properties", {})
        assert set(schema.get("required", ())) <= set(value), (where, value)
        others = schema.get("additionalProperties", True)
        for key, item in value.items():
            if key in properties:
                self.check(item, properties[key], f"{where}.{key}")
            else:
                assert others is not False, f"{where}.{key} is not published"
                self.check(item, others if isinstance(others, dict) else {}, f"{where}.{key}")

    def fits(self, value: object, schema: dict[str, Any]) -> bool:
        try:
            self.check(value, schema, "")
        except AssertionError:
            return False
        return True


@pytest.fixture(scope="module")
def host(make_host: MakeHost, samples: SampleSet) -> StandaloneHost:
    """It has what it could download already, so nothing is sent."""
    host, file = make_host(), samples.smooth
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    host.published = [PublishedVae("smooth", "sd1", file.name, "https://localhost/", file.stat().st_size, digest)]
    return host


@pytest.fixture(scope="module")
def running(host: StandaloneHost) -> Iterator[Any]:
    served = launch(host)
    yield served
    served.close()


@pytest.fixture(scope="module")
def published(running: Any) -> Published:
    return Published(running.url)


def test_every_route_is_published(running: Any, published: Published) -> None:
    there = {
        (route.path, method.lower())
        for route in running.app.routes
        if isinstance(route, APIRoute) and route.path.startswith(f"{PREFIX}/")
        for method in route.methods
    }
    assert len(there) == 41
    assert {(path, method) for path, item in published.paths.items() for method in item} == there
    for item in published.paths.values():
        for operation in item.values():
            assert operation["description"]


def test_every_answer_is_as_published(host: StandaloneHost, published: Published, samples: SampleSet) -> None:
    ask = published.ask
    _, latents = ask("get", "/latents")
    assert len(latents["latents"]) == 3
    ask("get", "/host")
    ask("get", "/vaes")
    ask("get", "/checkpoints")
    ask("get", "/library")
    names = ["anime.vae.pt", "sdxl-c.safetensors", "nowhere.pt"]
    _, compared = ask("post", "/compare", {"latents": latents["latents"][0]["id"], "vaes": names})
    measures = [result["measures"] for result in compared["results"]]
    assert [found is None for found in measures] == [False, False, True, True]
    assert measures[0]["equal"]
    assert measures[0]["psnr"] is None
    assert measures[1]["psnr"] > 0
    assert compared["reference"] == "Built-in"
    _, inspected = ask("post", "/inspect", {"names": [samples.grey_merge.name, "anime.vae.pt", "no-vae.safetensors"]})
    assert inspected["reports"][0]["merge"] or inspected["reports"][0]["verdict"]["findings"]
    ask("get", "/checkpoints")
    assert ask("post", "/scan")[1]["complete"]
    assert ask("get", "/library", query="?sort=duplicates")[1]["rows"]
    for kind in ("jsonl", "csv", "html"):
        assert ask("get", "/library.{kind}", kind=kind)[0] == 200
    assert {row["action"] for row in ask("get", "/fixes")[1]["checkpoints"]} == {"use"}
    assert len(ask("post", "/fixes", {})[1]["changed"]) == 2
    assert len(ask("get", "/fixes")[1]["undo"]) == 2
    assert ask("post", "/fixes/undo", {})[1]["refused"] == []
    (bake,) = (one for one in ask("get", "/fixes/bake")[1]["bakes"] if one["checkpoint"] == samples.grey_merge.name)
    (new,) = ask("post", "/fixes/bake", {"checkpoints": [samples.grey_merge.name]})[1]["written"]
    assert (Path(new["path"]).name, new["report"]["verdict"]["status"]) == (bake["file"], "healthy")
    (copy,) = ask("get", "/fixes/bake")[1]["before"]
    assert ask("post", "/fixes/bake/undo", {})[1]["removed"] == [copy["path"]] == [new["path"]]
    plan = ask("get", "/extract", query="?broken=true")[1]
    one = next(vae for vae in plan["vaes"] if not vae["skipped"])
    (new,) = ask("post", "/extract", {"checkpoints": [one["checkpoint"]], "broken": True})[1]["written"]
    written = host.vae_folder() / new["file"]
    shutil.copyfile(written, written.with_name("same.safetensors"))
    for path in (written, written.with_name("same.safetensors")):
        host.file_cache.hash(str(path))
        host.file_cache.identify(str(path))
    copies = ask("get", "/dedupe")[1]["copies"]
    assert {copies[0]["name"], copies[0]["source"]} == {new["file"], "same.safetensors"}
    assert len(ask("post", "/dedupe", {"files": [copies[0]["name"]]})[1]["replaced"]) == 1
    assert len(ask("get", "/dedupe")[1]["undo"]) == 1
    assert ask("post", "/dedupe/undo", {})[1]["refused"] == []
    for path in (written, written.with_name("same.safetensors")):
        path.unlink()
    grey = samples.grey_merge.name
    plan = ask("get", "/bake", query=f"?checkpoint={urllib.parse.quote(grey)}")[1]
    _, baked = ask("post", "/bake", {"checkpoint": grey, "vae": plan["vae"], "file": "baked"})
    assert ask("get", "/download", query=f"?checkpoint={urllib.parse.quote(grey)}")[1]["vaes"]
    assert ask("post", "/download", {"vae": "smooth"})[1]["vae"] == samples.smooth.name
    both = {"checkpoints": [grey, grey], "method": "weighted-sum", "multiplier": 0.5}
    assert ask("post", "/merge-preview", both)[1]["status"] == "broken"
    samples.grey_merge.with_name(baked["file"]).unlink()
    assert baked["report"]["verdict"]["status"] == "healthy"
    assert ask("get", "/vaes")[1]["vaes"][0]["family"], "known by now"
    ask("get", "/progress")
    ask("get", "/hashes")
    ask("post", "/cancel")
    assert ask("get", "/active")[1]["vae"] == "Built-in"
    _, chosen = ask("post", "/choose", {"reach": "always", "vae": "anime.vae.pt"})
    assert ask("get", "/active")[1]["vae"] == "anime.vae.pt"
    assert ask("post", "/undo", {"undo_id": chosen["undo_id"]})[1]["undo_id"]
    assert ask("post", "/choose", {"reach": "always", "vae": "Automatic"})[1]["undo_id"] != chosen["undo_id"]
    image, sheet = "/images/{comparison_id}/{number}.png", "/sheets/{comparison_id}.png"
    old = "/pictures/{comparison_id}/{number}.png"
    png = ask("get", image, comparison_id=compared["id"], number=0)[1]
    assert ask("get", old, comparison_id=compared["id"], number=0) == (200, png)
    assert published.paths[PREFIX + old]["get"]["deprecated"]
    assert all(result["pictures"] == result["images"] for result in compared["results"])
    assert ask("get", sheet, comparison_id=compared["id"])[0] == 200
    _, shared = ask("get", "/shares/{comparison_id}.html", comparison_id=compared["id"])
    assert b"data:image/webp;base64," in shared
    assert compared["blink"] == f"{PREFIX}/blinks/{compared['id']}.webp"
    for kind, magic in (("webp", b"RIFF"), ("gif", b"GIF89a")):
        status, animated = ask("get", BLINKS, comparison_id=compared["id"], kind=kind)
        assert (status, animated.startswith(magic)) == (200, True)
    generation = latents["latents"][0]["id"]
    for route in ("/latents/{generation_id}.safetensors", "/latents/{generation_id}.png"):
        assert ask("get", route, generation_id=generation)[0] == 200
    _, file = ask("get", "/latents/{generation_id}.safetensors", generation_id=generation)
    assert ask("post", "/latents", raw=file)[0] == 200
    image = base64.b64encode(next(iter(sample_photos().values())).read_bytes()).decode()
    _, trip = ask("post", "/roundtrip", {"image": image, "vaes": ["anime.vae.pt", "nowhere.pt"], "longest": 128})
    assert [bool(result["error"]) for result in trip["results"]] == [False, False, True]
    assert trip["results"][0]["psnr"] > 10
    one = "/roundtrips/{round_trip_id}/{number}/{kind}.png"
    where = {"round_trip_id": trip["id"], "number": 0}
    png = ask("get", one, **where, kind="image")[1]
    assert ask("get", one, **where, kind="picture") == (200, png), "deprecated"
    images, old = trip["results"][0]["images"], trip["results"][0]["pictures"]
    assert old.pop("picture") == images.pop("image")
    assert old == images
    everything = {(path, method, 200) for path, item in published.paths.items() for method in item}
    assert everything <= published.seen


@pytest.mark.parametrize(
    ("status", "method", "path", "more"),
    [
        (404, "post", "/compare", {"body": {"latents": "g999"}}),
        (422, "post", "/compare", {"body": {"vaes": 1}}),
        (422, "post", "/compare", {"body": []}),
        (422, "post", "/compare", {"raw": b'{"latents": "\xff"}', "sent_as": "application/json"}),
        (422, "get", "/checkpoints", {"query": "?fresh=x"}),
        (404, "post", "/inspect", {"body": {"names": ["nowhere"]}}),
        (422, "post", "/inspect", {"body": {}}),
        (404, "get", "/images/{comparison_id}/{number}.png", {"comparison_id": "none", "number": 0}),
        (422, "get", "/images/{comparison_id}/{number}.png", {"comparison_id": "none", "number": "x"}),
        (404, "get", "/sheets/{comparison_id}.png", {"comparison_id": "none"}),
        (404, "get", "/shares/{comparison_id}.html", {"comparison_id": "none"}),
        (404, "get", BLINKS, {"comparison_id": "none", "kind": "webp"}),
        (404, "get", BLINKS, {"comparison_id": "none", "kind": "exe"}),
        (422, "get", BLINKS, {"comparison_id": "none", "kind": "webp", "query": "?rate=fast"}),
        (404, "get", "/library", {"query": "?status=ill"}),
        (422, "get", "/library", {"query": "?page=x"}),
        (404, "get", "/library.{kind}", {"kind": "exe"}),
        (404, "get", "/latents/{generation_id}.safetensors", {"generation_id": "g999"}),
        (404, "get", "/latents/{generation_id}.png", {"generation_id": "g999"}),
        (415, "post", "/latents", {"body": {}}),
        (422, "post", "/latents", {"raw": b"nothing of the kind"}),
        (422, "post", "/roundtrip", {"body": {"image": "?"}}),
        (404, "get", "/pictures/{comparison_id}/{number}.png", {"comparison_id": "none", "number": 0}),
        (404, "post", "/choose", {"body": {"reach": "always", "vae": "nowhere.pt"}}),
        (409, "post", "/choose", {"body": {"reach": "checkpoint", "vae": "anime.vae.pt", "checkpoint": "other"}}),
        (415, "post", "/choose", {"raw": b"{}"}),
        (422, "post", "/choose", {"body": {"reach": "for ever", "vae": "anime.vae.pt"}}),
        (404, "post", "/undo", {"body": {"undo_id": "none"}}),
        (415, "post", "/undo", {"raw": b"{}"}),
        (422, "post", "/undo", {"body": {}}),
        (404, "post", "/fixes", {"body": {"checkpoints": ["nowhere.ckpt"]}}),
        (415, "post", "/fixes", {"raw": b"{}"}),
        (404, "post", "/fixes/bake", {"body": {"checkpoints": ["nowhere.ckpt"]}}),
        (422, "post", "/fixes/bake", {"body": {"checkpoints": "all"}}),
        (415, "post", "/fixes/bake", {"raw": b"{}"}),
        (404, "post", "/fixes/bake/undo", {"body": {}}),
        (415, "post", "/fixes/bake/undo", {"raw": b"{}"}),
        (
            404,
            "post",
            "/merge-preview",
            {"body": {"checkpoints": ["a", "b"], "method": "weighted-sum", "multiplier": 1}},
        ),
        (409, "post", "/merge-preview", {"body": {"checkpoints": ["a"], "method": "weighted-sum", "multiplier": 1}}),
        (415, "post", "/merge-preview", {"raw": b"{}"}),
        (422, "post", "/merge-preview", {"body": {"checkpoints": []}}),
        (404, "get", "/bake", {"query": "?checkpoint=nowhere"}),
        (422, "get", "/bake", {}),
        (404, "post", "/bake", {"body": {"checkpoint": "nowhere", "vae": "nowhere"}}),
        (422, "post", "/bake", {"body": {"checkpoint": "nowhere"}}),
        (415, "post", "/bake", {"raw": b"{}"}),
        (404, "get", "/download", {"query": "?checkpoint=nowhere"}),
        (404, "post", "/download", {"body": {"vae": "nowhere"}}),
        (415, "post", "/download", {"raw": b"{}"}),
        (422, "post", "/download", {"body": {}}),
        (422, "post", "/fixes", {"body": {"checkpoints": "all"}}),
        (404, "post", "/fixes/undo", {"body": {}}),
        (422, "get", "/extract", {"query": "?broken=maybe"}),
        (404, "post", "/extract", {"body": {"checkpoints": ["nowhere.ckpt"]}}),
        (422, "post", "/extract", {"body": {"broken": 5}}),
        (415, "post", "/extract", {"raw": b"{}"}),
        (404, "post", "/dedupe", {"body": {"files": ["nowhere.pt"]}}),
        (422, "post", "/dedupe", {"body": {"files": "all"}}),
        (415, "post", "/dedupe", {"raw": b"{}"}),
        (404, "post", "/dedupe/undo", {"body": {}}),
        (415, "post", "/dedupe/undo", {"raw": b"{}"}),
        (415, "post", "/fixes/undo", {"raw": b"{}"}),
        (
            404,
            "get",
            "/roundtrips/{round_trip_id}/{number}/{kind}.png",
            {"round_trip_id": "x", "number": 0, "kind": "y"},
        ),
    ],
)
def test_every_error_is_as_published(
    published: Published, status: int, method: str, path: str, more: dict[str, Any]
) -> None:
    got, answer = published.ask(method, path, **more)
    assert got == status
    assert set(answer) == {"detail"}


def test_what_runs_already_is_refused_as_published(make_host: MakeHost) -> None:
    host = make_host()
    host.__class__, host.started = SlowHost, threading.Event()
    running = launch(host)
    try:
        published = Published(running.url)
        body = {"latents": host.generations.newest_first()[0].id}
        answers: list[Any] = []
        first = threading.Thread(target=lambda: answers.append(published.ask("post", "/compare", body)))
        first.start()
        assert host.started.wait(HANG)
        assert published.ask("get", "/progress")[1]["total"] == 5
        for path, again in (("/compare", body), ("/inspect", {"names": ["Built-in"]}), ("/scan", None)):
            assert published.ask("post", path, again)[0] == 409
        assert published.ask("post", "/cancel")[1] == {"cancelled": True}
        first.join(HANG)
        status, answer = answers[0]
        assert (status, answer["cancelled"], answer["results"], answer["reference"]) == (200, True, [], "")
    finally:
        running.close()


def test_a_wrong_answer_would_be_found(published: Published) -> None:
    """The check above can fail."""
    schema = published.paths[f"{PREFIX}/progress"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    right = {"busy": False, "done": 0, "total": 0, "what": "", "seconds": 0.0, "results": 0, "unit": "steps"}
    assert published.fits(right, schema)
    for wrong in ({**right, "more": 1}, {**right, "done": "0"}, {**right, "busy": None}, {"busy": True}, []):
        assert not published.fits(wrong, schema)


# --- docs/api.md -----------------------------------------------------------------------------------------------------


def test_script_of_the_page_runs_as_it_stands(running: Any, host: StandaloneHost, tmp_path: Path) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf8"), re.DOTALL)
    file = tmp_path / "compare.py"
    file.write_text(script, encoding="utf8")
    done = subprocess.run(
        [sys.executable, "-I", str(file), running.url, "images"], cwd=tmp_path, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    generation = host.generations.newest_first()[0]
    names = ["Built-in", *(entry.name for entry in host.vaes() if entry.family is None or entry.family.id == "sd1")]
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == names
    assert "sharpness" in lines[0]
    files = sorted(path.name for path in (tmp_path / "images").iterdir())
    assert files[-1] == "sheet.png"
    assert "00-0.png" in files
    assert len(files) == 1 + 2 * sum("sharpness" in line for line in lines)
    for name in files:
        with Image.open(tmp_path / "images" / name) as image:
            assert np.asarray(image).shape[2] == 3
            assert image.text["parameters"].startswith(tuple(text[:7] for text in generation.infotexts))


def test_script_tells_an_error_in_one_line(make_host: MakeHost, tmp_path: Path) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf8"), re.DOTALL)
    empty = tmp_path / "latents"
    empty.mkdir()
    served = launch(make_host(latents=empty))
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", script, served.url, "images"], cwd=tmp_path, capture_output=True, text=True,
            check=False, timeout=120,
        )  # fmt: skip
    finally:
        served.close()
    assert (done.returncode, done.stderr) == (1, "no latents are stored: generate an image first\n")


def test_page_tells_of_every_route_and_number(published: Published) -> None:
    text = PAGE.read_text(encoding="utf8")
    for path in published.paths:
        stem = path.removeprefix(f"{PREFIX}/").partition("{")[0].rstrip("/.")
        assert re.search(rf"`(GET|POST) {stem}\b", text), stem
    for field in fields(Measures):
        assert f"`{field.name}`" in text
