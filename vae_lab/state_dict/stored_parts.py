"""A VAE's tensors as bytes at their places in the file, to look for parts that a download has lost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vae_lab.formats import WeightFile
from vae_lab.state_dict.canonical import Layout

__all__ = ["Part", "file_parts"]

_INTEGERS: dict[int, type[np.unsignedinteger[Any]]] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
_MIN_KERNEL = 4
_COLUMNS = 16  # what pruning removes together from a 1x1 convolution


@dataclass(frozen=True, eq=False)
class Part:
    """A contiguous tensor.

    Attributes:
        name: in the file.
        start: offset of its first byte in the file.
        data: [N] its elements, as unsigned integers of the same size.
        row: elements of an output channel; 0 for vectors.
        unit: elements that pruning and copying leave together: a kernel, or some columns of a 1x1 convolution.
    """

    name: str
    start: int
    data: npt.NDArray[Any]
    row: int
    unit: int

    @property
    def width(self) -> int:
        """Bytes per element."""
        return self.data.itemsize

    @property
    def end(self) -> int:
        """Offset of the byte after its last."""
        return self.start + self.data.nbytes

    @property
    def has_kernels(self) -> bool:
        """Whether its unit is a kernel, not a choice of ours."""
        return self.unit != _COLUMNS

    @cached_property
    def bytes(self) -> npt.NDArray[np.uint8]:
        """[N * width] its bytes."""
        return self.data.view(np.uint8)


def file_parts(file: WeightFile, layout: Layout, state: Mapping[str, Tensor]) -> list[Part]:
    """The tensors of ``state`` that are contiguous in the file, in the file's order; each byte at most once.

    Args:
        file: where they were read.
        layout: where the VAE is in the file.
        state: canonical name -> tensor, as read from the file.
    """
    found = []
    for name, tensor in state.items():
        start = file.position(layout.names[name])
        if start is not None and tensor.numel() and tensor.element_size() in _INTEGERS and tensor.is_contiguous():
            found.append(_part(layout.names[name], start, tensor))
    found.sort(key=lambda part: (part.start, -part.end))
    parts: list[Part] = []
    for part in found:  # torch can store several tensors in the same bytes
        if not parts or part.start >= parts[-1].end:
            parts.append(part)
    return parts


def _part(name: str, start: int, tensor: Tensor) -> Part:
    data = tensor.detach().flatten().view(torch.uint8).numpy().view(_INTEGERS[tensor.element_size()])
    kernel = math.prod(tensor.shape[2:])
    row = kernel * tensor.shape[1] if tensor.ndim > 1 else 0
    return Part(name, start, data, row, kernel if kernel >= _MIN_KERNEL else _COLUMNS)
