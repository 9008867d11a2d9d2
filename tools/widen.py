"""Make a large autoencoder from a small one: the same function in more weights.

Each channel is copied, and what reads the copies shares its weight among them at random (Net2Net, arXiv 1511.05641).
Copies stay in the group of their original, so group norms see the same mean and spread. Added residual blocks begin as
the identity. The result computes what the small one computes, and training may go on from there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vae_lab.autoencoders.kl.module import NORM_NUM_GROUPS, AttnBlock, AutoencoderKL, KLConfig, ResnetBlock

_SPREAD = 0.5  # of the shares: 0 shares a weight equally


class _Widening:
    """Which original each channel copies: one map for each pair of widths, because residuals add up equal ones."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self._maps: dict[tuple[int, int], Tensor] = {}

    def originals(self, new: int, old: int) -> Tensor:
        """[new]: the original of each channel."""
        if new == old:
            return torch.arange(old)
        if (new, old) not in self._maps:
            groups = torch.arange(old).view(NORM_NUM_GROUPS, -1)
            copies = groups.repeat(1, new // old)
            orders = torch.rand(copies.shape, generator=self.generator).argsort(1)
            self._maps[new, old] = copies.gather(1, orders).flatten()
        return self._maps[new, old]

    def shares(self, outputs: int, originals: Tensor, old: int) -> Tensor:
        """[outputs, new]: the part of its original's weight that each input gets; 1 in all for each original."""
        raw = 1 + _SPREAD * (2 * torch.rand(outputs, len(originals), generator=self.generator) - 1)
        sums = torch.zeros(outputs, old).index_add_(1, originals, raw)
        return raw / sums[:, originals]

    def conv(self, new: nn.Conv2d, old: nn.Conv2d) -> None:
        inputs = self.originals(new.in_channels, old.in_channels)
        outputs = self.originals(new.out_channels, old.out_channels)
        shares = self.shares(new.out_channels, inputs, old.in_channels)
        new.weight.copy_(old.weight[outputs][:, inputs] * shares[:, :, None, None])
        new.bias.copy_(old.bias[outputs])

    def norm(self, new: nn.GroupNorm, old: nn.GroupNorm) -> None:
        originals = self.originals(new.num_channels, old.num_channels)
        new.weight.copy_(old.weight[originals])
        new.bias.copy_(old.bias[originals])

    def shortcut(self, new: nn.Conv2d, old_width: int) -> None:
        """A convolution that carries every channel on, where the small one has none."""
        same = nn.Conv2d(old_width, old_width, 1)
        same.weight.copy_(torch.eye(old_width)[:, :, None, None])
        same.bias.zero_()
        self.conv(new, same)


def widened(small: AutoencoderKL, config: KLConfig, seed: int) -> AutoencoderKL:
    """A larger autoencoder that computes the same.

    Args:
        small: a whole autoencoder.
        config: its widths are multiples of the small one's, with as many levels and at least as many blocks. Levels
            that have equal widths in it have equal ones in the small one too.
        seed: of the copies' order and shares, and of added blocks.
    """
    torch.manual_seed(seed)
    large, widening = AutoencoderKL(config), _Widening(seed)
    old = dict(small.named_modules())
    with torch.no_grad():
        for name, module in large.named_modules():
            original = old.get(name)
            if isinstance(module, ResnetBlock) and original is None:
                nn.init.zeros_(module.conv2.weight)
                nn.init.zeros_(module.conv2.bias)
            elif isinstance(module, nn.Conv2d) and isinstance(original, nn.Conv2d):
                widening.conv(module, original)
            elif isinstance(module, nn.Conv2d) and isinstance(original, nn.Identity):
                widening.shortcut(module, old[name.removesuffix("nin_shortcut") + "conv1"].in_channels)
            elif isinstance(module, nn.GroupNorm) and isinstance(original, nn.GroupNorm):
                widening.norm(module, original)
        for name, module in large.named_modules():
            if isinstance(module, AttnBlock):
                # Products of queries and keys are sums over more channels, divided by the root of their number.
                factor = (old[name].q.in_channels / module.q.in_channels) ** 0.5
                module.q.weight.mul_(factor)
                module.q.bias.mul_(factor)
    return large
