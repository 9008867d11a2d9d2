"""Grey merges repaired with the statistics of their parents."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.unit.makers import F8, UNET, kl_module, prefixed, taesd_state, write
from vae_lab import inspect_file
from vae_lab.autoencoders import Autoencoder
from vae_lab.autoencoders.kl import AutoencoderKL, KLArchitecture
from vae_lab.cli import main
from vae_lab.errors import FamilyMismatch
from vae_lab.latents.chart import chart_image
from vae_lab.latents.family import FAMILIES
from vae_lab.repair.heal import PhotoTest, Reference, heal, reference, refit_last_layers
from vae_lab.samples import SampleSet, load_sample_vae


def small(seed: int) -> Autoencoder:
    return Autoencoder(f"vae {seed}", "", KLArchitecture(), kl_module(F8, seed), FAMILIES["sd1"], 4)


def average(one: Autoencoder, other: Autoencoder, share: float) -> Autoencoder:
    module = deepcopy(one.module)
    states = one.module.state_dict(), other.module.state_dict()
    module.load_state_dict({name: torch.lerp(states[0][name], states[1][name], share) for name in states[0]})
    return replace(one, module=module)


@pytest.fixture(scope="module")
def pair() -> tuple[Autoencoder, Autoencoder]:
    return small(1), small(2)


@pytest.fixture(scope="module")
def references(pair: tuple[Autoencoder, Autoencoder]) -> tuple[Reference, Reference]:
    return reference(pair[0]), reference(pair[1])


def test_every_layer_gets_the_statistics_of_the_parents(
    pair: tuple[Autoencoder, Autoencoder], references: tuple[Reference, Reference]
) -> None:
    merged = average(*pair, 0.25)
    names = list(merged.module.state_dict())
    heal(merged, [(references[0], 0.75), (references[1], 0.25)], refit=False)
    assert list(merged.module.state_dict()) == names
    found = reference(merged).statistics
    assert len(found) > 50
    for name, (mean, deviation) in found.items():
        a, b = (one.statistics[name] for one in references)
        scale = float(deviation.max()) + 1e-3
        assert torch.allclose(mean, 0.75 * a[0] + 0.25 * b[0], atol=0.02 * scale), name
        assert torch.allclose(deviation, 0.75 * a[1] + 0.25 * b[1], atol=0.02 * scale), name


def test_the_last_layers_come_nearer_to_the_parent(
    pair: tuple[Autoencoder, Autoencoder], references: tuple[Reference, Reference]
) -> None:
    merged = average(*pair, 0.25)
    module, image = merged.module, chart_image()[..., :64, :64]
    assert isinstance(module, AutoencoderKL)
    spread = module.moments(image)[1]
    before = reference(merged)
    refit_last_layers(merged, references[0])
    after = reference(merged)
    for way in ("decoded", "encoded"):
        old, new = ((getattr(one, way) - getattr(references[0], way)).square().mean() for one in (before, after))
        assert new < 0.9 * old, way
    assert torch.allclose(module.moments(image)[1], spread, atol=1e-4), "how latents are spread stays"
    assert torch.equal(module.state_dict()["quant_conv.weight"][:, :, 0, 0], torch.eye(8))


def test_without_an_encoder(pair: tuple[Autoencoder, Autoencoder]) -> None:
    merged = average(*pair, 0.25)
    assert isinstance(merged.module, AutoencoderKL)
    merged.module.encoder = None
    found = reference(merged)
    assert found.encoded is None
    heal(merged, [(found, 1.0)])
    assert all(value.isfinite().all() for value in merged.module.state_dict().values())


@pytest.mark.parametrize("family", [None, "flux"])
def test_only_families_with_reference_latents(pair: tuple[Autoencoder, Autoencoder], family: str | None) -> None:
    with pytest.raises(FamilyMismatch, match="only VAEs for SD1 and SDXL"):
        reference(pair[0].with_family(family))


def test_passes_if_less_is_wrong_than_in_the_parent() -> None:
    assert PhotoTest(26.0, 23.0, 25.0, 22.0).passed
    assert PhotoTest(26.0, 23.0, None, None).passed
    assert not PhotoTest(26.0, 23.0, 21.0, 22.0).passed
    assert not PhotoTest(22.0, 23.0, 25.0, 22.0).passed
    assert not PhotoTest(float("nan"), 23.0, 25.0, 22.0).passed


# --- the command ------------------------------------------------------------------------------------------------------


def run(*arguments: object) -> int:
    return main(["heal", *map(str, arguments)])


def test_a_healthy_vae_stays_as_it_is(
    sample_set: SampleSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(sample_set.healthy, "-o", tmp_path / "new.safetensors") == 0
    assert "healthy.safetensors is healthy: there is nothing to repair" in capsys.readouterr().out
    assert not (tmp_path / "new.safetensors").exists()


def test_the_parents_must_be_there(sample_set: SampleSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By default in the folder of the file, where one of the two is missing."""
    assert run(sample_set.grey_merge, "-o", tmp_path / "new.safetensors") == 2
    assert run(sample_set.grey_merge, "--parents", sample_set.anime, "-o", tmp_path / "new.safetensors") == 2
    errors = capsys.readouterr().err
    assert run(sample_set.grey_merge, "--parents", tmp_path / "gone", "-o", tmp_path / "new.safetensors") == 2
    assert "gone does not exist" in capsys.readouterr().err
    assert errors.count("it is no merge of the 1 VAEs that were compared. Name its parents") == 2
    assert not (tmp_path / "new.safetensors").exists()


@pytest.mark.parametrize("kind", ["taken", "no VAE"])
def test_what_cannot_be_used(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new.safetensors"
    file = write(tmp_path / "model.safetensors", UNET | ({} if kind == "no VAE" else prefixed("vae.", taesd_state())))
    if kind == "taken":
        out.write_bytes(b"mine")
    assert run(file, "-o", out) == 2
    assert {"taken": "already exists", "no VAE": "VAE"}[kind] in capsys.readouterr().err
    assert not out.exists() or out.read_bytes() == b"mine"


@pytest.mark.slow  # real weights: three checkups, and two VAEs on the chart and on five photos
@pytest.mark.parametrize("share", [0.1, 0.3])
def test_written_only_if_it_is_healthy_on_photos_too(
    share: float, sample_set: SampleSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With 30 % of an unrelated VAE, the chart to which it was fitted looks right, and photos do not."""
    states = load_sample_vae("photo-a"), load_sample_vae("photo-b")
    merged = {name: torch.lerp(a.float(), states[1][name].float(), share).half() for name, a in states[0].items()}
    file, out = write(tmp_path / "merge.safetensors", merged), tmp_path / "new.safetensors"
    code = run(file, "--parents", sample_set.folder / "VAE", sample_set.healthy, "-o", out)
    text = capsys.readouterr().out
    assert "verdict: broken -> healthy" in text
    if share == 0.1:
        assert code == 0
        assert inspect_file(out).verdict.status == "healthy"
        assert {name: (value.dtype, value.shape) for name, value in load_file(out).items()} == {
            name: (value.dtype, value.shape) for name, value in merged.items()
        }
        assert "This is an experiment" in text
    else:
        assert code == 1
        assert not out.exists()
        assert "failed" in text
        assert "nothing was written" in text
