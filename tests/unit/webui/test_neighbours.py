"""What other extensions do to a generation: detailers, functions that are put back, and choices of their own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.makers import F8, kl_state, write
from tests.unit.webui.double import Double, MakeDouble, P, load, load_extras, vae

OVERRIDE = "VAE Lab override"
DETAIL = 0.25  # level of a detailer's latents; those of the image are 1.0


@pytest.fixture
def second(models: Path) -> Iterator[str]:
    """Another VAE, which the host loads if its own setting names it."""
    path = models / "models" / "VAE" / "second.safetensors"
    write(path, kl_state(F8, seed=2))
    yield path.name
    path.unlink()


class Neighbours:
    """A host with VAE Lab, and what other extensions do there."""

    def __init__(self, double: Double) -> None:
        self.double = double
        self.plain = double.part("processing.process_images_inner")
        self.decoded_with: list[tuple[float, str]] = []
        module = vae()
        own = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        states = {"Built-in": own} | {f"{name}.safetensors": kl_state(F8, seed=i) for name, i in FILES.items()}

        def reload(*_: Any, **__: Any) -> None:
            name = double.part("shared.opts").sd_vae
            double.part("sd_vae").loaded_vae_file = None if name in ("Automatic", "None") else f"/VAE/{name}"
            module.load_state_dict(states.get(name, own))

        def decode(model: Any, batch: torch.Tensor) -> list[torch.Tensor]:
            weights = module.state_dict()["decoder.conv_in.weight"]
            name = next(n for n, state in states.items() if torch.equal(state["decoder.conv_in.weight"], weights))
            self.decoded_with.append((float(batch.mean()), name))
            return [torch.full((3, 8, 8), 0.5) for _ in batch]

        double.part("sd_vae").reload_vae_weights = reload
        double.part("processing").decode_latent_batch = decode

    def start(self) -> Any:
        ((host, *_),) = self.double.start(load)
        return host

    def detail(self, p: P, *, past_us: bool = False, **changes: Any) -> P:
        """A generation inside that of ``p``, with settings of its own; ``past_us``: where ControlNet's saved function
        is put back meanwhile."""
        inner = P()
        inner.level, inner.has_scripts = DETAIL, False
        vars(inner).update(changes)
        processing = self.double.part("processing")
        ours = processing.process_images_inner
        if past_us:
            processing.process_images_inner = self.plain
        try:
            self.double.process_images(inner)
        finally:
            processing.process_images_inner = ours
        return inner

    def details(self, **changes: Any) -> None:
        """Have every image refined so."""

        def refine(p: P) -> None:
            if p.level != DETAIL:
                self.detail(p, **changes)

        self.double.postprocess_image = refine

    def generate(self, *accordion: Any, **changes: Any) -> tuple[Any, P]:
        p = P()
        p.accordion = accordion or p.accordion
        vars(p).update(changes)
        return self.double.process_images(p), p


FILES = {"first": 1, "second": 2}


@pytest.fixture
def neighbours(make: MakeDouble, second: str) -> Iterator[Neighbours]:
    before = {name: tensor.clone() for name, tensor in vae().state_dict().items()}
    yield Neighbours(make("webui"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in vae().state_dict().items())


# --- a detailer behind our back ----------------------------------------------------------------------------------


@pytest.mark.parametrize("past_us", [False, True])
def test_the_stored_latent_is_that_of_the_image(neighbours: Neighbours, past_us: bool) -> None:
    """ADetailer with ControlNet runs its passes past our hook, after the image is decoded."""
    host = neighbours.start()
    neighbours.details(past_us=past_us)
    neighbours.generate(n_iter=2)
    stored = [float(generation.latents.mean()) for generation in host.generations.newest_first()]
    assert stored[:2] == [1.0, 1.0]
    assert stored[2:] == ([] if past_us else [DETAIL, DETAIL])


def test_a_copy_of_what_is_generated_leaves_the_infotext(neighbours: Neighbours) -> None:
    """ADetailer calls all scripts with a copy before the image's parameters are written."""
    neighbours.start()

    def reread(p: P) -> None:
        for script in neighbours.double.scripts:
            script.process(copy.copy(p), *p.accordion)

    neighbours.double.postprocess_image = reread
    processed, _ = neighbours.generate("first.safetensors", [], "off")
    assert f"{OVERRIDE}: first.safetensors" in processed.infotexts[0]


@pytest.mark.parametrize("vae", ["Automatic", "second.safetensors"])
def test_a_generation_of_a_copy_leaves_the_infotext(neighbours: Neighbours, vae: str) -> None:
    """The copy has the same dictionary of parameters."""
    neighbours.start()

    def again(p: P) -> None:
        if p.level == DETAIL:
            return
        inner = copy.copy(p)
        inner.level, inner.accordion = DETAIL, (vae, [], "off")
        neighbours.double.process_images(inner)

    neighbours.double.postprocess_image = again
    processed, _ = neighbours.generate("first.safetensors", [], "off")
    assert f"{OVERRIDE}: first.safetensors" in processed.infotexts[0]


