"""The watch: images of broken VAEs are flagged, images that are grey on purpose are not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from tests.unit.checkup.conftest import changed, merged
from vae_lab import judge_output
from vae_lab.autoencoders import Autoencoder
from vae_lab.autoencoders.kl import KLArchitecture
from vae_lab.checkup import glance
from vae_lab.errors import FamilyMismatch
from vae_lab.latents.family import FAMILIES
from vae_lab.latents.preview import expected_image
from vae_lab.samples import load_sample_latents, load_sample_vae, sample_photos

SD1 = FAMILIES["sd1"]
Load = Callable[[str], Autoencoder]


def crops(family: str = "sd1", size: int = 12) -> Tensor:
    """The middles of the sample latents: photos, one at night, one in fog."""
    start = (64 - size) // 2
    return torch.cat(
        [z[:, :, start : start + size, start : start + size] for z in load_sample_latents(family).values()]
    )


HEALTHY_VAES = ("photo-a", "photo-b", "photo-a-smooth", "photo-a-sharp", "anime")
BROKEN = {
    "merge, 0.1": lambda: merged("photo-a", "photo-b", 0.1),
    "merge, 0.2": lambda: merged("photo-a", "photo-b", 0.2),
    "merge, 0.7": lambda: merged("photo-a", "photo-b", 0.7),
    "scaled": lambda: changed("photo-b", "decoder.conv_out.weight", lambda w: w * 0.4),
    "of another family": lambda: load_sample_vae("sdxl-c"),
    "NaN": lambda: changed("photo-a", "decoder.norm_out.weight", lambda w: w * float("nan")),
    "one tone": lambda: changed("photo-a", "decoder.conv_out.weight", torch.zeros_like),
}


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[SLOW] if name.startswith("photo-a-") else []) for name in HEALTHY_VAES],
)
def test_no_image_of_a_sound_vae_is_reported(sample_vae: Load, name: str) -> None:
    vae = sample_vae(name)
    latents = crops()
    for latent in latents.split(1):
        image = vae.decode_unclamped(latent)
        assert judge_output(latent, image, family="sd1", autoencoder=vae).findings == ()
        assert judge_output(latent, image, family=SD1).findings == ()


@pytest.mark.parametrize(
    "state",
    [
        pytest.param(state, id=name, marks=[SLOW] if name[-3:] in ("0.1", "0.7") else [])
        for name, state in BROKEN.items()
    ],
)
def test_every_image_of_a_broken_vae_is_reported(state: Callable[[], dict[str, Tensor]]) -> None:
    vae = _assembled(state())
    for latent in crops().split(1):
        verdict = judge_output(latent, vae.decode_unclamped(latent), family="sd1", autoencoder=vae)
        assert verdict.status == "broken"
        assert verdict.findings[0].remedy


def _assembled(state: dict[str, Tensor]) -> Autoencoder:
    """Also of weights that a file would be refused for."""
    architecture = KLArchitecture()
    module = architecture.build({name: tuple(value.shape) for name, value in state.items()}, "")
    module = module.to_empty(device="cpu")
    module.load_state_dict({name: value.float() for name, value in state.items()})
    return Autoencoder("x", "", architecture, module.eval(), SD1, 4)


ON_PURPOSE: dict[str, Callable[[Tensor], Tensor]] = {
    "fog": lambda p: p * 0.2 + 0.65,
    "thick fog": lambda p: p * 0.06 + 0.75,
    "night": lambda p: p**2 * 0.2,
    "black and white": lambda p: p.mean(1, keepdim=True).expand_as(p),
    "low contrast": lambda p: (p - 0.5) * 0.2 + 0.5,
    "grey": lambda p: torch.full_like(p, 0.5),
    "white": torch.ones_like,
    "black": torch.zeros_like,
    "red": lambda p: torch.tensor([0.8, 0.1, 0.1])[:, None, None].expand_as(p),
}


@pytest.mark.parametrize("name", ["photo-a", "photo-b"])
@pytest.mark.parametrize("change", ON_PURPOSE.values(), ids=ON_PURPOSE)
def test_what_is_grey_on_purpose_is_not_reported(
    sample_vae: Load, name: str, change: Callable[[Tensor], Tensor]
) -> None:
    vae = sample_vae(name)
    photo = Image.open(sample_photos()["cat"]).convert("RGB").resize((128, 128), Image.Resampling.LANCZOS)
    image = torch.tensor(list(photo.getdata())).reshape(1, 128, 128, 3).permute(0, 3, 1, 2) / 255.0
    latent = vae.encode(change(image))
    decoded = vae.decode_unclamped(latent)
    assert judge_output(latent, decoded, family="sd1", autoencoder=vae).findings == ()
    assert judge_output(latent, decoded, family="sd1").findings == ()


def test_a_sound_vae_is_not_blamed_but_a_spoilt_image_is_reported(sample_vae: Load) -> None:
    """Such as one that another extension decoded in tiles, or in too low precision."""
    vae = sample_vae("photo-a")
    latent = crops()[:1]
    spoilt = vae.decode(latent) * 0.3 + 0.35
    verdict = judge_output(latent, spoilt, family="sd1", autoencoder=vae)
    assert [finding.code for finding in verdict.findings] == ["grey"]
    assert "than this VAE decodes" in verdict.findings[0].text


def test_without_the_vae_only_what_is_beyond_doubt_is_reported() -> None:
    latent = crops()[:1]
    expected = F.interpolate(expected_image(latent, SD1), scale_factor=8)
    assert judge_output(latent, expected, family="sd1").status == "healthy"
    assert judge_output(latent, expected * 0.7 + 0.15, family="sd1").status == "healthy"
    assert judge_output(latent, expected * 0.3 + 0.35, family="sd1").status == "broken"
    assert judge_output(latent, torch.full_like(expected, 0.5), family="sd1").findings[0].code == "flat"
    assert judge_output(latent, torch.zeros_like(expected), family="sd1").findings[0].code == "black"
    one_nan = expected.clone()
    one_nan[0, 1, 5, 7] = float("nan")
    assert judge_output(latent, one_nan, family="sd1").findings[0].code == "nan"


@pytest.mark.parametrize("scale", [1, 2])
def test_previews_are_not_blamed_on_the_vae(scale: int) -> None:
    latent = crops()[:1]
    preview = torch.full((1, 3, 24 * scale, 24 * scale), 0.5)
    assert judge_output(latent, preview, family="sd1").findings == ()


def test_families_without_an_estimate_still_tell_nan() -> None:
    latents = torch.randn(1, 16, 8, 8)
    image = torch.rand(1, 3, 64, 64)
    assert judge_output(latents, image, family="sd3").findings == ()
    assert judge_output(latents, image * float("nan"), family="flux").findings[0].code == "nan"


def test_wrong_sizes_and_families_are_refused() -> None:
    with pytest.raises(FamilyMismatch, match="4 channels, these have 16"):
        judge_output(torch.zeros(1, 16, 8, 8), torch.zeros(1, 3, 64, 64), family="sd1")
    with pytest.raises(FamilyMismatch, match="not decoded from latents"):
        judge_output(torch.zeros(1, 4, 8, 8), torch.zeros(1, 3, 64, 72), family="sd1")


def test_a_batch_is_judged_image_by_image() -> None:
    latents = crops()[:2]
    good = F.interpolate(expected_image(latents, SD1), scale_factor=8)
    mixed = torch.cat([good[:1], good[1:] * 0.2 + 0.4])
    seen = glance(latents, mixed, SD1)
    assert [one.beyond_doubt for one in seen] == [False, True]
    assert judge_output(latents, mixed, family="sd1").status == "broken"
