"""Layers that compute what they are asked to, whatever a host does to torch's.

On some devices the WebUI replaces ``forward`` of ``torch.nn.Conv2d`` and others, for all threads, for as long as it
samples (``modules/devices.py: manual_cast``): what passes through them is cast to its own precision.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Conv2d", "GroupNorm"]


class Conv2d(nn.Conv2d):
    """As torch's."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  as torch calls it
        return self._conv_forward(input, self.weight, self.bias)


class GroupNorm(nn.GroupNorm):
    """As torch's."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  as torch calls it
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)
