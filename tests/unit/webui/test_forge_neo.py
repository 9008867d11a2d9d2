"""Where Forge Neo has what Forge has elsewhere; found by looking."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.webui.double import Double, MakeDouble, Part, load, vae
from vae_lab.latents.family import FAMILIES

MISSING = ("sd_hijack", "shared.cmd_opts.vae_dir", "shared.cmd_opts.ckpt_dir", "shared.cmd_opts.ckpt")
# Version 2.26 lacks these as well.
MISSING_IN_226 = ("sd_models.check_fp8", "shared.opts.sd_vae_overrides_per_model_preferences")


@pytest.fixture
def neo(make: MakeDouble, monkeypatch: pytest.MonkeyPatch) -> Double:
    double = make("forge", dict.fromkeys((*MISSING, *MISSING_IN_226), "missing"))
    monkeypatch.delattr(vae(), "scaling_factor")
    monkeypatch.setattr(
        vae(), "latent_format", SimpleNamespace(scale_factor=FAMILIES["sd1"].scaling_factor), raising=False
    )
    return double


def host_of(double: Double) -> Any:
    (tab,) = double.start(load)
    assert tab[0].not_found is None
    return tab[0]


def test_the_scale_of_latents_is_on_the_latent_format(neo: Double) -> None:
    host = host_of(neo)
    _, p = neo.generate("first.safetensors")
    assert p.extra_generation_params["VAE Lab override"] == "first.safetensors"
    assert p.comments == []
    assert [generation.family.id for generation in host.generations.newest_first()] == ["sd1"]


def test_a_model_without_a_known_scale_has_no_family(neo: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing is overridden, and the image is the host's own."""
    monkeypatch.delattr(vae(), "latent_format")
    host = host_of(neo)
    _, p = neo.generate("first.safetensors")
    assert "VAE Lab override" not in p.extra_generation_params
    assert "family unknown to VAE Lab" in p.comments[0]
    assert host.generations.newest_first() == []


def test_tiling_is_switched_as_the_host_does(neo: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    switched: list[bool] = []
    utils = Part("modules_forge.utils")
    utils.apply_circular_forge = lambda model, tiling: switched.append(tiling)
    monkeypatch.setitem(sys.modules, "modules_forge", Part("modules_forge"))
    monkeypatch.setitem(sys.modules, "modules_forge.utils", utils)
    host = host_of(neo)
    neo.generate()
    host.compare(host.generations.newest_first()[0].id, [])
    assert switched == [False]


def test_a_vae_of_override_settings_is_the_hosts_own_choice(neo: Double, models: Path) -> None:
    """The host loads it in place, for one generation, and lists it in ``processing``."""
    host = host_of(neo)
    assert host.host_decision().vae == "Built-in"
    neo.part("processing")._overridden_modules = [str(models / "models" / "VAE" / "first.safetensors")]
    assert host.host_decision().vae == "first.safetensors"


@pytest.mark.parametrize(
    ("flag", "named"), [("fp32_vae", "--bf16-vae or --fp32-vae"), ("vae_in_fp32", "--vae-in-bf16 or --vae-in-fp32")]
)
def test_the_flag_for_precision_is_the_hosts(
    neo: Double, flag: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = Part("backend.args")
    arguments.args = SimpleNamespace(**{flag: False})
    monkeypatch.setitem(sys.modules, "backend", Part("backend"))
    monkeypatch.setitem(sys.modules, "backend.args", arguments)
    assert host_of(neo).vae_precision_flag == named
