"""The command line: its files, its output, and its exit codes."""

from __future__ import annotations

import hashlib
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.unit.checkup.conftest import overflowing
from tests.unit.conftest import start_cli
from tests.unit.makers import F8, kl_state, write
from vae_lab import __version__
from vae_lab.cli import main
from vae_lab.comparison.round_trip import loss_between
from vae_lab.latents import Generation, save_latents
from vae_lab.latents.family import FAMILIES
from vae_lab.samples import SampleSet, build_sample_set, load_sample_latents, load_sample_vae, sample_photos

INFOTEXT = "a cat\nSteps: 20, Seed: 1, VAE: old.pt"


def run(*arguments: str | Path, folder: Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    process = start_cli(*arguments, folder=folder)
    out, error = process.communicate(timeout=300)
    return process.returncode, out, error


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def parameters(path: Path) -> str:
    """Generation parameters, where the WebUI looks for them."""
    with Image.open(path) as image:
        return image.info["parameters"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small latents, and VAEs: two of one basename, one of another family, one broken."""
    folder = tmp_path_factory.mktemp("files")
    latents = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    texts = (INFOTEXT, INFOTEXT.replace("Seed: 1", "Seed: 2"))
    generation = Generation("g", latents, FAMILIES["sd1"], title="猫", infotexts=texts)
    save_latents(generation, folder / "latents.safetensors")
    for seed, name in enumerate(("one", "two")):
        (folder / name).mkdir()
        write(folder / name / "vae.safetensors", kl_state(F8, seed))
    write(folder / "xl.safetensors", load_sample_vae("sdxl-c"))
    (folder / "broken.safetensors").write_bytes(b"not a VAE")
    return folder


def test_decode_in_a_process_of_its_own(files: Path, tmp_path: Path) -> None:
    vaes = [files / "one" / "vae.safetensors", files / "two" / "vae.safetensors"]
    options = [part for vae in vaes for part in ("--vae", vae)]
    code, out, error = run("decode", files / "latents.safetensors", *options, "-o", "results", folder=tmp_path)
    assert (code, error) == (0, "")
    folder = tmp_path / "results"
    assert out.splitlines() == [str(Path("results") / "sheet.png"), str(Path("results") / "comparison.json")]
    record = json.loads((folder / "comparison.json").read_text(encoding="utf8"))
    assert (record["latents"], record["family"]) == ("猫", "sd1")
    assert [row["name"] for row in record["results"]] == [str(vae) for vae in vaes], (
        "one basename: distinguished by path"
    )
    for row in record["results"]:
        assert (row["family"], row["finite"], row["error"]) == ("sd1", True, "")
        assert row["seconds"] >= 0
        assert len(row["images"]) == 2
        assert row["measures"]["seconds"] == pytest.approx(row["seconds"])
        assert row["measures"]["sharpness"] > 0
    assert record["reference"] == str(vaes[0]), "no VAE is built in here: the first is what the others differ from"
    assert [row["measures"]["equal"] for row in record["results"]] == [True, False]
    assert record["results"][0]["measures"]["psnr"] is None
    assert record["results"][1]["measures"]["delta_e"] > 0
    images = [[pixels(folder / name) for name in row["images"]] for row in record["results"]]
    assert all(image.shape == (32, 32, 3) for row in images for image in row)
    assert not np.array_equal(images[0][0], images[1][0]), "each file's own weights"
    assert not np.array_equal(images[0][0], images[0][1]), "each latent of the batch"
    sheet = pixels(folder / "sheet.png")
    assert sheet.shape[0] > 64
    assert parameters(folder / "sheet.png") == INFOTEXT
    for row in record["results"]:
        texts = [parameters(folder / name) for name in row["images"]]
        assert texts == [f"a cat\nSteps: 20, Seed: {seed}, VAE Lab override: {row['name']}" for seed in (1, 2)]
    written = {name for row in record["results"] for name in row["images"]}
    assert {path.name for path in folder.iterdir()} == {"sheet.png", "comparison.json", *written}


def test_exit_code_of_the_module(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``python -m vae_lab``: the command's code is the program's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["vae_lab", "decode", "gone.safetensors", "--vae", "v.pt", "-o", "out"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("vae_lab", run_name="__main__")
    assert stopped.value.code == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert len(error.splitlines()) == 1
    assert error.startswith("gone.safetensors: ")
    assert not (tmp_path / "out").exists()


def decode(files: Path, out: Path, *vaes: str | Path, latents: str = "latents.safetensors") -> int:
    options = [str(part) for vae in vaes for part in ("--vae", files / vae)]
    return main(["decode", str(files / latents), *options, "-o", str(out)])


def test_names_are_short_where_they_are_unique(files: Path, tmp_path: Path) -> None:
    assert decode(files, tmp_path, "one/vae.safetensors") == 0
    record = json.loads((tmp_path / "comparison.json").read_text(encoding="utf8"))
    assert [row["name"] for row in record["results"]] == ["vae.safetensors"]


BAD_VAES = {
    "missing": ("gone.safetensors", "gone.safetensors: "),
    "broken": ("broken.safetensors", "broken.safetensors: "),
    "of another family": ("xl.safetensors", "xl.safetensors is a VAE for SDXL, but the latents are SD1 / SD2"),
    "no VAE": ("latents.safetensors", "latents.safetensors: no VAE found"),
}


@pytest.mark.parametrize(("name", "message"), BAD_VAES.values(), ids=BAD_VAES)
def test_vae_that_cannot_be_used(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    """One line says why, the others are decoded, and the exit code reports it to scripts."""
    assert decode(files, tmp_path, name, "one/vae.safetensors") == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert message in error
    rows = json.loads((tmp_path / "comparison.json").read_text(encoding="utf8"))["results"]
    assert message in rows[0]["error"]
    assert rows[0]["images"] == []
    assert rows[0]["measures"] is None
    assert len(rows[1]["images"]) == 2
    assert (tmp_path / "sheet.png").exists()


def test_no_vae_that_can_be_used(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert decode(files, tmp_path, "gone.safetensors", "broken.safetensors") == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


@pytest.mark.parametrize("latents", ["gone.safetensors", "broken.safetensors", "one/vae.safetensors", "one"])
def test_latents_that_cannot_be_used(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], latents: str
) -> None:
    assert decode(files, tmp_path / "out", "one/vae.safetensors", latents=latents) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert error.startswith(str(files / latents))
    assert not (tmp_path / "out").exists()


def test_folder_that_cannot_be_made(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert decode(files, tmp_path / "file" / "out", "one/vae.safetensors") == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert str(tmp_path / "file") in error


def test_serve_needs_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--models", str(tmp_path / "gone"), "--no-browser"]) == 2
    assert capsys.readouterr().err.startswith(f"{tmp_path / 'gone'} is not a folder. ")


def test_interrupted_by_the_user(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vae_lab.cli.decode.load_latents", stop)
    assert decode(files, tmp_path, "one/vae.safetensors") == 130


@pytest.mark.parametrize("arguments", [[], ["decode"], ["decode", "l.safetensors"], ["unknown"], ["serve"]])
def test_usage_errors(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: vae-lab" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.strip() == __version__


COMMANDS = ("inspect", "scan", "decode", "roundtrip", "bake", "strip", "extract", "serve", "demo")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    lines = capsys.readouterr().out.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("  -"):
            described = len(line.split("  ")) > 2 or lines[number + 1].startswith(" " * 20)
            assert described, f"{command}: {line.strip()} has no help"


def assert_demo(folder: Path, out: str, width: int) -> None:
    """What every demo shows, with images ``width`` pixels wide."""
    record = json.loads((folder / "comparison.json").read_text(encoding="utf8"))
    results = {row["name"]: row for row in record["results"]}
    assert next(iter(results)) == "Built-in"
    assert "SDXL" in results["sdxl-c.safetensors"]["error"]
    assert pixels(folder / "sheet.png").shape[1] > 2 * width
    assert str(folder / "sheet.png") in out
    grey, healthy = (pixels(folder / results[name]["images"][0]) for name in ("Built-in", "photo-b.ckpt"))
    assert grey.shape[1] == width
    assert grey.std() < 0.8 * healthy.std(), "the built-in VAE is the grey merge"


def test_demo_compares_the_sample_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the middle of each sample latent; the slow test below decodes the whole ones."""

    def middles(family: str = "sd1") -> dict[str, torch.Tensor]:
        return {name: latents[:, :, 24:40, 24:40] for name, latents in load_sample_latents(family).items()}

    monkeypatch.setattr("vae_lab.samples.load_sample_latents", middles)
    assert main(["demo", "--headless", "-o", str(tmp_path / "out")]) == 0
    assert_demo(tmp_path / "out", capsys.readouterr().out, 128)


@pytest.mark.slow  # six VAEs decode a whole image: half a minute
def test_demo_in_a_process_of_its_own(tmp_path: Path) -> None:
    code, out, error = run("demo", "--headless", "-o", tmp_path / "out", folder=tmp_path)
    assert code == 0, error
    assert "Traceback" not in error
    assert_demo(tmp_path / "out", out, 512)


# --- inspect ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """healthy, grey, without a VAE, and a parent of the grey one."""
    folder = tmp_path_factory.mktemp("checkpoints")
    samples = build_sample_set(folder / "models")
    for path in (samples.healthy, samples.grey_merge, samples.no_vae, samples.photo_b):
        path.rename(folder / path.name)
    (folder / "text.ckpt").write_text("not weights")
    return folder


INSPECTED = {
    "healthy": (("healthy.safetensors", "photo-b.ckpt"), 0),
    "grey": (("grey-merge.safetensors",), 1),
    "no VAE": (("no-vae.safetensors",), 1),
    "unreadable": (("text.ckpt",), 2),
    "all": (("text.ckpt", "healthy.safetensors", "grey-merge.safetensors"), 2),
    "gone": (("gone.safetensors",), 2),
}


@pytest.mark.parametrize(("names", "code"), INSPECTED.values(), ids=INSPECTED)
def test_exit_code_of_inspect(
    checkpoints: Path, capsys: pytest.CaptureFixture[str], names: tuple[str, ...], code: int
) -> None:
    assert main(["inspect", *(str(checkpoints / name) for name in names)]) == code
    out = capsys.readouterr().out
    for name in names:
        assert f"{checkpoints / name}: " in out


def test_inspect_as_json(checkpoints: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("grey-merge.safetensors", "healthy.safetensors", "photo-b.ckpt", "text.ckpt")
    assert main(["inspect", "--json", *(str(checkpoints / name) for name in names)]) == 2
    out, error = capsys.readouterr()
    assert error == ""
    rows = [json.loads(line) for line in out.splitlines()]
    assert [Path(row["path"]).name for row in rows] == list(names)
    assert [row["verdict"]["status"] for row in rows] == ["broken", "healthy", "healthy", "unreadable"]
    assert [parent["name"] for parent in rows[0]["merge"]["parents"]] == ["healthy.safetensors", "photo-b.ckpt"]
    assert rows[3]["fingerprint"] is None


def test_inspect_shows_what_half_precision_gives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "xl.safetensors", overflowing())
    assert main(["inspect", "--json", str(path)]) == 0
    verdict = json.loads(capsys.readouterr().out)["verdict"]
    assert verdict["status"] == "healthy"
    (finding,) = verdict["findings"]
    assert (finding["code"], finding["severity"]) == ("fp16-overflow", "information")
    assert finding["text"] == "In fp16 every value is NaN: images come out black. In bf16 and fp32 it works."
    measured = {evidence["name"]: evidence["value"] for evidence in finding["evidence"]}
    assert measured["fp16, decoder: NaN or infinite values"] == 100
    assert measured["bf16, decoder: NaN or infinite values"] == 0


def test_inspect_without_the_probe(checkpoints: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "--no-probe", "--json", str(checkpoints / "grey-merge.safetensors")]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["measured"] == []
    assert len(row["fingerprint"]) == 64
    assert not row["sha256"], "a checkpoint is not read whole unless asked for"


def test_inspect_with_hashes(checkpoints: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = checkpoints / "grey-merge.safetensors"
    assert main(["inspect", "--no-probe", "--hashes", "--json", str(path)]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert row["autov2"] == row["sha256"][:10]


def test_inspect_says_what_to_do(checkpoints: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["inspect", str(checkpoints / "grey-merge.safetensors")])
    out = capsys.readouterr().out
    assert "Images are grey and washed out" in out
    assert "white 7" in out, "the numbers behind it"
    assert "Choose an external VAE" in out


# --- roundtrip -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PNG of 70 x 45 pixels."""
    file = tmp_path_factory.mktemp("photo") / "猫.png"
    with Image.open(sample_photos()["cat"]) as image:
        image.resize((70, 45)).save(file)
    return file


def test_round_trip_writes_images_and_losses(
    sample_set: SampleSet,
    photo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    vaes = ["--vae", sample_set.smooth, "--vae", sample_set.grey_merge, "--vae", sample_set.sdxl]
    assert roundtrip(photo, Path("results"), *vaes) == 0
    out, error = capsys.readouterr()
    assert error == ""
    folder = tmp_path / "results"
    assert out.splitlines() == [str(Path("results") / "sheet.png"), str(Path("results") / "roundtrip.json")]
    record = json.loads((folder / "roundtrip.json").read_text(encoding="utf8"))
    assert (record["image"], record["size"]) == ("猫.png", [64, 40])
    assert record["remarks"] == ["cropped to 64 x 40, multiples of 8"]
    rows = {row["name"]: row for row in record["results"]}
    assert list(rows) == ["photo-a-smooth.safetensors", "grey-merge.safetensors", "sdxl-c.safetensors"]
    good, grey = rows["photo-a-smooth.safetensors"], rows["grey-merge.safetensors"]
    assert good["psnr"] > grey["psnr"]
    assert good["delta_e"] < grey["delta_e"]
    assert [row["family"] for row in rows.values()] == ["sd1", "sd1", "sdxl"]
    original = pixels(folder / "original.png")
    for row in rows.values():
        assert row["error"] is None
        assert 0 < row["ssim"] < 1
        assert min(row["encode_seconds"], row["decode_seconds"]) > 0
        loss = loss_between(original, pixels(folder / row["image"]))
        assert loss.to_json() == {key: row[key] for key in ("psnr", "ssim", "delta_e")}
        assert np.array_equal(pixels(folder / row["loss_map"]), loss.image)
    names = {row[key] for row in rows.values() for key in ("image", "loss_map")}
    assert {path.name for path in folder.iterdir()} == {"sheet.png", "roundtrip.json", "original.png", *names}


def test_results_take_the_place_of_no_files(
    files: Path, sample_set: SampleSet, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = [
        ["decode", str(files / "latents.safetensors"), "--vae", str(files / "one" / "vae.safetensors")],
        ["roundtrip", str(photo), "--vae", str(sample_set.smooth), "--longest", "32"],
        ["demo", "--headless"],
    ]
    (tmp_path / "sheet.png").write_text("mine")
    for command in commands:
        assert main([*command, "-o", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert error == f"{tmp_path / 'sheet.png'} already exists. Choose another name, or add --overwrite.\n"
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"sheet.png": "mine"}
    for command in commands[:2]:
        assert main([*command, "-o", str(tmp_path), "--overwrite"]) == 0
    assert {"comparison.json", "roundtrip.json", "sheet.png"} <= {path.name for path in tmp_path.iterdir()}
    assert pixels(tmp_path / "sheet.png").ndim == 3


def roundtrip(photo: Path, out: Path, *arguments: str | Path) -> int:
    return main(["roundtrip", str(photo), *map(str, arguments), "-o", str(out)])


def test_round_trip_with_a_vae_that_cannot_be_used(
    sample_set: SampleSet, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert roundtrip(photo, tmp_path, "--vae", "gone.pt", "--vae", sample_set.smooth, "--longest", "32") == 2
    assert capsys.readouterr().err == "gone.pt: there is no such file\n"
    record = json.loads((tmp_path / "roundtrip.json").read_text(encoding="utf8"))
    gone, smooth = record["results"]
    assert (gone["error"], gone["psnr"], gone["image"]) == ("gone.pt: there is no such file", None, None)
    assert smooth["psnr"] > 0
    assert record["size"] == [32, 16]
    assert record["remarks"][0] == "downscaled from 70 x 45 to 32 x 21"


@pytest.mark.parametrize(("content", "words"), [(b"a story", "not a readable PNG, JPEG"), (None, "No such file")])
def test_round_trip_of_what_is_no_image(
    sample_set: SampleSet, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, words: str
) -> None:
    if content is not None:
        (tmp_path / "story.png").write_bytes(content)
    assert roundtrip(tmp_path / "story.png", tmp_path / "out", "--vae", sample_set.smooth) == 2
    error = capsys.readouterr().err
    assert error.startswith("story.png: ")
    assert words in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("longest", ["7", "0", "-1", "many"])
def test_round_trip_with_a_size_that_makes_no_sense(photo: Path, tmp_path: Path, longest: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        roundtrip(photo, tmp_path, "--vae", "x", "--longest", longest)
    assert stopped.value.code == 2
