"""The postprocessing script of the Extras tab, in doubles of the hosts."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

import gradio as gr
import numpy as np
import pytest
import torch
from PIL import Image

from tests.unit.webui.double import Double, Kind, MakeDouble, load, vae
from vae_lab.images import prepared

KINDS: tuple[Kind, ...] = ("webui", "forge", "reforge")
FIRST = "first.safetensors"
DONE = ("VAE round trip encode", "VAE round trip decode")
NOT_DONE = "VAE round trip not done"


def picture(width: int = 24, height: int = 16, mode: str = "RGB") -> Image.Image:
    channels = 4 if mode == "RGBA" else 3
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels)


def started(make: MakeDouble, kind: Kind = "webui") -> tuple[Double, Any]:
    double = make(kind)
    double.start(load)
    return double, importlib.import_module("vae_lab.extension").the_host()


@pytest.mark.parametrize("values", [{}, {"enabled": False}, {"enabled": None, "encode": None, "decode": None}])
def test_off_nothing_is_done(make: MakeDouble, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any]) -> None:
    double, host = started(make)
    monkeypatch.setattr(host, "decision", lambda *_: pytest.fail("asked for the VAE in use"))
    image = picture()
    pp = double.postprocess(image, **values)
    assert (pp.image is image, pp.info) == (True, {})


@pytest.mark.parametrize("kind", KINDS)
def test_the_image_is_that_of_a_round_trip(make: MakeDouble, kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    """Although the script runs while the host's queue is taken; and the host's own VAE is as before."""
    double, host = started(make, kind)
    before = {name: value.clone() for name, value in vae().state_dict().items()}
    image = picture()
    trip = host.round_trip(prepared(image).image, [FIRST])
    assert [result.error for result in trip] == ["", ""]
    for encode, decode, same_as in ((FIRST, "Automatic", FIRST), ("Automatic", "Automatic", "Built-in")):
        pp = double.postprocess(image, enabled=True, encode=encode, decode=decode)
        assert np.array_equal(np.asarray(pp.image), trip[same_as].image)
        shown = f"{same_as} of one.safetensors" if same_as == "Built-in" else FIRST
        assert [pp.info[key].startswith(f"{shown} (") for key in DONE] == [True, True]
        assert len(pp.info) == 2
    assert all(torch.equal(value, before[name]) for name, value in vae().state_dict().items())
    assert caplog.text == ""


def test_one_vae_encodes_and_another_decodes(make: MakeDouble) -> None:
    double, host = started(make)
    image = picture()
    latent, family = host.encode(prepared(image).image, FIRST)
    with host.own_place() as place, host.own_vae("Built-in", place) as own:
        expected = (own.with_family(family).decode(latent) * 255).byte()[0].permute(1, 2, 0).numpy()
    pp = double.postprocess(image, enabled=True, encode=FIRST, decode="Built-in")
    assert np.array_equal(np.asarray(pp.image), expected)
    assert [pp.info[key].split(" (")[0] for key in DONE] == [FIRST, "Built-in of one.safetensors"]


@pytest.mark.parametrize("size", [(21, 11), (8, 9), (9, 1)])
def test_the_size_is_kept(make: MakeDouble, size: tuple[int, int]) -> None:
    """The padding repeats the last column and row, and is cut off again."""
    double, _ = started(make)
    image = picture(*size)
    pp = double.postprocess(image, enabled=True, encode=FIRST)
    assert (pp.image.size, pp.image.mode, list(pp.info)) == (size, "RGB", list(DONE))
    width, height = size
    right, down = -width % 8, -height % 8
    padded = Image.fromarray(np.pad(np.asarray(image), ((0, down), (0, right), (0, 0)), mode="edge"))
    whole = double.postprocess(padded, enabled=True, encode=FIRST)
    assert np.array_equal(np.asarray(whole.image)[:height, :width], np.asarray(pp.image))


def test_transparency_takes_no_part_and_is_kept(make: MakeDouble) -> None:
    double, _ = started(make)
    image = picture(mode="RGBA")
    found = double.postprocess(image, enabled=True, encode=FIRST).image
    assert found.mode == "RGBA"
    assert np.array_equal(np.asarray(found)[..., 3], np.asarray(image)[..., 3])
    opaque = Image.fromarray(np.asarray(image)[..., :3].copy())
    expected = double.postprocess(opaque, enabled=True, encode=FIRST).image
    assert np.array_equal(np.asarray(found)[..., :3], np.asarray(expected))


def _unknown(double: Double, host: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    return {"encode": "gone.safetensors"}


def _other_family(double: Double, host: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    identify = host.file_cache.identify

    def as_sdxl(path: str) -> Any:
        record = identify(path)
        return replace(record, family_id="sdxl" if path.endswith(FIRST) else "sd1")

    monkeypatch.setattr(host.file_cache, "identify", as_sdxl)
    return {"encode": "Built-in", "decode": FIRST}


def _no_memory(double: Double, host: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    module = importlib.import_module("vae_lab.comparison.round_trip")  # the package has a function of that name
    monkeypatch.setattr(module, "free_memory", lambda: 2**16)
    return {"encode": FIRST}


def _torch_fails(double: Double, host: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    def fail(*_: Any) -> None:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr("vae_lab.autoencoders.Autoencoder.encode", fail)
    return {"encode": FIRST}


def _nan(double: Double, host: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setattr(
        "vae_lab.autoencoders.Autoencoder.decode_unclamped", lambda *_: torch.full((1, 3, 16, 24), torch.nan)
    )
    return {"encode": FIRST}


def _fault_of_ours(double: Double, host: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setattr("vae_lab.webui.extras.reencoded", lambda *_: {}["x"])
    return {}


def _interrupted(double: Double, host: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    double.part("shared.state").interrupted = True
    return {}


def _skipped(double: Double, host: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    double.part("shared.state").skipped = True
    return {}


def _stopping(double: Double, host: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    double.part("shared.state").stopping_generation = True
    return {}


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (_unknown, "no VAE and no checkpoint named gone.safetensors"),
        (_other_family, "is a VAE for SDXL, but the latents are SD"),
        (_no_memory, "of memory, but only"),
        (_torch_fails, f"{FIRST}: out of memory"),
        (_nan, f"{FIRST} produced NaN or infinite values"),
        (_fault_of_ours, "the log has the details"),
        (_interrupted, "interrupted"),
        (_skipped, "interrupted"),
        (_stopping, "interrupted"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_after_any_error_the_image_is_unchanged_and_says_why(
    make: MakeDouble, monkeypatch: pytest.MonkeyPatch, prepare: Any, reason: str
) -> None:
    double, host = started(make)
    image = picture()
    pp = double.postprocess(image, enabled=True, **prepare(double, host, monkeypatch))
    assert pp.image is image
    assert list(pp.info) == [NOT_DONE]
    assert reason in pp.info[NOT_DONE]
    assert "\n" not in pp.info[NOT_DONE]


class InputAccordion(gr.Checkbox):
    """As the host's: a hidden checkbox with an accordion."""

    def __init__(self, value: bool, **options: Any) -> None:
        super().__init__(value, visible=False)
        self.accordion = gr.Accordion(open=value, **options)

    def __enter__(self) -> InputAccordion:
        self.accordion.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.accordion.__exit__(*error)


@pytest.mark.parametrize("accordion", [InputAccordion, None])
def test_the_accordion_is_off_at_first(make: MakeDouble, accordion: Any) -> None:
    _, host = started(make)
    build = importlib.import_module("vae_lab.ui.pages").WebuiPages.build_extras
    with gr.Blocks(analytics_enabled=False):
        inputs = build(host, accordion)
    assert list(inputs) == ["enabled", "encode", "decode"]
    assert [component.value for component in inputs.values()] == [False, "Automatic", "Automatic"]
    choices = [choice[0] if isinstance(choice, tuple) else choice for choice in inputs["encode"].choices]
    assert choices == ["Automatic", "Built-in", FIRST]


def test_an_error_in_the_accordion_leaves_the_page(make: MakeDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    double, host = started(make)
    monkeypatch.setattr(host, "vaes", lambda: {}["x"])
    assert double.extras.ui() == {}


def test_a_webui_without_such_scripts_gets_none(make: MakeDouble) -> None:
    double = make("webui", {"scripts_postprocessing": "missing"})
    double.start(load)
    assert double.extras is None
    assert len(double.scripts) == 1
