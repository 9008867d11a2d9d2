"""The panel that compares, without a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.unit.makers import F8, SD1_TEXT, UNET, kl_state, prefixed, write
from vae_lab.host.choices import AUTOMATIC, BUILT_IN
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.latents import Generation, save_latents
from vae_lab.latents.family import FAMILIES
from vae_lab.messages import use_language
from vae_lab.ui.panels.comparison import ComparisonPanel
from vae_lab.ui.panels.round_trip import RoundTripPanel


def checkpoint(models: Path, name: str) -> None:
    state = {**UNET, **SD1_TEXT, **prefixed("first_stage_model.", kl_state(F8))}
    write(models / "Stable-diffusion" / name, state)


def listed(update: Any) -> list[str]:
    """The choices in an update."""
    return update.get("choices", []) if isinstance(update, dict) else []


def opened(models: Path) -> ComparisonPanel:
    """The panel over ``models``, as a page has it when the program starts."""
    panel = ComparisonPanel(StandaloneHost(Folders.of_models(models, models / "data")))
    with gr.Blocks(analytics_enabled=False):
        panel.build()
    return panel


def test_what_has_changed_since_the_program_started_is_in_the_menus(tmp_path: Path) -> None:
    """The browser loads the menus of the start, and presses Refresh."""
    (tmp_path / "Stable-diffusion").mkdir()
    (tmp_path / "VAE").mkdir()
    checkpoint(tmp_path, "first.safetensors")
    panel = opened(tmp_path)
    checkpoint(tmp_path, "second.safetensors")
    write(tmp_path / "VAE" / "new.safetensors", kl_state(F8))
    panel.host.select_checkpoint("second.safetensors")
    updates = panel.on_refresh(None, [], AUTOMATIC, BUILT_IN, panel.checkpoint.value, None)
    (menu,) = (update for update in updates if "second.safetensors" in listed(update))
    assert (menu["choices"], menu["value"]) == (["first.safetensors", "second.safetensors"], "second.safetensors")
    assert sum("new.safetensors" in str(update) for update in updates) == 3, "VAEs to compare, active VAE, encoder"
    again = panel.on_refresh(None, [], AUTOMATIC, BUILT_IN, "second.safetensors", None)
    (menu,) = (update for update in again if "second.safetensors" in listed(update))
    assert "value" not in menu, "what the user selects meanwhile stays"


def test_a_page_that_does_not_list_the_latents_yet_compares_the_newest(tmp_path: Path) -> None:
    """Inside a WebUI, the page is built before the first generation; a slow refresh may come after Compare."""
    (tmp_path / "Stable-diffusion").mkdir()
    checkpoint(tmp_path, "c.safetensors")
    panel = opened(tmp_path)
    host = panel.host
    assert panel.source.value is None
    for name in ("older", "newer"):
        host.generations.add(Generation(name, torch.zeros(1, 4, 4, 4), FAMILIES["sd1"], title=name))
    panel.on_compare(None, [])
    shown = panel.service.comparisons.shown
    assert shown is not None
    assert shown.generation.title == "newer"
    assert "has been discarded" in panel.on_compare("gone", [])


def test_what_was_compared_or_chosen_was_used_last(tmp_path: Path) -> None:
    (tmp_path / "Stable-diffusion").mkdir()
    (tmp_path / "VAE").mkdir()
    checkpoint(tmp_path, "c.safetensors")
    paths = [write(tmp_path / "VAE" / f"{name}.safetensors", kl_state(F8)) for name in "abd"]
    panel = opened(tmp_path)
    host = panel.host
    host.generations.add(Generation("g", torch.zeros(1, 4, 4, 4), FAMILIES["sd1"], title="x"))
    panel.on_compare(None, ["a.safetensors", "b.safetensors"])
    assert [entry.name for entry in host.vaes() if entry.recent] == ["a.safetensors", "b.safetensors"]
    panel.on_use_always("d.safetensors", None)
    assert host.file_cache.recent()[0] == str(paths[2])


# --- whose VAE is it -------------------------------------------------------------------------------------------------

PARAMETERS = "a cat\nSteps: 20, Sampler: Euler, Seed: 1, VAE hash: {digest}, VAE: someone's.pt"


@pytest.fixture
def host(tmp_path: Path) -> StandaloneHost:
    """One VAE, with its hash."""
    (tmp_path / "VAE").mkdir()
    path = write(tmp_path / "VAE" / "<mine>.safetensors", kl_state(F8))
    host = StandaloneHost(Folders.of_models(tmp_path, tmp_path / "data"))
    host.file_cache.hash(str(path))
    return host


def digest_of(host: StandaloneHost) -> str:
    (path,) = host.vae_files().values()
    return host.file_cache.sha256(str(path))[:10]


def image(path: Path, digest: str) -> Path:
    """A PNG with generation parameters."""
    info = PngInfo()
    info.add_text("parameters", PARAMETERS.format(digest=digest))
    Image.new("RGB", (64, 64)).save(path, pnginfo=info)
    return path


def test_a_dropped_image_names_a_vae_of_the_user(
    host: StandaloneHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel, digest = ComparisonPanel(host), digest_of(host)
    monkeypatch.setattr(host, "encode", lambda image, vae: (torch.zeros(1, 4, 8, 8), FAMILIES["sd1"]))
    inputs = (None, [], "Automatic", "Built-in", None, None)
    *_, message = panel.on_encode(str(image(tmp_path / "i.png", digest)), *inputs)
    assert f"VAE hash {digest}: you have this VAE as &lt;mine&gt;.safetensors." in message
    with use_language("zh_CN"):
        *_, message = panel.on_encode(str(image(tmp_path / "i.png", "735e4c3a44")), *inputs)
    assert "根据目录，它是 vae-ft-mse-840000-ema-pruned。" in message
    Image.new("RGB", (64, 64)).save(tmp_path / "plain.png")
    *_, message = panel.on_encode(str(tmp_path / "plain.png"), *inputs)
    assert "VAE hash" not in message


def test_so_does_a_loaded_latent(host: StandaloneHost, tmp_path: Path) -> None:
    digest = digest_of(host)
    latent = Generation("g", torch.zeros(1, 4, 8, 8), FAMILIES["sd1"], "x", (PARAMETERS.format(digest=digest),))
    save_latents(latent, tmp_path / "l.safetensors")
    *_, message = ComparisonPanel(host).on_load(
        str(tmp_path / "l.safetensors"), None, [], "Automatic", "Built-in", None, None
    )
    assert f"VAE hash {digest}: you have this VAE as" in message


def test_so_does_an_image_of_a_round_trip(host: StandaloneHost, tmp_path: Path) -> None:
    """Gradio passes it converted."""
    panel, digest = RoundTripPanel(host), digest_of(host)
    with gr.Blocks(analytics_enabled=False):
        panel.build()
    with Image.open(image(tmp_path / "i.png", digest)) as opened:
        dropped = opened.convert("RGBA")
    *_, message = panel.on_run(dropped, None, ["<mine>.safetensors"])
    assert f"VAE hash {digest}: you have this VAE as" in message


def test_a_comparison_that_fails_in_the_middle_leaves_nothing_half_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the error."""
    (tmp_path / "Stable-diffusion").mkdir()
    checkpoint(tmp_path, "c.safetensors")
    panel = opened(tmp_path)
    results, service = panel.results, panel.service.comparisons
    panel.host.generations.add(Generation("g", torch.zeros(1, 4, 4, 4), FAMILIES["sd1"], title="x"))
    shown = results.shown.value
    halves = []

    def fail(generation_id: str, vaes: object, progress: object, cancelled: object, on_result: Any) -> None:
        on_result(whole.comparison)
        halves.append(results.on_show(shown))
        raise RuntimeError("out of memory")

    whole = service.compare("g", [])
    service.shown = None
    with monkeypatch.context() as patched:
        patched.setattr(panel.host, "compare", fail)
        with pytest.raises(RuntimeError):
            service.compare("g", [])
    assert service.shown is None
    images, after = results.on_show(halves[0][-1])
    assert "Which VAE should I use?" in images
    assert not after.running