# --- the VAE of a generation inside another one --------------------------------------------------------------------


@pytest.mark.parametrize("past_us", [False, True])
def test_an_inner_generation_gets_the_vae_that_it_names(neighbours: Neighbours, past_us: bool) -> None:
    neighbours.start()
    neighbours.details(past_us=past_us, override_settings={"sd_vae": "second.safetensors"})
    neighbours.generate("first.safetensors", [], "off", n_iter=2)
    assert neighbours.decoded_with == [(1.0, "first.safetensors"), (DETAIL, "second.safetensors")] * 2


def test_it_also_does_if_the_host_has_that_vae_already(neighbours: Neighbours) -> None:
    neighbours.start()
    neighbours.double.part("shared.opts").sd_vae = "second.safetensors"
    neighbours.double.part("sd_vae.reload_vae_weights")()
    try:
        neighbours.details(override_settings={"sd_vae": "second.safetensors"})
        neighbours.generate("first.safetensors", [], "off", n_iter=2)
    finally:
        neighbours.double.part("shared.opts").sd_vae = "Automatic"
        neighbours.double.part("sd_vae.reload_vae_weights")()
    assert neighbours.decoded_with == [(1.0, "first.safetensors"), (DETAIL, "second.safetensors")] * 2


def test_one_that_names_none_inherits_the_choice(neighbours: Neighbours) -> None:
    """Not what is saved for all generations."""
    neighbours.start()
    neighbours.double.part("shared.opts").vae_lab_external = "second.safetensors"
    neighbours.details(has_scripts=True)
    neighbours.generate("first.safetensors", [], "off")
    neighbours.generate("Automatic", [], "off")
    first, second = "first.safetensors", "second.safetensors"
    assert neighbours.decoded_with == [(1.0, first), (DETAIL, first), (1.0, second), (DETAIL, second)]


def test_its_parameters_name_what_decoded_it(neighbours: Neighbours) -> None:
    host = neighbours.start()
    neighbours.details(has_scripts=True)
    neighbours.generate("first.safetensors", [], "off")
    outer, inner = host.generations.newest_first()
    assert [OVERRIDE in generation.infotexts[0] for generation in (outer, inner)] == [True, True]
    neighbours.details(override_settings={"sd_vae": "second.safetensors"}, has_scripts=True)
    neighbours.generate("first.safetensors", [], "off")
    outer, inner = host.generations.newest_first()[:2]
    assert [OVERRIDE in generation.infotexts[0] for generation in (outer, inner)] == [True, False]


@pytest.mark.parametrize(
    ("named", "said"),
    [("second.safetensors", True), ("None", True), ("first.safetensors", False), ("Automatic", False)],
)
def test_a_choice_that_is_overruled_is_said_to_be(neighbours: Neighbours, named: str, said: bool) -> None:
    neighbours.start()
    neighbours.double.part("shared.opts").vae_lab_external = "first.safetensors"
    processed, _ = neighbours.generate("Automatic", [], "off", override_settings={"sd_vae": named})
    assert neighbours.decoded_with == [(1.0, "first.safetensors")]
    assert (f"{named}, named as SD VAE for this generation, has no effect" in processed.comments) == said
    assert ("Settings > VAE Lab > External VAE" in processed.comments) == said


# --- functions that are put back -----------------------------------------------------------------------------------


def test_a_generation_that_bypasses_us_is_said_to(neighbours: Neighbours) -> None:
    neighbours.start()
    neighbours.double.part("processing").process_images_inner = neighbours.plain
    processed, _ = neighbours.generate("first.safetensors", ["first.safetensors"], "off")
    assert neighbours.decoded_with == [(1.0, "Built-in")]
    assert "has put back process_images_inner" in processed.comments or "has replaced" in processed.comments
    assert "first.safetensors does not decode it and it is not decoded with other VAEs" in processed.comments
    assert OVERRIDE not in processed.infotexts[0]


def test_decodes_that_bypass_us_are_said_to(neighbours: Neighbours) -> None:
    plain = neighbours.double.part("processing.decode_latent_batch")
    neighbours.start()
    neighbours.double.part("processing").decode_latent_batch = plain
    processed, _ = neighbours.generate("first.safetensors", [], "off")
    assert neighbours.decoded_with == [(1.0, "first.safetensors")]
    assert "decode_latent_batch" in processed.comments
    assert "not stored" in processed.comments


