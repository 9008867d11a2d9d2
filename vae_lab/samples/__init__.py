"""The sample set: small real autoencoders, latents and photos, for trying everything without a download.

The files next to this module are compact: complete weights only for unrelated autoencoders, and for fine-tunes only the
tensors that differ. ``build_sample_set`` expands them into a folder as a WebUI user has it: checkpoints, external VAEs
in several containers, latents. README.md gives the source of everything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from vae_lab.formats import open_weights
from vae_lab.new_file import new_file

__all__ = ["GREY_SHARE", "SampleSet", "build_sample_set", "load_sample_latents", "load_sample_vae", "sample_photos"]

_Writer: TypeAlias = Callable[[BinaryIO], object]

SHIPPED = Path(__file__).parent
MANIFEST = ".samples.json"
VERSION = 1  # increase when the same shipped files produce other output

# The share of photo-b in the grey merge. Grey and washed out, but everything is still recognisable.
GREY_SHARE = 0.2

# The few weights by which programs recognise an SD1 checkpoint: name -> shape.
_DUMMY_WEIGHTS = {
    "model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3),
    "model.diffusion_model.input_blocks.0.0.bias": (320,),
    "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768),
    "model.diffusion_model.out.2.weight": (4, 320, 3, 3),
    "model.diffusion_model.out.2.bias": (4,),
    "cond_stage_model.transformer.text_model.encoder.layers.0.layer_norm1.weight": (768,),
    "cond_stage_model.transformer.text_model.final_layer_norm.weight": (768,),
    "cond_stage_model.transformer.text_model.final_layer_norm.bias": (768,),
}


@dataclass(frozen=True)
class SampleSet:
    """The paths of an expanded sample set.

    Args:
        folder: the root, laid out like the WebUI's ``models``.
        healthy: checkpoint whose built-in VAE is photo-a.
        grey_merge: checkpoint whose built-in VAE is a merge of the unrelated photo-a and photo-b.
        no_vae: checkpoint without a VAE.
        smooth, sharp, anime: external VAEs, relatives of photo-a.
        photo_b: external VAE unrelated to photo-a, healthy by itself.
        sdxl: external VAE of another latent space, healthy by itself.
        latents: files of one latent each, by name; the key in the file is ``latent``, [1,4,64,64].
    """

    folder: Path
    healthy: Path
    grey_merge: Path
    no_vae: Path
    smooth: Path
    sharp: Path
    photo_b: Path
    anime: Path
    sdxl: Path
    latents: dict[str, Path]

    @property
    def checkpoints(self) -> tuple[Path, ...]:
        """Every checkpoint."""
        return self.healthy, self.grey_merge, self.no_vae

    @property
    def vaes(self) -> tuple[Path, ...]:
        """Every external VAE."""
        return self.smooth, self.sharp, self.photo_b, self.anime, self.sdxl


def sample_photos() -> dict[str, Path]:
    """The shipped source photos (JPEG, 512 x 512), by name."""
    return {path.stem: path for path in sorted((SHIPPED / "photos").glob("*.jpg"))}


def load_sample_vae(name: str) -> dict[str, Tensor]:
    """The weights of one shipped VAE: names of ldm without prefix, fp16.

    Args:
        name: ``photo-a``, ``photo-b``, ``sdxl-c``, or a fine-tune: ``photo-a-smooth``, ``photo-a-sharp``, ``anime``.

    Raises:
        FileNotFoundError: no such VAE is shipped.
    """
    whole = SHIPPED / f"{name}.safetensors"
    if whole.exists():
        return load_file(whole)
    delta = SHIPPED / f"{name}.delta.safetensors"
    with open_weights(delta) as file:
        base = file.metadata["base"]
    return load_sample_vae(base) | load_file(delta)


def load_sample_latents(family: str = "sd1") -> dict[str, Tensor]:
    """The shipped latents of a family, ``sd1`` or ``sdxl``, by photo: [1,4,64,64], fp32, in model space."""
    return load_file(_latents_file(family))


def _latents_file(family: str) -> Path:
    return SHIPPED / ("latents.safetensors" if family == "sd1" else f"latents-{family}.safetensors")


def _merged(share: float) -> dict[str, Tensor]:
    """(1 - share) * photo-a + share * photo-b in fp32, rounded to fp16: as checkpoint mergers do."""
    a, b = load_sample_vae("photo-a"), load_sample_vae("photo-b")
    return {name: torch.lerp(a[name].float(), b[name].float(), share).half() for name in a}


def _checkpoint(vae: dict[str, Tensor]) -> dict[str, Tensor]:
    """A file that is recognised as an SD1 checkpoint but cannot sample: a few weights, and the VAE."""
    generator = torch.Generator().manual_seed(0)
    weights = {name: (torch.randn(shape, generator=generator) * 0.02).half() for name, shape in _DUMMY_WEIGHTS.items()}
    # Stable Diffusion's schedule of betas.
    betas = torch.linspace(0.00085**0.5, 0.0120**0.5, 1000, dtype=torch.float64) ** 2
    weights["betas"] = betas.float()
    weights["alphas_cumprod"] = torch.cumprod(1 - betas, 0).float()
    weights["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    return weights | {f"first_stage_model.{name}": value for name, value in vae.items()}


def _save(tensors: dict[str, Tensor], out: BinaryIO, metadata: dict[str, str]) -> None:
    """Write safetensors with a sorted header: the library's order of metadata varies between runs."""
    content = save(tensors, metadata=metadata)
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:start]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    out.write(len(header).to_bytes(8, "little") + header + content[start:])


