"""Findings about whether hosts load a VAE that VAE Lab itself can read."""

from __future__ import annotations

from pathlib import PurePath

from vae_lab.autoencoders import VaeFile
from vae_lab.checkup.findings import INFORMATION, MISSING, SUSPECT, Finding
from vae_lab.formats import WeightFile, file_name
from vae_lab.state_dict import read_by_hosts
from vae_lab.text import quoted

__all__ = ["loading_findings", "name_findings"]

# The WebUI, Forge and ComfyUI choose the reader by the end of the name, VAE Lab by the content.
_SAFETENSORS_SUFFIXES = (".safetensors", ".sft")
_PICKLE_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin")


def name_findings(weights: WeightFile, kind: str) -> tuple[Finding, ...]:
    """What hosts cannot load because its name ends like that of the other format; ``kind`` is a record's."""
    name = PurePath(file_name(weights.path))
    safetensors, suffix = weights.container == "safetensors", name.suffix.lower()
    if suffix not in (_PICKLE_SUFFIXES if safetensors else _SAFETENSORS_SUFFIXES):
        return ()
    text = (
        f"It is a safetensors file, but its name ends in {suffix}. Hosts choose the reader by the name. "
        "Loads in: VAE Lab, not in: the WebUI, Forge, ComfyUI."
        if safetensors
        else f"It is a pickle, but its name ends in {suffix}. Hosts choose the reader by the name. "
        "Loads in: VAE Lab, not in: the WebUI, Forge, ComfyUI."
    )
    right = ".safetensors" if safetensors else ".ckpt" if kind == "checkpoint" else ".pt"
    new_name = quoted(name.with_suffix(right), 255)
    return (Finding("wrong-extension", SUSPECT, text, (), f"Rename it to {new_name}."),)


def loading_findings(file: VaeFile) -> tuple[Finding, ...]:
    """What keeps the WebUI and its forks from loading the VAE of an open file; reads no tensor."""
    findings = []
    if not read_by_hosts(file.layout, file.weights.tensors):
        findings.append(_not_read(file))
    if _has_flat_attention(file):
        findings.append(_flat_attention(file))
    if file.layout.other_prefixes:
        prefix = quoted(file.layout.other_prefixes[0])
        text = f"The file contains a second VAE, under {prefix}. Hosts ignore it, and so does this checkup."
        findings.append(Finding("second-vae", INFORMATION, text))
    return tuple(findings)


def _not_read(file: VaeFile) -> Finding:
    label = quoted(file.layout.label)
    text = (
        f"No host loads the VAE in this checkpoint: its layout is {label}, "
        "but models of this kind need ldm names under first_stage_model. For hosts it is a checkpoint without a VAE."
    )
    remedy = "vae-lab bake CHECKPOINT CHECKPOINT -o NEW writes it correctly. Or choose an external VAE."
    return Finding("missing", MISSING, text, (), remedy)


def _has_flat_attention(file: VaeFile) -> bool:
    """[C,C] is how diffusers stores attention; under ldm names, hosts expect convolutions, [C,C,1,1]."""
    tensors = file.weights.tensors
    return file.layout.naming == "ldm" and any(
        name.endswith(".weight") and len(tensors[source].shape) == 2 for name, source in file.layout.names.items()
    )


def _flat_attention(file: VaeFile) -> Finding:
    text = (
        "The WebUI, Forge and ComfyUI cannot load this VAE (size mismatch): "
        "its attention weights have the shape [C, C], but ldm names need [C, C, 1, 1]. VAE Lab can load it."
    )
    remedy = "vae-lab extract writes the VAE correctly to a file of its own."
    if file.layout.kind == "checkpoint":
        remedy = "vae-lab bake CHECKPOINT CHECKPOINT -o NEW writes it correctly."
    return Finding("host-shapes", SUSPECT, text, (), remedy)