@pytest.mark.parametrize("name", ["process_images_inner", "decode_latent_batch"])
def test_a_function_around_ours_is_no_reason_to_say_anything(neighbours: Neighbours, name: str) -> None:
    neighbours.start()
    processing = neighbours.double.part("processing")
    ours: Callable[..., Any] = getattr(processing, name)
    setattr(processing, name, lambda *args, **kwargs: ours(*args, **kwargs))
    processed, _ = neighbours.generate("first.safetensors", [], "off")
    assert processed.comments == ""
    assert f"{OVERRIDE}: first.safetensors" in processed.infotexts[0]


def test_a_decode_with_another_model_is_no_reason_either(neighbours: Neighbours) -> None:
    """It is seen, although its latents are not stored."""
    host = neighbours.start()
    processing = neighbours.double.part("processing")
    ours: Callable[..., Any] = processing.decode_latent_batch
    processing.decode_latent_batch = lambda _, *args, **kwargs: ours(object(), *args, **kwargs)
    processed, _ = neighbours.generate("Automatic", [], "off")
    assert (processed.comments, host.generations.newest_first()) == ("", [])


# --- results -------------------------------------------------------------------------------------------------------


def test_results_without_infotexts(
    neighbours: Neighbours, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Some extensions take them away."""
    plain = neighbours.plain

    def without(p: P) -> Any:
        processed = plain(p)
        processed.infotexts = None
        return processed

    neighbours.double.part("processing").process_images_inner = without
    host = neighbours.start()
    processed, _ = neighbours.generate("Automatic", ["first.safetensors"], "off")
    assert len(host.generations.newest_first()) == 1
    assert len(processed.images) == len(processed.infotexts) == 3
    assert f"{OVERRIDE}: first.safetensors" in processed.infotexts[2]
    assert caplog.text == ""


# --- images of many parts ------------------------------------------------------------------------------------------


def stored_by(host: Any) -> list[Any]:
    return [(round(float(one.latents.mean()), 2), one.part) for one in host.generations.newest_first()]


def test_parts_come_after_their_image(neighbours: Neighbours) -> None:
    host = neighbours.start()
    neighbours.details()
    for _ in range(2):
        neighbours.generate(n_iter=2)
    whole, inside = (1.0, ""), (DETAIL, "inside another image")
    assert stored_by(host) == [whole, whole, inside, inside] * 2
    groups = [generation.group for generation in host.generations.newest_first()]
    assert (len(set(groups[:4])), len(set(groups[4:])), len(set(groups))) == (1, 1, 2)
    assert "inside another image" in host.generations.newest_first()[2].label


class Upscale:
    """As SD upscale: one image of four tiles, of which only the result is saved."""

    def __init__(self, neighbours: Neighbours, *, tiles: bool) -> None:
        self.neighbours, self.tiles = neighbours, tiles

    def title(self) -> str:
        return "SD upscale"

    def run(self, p: P) -> None:
        p.do_not_save_samples = p.do_not_save_samples or self.tiles
        for _ in range(4):
            self.neighbours.double.process_images(p)


@pytest.mark.parametrize(("tiles", "saves"), [(True, True), (False, True), (False, False)])
def test_tiles_are_grouped(neighbours: Neighbours, tiles: bool, saves: bool) -> None:
    """But not the images of a plot, even if the API saves none."""
    host = neighbours.start()
    runner = neighbours.double.part("scripts.ScriptRunner")()
    runner.selectable_scripts = (Upscale(neighbours, tiles=tiles),)
    for _ in range(2):
        p = P()
        p.do_not_save_samples = not saves
        runner.run(p, 1)
    generations = host.generations.newest_first()
    assert {generation.part for generation in generations} == {"tile of SD upscale" if tiles else ""}
    assert len({generation.group for generation in generations}) == (2 if tiles else 8)


# --- ourselves -----------------------------------------------------------------------------------------------------


def test_of_two_copies_the_first_one_is_used(make: MakeDouble, caplog: pytest.LogCaptureFixture) -> None:
    """From a URL and from a ZIP: both run the package of the first one. "Reload UI" runs both again."""
    double = make("webui")
    scripts = double.part("scripts")
    for _ in range(2):
        caplog.clear()
        for called in double.called.values():
            called.clear()  # as the host does before it loads scripts
        scripts.basedir = lambda: "/ext/sd-webui-vae-lab"
        ((host, *_),) = double.start(load)
        assert ("Installed twice" in host.about(), caplog.text) == (False, "")
        scripts.basedir = lambda: "/ext/vae-lab-main"
        before = {name: list(called) for name, called in double.called.items()}, double.attributes()
        assert (load(), load_extras()) == (None, None)
        assert ({name: list(called) for name, called in double.called.items()}, double.attributes()) == before
        assert "/ext/sd-webui-vae-lab and in /ext/vae-lab-main" in caplog.text
        assert host.about()["Installed twice"] == "sd-webui-vae-lab is used, vae-lab-main can be removed"
        processed, _ = double.generate("first.safetensors", [], "off")
        assert f"{OVERRIDE}: first.safetensors" in processed.infotexts[0]
        double.unload()