def _write_checkpoint(vae: Callable[[], dict[str, Tensor]]) -> _Writer:
    return lambda out: _save(_checkpoint(vae()), out, {"format": "pt"})


def _write_safetensors(name: str) -> _Writer:
    return lambda out: _save(load_sample_vae(name), out, {"format": "pt"})


def _write_pickle(name: str) -> _Writer:
    return lambda out: torch.save({"state_dict": load_sample_vae(name)}, out)


def _write_latent(family: str, name: str, title: str) -> _Writer:
    metadata = {"family": family, "title": title, "infotext": ""}
    return lambda out: _save({"latent": load_sample_latents(family)[name].contiguous()}, out, metadata)


def _digest() -> str:
    """A hash of all shipped files that affect the output."""
    digest = hashlib.sha256(f"{VERSION} {GREY_SHARE}".encode())
    for path in sorted(SHIPPED.glob("*.safetensors")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _read_manifest(path: Path, digest: str) -> dict[str, int]:
    """Sizes of files written earlier from the same source; empty if unknown."""
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    if not isinstance(manifest, dict) or manifest.get("digest") != digest:
        return {}
    sizes = manifest.get("sizes")
    return sizes if isinstance(sizes, dict) else {}


def build_sample_set(folder: Path) -> SampleSet:
    """Expand the sample set into ``folder``; files that are up to date are not rewritten.

    The checkpoints contain a real, small VAE, but only a few random weights of UNet and text encoder, enough to be
    recognised as SD1: they cannot generate. The output only depends on the shipped files.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = Path(folder)
    models, vaes, latents = folder / "Stable-diffusion", folder / "VAE", folder / "latents"
    latent_writers: dict[str, _Writer] = {}
    for family in ("sd1", "sdxl"):
        with open_weights(_latents_file(family)) as file:
            sources = json.loads(file.metadata["photos"])
        for name in sorted(sources):
            key = name if family == "sd1" else f"{name}-{family}"
            latent_writers[key] = _write_latent(family, name, sources[name]["title"])
    samples = SampleSet(
        folder=folder,
        healthy=models / "healthy.safetensors",
        grey_merge=models / "grey-merge.safetensors",
        no_vae=models / "no-vae.safetensors",
        smooth=vaes / "photo-a-smooth.safetensors",
        sharp=vaes / "photo-a-sharp.safetensors",
        photo_b=vaes / "photo-b.ckpt",
        anime=vaes / "anime.vae.pt",
        sdxl=vaes / "sdxl-c.safetensors",
        latents={key: latents / f"{key}.safetensors" for key in latent_writers},
    )
    writers = {
        samples.healthy: _write_checkpoint(lambda: load_sample_vae("photo-a")),
        samples.grey_merge: _write_checkpoint(lambda: _merged(GREY_SHARE)),
        samples.no_vae: _write_checkpoint(dict),
        samples.smooth: _write_safetensors("photo-a-smooth"),
        samples.sharp: _write_safetensors("photo-a-sharp"),
        samples.photo_b: _write_pickle("photo-b"),
        samples.anime: _write_pickle("anime"),
        samples.sdxl: _write_safetensors("sdxl-c"),
    } | {samples.latents[key]: writer for key, writer in latent_writers.items()}

    digest = _digest()
    manifest_path = folder / MANIFEST
    known = _read_manifest(manifest_path, digest)
    sizes: dict[str, int] = {}
    for path, write in writers.items():
        key = path.relative_to(folder).as_posix()
        if not path.exists() or known.get(key) != path.stat().st_size:
            path.parent.mkdir(parents=True, exist_ok=True)
            with new_file(path, overwrite=True) as out:
                write(out)
        sizes[key] = path.stat().st_size
    text = json.dumps({"digest": digest, "sizes": sizes}, indent=1, sort_keys=True)
    if known != sizes:
        with new_file(manifest_path, overwrite=True) as out:
            out.write(text.encode())
    return samples
