"""Reads and writes latents as .safetensors."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath

import safetensors.torch
import torch
from torch import Tensor

from vae_lab.errors import FamilyMismatch, MalformedFile, UnreadableFile
from vae_lab.formats import Limits, MemorySource, WeightFile, open_weights
from vae_lab.images import MAX_INFOTEXT_LENGTH
from vae_lab.latents.family import FAMILIES, Family
from vae_lab.latents.generation import Generation
from vae_lab.new_file import new_file

__all__ = ["latents_file", "load_latents", "read_latents", "read_limited", "save_latents"]

_MAX_BATCH = 100  # the WebUI's sliders end at 8
_MAX_PIXELS = 2**20  # of a latent, for an image of 8192 x 8192
_MAX_TENSORS = 16
_MAX_HEADER_BYTES = 4 * 2**20  # 100 infotexts of 40 kB each
_MAX_TITLE_LENGTH = 120
_COMFY_TENSOR = "latent_tensor"
_COMFY_MARKER = "latent_format_version_0"  # an empty tensor: the latents are in the VAE's own units
_PACKED_CHANNELS = 64  # of Flux: 2 x 2 pixels of 16 channels
_INFOTEXT = re.compile(r"infotext\.([0-9]{1,9})$")


def save_latents(generation: Generation, path: str | os.PathLike[str]) -> None:
    """Write a generation's latents and metadata as .safetensors; a file that exists is replaced."""
    with new_file(Path(path), overwrite=True) as out:
        out.write(safetensors.torch.save(*_contents(generation)))


def latents_file(generation: Generation) -> bytes:
    """The file of :func:`save_latents` for sharing: with the checkpoint's name, but not its folder."""
    return safetensors.torch.save(*_contents(replace(generation, checkpoint=PurePath(generation.checkpoint).name)))


