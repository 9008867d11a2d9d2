"""What VAE Lab refuses is seen where the image is: in the API's answer, in a cell of the plot, below the image."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
from fastapi import HTTPException
from PIL import Image
from starlette.testclient import TestClient

from tests.host.conftest import built_in
from tests.host.webui import WebUI, pixels

pytestmark = pytest.mark.host

BODY = {"prompt": "a lighthouse", "seed": 7, "steps": 3, "width": 128, "height": 128, "sampler_name": "Euler"}
REFUSED: dict[str, tuple[Any, str]] = {
    "unknown": ({"override": "gone.safetensors"}, "no VAE named gone.safetensors; looked in "),
    "mistyped": ({"override": "frist.safetensors"}, "no VAE named frist.safetensors; did you mean first.safetensors"),
    "ambiguous": ({"override": "same"}, "no VAE named same; did you mean a/same.safetensors or b/same.safetensors?"),
    "wrong family": ({"override": "xl.safetensors"}, "xl.safetensors is a VAE for SDXL, but the latents are SD1 / SD2"),
    "other widths": ({"override": "narrow.safetensors"}, "does not fit the loaded checkpoint's VAE"),
    "not a VAE": ({"override": "text.safetensors"}, "text.safetensors: "),
    "not a name": ({"override": 5}, "override must be a name"),
    "positional": ("gone.safetensors", "no VAE named gone.safetensors"),
    "key": ({"overide": "first.safetensors"}, "unknown argument overide; valid are override, compare, on_grey"),
    "on_grey": ({"on_grey": "often"}, "on_grey must be one of off, warn, redecode, not 'often'"),
    "fallback": ({"override": "gone.safetensors", "fallback": "yes"}, "fallback must be true or false"),
}


@pytest.fixture(scope="module")
def more_vaes(data_dir: Path, small_checkpoint: Path) -> Iterator[Path]:
    """VAEs that cannot decode for the small checkpoint, and two with one name."""
    from vae_lab.autoencoders.kl import AutoencoderKL, KLConfig
    from vae_lab.samples import load_sample_vae

    folder = data_dir / "models" / "VAE"
    own = built_in(small_checkpoint)
    narrow = AutoencoderKL(KLConfig(channels=(32, 32, 64, 64), blocks=1)).state_dict()
    made = {
        "a/same.safetensors": own,
        "b/same.safetensors": own,
        "xl.safetensors": load_sample_vae("sdxl-c"),
        "narrow.safetensors": {name: value.clone() for name, value in narrow.items()},
    }
    for name, state in made.items():
        (folder / name).parent.mkdir(exist_ok=True)
        safetensors.torch.save_file(state, folder / name)
    (folder / "text.safetensors").write_text("<html>not found</html>", encoding="utf8")
    yield folder
    for name in (*made, "text.safetensors"):
        (folder / name).unlink()


@pytest.fixture
def client(webui: WebUI, more_vaes: Path) -> Iterator[TestClient]:
    """Requests over HTTP, with nothing chosen to stay."""
    yield TestClient(webui.app)
    webui.shared.opts.data["vae_lab_external"] = "Automatic"


def txt2img(client: TestClient, lab: Any = None, route: str = "txt2img", **body: Any) -> Any:
    scripts = {"alwayson_scripts": {"vae lab": {"args": [lab]}}} if lab is not None else {}
    return client.post(f"/sdapi/v1/{route}", json=BODY | scripts | body)


def image(answer: Any) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(answer.json()["images"][0]))))


@pytest.mark.parametrize("case", REFUSED)
def test_the_api_answers_with_the_reason(webui: WebUI, client: TestClient, case: str) -> None:
    lab, reason = REFUSED[case]
    before = webui.vae_bytes()
    answer = txt2img(client, lab)
    assert (answer.status_code, reason in answer.json()["detail"]) == (422, True), answer.text
    assert webui.vae_bytes() == before


def test_the_api_refuses_in_img2img_too_and_goes_on(webui: WebUI, client: TestClient) -> None:
    plain = image(txt2img(client))
    file = io.BytesIO()
    Image.fromarray(plain).save(file, "PNG")
    start = base64.b64encode(file.getvalue()).decode()
    answer = txt2img(client, {"override": "xl.safetensors"}, "img2img", init_images=[start])
    assert (answer.status_code, "is a VAE for SDXL" in answer.json()["detail"]) == (422, True)
    assert np.array_equal(image(txt2img(client)), plain)
    assert not np.array_equal(image(txt2img(client, {"override": "first.safetensors"})), plain)


@pytest.mark.parametrize("case", ["unknown", "wrong family", "other widths", "key"])
def test_a_request_may_ask_to_fall_back(webui: WebUI, client: TestClient, case: str) -> None:
    lab, reason = REFUSED[case]
    plain = image(txt2img(client))
    answer = txt2img(client, lab | {"fallback": True})
    assert np.array_equal(image(answer), plain)
    info = json.loads(answer.json()["info"])
    assert reason in info["comments"]
    assert "Decoded with Built-in of one.safetensors instead." in info["comments"]
    assert "VAE Lab override" not in info["infotexts"][0]


def test_what_a_setting_asks_for_fails_no_request(webui: WebUI, client: TestClient) -> None:
    plain = image(txt2img(client))
    webui.shared.opts.data["vae_lab_external"] = "xl.safetensors"
    answer = txt2img(client)
    assert np.array_equal(image(answer), plain)
    comments = json.loads(answer.json()["info"])["comments"]
    assert "xl.safetensors is a VAE for SDXL" in comments
    assert "Decoded with Built-in of one.safetensors instead." in comments


@pytest.mark.parametrize("name", ["gone.safetensors", "xl.safetensors"])
def test_the_page_shows_an_image_and_the_reason(webui: WebUI, client: TestClient, name: str) -> None:
    plain = pixels(webui.generate())[0]
    p = webui.processing_object(lab=name)
    p.is_api = False
    done = webui.processing.process_images(p)
    assert np.array_equal(pixels(done)[0], plain)
    assert name in done.comments
    assert "Decoded with Built-in of one.safetensors instead." in done.comments


@pytest.mark.parametrize("names", [["first", "xl"], ["xl", "first"], ["xl", "narrow"]])
def test_a_cell_of_the_plot_is_an_error_tile(webui: WebUI, client: TestClient, names: list[str]) -> None:
    plain = pixels(webui.generate())[0]
    first = pixels(webui.generate(lab={"override": "first.safetensors"}))[0]
    values = [f"{name}.safetensors" for name in names]
    plot = webui.run_script("X/Y/Z plot", {"X type": "[VAE Lab] VAE", "X values": values, "Include Sub Images": True})
    cells = pixels(plot)[1:3]
    for name, cell, infotext in zip(names, cells, plot.infotexts[1:3], strict=True):
        if name == "first":
            assert np.array_equal(cell, first)
            continue
        assert cell.shape == plain.shape
        assert not np.array_equal(cell, plain)
        assert (cell == 255).all(axis=2).mean() > 0.5, "mostly white paper"
        assert "is a VAE for SDXL" in infotext or "does not fit" in infotext


def test_a_request_for_a_plot_is_refused_too(webui: WebUI, client: TestClient) -> None:
    """The plot itself goes on after an error, with black tiles."""
    arguments = {"X type": "Seed", "X values": "1,2"}
    with pytest.raises(HTTPException) as refused:
        webui.run_script("X/Y/Z plot", arguments, lab={"override": "gone.safetensors"})
    assert (refused.value.status_code, "no VAE named gone" in refused.value.detail) == (422, True)
    assert len(webui.run_script("X/Y/Z plot", arguments).images) == 1


def paste(webui: WebUI, infotext: str) -> tuple[str, str, bool]:
    """The accordion's choice, its line on what is not here, and whether it opens."""
    from modules.infotext_utils import parse_generation_parameters, paste_fields

    parameters = parse_generation_parameters(infotext)
    fields = {getattr(component, "elem_id", ""): fill for component, fill in paste_fields["txt2img"]["fields"]}
    line = fields["vae_lab_txt2img_not_here"](parameters)
    return (
        fields["vae_lab_txt2img_override"](parameters),
        line["value"],
        fields["vae_lab_txt2img"](parameters).get("open", False),
    )


