"""Layers that a host's patches of torch do not affect.

On some devices the WebUI replaces ``forward`` of ``torch.nn.Conv2d`` and others in all threads while it samples
(``modules/devices.py: manual_cast``), and so casts their inputs to its own precision.

On the meta device, where there are no values, they are not initialised: that would take as long as reading a small VAE.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Conv2d", "GroupNorm"]


class Conv2d(nn.Conv2d):
    """As in torch."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        return self._conv_forward(input, self.weight, self.bias)

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()


class GroupNorm(nn.GroupNorm):
    """As in torch."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()