def _contents(generation: Generation) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a latents file."""
    metadata = {"family": generation.family.id, "title": generation.title, "checkpoint": generation.checkpoint}
    metadata |= {"decoded_by": generation.decoded_by, "tiling": str(generation.tiling).lower()}
    metadata |= {f"infotext.{i}": text for i, text in enumerate(generation.infotexts)}
    return {"latents": generation.latents.contiguous()}, metadata


def load_latents(path: str | os.PathLike[str]) -> Generation:
    """Read latents from .safetensors: one tensor [B,C,h,w] or [C,h,w] in model space.

    Files of ComfyUI (.latent) are read too; those in the VAE's own units are scaled to model space.

    Raises:
        FileError: the file is unreadable or contains something else.
        FamilyMismatch: neither the metadata nor the number of channels determines the family.
    """
    with open_weights(path) as file:
        return _read(file, str(path), Path(path).stem)


def read_limited(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """The contents of a file.

    Raises:
        UnreadableFile: it cannot be read.
        MalformedFile: it has more than ``max_bytes`` bytes.
    """
    name = Path(path).name
    try:
        with open(path, "rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise UnreadableFile(name, error.strerror or "cannot be read") from error
    if len(data) > max_bytes:
        raise MalformedFile(name, f"files are limited to {max_bytes // 2**20} MB")
    return data


def read_latents(data: bytes, name: str, byte_limit: int) -> Generation:
    """As :func:`load_latents`, from untrusted bytes: only .safetensors, and with limits.

    Args:
        data: the file.
        name: its name.
        byte_limit: maximum memory for its tensor.

    Raises:
        FileError: it is something else, or too large.
        FamilyMismatch: neither the metadata nor the number of channels determines the family.
    """
    # The length of the header, below 4 GB, and its first character. No other format begins like this.
    if data[4:8] != bytes(4) or data[8:9] not in (b"{", b" ", b"\t", b"\r", b"\n"):
        raise UnreadableFile(name, "not a .safetensors file; only .safetensors is accepted for latents")
    limits = Limits(header_bytes=_MAX_HEADER_BYTES, tensors=_MAX_TENSORS, tensor_bytes=byte_limit)
    with open_weights(MemorySource(data, name), limits=limits) as file:
        _check_sizes(file, name)
        generation = _read(file, name, PurePath(name).stem)
    latents = generation.latents
    if latents.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        generation = replace(generation, latents=latents.to(torch.float32))
    if _nbytes(generation.latents) > byte_limit:
        raise MalformedFile(name, f"latents of {list(latents.shape)} need more than {byte_limit // 2**20} MB")
    title = "".join(letter if letter.isprintable() else " " for letter in generation.title)
    return replace(generation, title=title[:_MAX_TITLE_LENGTH], infotexts=generation.infotexts[: len(latents)])


def _nbytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _check_sizes(file: WeightFile, name: str) -> None:
    for info in file.tensors.values():
        *_, height, width = (0, 0, *info.shape)
        batch = info.shape[0] if len(info.shape) == 4 else 1
        if batch > _MAX_BATCH or height * width > _MAX_PIXELS:
            limit = f"{_MAX_BATCH} images of 8192 x 8192"
            raise MalformedFile(name, f"latents of shape {list(info.shape)}; the limit is {limit}")


def _read(file: WeightFile, path: str, stem: str) -> Generation:
    unscaled = file.tensors.keys() == {_COMFY_TENSOR, _COMFY_MARKER}
    if len(file.tensors) != 1 and not unscaled:
        raise MalformedFile(path, f"a latents file has one tensor, this one has {len(file.tensors)}")
    info = file.tensors[_COMFY_TENSOR] if unscaled else next(iter(file.tensors.values()))
    _check_shape(info.shape, path)
    latents = file.read(info.name)
    metadata = dict(file.metadata)
    if not latents.is_floating_point() or not bool(torch.isfinite(latents.float()).all()):
        raise MalformedFile(path, "latents must be finite floating point numbers")
    latents = latents if latents.ndim == 4 else latents[None]
    family = _family(path, metadata, latents.shape[1])
    return Generation(
        id=stem,
        latents=family.to_model_space(latents) if unscaled else latents,
        family=family,
        title=metadata.get("title") or stem,
        infotexts=_infotexts(metadata),
        checkpoint=metadata.get("checkpoint", ""),
        decoded_by=metadata.get("decoded_by", ""),
        tiling=metadata.get("tiling") == "true",
    )


def _check_shape(shape: Sequence[int], path: str) -> None:
    """[B,C,h,w] or [C,h,w]; what else diffusers and ComfyUI save is named."""
    what = f"latents have the shape [B,C,h,w], not {list(shape)}"
    if (
        len(shape) == 3
        and shape[2] == _PACKED_CHANNELS
        and shape[0] not in {f.latent_channels for f in FAMILIES.values()}
    ):
        raise MalformedFile(path, f"{what}; these are packed latents of Flux: unpack them before you save them")
    if len(shape) == 5:
        raise MalformedFile(path, f"{what}; these are latents of a video: save one frame, without the axis of time")
    if len(shape) not in (3, 4) or 0 in shape:
        raise MalformedFile(path, what)


def _infotexts(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Sorted by number: as text, 10 would come before 2."""
    numbered = {int(match[1]): text for key, text in metadata.items() if (match := _INFOTEXT.match(key))}
    return tuple(numbered[number][:MAX_INFOTEXT_LENGTH] for number in sorted(numbered))


def _family(path: str | os.PathLike[str], metadata: Mapping[str, str], channels: int) -> Family:
    family = FAMILIES.get(metadata.get("family", "sd1" if channels == 4 else ""))
    if family is None or family.latent_channels != channels:
        raise FamilyMismatch(
            f"{path}: the latents' family could not be determined (metadata 'family' is {metadata.get('family')!r}, "
            f"{channels} channels); set it to one of {', '.join(FAMILIES)}"
        )
    return family
