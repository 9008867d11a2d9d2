"""Decode a large latent in little memory, strip by strip, to the same image.

Cutting a latent into tiles and blending them hides that each tile was normalised by itself: colours shift from tile to
tile. Here only the work is cut. Every layer goes over its input in strips of rows, with a row more on each side for the
convolution, and group norms take their mean and variance over the whole map, as they would untiled. So there are no
seams to blend; what differs is the rounding. Maps between layers stay in the system's memory, and the device holds one
strip at a time, and the smallest map whole, for attention.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["bytes_to_decode", "bytes_to_encode", "decode_in_strips"]

_ELEMENTS = 2**21  # of one strip
_Step = Callable[[Tensor], Tensor]


@torch.no_grad()
def decode_in_strips(module: nn.Module, latents: Tensor, *, elements: int = _ELEMENTS) -> Tensor:
    """[1,C,h,w] in the VAE's own units -> [1,3,H,W], about -1..1, on the CPU.

    Args:
        module: an AutoencoderKL as ldm builds it, ours or a host's, with zero or circular padding.
        latents: on any device.
        elements: how many numbers a strip may have.
    """
    strips = _Strips(next(module.parameters()), elements)
    decoder: Any = module.decoder
    x = latents.to(strips.device, strips.dtype)
    x = decoder.conv_in(getattr(module, "post_quant_conv", nn.Identity())(x)).cpu()
    x = strips.residual(decoder.mid.block_1, x)
    x = strips.attention(getattr(decoder.mid, "attn_1", nn.Identity()), x)
    x = strips.residual(decoder.mid.block_2, x)
    for level in reversed(decoder.up):
        for i, block in enumerate(level.block):
            x = strips.residual(block, x)
            if len(getattr(level, "attn", ())):
                x = strips.attention(level.attn[i], x)
        upsample = getattr(level, "upsample", None)
        if upsample is not None:
            x = strips.convolution(upsample.conv, x, scale=2)
    return strips.convolution(decoder.conv_out, x, strips.activated(decoder.norm_out, x))


def bytes_to_decode(module: nn.Module, latents: Tensor) -> int:
    """About how much memory decoding one latent as a whole takes, beside the weights.

    Measured: eight times what the narrowest map takes at the size of the image. The widest one has twice its
    channels, and there are its input, its output, and what norm and activation make of them.
    """
    decoder: Any = module.decoder
    pixels = latents.shape[2] * latents.shape[3] * 4 ** (len(decoder.up) - 1)
    return 8 * pixels * decoder.conv_out.in_channels * next(module.parameters()).element_size()


def bytes_to_encode(module: nn.Module, images: Tensor) -> int:
    """About how much memory encoding one image takes, beside the weights.

    Measured: six times what the first map takes. It has the size of the image, and none that is so large is wider.
    """
    encoder: Any = module.encoder
    pixels = images.shape[2] * images.shape[3]
    return 6 * pixels * encoder.conv_in.out_channels * next(module.parameters()).element_size()


class _Strips:
    def __init__(self, like: Tensor, elements: int) -> None:
        self.device, self.dtype = like.device, like.dtype
        self._elements = elements

    def residual(self, block: Any, x: Tensor) -> Tensor:
        h = self.convolution(block.conv1, x, self.activated(block.norm1, x))
        shortcut = getattr(block, "nin_shortcut", None) or nn.Identity()
        out = x if block.conv2.out_channels == x.shape[1] else x.new_empty(1, block.conv2.out_channels, *x.shape[2:])

        # Each row of ``x`` is read for the last time where its sum is written, so no third map is needed.
        def add(rows: slice, made: Tensor) -> None:
            out[:, :, rows] = (shortcut(x[:, :, rows].to(self.device)) + made).cpu()

        self._convolve(block.conv2, h, self.activated(block.norm2, h), 1, add)
        return out

    def attention(self, block: nn.Module, x: Tensor) -> Tensor:
        return block(x.to(self.device)).cpu()

    def convolution(self, conv: nn.Conv2d, x: Tensor, before: _Step | None = None, scale: int = 1) -> Tensor:
        out = x.new_empty(1, conv.out_channels, x.shape[2] * scale, x.shape[3] * scale)

        def put(rows: slice, made: Tensor) -> None:
            out[:, :, rows] = made.cpu()

        self._convolve(conv, x, before, scale, put)
        return out

    def activated(self, norm: nn.GroupNorm, x: Tensor) -> _Step:
        """Group norm over all of ``x``, then SiLU, of strips."""
        groups = x.reshape(norm.num_groups, -1)  # a copy, where a host keeps channels last
        pairs = [torch.var_mean(group.float(), unbiased=False) for group in groups]
        variance, mean = (torch.stack(values).to(self.device) for values in zip(*pairs, strict=True))
        each = x.shape[1] // norm.num_groups
        factor = norm.weight.float() * (variance + norm.eps).rsqrt().repeat_interleave(each)
        offset = norm.bias.float() - mean.repeat_interleave(each) * factor
        factor, offset = factor[None, :, None, None], offset[None, :, None, None]
        return lambda strip: F.silu((strip.float() * factor + offset).to(self.dtype))

    def _convolve(
        self, conv: nn.Conv2d, x: Tensor, before: _Step | None, scale: int, write: Callable[[slice, Tensor], None]
    ) -> None:
        """A 3x3 convolution over ``x``, enlarged by ``scale``: strips of its result, from the top."""
        height, width = x.shape[2:]
        circular = conv.padding_mode == "circular"
        rows = max(1, self._elements // (max(conv.in_channels, conv.out_channels) * width * scale**2))
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            wanted = range(top - 1, bottom + 1)
            there = [row % height for row in wanted if circular or 0 <= row < height]
            strip = x[:, :, there].to(self.device)
            if before is not None:
                strip = before(strip)
            if not circular:  # nothing beyond the edge, and that after the norm
                strip = F.pad(strip, (0, 0, int(wanted[0] < 0), int(wanted[-1] >= height)))
            if scale > 1:
                strip = F.interpolate(strip, scale_factor=float(scale), mode="nearest")
                strip = strip[:, :, scale - 1 : strip.shape[2] - scale + 1]  # one row more on each side is enough
            strip = F.pad(strip, (1, 1, 0, 0), mode="circular") if circular else F.pad(strip, (1, 1, 0, 0))
            write(slice(top * scale, bottom * scale), F.conv2d(strip, conv.weight, conv.bias))
