"""AutoencoderKL, the autoencoder of latent diffusion, as a plain ``nn.Module``.

Parameter names are those of CompVis' ``ldm`` (``encoder.down.0.block.0.conv1.weight``), so that a
canonical state dict loads as it is. The arithmetic follows ``ldm/modules/diffusionmodules/model.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vae_lab.autoencoders.layers import Conv2d, GroupNorm
from vae_lab.errors import UnknownChoice

NORM_NUM_GROUPS = 32  # the same in ldm and diffusers


_OLD_NAMES = {
    "channels": "block_out_channels",
    "blocks": "layers_per_block",
    "mid_attention": "mid_block_add_attention",
    "quant_conv": "use_quant_conv",
}
_Class = TypeVar("_Class", bound=type)


def _accept_old_names(cls: _Class) -> _Class:
    """Deprecated since 0.2: the names of the arguments in 0.1."""
    init: Callable[..., None] = cls.__init__

    @wraps(init)
    def renamed(self: object, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **{_OLD_NAMES.get(name, name): value for name, value in kwargs.items()})

    cls.__init__ = renamed
    return cls


@_accept_old_names
@dataclass(frozen=True)
class KLConfig:
    """The configuration of an AutoencoderKL, with diffusers' names; all of it can be derived from tensor shapes.

    Args:
        block_out_channels: channels of each level, from full size to the smallest.
        layers_per_block: residual blocks per level of the encoder (the decoder has one more).
        latent_channels: channels of a latent.
        z_channels: channels between the quant convs and the encoder or decoder.
        image_channels: channels of an image.
        attention: levels (indices into ``block_out_channels``) with attention after each residual block.
        mid_block_add_attention: whether the middle has an attention block.
        use_quant_conv: whether there are 1x1 convolutions between encoder, latent and decoder.
        encoder, decoder: which halves there are; fine-tuned decoders are published without an encoder.
    """

    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    latent_channels: int = 4
    z_channels: int = 4
    image_channels: int = 3
    attention: frozenset[int] = field(default_factory=frozenset)
    mid_block_add_attention: bool = True
    use_quant_conv: bool = True
    encoder: bool = True
    decoder: bool = True

    @property
    def downscale(self) -> int:
        """Image pixels per latent pixel, along one side."""
        return 2 ** (len(self.block_out_channels) - 1)


def _norm(channels: int) -> GroupNorm:
    return GroupNorm(NORM_NUM_GROUPS, channels, eps=1e-6)


class ResnetBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut. [B,in,H,W] -> [B,out,H,W]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = _norm(inputs)
        self.conv1 = Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = _norm(outputs)
        self.conv2 = Conv2d(outputs, outputs, 3, padding=1)
        self.nin_shortcut = Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return self.nin_shortcut(x) + h


class AttnBlock(nn.Module):
    """Single-head self-attention over all positions. [B,C,H,W] -> [B,C,H,W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.q = Conv2d(channels, channels, 1)
        self.k = Conv2d(channels, channels, 1)
        self.v = Conv2d(channels, channels, 1)
        self.proj_out = Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        normed = self.norm(x)
        q, k, v = (conv(normed).reshape(b, 1, c, h * w).transpose(2, 3) for conv in (self.q, self.k, self.v))
        out = F.scaled_dot_product_attention(q.contiguous(), k.contiguous(), v.contiguous())
        return x + self.proj_out(out.transpose(2, 3).reshape(b, c, h, w))


class Downsample(nn.Module):
    """Halve the size. ldm pads right and bottom only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double the size: nearest neighbour, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class _Mid(nn.Module):
    def __init__(self, channels: int, attention: bool) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels)
        self.attn_1 = AttnBlock(channels) if attention else nn.Identity()
        self.block_2 = ResnetBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class _Level(nn.Module):
    """The blocks of one level, followed by a change of size, if any."""

    def __init__(self, inputs: int, outputs: int, blocks: int, attention: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResnetBlock(inputs if i == 0 else outputs, outputs) for i in range(blocks))
        self.attn = nn.ModuleList(AttnBlock(outputs) for _ in range(blocks if attention else 0))

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[i](x)
        # The change of size, where there is one; ldm names it differently in encoder and decoder.
        resample = self._modules.get("upsample") or self._modules.get("downsample")
        return x if resample is None else resample(x)


class Encoder(nn.Module):
    """Image [B,3,H,W] in -1..1 -> moments [B,2z,h,w]."""

    def __init__(self, config: KLConfig) -> None:
        super().__init__()
        channels = config.block_out_channels
        self.conv_in = Conv2d(config.image_channels, channels[0], 3, padding=1)
        self.down = nn.ModuleList()
        for i, width in enumerate(channels):
            level = _Level(channels[max(i - 1, 0)], width, config.layers_per_block, i in config.attention)
            if i < len(channels) - 1:
                level.downsample = Downsample(width)
            self.down.append(level)
        self.mid = _Mid(channels[-1], config.mid_block_add_attention)
        self.norm_out = _norm(channels[-1])
        self.conv_out = Conv2d(channels[-1], 2 * config.z_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """Latent [B,z,h,w] -> image [B,3,H,W], about -1..1, not clamped."""

    def __init__(self, config: KLConfig) -> None:
        super().__init__()
        channels = config.block_out_channels
        self.conv_in = Conv2d(config.z_channels, channels[-1], 3, padding=1)
        self.mid = _Mid(channels[-1], config.mid_block_add_attention)
        self.up = nn.ModuleList()
        for i, width in enumerate(channels):
            inputs = channels[min(i + 1, len(channels) - 1)]
            level = _Level(inputs, width, config.layers_per_block + 1, i in config.attention)
            if i > 0:
                level.upsample = Upsample(width)
            self.up.append(level)
        self.norm_out = _norm(channels[0])
        self.conv_out = Conv2d(channels[0], config.image_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class AutoencoderKL(nn.Module):
    """The whole autoencoder, in the VAE's own units: images -1..1, latents not scaled."""

    def __init__(self, config: KLConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config) if config.encoder else None
        self.decoder = Decoder(config) if config.decoder else None
        self.quant_conv = self.post_quant_conv = nn.Identity()
        if config.use_quant_conv and config.encoder:
            self.quant_conv = Conv2d(2 * config.z_channels, 2 * config.latent_channels, 1)
        if config.use_quant_conv and config.decoder:
            self.post_quant_conv = Conv2d(config.latent_channels, config.z_channels, 1)

    def moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latent, each [B,C,h,w]; log-variance clamped as in ldm.

        Raises:
            UnknownChoice: there is no encoder.
        """
        if self.encoder is None:
            raise UnknownChoice("this VAE has only the decoder: it cannot encode")
        mean, logvar = self.quant_conv(self.encoder(images)).chunk(2, dim=1)
        return mean, logvar.clamp(-30.0, 20.0)

    def encode(self, images: Tensor) -> Tensor:
        """[B,3,H,W] in -1..1 -> mean latent [B,C,h,w]."""
        return self.moments(images)[0]

    def decode(self, latents: Tensor) -> Tensor:
        """[B,C,h,w] -> [B,3,H,W], about -1..1, not clamped.

        Raises:
            UnknownChoice: there is no decoder.
        """
        if self.decoder is None:
            raise UnknownChoice("this VAE has only the encoder: it cannot decode")
        return self.decoder(self.post_quant_conv(latents))


def empty_module(config: KLConfig) -> AutoencoderKL:
    """An AutoencoderKL on the meta device, without memory for weights."""
    with torch.device("meta"):
        return AutoencoderKL(config)
