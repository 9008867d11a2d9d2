"""Published facts by hash: only certain ones, and never by a short hash only."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from vae_lab.autoencoders.kl import AutoencoderKL, KLConfig
from vae_lab.errors import Cancelled, UnreadableFile
from vae_lab.identity import (
    KnownCheckpoint,
    KnownVae,
    catalogue,
    file_sha256,
    hinted_vae,
    known_checkpoint,
    known_file,
    known_vae,
    legacy_hash,
    style_of_checkpoint,
    suits,
    weight_scalar,
)
from vae_lab.latents.family import FAMILIES
from vae_lab.samples import load_sample_vae

MSE = "735e4c3a447a3255760d7f86845f09f937809baa529c17370d83e4c3758f3c75"
NAI = "f921fb3f29891d2a77a6571e56b8b5052420d2884129517a333c60b1b4816cdf"
ANYTHING = "8712e20a5d65b6acaa743e8a74961eadfdf846a2c9a32160d80a80cba13ad475"
BY_PREFIX = "67a115286b56c086" + "0" * 48

FACTS = json.loads(catalogue._FACTS.read_text(encoding="utf-8"))


@pytest.fixture
def facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts other facts in place of the published ones."""

    def put(vaes: list[dict[str, object]] = [], checkpoints: list[dict[str, object]] = []) -> None:  # noqa: B006
        path = tmp_path / "facts.json"
        path.write_text(json.dumps({"vae_files": vaes, "checkpoint_files": checkpoints}), encoding="utf-8")
        monkeypatch.setattr(catalogue, "_FACTS", path)
        catalogue._entries.cache_clear()
        catalogue._vaes.cache_clear()

    yield put
    monkeypatch.undo()
    catalogue._entries.cache_clear()
    catalogue._vaes.cache_clear()


def vae_facts(**changes: object) -> dict[str, object]:
    return {"name": "known", "family": "sd1", "grade": "A", "sha256": "0" * 64} | changes


def test_a_known_vae() -> None:
    assert known_vae(MSE) == KnownVae("vae-ft-mse-840000-ema-pruned", (), "sd1", "A")
    nai = known_vae(NAI.upper())
    assert nai is not None
    assert "orangemix.vae.pt" in nai.aliases
    assert nai.note.startswith("about 784 MiB")


@pytest.mark.parametrize("entry", FACTS["vae_files"], ids=lambda entry: entry["name"])
def test_every_vae_is_found_and_of_a_known_family(entry: dict[str, str]) -> None:
    known = known_vae(entry["sha256"])
    assert known is not None
    assert known.name == entry["name"]
    assert known.family in FAMILIES
    assert len(entry["sha256"]) == 64


@pytest.mark.parametrize("entry", FACTS["checkpoint_files"], ids=lambda entry: entry["name"])
def test_every_checkpoint_is_found(entry: dict[str, str]) -> None:
    sha256 = entry.get("sha256") or entry["autov2_prefix"].ljust(64, "0")
    known = known_checkpoint(sha256, entry.get("legacy"))
    assert known == KnownCheckpoint(entry["name"], entry["grade"], entry["built_in_vae"])


def test_a_known_checkpoint() -> None:
    known = known_checkpoint(ANYTHING)
    assert known is not None
    assert (known.name, known.verdict) == ("Anything-V3.0.ckpt (7.7 GB original)", "broken")


def test_checkpoint_of_which_a_part_of_the_hash_is_published() -> None:
    known = known_checkpoint(BY_PREFIX, "1a7df6b8")
    assert known is not None
    assert known.name == "Anything-V3.0-pruned-fp32.ckpt"
    assert known_checkpoint(BY_PREFIX) == known
    assert known_checkpoint(BY_PREFIX, "00000000") is None
    assert known_checkpoint(BY_PREFIX[:16], "1a7df6b8") is None


@pytest.mark.parametrize("digest", ["", "0" * 64, MSE[:10], "f458b5c6"])
def test_unknown_hashes(digest: str) -> None:
    assert known_vae(digest) is None
    assert known_checkpoint(digest, "6569e224") is None


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("broken (grey)", "broken"),
        ("reported grey", "reported grey"),
        ("good (0.9)", "good"),
        ("reported good", "good"),
        ("the 1.0 VAE: faint scan lines", "remark"),
    ],
)
def test_verdicts(text: str, verdict: str) -> None:
    assert KnownCheckpoint("model", "A", text).verdict == verdict


