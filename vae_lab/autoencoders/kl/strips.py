"""Decode a large latent in strips, with little memory and the same result.

Tiled decoding normalises each tile by itself, so colours shift from tile to tile, and blending hides the seams. Here
only the computation is split. Each layer processes its input in strips of rows, with one more row on each side for the
convolution, and group norms use the mean and variance of the whole feature map. So there are no seams; only rounding
differs. Feature maps between layers stay in the CPU's memory. The device holds one strip at a time, and for attention
the smallest map as a whole.
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
        module: an AutoencoderKL with ldm's structure, ours or a host's, with zero or circular padding.
        latents: on any device.
        elements: maximum number of values in a strip.
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
    """Approximate memory for decoding one latent as a whole, without the weights.

    Measured: eight times the narrowest feature map at image size. The widest one has twice its channels, and its
    input, its output and the results of norm and activation exist at the same time.
    """
    decoder: Any = module.decoder
    pixels = latents.shape[2] * latents.shape[3] * 4 ** (len(decoder.up) - 1)
    return 8 * pixels * decoder.conv_out.in_channels * next(module.parameters()).element_size()


def bytes_to_encode(module: nn.Module, images: Tensor) -> int:
    """Approximate memory for encoding one image, without the weights.

    Measured: six times the first feature map, which is the widest one at image size.
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

        # A row of ``x`` is not needed after its sum is written, so ``out`` can be ``x`` itself.
        def add(rows: slice, result: Tensor) -> None:
            out[:, :, rows] = (shortcut(x[:, :, rows].to(self.device)) + result).cpu()

        self._convolve(block.conv2, h, self.activated(block.norm2, h), 1, add)
        return out

    def attention(self, block: nn.Module, x: Tensor) -> Tensor:
        return block(x.to(self.device)).cpu()

    def convolution(self, conv: nn.Conv2d, x: Tensor, before: _Step | None = None, scale: int = 1) -> Tensor:
        out = x.new_empty(1, conv.out_channels, x.shape[2] * scale, x.shape[3] * scale)

        def put(rows: slice, result: Tensor) -> None:
            out[:, :, rows] = result.cpu()

        self._convolve(conv, x, before, scale, put)
        return out

    def activated(self, norm: nn.GroupNorm, x: Tensor) -> _Step:
        """A function that applies group norm with the statistics of all of ``x``, then SiLU, to a strip."""
        groups = x.reshape(norm.num_groups, -1)  # a copy if a host uses channels_last
        pairs = [torch.var_mean(group.float(), unbiased=False) for group in groups]
        variance, mean = (torch.stack(values).to(self.device) for values in zip(*pairs, strict=True))
        group_size = x.shape[1] // norm.num_groups
        factor = norm.weight.float() * (variance + norm.eps).rsqrt().repeat_interleave(group_size)
        offset = norm.bias.float() - mean.repeat_interleave(group_size) * factor
        factor, offset = factor[None, :, None, None], offset[None, :, None, None]
        return lambda strip: F.silu((strip.float() * factor + offset).to(self.dtype))

    def _convolve(
        self, conv: nn.Conv2d, x: Tensor, before: _Step | None, scale: int, write: Callable[[slice, Tensor], None]
    ) -> None:
        """Upsample ``x`` by ``scale``, convolve it with a 3x3 kernel, and pass the result to ``write`` in strips."""
        height, width = x.shape[2:]
        circular = conv.padding_mode == "circular"
        rows = max(1, self._elements // (max(conv.in_channels, conv.out_channels) * width * scale**2))
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            needed = range(top - 1, bottom + 1)
            existing = [row % height for row in needed if circular or 0 <= row < height]
            strip = x[:, :, existing].to(self.device)
            if before is not None:
                strip = before(strip)
            if not circular:  # zero padding beyond the edge comes after the norm
                strip = F.pad(strip, (0, 0, int(needed[0] < 0), int(needed[-1] >= height)))
            if scale > 1:
                strip = F.interpolate(strip, scale_factor=float(scale), mode="nearest")
                strip = strip[:, :, scale - 1 : strip.shape[2] - scale + 1]  # one more row on each side is enough
            strip = F.pad(strip, (1, 1, 0, 0), mode="circular") if circular else F.pad(strip, (1, 1, 0, 0))
            write(slice(top * scale, bottom * scale), F.conv2d(strip, conv.weight, conv.bias))
