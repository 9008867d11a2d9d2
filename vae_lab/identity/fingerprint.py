"""Hashes a VAE's weights, independently of container, layout, and fp32 or fp16."""

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
        state: a VAE in canonical form (see :mod:`vae_lab.state_dict`), of any dtype.

    fp32 and fp16 copies of the same weights have the same fingerprint; a bf16 copy has lost bits and has another.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        # Clamped, so that values too large for fp16 do not become infinite.
        values = state[name].detach().cpu().float().clamp(-_LARGEST_HALF, _LARGEST_HALF).half() + 0.0
        digest.update(f"{name}{list(values.shape)}".encode())
        digest.update(values.contiguous().numpy().tobytes())
    return digest.hexdigest()


def memory_digest(tensors: Mapping[str, Tensor]) -> str:
    """64 hex digits over a few values of every tensor, to check in milliseconds whether weights in memory changed.

    Args:
        tensors: on any device, of any dtype. Another dtype gives another digest.
    """
    values = []
    for name in sorted(tensors):
        flat = tensors[name].detach().flatten()
        values.append(flat[:: max(1, flat.numel() // 32)].float())
    joined = torch.cat(values).cpu() if values else torch.zeros(0)
    return hashlib.sha256(joined.numpy().tobytes()).hexdigest()


def short(digest: str) -> str:
    """The first 10 hex digits, as in the WebUI's short hashes."""
    return digest[:10]