def test_every_published_text_has_a_verdict() -> None:
    verdicts = {
        entry["built_in_vae"]: KnownCheckpoint("", "A", entry["built_in_vae"]).verdict
        for entry in FACTS["checkpoint_files"]
    }
    assert [text for text, verdict in verdicts.items() if verdict == "remark"] == [
        "the 1.0 VAE: faint scan lines; the publisher rolled the separate VAE back to 0.9"
    ]


def test_what_is_not_certain_is_not_given(facts) -> None:
    facts([vae_facts(grade="C")], [{"name": "c", "grade": "C", "sha256": "1" * 64, "built_in_vae": "broken"}])
    assert known_vae("0" * 64) is None
    assert known_checkpoint("1" * 64) is None


def test_legacy_hash_is_of_64_kib_at_1_mib(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(b"\0" * 0x100000 + b"\1" * 0x10000 + b"\2" * 100)
    assert legacy_hash(path) == hashlib.sha256(b"\1" * 0x10000).hexdigest()[:8]


@pytest.mark.parametrize(("size", "inside"), [(100, 0), (0x100000, 0), (0x100000 + 7, 7)])
def test_legacy_hash_of_a_short_file(tmp_path: Path, size: int, inside: int) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(b"\1" * size)
    assert legacy_hash(path) == hashlib.sha256(b"\1" * inside).hexdigest()[:8]


def test_sha256(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "_PIECE", 100)
    path = tmp_path / "model.ckpt"
    path.write_bytes(bytes(range(250)))
    assert file_sha256(path) == hashlib.sha256(bytes(range(250))).hexdigest()


def test_sha256_can_be_cancelled(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(b"1")
    assert file_sha256(path, lambda: False) == hashlib.sha256(b"1").hexdigest()
    with pytest.raises(Cancelled):
        file_sha256(path, lambda: True)


@pytest.mark.parametrize("look", [legacy_hash, file_sha256, known_file])
def test_file_that_is_not_there(tmp_path: Path, look) -> None:
    with pytest.raises(UnreadableFile, match="there is no such file"):
        look(tmp_path / "model.ckpt")


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of 2 MB."""
    path = tmp_path / "model.ckpt"
    path.write_bytes(b"\1" * 2_000_000)
    return path


@pytest.fixture
def whole_reads(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The files that were read whole."""
    reads: list[object] = []

    def counted(path, cancelled=None):
        reads.append(path)
        return file_sha256(path, cancelled)

    monkeypatch.setattr(catalogue, "file_sha256", counted)
    return reads


def test_file_of_a_known_legacy_hash(facts, model: Path, whole_reads: list[object]) -> None:
    facts([vae_facts(sha256=file_sha256(model), legacy=legacy_hash(model), bytes=1)])
    assert known_file(model) == KnownVae("known", (), "sd1", "A")
    assert whole_reads == [model]


def test_file_of_a_known_size(facts, model: Path, whole_reads: list[object]) -> None:
    facts([], [{"name": "m", "grade": "B", "sha256": file_sha256(model), "bytes": 2_000_000, "built_in_vae": "good"}])
    known = known_file(model)
    assert isinstance(known, KnownCheckpoint)
    assert known.verdict == "good"
    assert whole_reads == [model]


def test_legacy_hash_by_itself_proves_nothing(facts, model: Path, whole_reads: list[object]) -> None:
    facts([vae_facts(legacy=legacy_hash(model))])
    assert known_file(model) is None
    assert whole_reads == [model]


@pytest.mark.parametrize(
    "changes", [{}, {"legacy": "00000000"}, {"bytes": 1}, {"legacy": "00000000", "bytes": 2_000_000}, {"grade": "C"}]
)
def test_other_files_are_not_read_whole(facts, model: Path, whole_reads: list[object], changes: dict) -> None:
    certain = {"legacy": legacy_hash(model)} if "grade" in changes else {}
    facts([vae_facts(sha256=file_sha256(model), **changes, **certain)])
    assert known_file(model) is None
    assert whole_reads == []


def test_looking_can_be_cancelled(facts, model: Path) -> None:
    facts([vae_facts(legacy=legacy_hash(model))])
    with pytest.raises(Cancelled):
        known_file(model, lambda: True)


@pytest.mark.parametrize(
    ("name", "style"),
    [
        ("kl-f8-anime.ckpt", "anime"),
        ("kl-f8-anime2.ckpt", "anime"),
        ("animevae.pt", "anime"),
        ("nai.vae.pt", "anime"),
        ("orangemix.vae.pt", "anime"),
        ("Anything-V3.0.vae.pt", "anime"),
        ("VAE/anything-v4.0.vae.pt", "anime"),
        ("vae-ft-mse-840000-ema-pruned.safetensors", "realistic"),
        ("vae-ft-ema-560000-ema-pruned.ckpt", "realistic"),
        ("sd-vae-ft-mse", "realistic"),
        ("mse840000_kl-f8-anime.vae.pt", None),
        ("mse840000.vae.pt", "realistic"),
        ("sdxl_vae.safetensors", None),
        ("final-pruned.vae.pt", None),
        ("model-ema-pruned.vae.pt", None),
        ("ClearVAE.safetensors", None),
        ("naive.vae.pt", None),
        ("anime\\color101.vae.pt", None),
        ("", None),
    ],
)
def test_what_a_vae_suits_by_its_name(name: str, style: str | None) -> None:
    assert suits(name) == style


@pytest.mark.parametrize(
    ("name", "style"),
    [
        ("Anything-V3.0-pruned.ckpt", "anime"),
        ("AnythingV5Ink_ink.safetensors", "anime"),
        ("AbyssOrangeMix2_sfw.safetensors", "anime"),
        ("nai-full.ckpt", "anime"),
        ("animefull-final-pruned.ckpt", "anime"),
        ("Counterfeit-V3.0_fp16.safetensors", "anime"),
        ("meinamix_meinaV11.safetensors", "anime"),
        ("EimisAnimeDiffusion_1-0v.ckpt", "anime"),
        ("pastelMixStylizedAnime.safetensors", "anime"),
        ("wd/WaifuDiffusion14.ckpt", "anime"),
        ("epicrealism_naturalSinRC1VAE.safetensors", "realistic"),
        ("realisticVisionV51_v51VAE.safetensors", "realistic"),
        ("majicmixRealistic_v7.safetensors", "realistic"),
        ("deliberate_v2.safetensors", "realistic"),
        ("photon_v1.safetensors", "realistic"),
        ("RealisticAnime.safetensors", None),
        ("v1-5-pruned-emaonly.safetensors", None),
        ("surrealism.ckpt", None),
        ("naive-bayes.ckpt", None),
        ("dreamshaper_8.safetensors", None),
    ],
)
def test_style_of_a_checkpoint_by_its_name(name: str, style: str | None) -> None:
    assert style_of_checkpoint(name) == style


# --- a number over the weights ------------------------------------------------------------------------------------


def of_sd_size(number: int) -> dict[str, torch.Tensor]:
    """Weights of the shapes of SD's VAE whose published number is ``number``: all are zero except for one tensor."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in AutoencoderKL(KLConfig()).state_dict().items()}
    state = {name: torch.zeros(shape, dtype=torch.float16) for name, shape in shapes.items()}
    wanted = 17870.7051 * (1 + (number + 0.5) / 10_000)
    flat = state["encoder.mid.block_1.conv1.weight"].view(-1)
    each = wanted / flat.numel()
    high = torch.tensor(math.log((0.5 + each) / (0.5 - each)) * 1.001).half()
    low = (high.view(torch.int16) - 4).view(torch.float16)  # two numbers of fp16, so many of each that the sum is right
    of_high, of_low = (1 / (1 + math.exp(-float(x))) - 0.5 for x in (high, low))
    flat.fill_(low)
    flat[: round((wanted - of_low * flat.numel()) / (of_high - of_low))] = high
    state["quant_conv.weight"].fill_(1.0)  # no part of the number
    return state


def by_the_published_formula(state: dict[str, torch.Tensor]) -> int:
    total = 0.0
    for name, value in state.items():
        if "encoder." in name or "decoder." in name:
            x = value.numpy().astype(np.float16).astype(np.float64)
            total += float((1 / (1 + np.exp(-x)) - 0.5).sum())
    number = int(abs(total / 17870.7051 - 1) * 10000)
    while number >= 10000:
        number -= 5000
    return number


@pytest.mark.parametrize(("number", "name"), [(2982, "animevae (NAI)"), (869, "SD v2"), (2000, None)])
def test_a_published_number_over_the_weights_is_a_hint(number: int, name: str | None) -> None:
    state = of_sd_size(number)
    if name == "SD v2":
        assert abs(by_the_published_formula(state) - number) <= 1
    assert abs(weight_scalar(state) - number) <= 1
    found = hinted_vae(state)
    assert (found and found.name) == name
    if found:
        assert (found.match, found.grade) == ("hint", "")
        assert found.words == f"possibly {name} (a hint from its weights)"


def test_the_number_means_nothing_for_vaes_of_another_size() -> None:
    assert hinted_vae(load_sample_vae("photo-a")) is None
