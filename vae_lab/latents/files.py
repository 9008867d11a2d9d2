"""Latents in files."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePath

import safetensors.torch
import torch
from torch import Tensor

from vae_lab.errors import FamilyMismatch, MalformedFile, UnreadableFile
from vae_lab.formats import Limits, MemorySource, WeightFile, open_weights
from vae_lab.images import MOST_INFOTEXT
from vae_lab.latents.family import FAMILIES, Family
from vae_lab.latents.generation import Generation

__all__ = ["latents_file", "load_latents", "read_latents", "read_limited", "save_latents"]

_MOST_IMAGES = 100  # in an uploaded batch; the WebUI's menus end at 8
_MOST_PIXELS = 2**20  # of an uploaded latent: images of 8192 x 8192
_MOST_TENSORS = 16
_MOST_HEADER = 4 * 2**20  # of an uploaded file: 100 infotexts of 40 kB each
_TITLE = 120
_INFOTEXT = re.compile(r"infotext\.([0-9]{1,9})$")


def save_latents(generation: Generation, path: str | os.PathLike[str]) -> None:
    """Write latents and what is known of them as .safetensors."""
    tensors, metadata = _packed(generation)
    safetensors.torch.save_file(tensors, str(path), metadata)


def latents_file(generation: Generation) -> bytes:
    """As :func:`save_latents`, to give away: of the checkpoint it has the name, not the folder."""
    return safetensors.torch.save(*_packed(replace(generation, checkpoint=PurePath(generation.checkpoint).name)))


def _packed(generation: Generation) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file of latents."""
    metadata = {"family": generation.family.id, "title": generation.title, "checkpoint": generation.checkpoint}
    metadata |= {"decoded_by": generation.decoded_by, "tiling": str(generation.tiling).lower()}
    metadata |= {f"infotext.{i}": text for i, text in enumerate(generation.infotexts)}
    return {"latents": generation.latents.contiguous()}, metadata


def load_latents(path: str | os.PathLike[str]) -> Generation:
    """Read latents from .safetensors: one tensor [B,C,h,w] or [C,h,w] in model space.

    Raises:
        FileError: the file is unreadable, or holds something else.
        FamilyMismatch: neither the file nor the number of channels tells the family.
    """
    with open_weights(path) as file:
        return _read(file, str(path), Path(path).stem)


def read_limited(path: str | os.PathLike[str], most: int) -> bytes:
    """What is in a file.

    Raises:
        UnreadableFile: it cannot be read.
        MalformedFile: it has more than ``most`` bytes.
    """
    name = Path(path).name
    try:
        with open(path, "rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise UnreadableFile(name, error.strerror or "cannot be read") from error
    if len(data) > most:
        raise MalformedFile(name, f"larger than {most // 2**20} MB, the limit here")
    return data


def read_latents(data: bytes, name: str, byte_limit: int) -> Generation:
    """As :func:`load_latents`, of bytes that a stranger may have sent: .safetensors alone, and within limits.

    Args:
        data: the file.
        name: its name.
        byte_limit: memory that its tensor may take.

    Raises:
        FileError: it is something else, or too large.
        FamilyMismatch: neither the file nor the number of channels tells the family.
    """
    # The length of the header, below 4 GB, and its first letter: no other format begins like that.
    if data[4:8] != bytes(4) or data[8:9] not in (b"{", b" ", b"\t", b"\r", b"\n"):
        raise UnreadableFile(name, "not a .safetensors file, and latents are taken from no other")
    limits = Limits(header_bytes=_MOST_HEADER, tensors=_MOST_TENSORS, tensor_bytes=byte_limit)
    with open_weights(MemorySource(data, name), limits=limits) as file:
        _check_sizes(file, name)
        found = _read(file, name, PurePath(name).stem)
    latents = found.latents
    if latents.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        found = replace(found, latents=latents.to(torch.float32))
    if _nbytes(found.latents) > byte_limit:
        raise MalformedFile(name, f"latents of {list(latents.shape)} need more than {byte_limit // 2**20} MB")
    title = "".join(letter if letter.isprintable() else " " for letter in found.title)
    return replace(found, title=title[:_TITLE], infotexts=found.infotexts[: len(latents)])


def _nbytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _check_sizes(file: WeightFile, name: str) -> None:
    for info in file.tensors.values():
        *_, height, width = (0, 0, *info.shape)
        batch = info.shape[0] if len(info.shape) == 4 else 1
        if batch > _MOST_IMAGES or height * width > _MOST_PIXELS:
            shape = f"latents of shape {list(info.shape)}"
            raise MalformedFile(name, f"{shape}: {_MOST_IMAGES} images of 8192 x 8192 are the limit")


def _read(file: WeightFile, path: str, stem: str) -> Generation:
    if len(file.tensors) != 1:
        raise MalformedFile(path, f"latents are one tensor, this file has {len(file.tensors)}")
    info = next(iter(file.tensors.values()))
    if len(info.shape) not in (3, 4) or 0 in info.shape:
        raise MalformedFile(path, f"latents have shape [B,C,h,w], these are {list(info.shape)}")
    latents = file.read(info.name)
    metadata = dict(file.metadata)
    if not latents.is_floating_point() or not bool(torch.isfinite(latents.float()).all()):
        raise MalformedFile(path, "latents must be finite floating point numbers")
    latents = latents if latents.ndim == 4 else latents[None]
    return Generation(
        id=stem,
        latents=latents,
        family=_family_of(path, metadata, latents.shape[1]),
        title=metadata.get("title") or stem,
        infotexts=_infotexts(metadata),
        checkpoint=metadata.get("checkpoint", ""),
        decoded_by=metadata.get("decoded_by", ""),
        tiling=metadata.get("tiling") == "true",
    )


def _infotexts(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """In the order of their numbers: as text, 10 would come before 2."""
    numbered = {int(match[1]): text for key, text in metadata.items() if (match := _INFOTEXT.match(key))}
    return tuple(numbered[number][:MOST_INFOTEXT] for number in sorted(numbered))


def _family_of(path: str | os.PathLike[str], metadata: Mapping[str, str], channels: int) -> Family:
    family = FAMILIES.get(metadata.get("family", "sd1" if channels == 4 else ""))
    if family is None or family.latent_channels != channels:
        raise FamilyMismatch(
            f"{path}: the latents' family cannot be told (metadata says {metadata.get('family')!r}, "
            f"{channels} channels); write one of {', '.join(FAMILIES)} as metadata 'family'"
        )
    return family
