"""Verdicts on files: every kind of VAE and of bad file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.unit.checkup.conftest import changed, merged, overflowing
from tests.unit.makers import (
    CONTAINERS,
    F2,
    F8,
    SD1_TEXT,
    SDXL_TEXT,
    UNET,
    diffusers_names,
    kl_module,
    kl_state,
    prefixed,
    taesd_state,
    write,
)
from vae_lab import inspect_file
from vae_lab.autoencoders.kl import KLConfig
from vae_lab.checkup import DECODED, ROUND_TRIP, TITLES, Verdict
from vae_lab.identity import KnownCheckpoint, sketch_of_state
from vae_lab.latents.chart import chart_image
from vae_lab.library import FileRecord
from vae_lab.library import inspect as inspect_module
from vae_lab.samples import GREY_SHARE, load_sample_vae

State = dict[str, Tensor]
OUT = "decoder.conv_out.weight"
SLOW = pytest.mark.slow


def checkpoint(vae: State, text: State = SD1_TEXT) -> State:
    return UNET | text | prefixed("first_stage_model.", vae)


HEALTHY = ("photo-a", "photo-b", "photo-a-smooth", "photo-a-sharp", "anime", "sdxl-c")


# The samples are fp16, so in fp32 they have the same values. In bf16 they do not, which three that differ show.
PRECISIONS = [(name, "float32") for name in HEALTHY] + [(name, "float16") for name in HEALTHY]
PRECISIONS += [("sdxl-c", "bfloat16"), *(pytest.param(name, "bfloat16", marks=SLOW) for name in ("photo-b", "anime"))]


@pytest.mark.parametrize(("name", "dtype"), PRECISIONS)
def test_good_vaes_are_healthy_in_every_precision(tmp_path: Path, name: str, dtype: str) -> None:
    state = {key: value.to(getattr(torch, dtype)) for key, value in load_sample_vae(name).items()}
    report = inspect_file(write(tmp_path / "v.safetensors", state))
    assert report.verdict.status == "healthy"
    assert report.family_id == ("sdxl" if name == "sdxl-c" else "sd1")


@pytest.mark.parametrize("pair", [pytest.param(("photo-a-smooth", "photo-a-sharp"), marks=SLOW), ("photo-a", "anime")])
def test_merges_of_relatives_are_healthy_and_reported_as_merges(tmp_path: Path, pair: tuple[str, str]) -> None:
    relatives = {name: sketch_of_state(load_sample_vae(name)) for name in HEALTHY[:5]}
    report = inspect_file(write(tmp_path / "v.safetensors", merged(*pair, 0.4)), relatives=relatives)
    assert report.verdict.status == "healthy"
    codes = [finding.code for finding in report.verdict.findings]
    assert codes[0] == "merged"
    assert set(codes) <= {"merged", "pale"}  # photo-a-smooth is a little paler
    assert {parent.name for parent in report.merge.parents} == set(pair)
    assert "which merge well" in report.verdict.findings[0].text


def test_parents_do_not_change_the_status(tmp_path: Path) -> None:
    """Whatever lies next to a file: what it decodes stays the same."""
    path = write(tmp_path / "v.safetensors", merged("photo-b", "photo-a", 0.005))
    assert inspect_file(path).verdict.status == "healthy"
    relatives = {name: sketch_of_state(load_sample_vae(name)) for name in HEALTHY[:5]}
    verdict = inspect_file(path, relatives=relatives).verdict
    assert (verdict.status, verdict.findings[0].code) == ("healthy", "merged")
    assert "no fault was found" in verdict.findings[0].text


BROKEN: dict[str, tuple[Callable[[], State], str]] = {
    "grey merge": (lambda: merged("photo-a", "photo-b", GREY_SHARE), "grey"),
    "merge in a checkpoint": (lambda: checkpoint(merged("photo-a", "photo-b", 0.3)), "grey"),
    "only the decoder merged": (lambda: merged("photo-a", "photo-b", 0.3, "decoder."), "grey"),
    "slight merge, by its encoder": (lambda: merged("photo-a", "photo-b", 0.01), "encoder-broken"),
    "only the encoder merged": (lambda: merged("photo-a", "photo-b", 0.5, "encoder."), "encoder-broken"),
    "scaled down": (lambda: changed("photo-b", OUT, lambda w: w * 0.4), "grey"),
    "scaled up": (lambda: changed("photo-b", OUT, lambda w: w * 3), "colour-cast"),
    "one tone": (lambda: changed("photo-a", OUT, torch.zeros_like), "flat"),
    "black": (lambda: changed("photo-a", "decoder.conv_out.bias", lambda b: b - 50), "black"),
    "all zero": (lambda: {name: torch.zeros_like(value) for name, value in load_sample_vae("photo-a").items()}, "flat"),
}


QUICK = ("grey merge", "slight merge, by its encoder", "scaled up", "black", "all zero")  # one of each finding


@pytest.mark.parametrize(
    ("state", "code"),
    [pytest.param(*broken, id=name, marks=[] if name in QUICK else [SLOW]) for name, broken in BROKEN.items()],
)
def test_broken_vaes_are_broken(tmp_path: Path, state: Callable[[], State], code: str) -> None:
    verdict = inspect_file(write(tmp_path / "v.safetensors", state())).verdict
    assert verdict.status == "broken"
    assert verdict.has(code), [finding.code for finding in verdict.findings]
    worst = next(finding for finding in verdict.findings if finding.code == code)
    assert worst.evidence, "a number for every judgement"
    assert worst.remedy, "and what to do"


def test_a_decoder_that_lost_its_colour_is_broken(tmp_path: Path) -> None:
    """Contrast is complete; only the chroma is missing."""
    state = {name: value.float() for name, value in load_sample_vae("photo-b").items()}
    for name in ("decoder.conv_out.weight", "decoder.conv_out.bias"):
        mean = state[name].mean(dim=0, keepdim=True)
        state[name] = mean + (state[name] - mean) * 0.3
    verdict = inspect_file(write(tmp_path / "v.safetensors", state)).verdict
    assert (verdict.status, verdict.findings[0].code) == ("broken", "grey")


@pytest.mark.parametrize(
    ("vae", "text", "name"),
    [("sdxl-c", SD1_TEXT, "SDXL"), ("photo-a", SDXL_TEXT, "SD1")],
    ids=["sdxl in sd1", "sd1 in sdxl"],
)
def test_vae_of_another_family_in_a_checkpoint(tmp_path: Path, vae: str, text: State, name: str) -> None:
    report = inspect_file(write(tmp_path / "c.safetensors", checkpoint(load_sample_vae(vae), text)))
    assert [finding.code for finding in report.verdict.findings] == ["wrong-family"]
    assert report.verdict.status == "broken"
    assert f"is for {name}" in report.verdict.findings[0].text
    assert report.model_family.id != report.family_id


def test_vae_that_only_understands_itself(tmp_path: Path) -> None:
    """Latents rotated within encoder and decoder: consistent, but of no known latent space."""
    state = {name: value.float() for name, value in load_sample_vae("photo-a").items()}
    order = [2, 3, 0, 1]
    for name in ("quant_conv.weight", "quant_conv.bias"):
        mean, rest = state[name][:4], state[name][4:]
        state[name] = torch.cat([-mean[order], rest])
    state["post_quant_conv.weight"] = -state["post_quant_conv.weight"][:, order]
    record = inspect_file(write(tmp_path / "v.safetensors", state))
    assert (record.status, record.verdict.findings[0].code) == ("not-checked", "other-latents")
    assert "is intact, but was not made for" in record.verdict.findings[0].text
    assert not record.can_replace


@pytest.mark.parametrize(
    ("name", "scale", "shift"),
    [
        ("sdxl-c", (1.6,) * 4, (0.0,) * 4),
        pytest.param("sdxl-c", (1.2, 0.7, 1.5, 0.9), (1.0, -2.0, 0.5, 0.0), marks=SLOW),
        pytest.param("photo-a", (0.5,) * 4, (1.0,) * 4, marks=SLOW),
    ],
)
def test_another_latent_scale_is_not_damage(
    tmp_path: Path, name: str, scale: tuple[float, ...], shift: tuple[float, ...]
) -> None:
    """As fine-tunes for rescaled or shifted latents have it: encoder and decoder agree with each other."""
    state = {key: value.float() for key, value in load_sample_vae(name).items()}
    factor, offset = torch.tensor(scale).view(4, 1, 1, 1), torch.tensor(shift)
    state["quant_conv.weight"][:4] *= factor
    state["quant_conv.bias"][:4] = state["quant_conv.bias"][:4] * factor.flatten() + offset
    state["post_quant_conv.weight"] /= factor.view(1, 4, 1, 1)
    state["post_quant_conv.bias"] -= state["post_quant_conv.weight"][..., 0, 0] @ offset
    record = inspect_file(write(tmp_path / "v.safetensors", state))
    assert record.status == "healthy"
    assert record.family_id == ("sdxl" if name == "sdxl-c" else "sd1")
    assert not record.can_replace
    (finding,) = (finding for finding in record.verdict.findings if finding.code == "other-latents")
    assert "another latent scale" in finding.text


@pytest.mark.parametrize("naming", ["ldm", "diffusers", "checkpoint"])
def test_a_decoder_alone_is_judged(tmp_path: Path, naming: str) -> None:
    state = {n: t for n, t in load_sample_vae("photo-a").items() if n.startswith(("decoder.", "post_quant"))}
    if naming == "diffusers":
        state = diffusers_names(state, 4)
    if naming == "checkpoint":
        state = checkpoint(state)
    record = inspect_file(write(tmp_path / "v.safetensors", state))
    assert record.status == ("suspect" if naming == "checkpoint" else "healthy")
    assert any(f.code == "half" and f.text.startswith("Decoder only") for f in record.verdict.findings)
    assert (record.family_id, record.can_replace) == ("sd1", False)
    assert {evidence.name.partition(":")[0] for evidence in record.measured if ":" in evidence.name} == {"decoder only"}


def test_a_broken_decoder_alone_is_broken(tmp_path: Path) -> None:
    state = {n: t for n, t in merged("photo-a", "photo-b", 0.5).items() if n.startswith(("decoder.", "post_quant"))}
    assert inspect_file(write(tmp_path / "v.safetensors", state)).status == "broken"


def test_an_encoder_alone_is_not_judged(tmp_path: Path) -> None:
    state = {n: t for n, t in load_sample_vae("photo-a").items() if n.startswith(("encoder.", "quant"))}
    record = inspect_file(write(tmp_path / "v.safetensors", state))
    assert (record.status, record.family_id) == ("not-checked", "sd1")
    assert any(f.code == "half" and f.text.startswith("Encoder only") for f in record.verdict.findings)


def test_nan_in_the_encoder_leaves_the_decoder(tmp_path: Path) -> None:
    state = changed("photo-a", "encoder.conv_in.weight", lambda w: w.index_fill(0, torch.tensor(0), float("nan")))
    record = inspect_file(write(tmp_path / "v.safetensors", state))
    assert record.status == "broken"
    (finding,) = record.verdict.faults
    assert finding.code == "nan"
    assert "img2img, inpainting and hires fix, which come out black, but not plain txt2img" in finding.text
    assert any(evidence.name == "decoder only: white" for evidence in record.measured)


def test_nan_in_the_weights(tmp_path: Path) -> None:
    state = changed("photo-a", OUT, lambda w: w.index_fill(0, torch.tensor(0), float("nan")))
    report = inspect_file(write(tmp_path / "v.safetensors", state))
    assert (report.verdict.status, report.verdict.findings[0].code) == ("broken", "nan")
    assert OUT in report.verdict.findings[0].text


def test_overflow_in_half_precision_is_information(tmp_path: Path) -> None:
    """Activations beyond fp16 that a norm cancels: perfect in fp32."""
    report = inspect_file(write(tmp_path / "v.safetensors", overflowing()))
    assert report.verdict.status == "healthy"
    (finding,) = report.verdict.findings
    assert (finding.code, finding.severity) == ("fp16-overflow", "information")
    assert finding.evidence[0].value > 65504


def test_checkpoint_without_a_vae(tmp_path: Path) -> None:
    report = inspect_file(write(tmp_path / "c.safetensors", UNET | SDXL_TEXT))
    assert (report.verdict.status, report.verdict.findings[0].code, report.kind) == ("missing", "missing", "checkpoint")
    assert report.model_family.id == "sdxl", "so that a VAE can be recommended"


def test_incomplete_and_misshapen(tmp_path: Path) -> None:
    state = kl_state(F8)
    del state["decoder.mid.block_1.conv1.weight"]
    assert inspect_file(write(tmp_path / "m.safetensors", state)).verdict.findings[0].code == "missing-keys"
    state = kl_state(F8) | {"decoder.mid.block_1.conv1.weight": torch.zeros(32, 31, 3, 3)}
    verdict = inspect_file(write(tmp_path / "s.safetensors", state)).verdict
    assert (verdict.status, verdict.findings[0].code) == ("broken", "bad-shape")


@pytest.mark.parametrize(
    "content", [b"", b"hello there, not weights", b"\x80\x02cos\nsystem\nq\x00X\x02\x00\x00\x00id\x85R."]
)
def test_what_cannot_be_read_is_a_finding(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(content)
    report = inspect_file(path)
    assert (report.verdict.status, report.verdict.findings[0].code) == ("unreadable", "unreadable")
    assert "\n" not in report.problem


def test_a_readable_file_that_is_no_vae_is_not_called_damaged(tmp_path: Path) -> None:
    lora = {"lora_unet_down_blocks_0.lora_up.weight": torch.zeros(320, 4), "lora_te_text_model.alpha": torch.ones(())}
    write(tmp_path / "style.safetensors", lora)
    verdict = inspect_file(tmp_path / "style.safetensors").verdict
    assert (verdict.status, verdict.findings[0].code) == ("no-vae", "other-model")
    assert verdict.findings[0].text == "No VAE in it: it is a LoRA."
    assert "models/Lora" in verdict.findings[0].remedy
    verdict = inspect_file(write(tmp_path / "unknown.safetensors", {"a.b": torch.zeros(4)})).verdict
    assert (verdict.status, verdict.findings[0].code) == ("no-vae", "not-a-vae")
    verdict = inspect_file(write(tmp_path / "empty.safetensors", {})).verdict
    assert (verdict.status, verdict.findings[0].code) == ("unreadable", "unreadable")


def test_folder_and_missing_file(tmp_path: Path) -> None:
    assert inspect_file(tmp_path).verdict.status == "unreadable"
    assert inspect_file(tmp_path / "gone.pt").verdict.status == "unreadable"


@pytest.mark.parametrize("container", CONTAINERS)
def test_the_same_whatever_the_container(tmp_path: Path, container: str, monkeypatch: pytest.MonkeyPatch) -> None:
    report = inspect_file(CONTAINERS[container](tmp_path / "v", load_sample_vae("photo-a")))
    assert report.fingerprint == inspect_file(write(tmp_path / "o.safetensors", load_sample_vae("photo-a"))).fingerprint
    assert report.verdict.status == "healthy"


def test_taesd_halves(tmp_path: Path) -> None:
    """Random ones, so their health is irrelevant; they must be inspected without an error."""
    for half in ("encoder", "decoder"):
        state = taesd_state(encoder=half == "encoder", decoder=half == "decoder")
        report = inspect_file(write(tmp_path / f"{half}.safetensors", state))
        assert report.architecture == "TAESD"
        assert set(report.checkup.charts) <= {DECODED, ROUND_TRIP}


def test_vaes_that_cannot_take_the_chart_have_no_verdict_on_it(tmp_path: Path) -> None:
    """Of 2 image pixels to a latent pixel: no published family is like that, and the chart is made for 8."""
    report = inspect_file(write(tmp_path / "v.safetensors", kl_state(F2)))
    assert (report.status, report.checkup.measured, report.family_id) == ("not-checked", (), "")
    assert "AutoencoderKL with 4 latent channels and 2 image pixels per latent pixel" in report.verdict.findings[0].text
    assert len(report.fingerprint) == 64


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (KLConfig((32,) * 4, 1, latent_channels=32, z_channels=32), "Flux.2"),
        (KLConfig((32,) * 3, 1), "x4 upscaler"),
    ],
)
def test_what_the_chart_cannot_judge_is_never_healthy(tmp_path: Path, config: KLConfig, kind: str) -> None:
    state = kl_state(config)
    record = inspect_file(write(tmp_path / "v.safetensors", state))
    assert record.status == "not-checked"
    assert kind in record.verdict.findings[0].text
    built_in = inspect_file(write(tmp_path / "model.safetensors", checkpoint(state)))
    assert (built_in.status, built_in.family_id) == ("not-checked", "")
    empty = inspect_file(write(tmp_path / "zero.safetensors", {n: torch.zeros_like(t) for n, t in state.items()}))
    assert (empty.status, empty.verdict.findings[0].code) == ("broken", "all-zero")


def test_without_the_probe_nothing_is_decoded(tmp_path: Path) -> None:
    path = write(tmp_path / "v.safetensors", merged("photo-a", "photo-b", 0.5))
    report = inspect_file(path, probe=False)
    assert report.checkup is None
    assert report.status == "unchecked"
    assert len(report.fingerprint) == 64


def test_checkups_are_remembered_by_weights_not_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory: dict[str, object] = {}

    class Memory:
        get = staticmethod(memory.get)
        put = staticmethod(memory.__setitem__)

    state = load_sample_vae("photo-a")
    first = inspect_file(write(tmp_path / "one.safetensors", state), memory=Memory())
    monkeypatch.setattr(inspect_module, "check_weights", lambda *_: pytest.fail("the chart was decoded again"))
    renamed = {name: value.float() for name, value in state.items()}
    second = inspect_file(CONTAINERS["legacy"](tmp_path / "two.ckpt", renamed), memory=Memory())
    assert second.checkup == first.checkup


def test_reading_only_costs_the_vaes_bytes(tmp_path: Path) -> None:
    state = checkpoint(load_sample_vae("photo-a")) | {"model.diffusion_model.big": torch.zeros(20_000_000)}
    path = write(tmp_path / "c.safetensors", state)
    report = inspect_file(path)
    assert report.bytes_read < 10_000_000 < path.stat().st_size


def test_json_is_what_the_interface_promises(tmp_path: Path) -> None:
    grey = {name: value.half().float() for name, value in merged("photo-a", "photo-b", GREY_SHARE).items()}
    path = write(tmp_path / "c.safetensors", checkpoint(grey))  # the sample's values, which are checked once
    relatives = {name: sketch_of_state(load_sample_vae(name)) for name in ("photo-a", "photo-b")}
    row = json.loads(json.dumps(inspect_file(path, relatives=relatives).to_json()))
    assert (row["path"], row["kind"], row["layout"]) == (str(path), "checkpoint", "ldm (first_stage_model.)")
    assert (row["family"], row["dtype"], len(row["fingerprint"])) == ("sd1", "fp32", 64)
    assert row["verdict"]["status"] == "broken"
    for finding in row["verdict"]["findings"]:
        assert {"code", "severity", "evidence", "remedy"} <= finding.keys()
        assert finding["code"] in TITLES
    assert [parent["name"] for parent in row["merge"]["parents"]] == ["photo-a", "photo-b"]
    assert row["merge"]["parents"][1]["weight"] == pytest.approx(0.2, abs=0.002)
    assert row["merge"]["direction"] == "certain"
    assert row["identity"] is None
    assert row["bytes_read"] > 1_000_000
    assert row["seconds"] > 0
    assert Verdict.from_json(row["verdict"]).status == "broken"


def test_published_facts_are_named_with_their_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "c.safetensors", checkpoint(load_sample_vae("photo-a")))

    def published(built_in_vae: str, grade: str) -> FileRecord:
        monkeypatch.setattr(inspect_module, "known_file", lambda _: KnownCheckpoint("X.ckpt", grade, built_in_vae))
        return inspect_file(path)

    assert published("broken (grey)", "A").verdict.status == "broken"
    assert "two independent sources" in published("broken (grey)", "A").verdict.findings[0].text
    assert published("reported grey", "B").verdict.status == "suspect"
    assert published("good (0.9)", "A").verdict.status == "healthy"


def test_healthy_ones_have_measurements_too(tmp_path: Path) -> None:
    checkup = inspect_file(write(tmp_path / "v.safetensors", load_sample_vae("photo-b"))).checkup
    named = {evidence.name: evidence.value for evidence in checkup.measured}
    assert named["decoder only: white"] == pytest.approx(100, abs=3)
    assert named["encoder and decoder: black"] == pytest.approx(0, abs=4)
    assert checkup.charts[DECODED].startswith(b"\x89PNG")


def in_space_of(scale: float, shift: float) -> State:
    """A small VAE with 16 channels whose latents of the chart have this scale and shift."""
    config = KLConfig((32,) * 4, 1, latent_channels=16, z_channels=16, use_quant_conv=False)
    state, module = kl_state(config), kl_module(config).eval()
    with torch.no_grad():
        latents = module.encode(chart_image() * 2 - 1)
    factor = 1 / scale / latents.std()
    state["encoder.conv_out.weight"][:16] *= factor
    state["encoder.conv_out.bias"][:16] = state["encoder.conv_out.bias"][:16] * factor + shift - latents.mean() * factor
    return state


@pytest.mark.parametrize(
    ("scale", "shift", "family"),
    [
        (0.3611, 0.1159, "flux"),
        (1.5305, 0.0609, "sd3"),
        (0.6, 0.1, ""),
        pytest.param(0.9, 0.0, "", marks=SLOW),
        pytest.param(0.3611, 3.0, "", marks=SLOW),
        (6.0, 0.0, ""),
    ],
)
def test_16_channels_alone_make_no_family(tmp_path: Path, scale: float, shift: float, family: str) -> None:
    record = inspect_file(write(tmp_path / "v.safetensors", in_space_of(scale, shift)))
    assert record.family_id == family
    assert record.verdict.has("family-uncertain") == (family == "")
    assert any(evidence.name == "encoder and decoder: white" for evidence in record.measured)
