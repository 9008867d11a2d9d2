"""Which VAE encodes and decodes in Forge, compared with Forge's own choice of the same file."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.forge.server import Forge

pytestmark = pytest.mark.host


def _encoded(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _photo() -> str:
    y, x = np.mgrid[0:64, 0:64] / 63.0
    return _encoded(Image.fromarray((np.stack([x, y, 1 - x * y], axis=2) * 255).astype(np.uint8)))


def _mask() -> str:
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 16:48] = 255
    return _encoded(Image.fromarray(mask))


def _hires(upscaler: str, **more: Any) -> dict[str, Any]:
    options = {"enable_hr": True, "hr_scale": 1.5, "hr_second_pass_steps": 1, "denoising_strength": 0.5}
    return options | {"hr_upscaler": upscaler, "hr_additional_modules": ["Use same choices"]} | more


_IMG2IMG: dict[str, Any] = {"img2img": True, "init_images": [_photo()], "denoising_strength": 0.5, "steps": 2}
CASES: dict[str, dict[str, Any]] = {
    "txt2img": {},
    "batch-2x2": {"batch_size": 2, "n_iter": 2},
    "img2img": _IMG2IMG,
    "inpaint": _IMG2IMG | {"mask": _mask(), "mask_blur": 4},
    "hires-latent": _hires("Latent"),
    "hires-pixel": _hires("Lanczos"),
}


@pytest.mark.parametrize("case", CASES)
def test_override_equals_forges_own_choice(forge: Forge, case: str) -> None:
    options = CASES[case]
    before = forge.generate(**options)
    ours = forge.generate({"override": "first.safetensors"}, **options)
    after = forge.generate(**options)
    forge.choose_natively("first.safetensors")
    native = forge.generate(**options)
    assert len(ours.images) == len(native.images)
    for mine, theirs, without, later in zip(ours.images, native.images, before.images, after.images, strict=True):
        assert np.array_equal(mine, theirs)
        assert not np.array_equal(mine, without), "the other VAE must show"
        assert np.array_equal(later, without)
    for text in ours.infotexts:
        assert text.count("VAE Lab override: first.safetensors, VAE Lab override hash: ") == 1
    assert "VAE Lab" not in after.infotexts[0]


def test_built_in_beats_forges_own_choice(forge: Forge, plain: np.ndarray) -> None:
    forge.choose_natively("first.safetensors")
    assert not np.array_equal(forge.generate().images[0], plain)
    ours = forge.generate({"override": "Built-in"})
    assert np.array_equal(ours.images[0], plain)
    assert "VAE Lab override: Built-in" in ours.infotexts[0]


def test_override_holds_when_hires_fix_changes_the_checkpoint(forge: Forge) -> None:
    options = _hires("Lanczos", hr_checkpoint_name="grey.safetensors")
    before = forge.generate(**options)
    ours = forge.generate({"override": "first.safetensors"}, **options)
    after = forge.generate(**options)
    forge.choose_natively("first.safetensors")
    native = forge.generate(**options)
    assert np.array_equal(ours.images[0], native.images[0])
    assert not np.array_equal(ours.images[0], before.images[0])
    assert np.array_equal(after.images[0], before.images[0])


@pytest.mark.parametrize(
    ("vae", "reason"),
    [
        ("xl.safetensors", "SDXL"),
        ("small.safetensors", "does not fit"),
        ("broken.safetensors", "broken.safetensors"),
        ("gone.safetensors", "no VAE named gone.safetensors"),
    ],
)
def test_what_cannot_be_used_costs_no_image(forge: Forge, plain: np.ndarray, vae: str, reason: str) -> None:
    start = len(forge.log)
    made = forge.generate({"override": vae, "fallback": True})
    assert np.array_equal(made.images[0], plain)
    assert "VAE Lab override" not in made.infotexts[0]
    lines = [line for line in forge.log[start:].splitlines() if "VAE Lab, " in line]
    assert len(lines) == 1
    assert reason in lines[0]
    with pytest.raises(AssertionError, match=reason):  # an answer that is an error, with its text
        forge.generate({"override": vae})


def test_an_axis_of_the_plot_chooses_vaes(forge: Forge, plain: np.ndarray) -> None:
    names = ["Automatic", "first.safetensors", "Built-in", "second.safetensors"]
    scripts = forge.get("/sdapi/v1/script-info")
    plot = next(script for script in scripts if script["name"] == "x/y/z plot" and not script["is_img2img"])
    axis = plot["args"][0]["choices"].index("[VAE Lab] VAE")
    nothing = [0, "", []]
    arguments = [axis, "", names, *nothing, *nothing, False, True, False, False, False, False, False, 0, False]
    made = forge.generate(script_name="x/y/z plot", script_args=arguments)
    cells = made.images[1 : 1 + len(names)]
    assert len(cells) == len(names)
    for name, cell in zip(names, cells, strict=True):
        expected = forge.generate({"override": name} if name != "Automatic" else None)
        assert np.array_equal(cell, expected.images[0]), name
    assert np.array_equal(cells[0], plain)
    assert np.array_equal(cells[2], plain)
    assert not np.array_equal(cells[1], cells[3])


def test_latents_are_stored_and_decoded_again(forge: Forge, plain: np.ndarray) -> None:
    """A comparison in Forge's own module gives the images that Forge gives; hires fix is stored in its final size."""
    forge.generate(**_hires("Lanczos"))
    hires = forge.get("/vae-lab/v1/latents")["latents"][0]
    assert (hires["size"], hires["family"], hires["images"]) == ([96, 96], "sd1", 1)
    native = {"Built-in": plain}
    for name in ("first.safetensors", "second.safetensors"):
        native[name] = forge.generate({"override": name}).images[0]
    forge.generate()
    stored = forge.get("/vae-lab/v1/latents")["latents"][0]
    refused = ["xl.safetensors", "small.safetensors", "broken.safetensors"]
    found = forge.post("/vae-lab/v1/compare", {"latents": stored["id"], "vaes": [*native, *refused]})
    results = {result["name"]: result for result in found["results"]}
    for name, expected in native.items():
        assert np.array_equal(forge.image(results[name]["images"][0]), expected), name
    for name in refused:
        assert results[name]["error"]
        assert results[name]["images"] == []


def test_images_of_other_vaes_next_to_forges_own(forge: Forge, plain: np.ndarray) -> None:
    made = forge.generate({"override": "first.safetensors", "compare": ["second.safetensors"]})
    second = forge.generate({"override": "second.safetensors"}).images[0]
    own, built_in, other = made.images
    assert np.array_equal(built_in, plain)
    assert np.array_equal(other, second)
    assert not np.array_equal(own, plain)
    assert [text.count("VAE Lab override: ") for text in made.infotexts] == [1, 1, 1]


def test_always(forge: Forge) -> None:
    wanted = forge.generate({"override": "second.safetensors"}).images[0]
    forge.set(vae_lab_external="second.safetensors")
    made = forge.generate()
    assert np.array_equal(made.images[0], wanted)
    assert "VAE Lab override: second.safetensors" in made.infotexts[0]