def test_pasting_says_which_vae_is_not_here(webui: WebUI, client: TestClient, more_vaes: Path) -> None:
    info = webui.generate(lab={"override": "first.safetensors"}).info
    assert paste(webui, info) == ("first.safetensors", "", False)
    assert paste(webui, "a boat\nSteps: 3, Sampler: Euler, CFG scale: 7") == ("Automatic", "", False)
    first = more_vaes / "first.safetensors"
    here = first.read_bytes()
    try:
        first.unlink()
        webui.sd_vae.refresh_vae_list()  # else the WebUI itself fails, over its own key VAE
        choice, line, opened = paste(webui, info)
        assert (choice, opened) == ("Automatic", True)
        assert "The image was decoded by first.safetensors (" in line
        assert "which is not among your VAEs" in line
        answer = txt2img(client, infotext=info)
        assert (answer.status_code, "which is not among your VAEs" in answer.json()["detail"]) == (422, True)
        first.write_bytes((more_vaes / "second.safetensors").read_bytes())
        choice, line, opened = paste(webui, info)
        assert (choice, opened) == ("first.safetensors", True)
        assert "by another VAE named first.safetensors (" in line
    finally:
        first.write_bytes(here)
        webui.sd_vae.refresh_vae_list()


def test_the_active_vae_is_the_one_that_decodes(webui: WebUI, client: TestClient, data_dir: Path) -> None:
    def active() -> dict[str, str]:
        return client.get("/vae-lab/v1/active").json()

    client.get("/vae-lab/v1/vaes")  # lists them again
    before = active()
    assert (before["vae"], before["source"], before["checkpoint"]) == ("Built-in", "host", "one.safetensors")
    for name, reason in (
        ("xl.safetensors", "is a VAE for SDXL"),
        ("narrow.safetensors", "does not fit the loaded"),
        ("gone.safetensors", "no VAE named gone"),
        ("text.safetensors", "The reason is: text.safetensors: "),
    ):
        webui.shared.opts.data["vae_lab_external"] = name
        assert (active()["vae"], active()["source"]) == ("Built-in", "host")
        assert reason in active()["reason"]
        assert active()["mark"] != before["mark"]
    webui.shared.opts.data["vae_lab_external"] = "first.safetensors"
    assert (active()["vae"], active()["source"]) == ("first.safetensors", "always")
    webui.shared.opts.data["vae_lab_external"] = "Automatic"
    webui.choose_natively("second.safetensors")
    assert active()["vae"] == "second.safetensors"
    webui.choose_natively("Automatic")
    webui.select_checkpoint("two.safetensors")
    assert (active()["vae"], active()["checkpoint"]) == ("Built-in", "two.safetensors")
    webui.select_checkpoint("one.safetensors")
    assert active() == before


def test_a_preference_that_was_not_loaded_is_not_active(webui: WebUI, client: TestClient, data_dir: Path) -> None:
    """Edited on the checkpoint's card: the WebUI loads it with the next checkpoint."""
    file = data_dir / "models" / "Stable-diffusion" / "one.json"
    file.write_text(json.dumps({"vae": "first.safetensors"}), encoding="utf8")
    try:
        active = client.get("/vae-lab/v1/active").json()
        assert active["vae"] == "Built-in"
        assert "Not loaded: first.safetensors" in active["reason"]
    finally:
        file.unlink()


def test_without_a_vae_the_approximation_is_active(webui: WebUI, client: TestClient, monkeypatch: Any) -> None:
    monkeypatch.setitem(webui.shared.opts.data, "sd_vae_decode_method", "TAESD")
    assert client.get("/vae-lab/v1/active").json()["vae"] == "TAESD"
