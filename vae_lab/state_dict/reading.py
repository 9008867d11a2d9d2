"""Read only a VAE's tensors, in canonical form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from vae_lab.errors import NotFinite
from vae_lab.formats import WeightFile
from vae_lab.state_dict.canonical import Layout

__all__ = ["canonical_shape", "not_finite", "read_tensors"]


def canonical_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The canonical shape of a tensor: attention weights as 1x1 convolutions [C,C,1,1], also if they are [C,C]."""
    if len(shape) == 2 and (".attn_1." in name or ".attn." in name):
        return (*shape, 1, 1)
    return shape


def read_tensors(
    file: WeightFile,
    layout: Layout,
    names: Iterable[str] | None = None,
    *,
    check_finite: bool = True,
) -> dict[str, Tensor]:
    """Read the tensors ``names`` (canonical; by default, the whole VAE) in the file's own dtype.

    Raises:
        FileError: the file is truncated or malformed.
        NotFinite: a weight is NaN or infinite.
    """
    wanted = list(layout.names if names is None else names)
    tensors: dict[str, Tensor] = {}
    for name in wanted:
        tensor = file.read(layout.names[name])
        if check_finite and not_finite({name: tensor}):
            raise NotFinite(file.path, f"the VAE's weights are not finite: {name} has NaN or infinite values")
        tensors[name] = tensor.reshape(canonical_shape(name, tuple(tensor.shape)))
    return tensors


def not_finite(state: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors with NaN or infinite values."""
    return [name for name, tensor in state.items() if tensor.is_floating_point() and not _is_finite(tensor)]


def _is_finite(tensor: Tensor) -> bool:
    # A sum is many times faster. It shows NaN and infinity; only sums that overflow need a look at each value.
    if tensor.element_size() == 1:  # torch supports neither for 8-bit floats
        tensor = tensor.float()
    total = tensor.sum(dtype=torch.promote_types(tensor.dtype, torch.float32))
    return bool(torch.isfinite(total)) or bool(torch.isfinite(tensor).all())
