"""Folders like the WebUI's ``models`` in which checkpoints have a broken VAE or none, with the records of a scan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tests.unit.makers import SD1_TEXT, SDXL_TEXT, UNET, kl_state, prefixed, write, write_zip
from vae_lab.checkup import Checkup, Evidence, Finding
from vae_lab.library import Depth, FileCache, FileRecord
from vae_lab.library.folders import file_key

GREY = Finding("grey", "broken", "Images are grey and washed out.")
PALE = Finding("pale", "suspect", "Images are slightly paler than they should be.")
MISSING = Finding("missing", "missing", "This checkpoint contains no VAE.")
MEASURED = (Evidence("white", 100.0),)

# name -> family of the model, findings; None: not checked
CHECKPOINTS: Mapping[str, tuple[str, tuple[Finding, ...] | None]] = {
    "broken.safetensors": ("sd1", (GREY,)),
    "noted.safetensors": ("sd1", (GREY,)),
    "deep/anime-mix.safetensors": ("sd1", (GREY,)),
    "bad-choice.safetensors": ("sd1", (GREY,)),
    "good-choice.safetensors": ("sd1", (GREY,)),
    "empty.safetensors": ("sd1", (MISSING,)),
    "xl.safetensors": ("sdxl", (GREY,)),
    "xl-empty.safetensors": ("sdxl", (MISSING,)),
    "flux.safetensors": ("flux", (MISSING,)),
    "healthy.safetensors": ("sd1", ()),
    "xl-healthy.safetensors": ("sdxl", ()),
    "suspect.safetensors": ("sd1", (PALE,)),
    "new.safetensors": ("sd1", None),
    "both.ckpt": ("sd1", (GREY,)),
    "both.safetensors": ("sd1", ()),
}
VAES: Mapping[str, tuple[str, tuple[Finding, ...] | None]] = {
    "bad.safetensors": ("sd1", (GREY,)),
    "anime.vae.pt": ("sd1", ()),
    "plain.safetensors": ("sd1", ()),
    "xl-vae.safetensors": ("sdxl", ()),
    "unknown.safetensors": ("sd1", None),
}
USES = {
    "bad-choice.safetensors": "plain.safetensors",
    "broken.safetensors": "plain.safetensors",
    "deep/anime-mix.safetensors": "anime.vae.pt",
    "empty.safetensors": "plain.safetensors",
    "noted.safetensors": "plain.safetensors",
    "xl-empty.safetensors": "xl-vae.safetensors",
    "xl.safetensors": "xl-vae.safetensors",
}
"""What is to be used, by checkpoint; no other one is fixed."""

JSON_FILES = {
    "noted.json": b'{"description": "\xe7\x8c\xab",\r\n\t"vae": "",  "sd version": "SD1" }\r\n',
    "bad-choice.json": b'{"vae":"bad.safetensors","notes":""}',
    "good-choice.json": b'{"vae":"plain.safetensors"}',
    "healthy.json": b'{"activation text": "x"}',
}


def scanned(folder: Path) -> Path:
    """The folders as ``folder/models``, after a scan whose results are in ``folder/data``."""
    cache = FileCache(folder / "data")
    build(folder / "models", cache)
    cache.close()
    return folder / "models"


def build(models: Path, cache: FileCache | None) -> None:
    """Write the folders, and what a scan would find into ``cache``."""
    state = kl_state()
    for name, (family, findings) in CHECKPOINTS.items():
        text = {"sd1": SD1_TEXT, "sdxl": SDXL_TEXT}.get(family, {})
        own = {} if findings == (MISSING,) else prefixed("first_stage_model.", state)
        add(models / "Stable-diffusion" / name, {**UNET, **text, **own}, "checkpoint", family, findings, cache)
    for name, (family, findings) in VAES.items():
        add(models / "VAE" / name, state, "vae", family, findings, cache)
    for name, content in JSON_FILES.items():
        (models / "Stable-diffusion" / name).write_bytes(content)


def add(path: Path, state, kind, family, findings, cache: FileCache | None) -> None:  # type: ignore[no-untyped-def]
    path.parent.mkdir(parents=True, exist_ok=True)
    (write if path.suffix == ".safetensors" else write_zip)(path, state)
    if cache is None or findings is None:
        return
    record = FileRecord(
        str(path), path.name, kind=kind, family_id=family, hint_id=family if kind == "checkpoint" else "",
        architecture="AutoencoderKL", depth=Depth.CHECKED,
    )  # fmt: skip
    if MISSING in findings:
        record = replace(record, file_findings=findings, problem="a checkpoint without a VAE", architecture="")
    else:
        record = replace(record, checkup=Checkup(family, findings, MEASURED))
    cache.add(str(path), record, file_key(str(path)))


def contents(models: Path) -> dict[str, bytes]:
    """Every file next to the checkpoints that is no weight file, by name."""
    folder = models / "Stable-diffusion"
    others = (path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".safetensors", ".ckpt"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in others}
