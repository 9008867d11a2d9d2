"""A hash over a VAE's weights, so that containers, layouts and fp16 copies of the same weights agree."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["fingerprint", "memory_digest", "short"]

_LARGEST_HALF = torch.finfo(torch.float16).max


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """64 hex digits over canonical names, shapes and values rounded to fp16.

    Args:
        state: a VAE in canonical form (see :mod:`vae_lab.state_dict`), in any precision.

    fp32 and fp16 copies of the same weights agree; a bf16 copy has lost bits and does not.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        # Values too large for fp16 are cut, not made infinite: two such weights shall still differ in sign.
        values = state[name].detach().cpu().float().clamp(-_LARGEST_HALF, _LARGEST_HALF).half() + 0.0
        digest.update(f"{name}{list(values.shape)}".encode())
        digest.update(values.contiguous().numpy().tobytes())
    return digest.hexdigest()


def memory_digest(tensors: Mapping[str, Tensor]) -> str:
    """64 hex digits over a few values of every tensor: whether weights in memory are still the same, in milliseconds.

    Args:
        tensors: on any device, in any precision. Other precisions give other digests.
    """
    values = []
    for name in sorted(tensors):
        flat = tensors[name].detach().flatten()
        values.append(flat[:: max(1, flat.numel() // 32)].float())
    joined = torch.cat(values).cpu() if values else torch.zeros(0)
    return hashlib.sha256(joined.numpy().tobytes()).hexdigest()


def short(digest: str) -> str:
    """The first 10 hex digits, as the WebUI shortens its own hashes."""
    return digest[:10]
