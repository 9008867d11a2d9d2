"""Folders are walked at most once per user action, and never to display known facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import gradio as gr
import pytest
import torch

from tests.unit.makers import F8, SD1_TEXT, UNET, kl_state, prefixed, write
from vae_lab.api.models import CheckpointsAnswer
from vae_lab.host.choices import BUILT_IN
from vae_lab.host.standalone import Folders, StandaloneHost
from vae_lab.latents import Generation, save_latents
from vae_lab.latents.family import FAMILIES
from vae_lab.library import Listing, folders
from vae_lab.service.service import service_of
from vae_lab.ui.panels.checkup import CheckupPanel
from vae_lab.ui.panels.comparison import ComparisonPanel
from vae_lab.ui.panels.library import LibraryPanel
from vae_lab.ui.panels.round_trip import RoundTripPanel

VAES = 2


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, some VAEs and a latent; all of weights that are random."""
    root = tmp_path_factory.mktemp("listing")
    for folder in ("Stable-diffusion", "VAE", "latents"):
        (root / folder).mkdir()
    state = {**UNET, **SD1_TEXT, **prefixed("first_stage_model.", kl_state(F8))}
    write(root / "Stable-diffusion" / "c.safetensors", state)
    for i in range(VAES):
        write(root / "VAE" / f"v{i}.safetensors", kl_state(F8, i + 1))
    latents = Generation("g", torch.randn(1, 4, 4, 4), FAMILIES["sd1"], title="x")
    save_latents(latents, root / "latents" / "l.safetensors")
    return root


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Folder -> how often it was walked."""
    counts: Counter[str] = Counter()

    def counting(folder: Path, original: Callable[[Path], Iterator[Path]] = folders._files_below) -> Iterator[Path]:
        counts[folder.name] += 1
        yield from original(folder)

    monkeypatch.setattr(folders, "_files_below", counting)
    return counts


@pytest.fixture(scope="module")
def host(models: Path, tmp_path_factory: pytest.TempPathFactory) -> StandaloneHost:
    host = StandaloneHost(Folders.of_models(models, tmp_path_factory.mktemp("data")))
    host.identify()
    host.inspect(BUILT_IN)
    return host


def once(walks: Counter[str], action: Callable[[], object]) -> set[str]:
    """The folders that an action has walked, each once."""
    walks.clear()
    action()
    assert set(walks.values()) <= {1}, walks
    return set(walks)


def build_panels(host: StandaloneHost) -> tuple[CheckupPanel, ComparisonPanel, LibraryPanel, RoundTripPanel]:
    panels = CheckupPanel(host), ComparisonPanel(host), LibraryPanel(host), RoundTripPanel(host)
    checkup, comparison, *others = panels
    for panel in (comparison, *others):
        panel.build()
    checkup.build(comparison.picked)
    return panels


def test_start(models: Path, tmp_path: Path, walks: Counter[str]) -> None:
    def start() -> None:
        host = StandaloneHost(Folders.of_models(models, tmp_path))
        with gr.Blocks(analytics_enabled=False):
            build_panels(host)

    assert {"Stable-diffusion", "VAE", "latents"} <= once(walks, start)


def test_actions(host: StandaloneHost, walks: Counter[str]) -> None:
    service = service_of(host)
    generation = host.generations.newest_first()[0].id
    names = [entry.name for entry in host.vaes()]
    assert len(names) == VAES
    actions = {
        "compare": lambda: service.comparisons.compare(generation, names),
        "identify": service.checkups.identify,
        "inspect": lambda: service.checkups.inspect([BUILT_IN, *names]),
        "scan": service.scans.scan,
        "choose": lambda: host.use_always(names[0]),
        "choose a checkpoint": lambda: host.select_checkpoint("c.safetensors"),
    }
    assert {
        what: once(walks, action) >= {"Stable-diffusion", "VAE"} for what, action in actions.items()
    } == dict.fromkeys(actions, True)


def test_refresh(host: StandaloneHost, walks: Counter[str]) -> None:
    with gr.Blocks(analytics_enabled=False):
        checkup, comparison, library, trip = build_panels(host)
    actions: dict[str, Callable[[], object]] = {
        "checkup": lambda: checkup.on_refresh(None, None, False),
        "checkup with the table": lambda: checkup.on_refresh(None, None, True),
        "comparison": lambda: comparison.on_refresh(None, [], "Automatic", BUILT_IN, None, None),
        "library": lambda: library.on_refresh("", None, None, 0),
        "round trip": lambda: trip.on_refresh([]),
    }
    for what, action in actions.items():
        assert once(walks, action) >= {"Stable-diffusion", "VAE"}, what


def test_what_only_shows_what_is_known_walks_nothing(host: StandaloneHost, walks: Counter[str]) -> None:
    def badges() -> object:
        files = host.checkpoint_files()
        return CheckpointsAnswer.of(files, host.known_verdicts(files), host.current_checkpoint())

    for show in (badges, host.vaes, host.decision, host.current_checkpoint, host.recommendation):
        assert once(walks, show) == set()  # type: ignore[arg-type]


def test_what_came_since_is_found_by_name(host: StandaloneHost, models: Path) -> None:
    new = models / "VAE" / "new.safetensors"
    assert isinstance(host.listing(), Listing)
    write(new, kl_state(F8, 99))
    try:
        assert host.file_of("new.safetensors") == new
    finally:
        new.unlink()
        host.refresh()
