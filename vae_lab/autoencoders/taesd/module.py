"""TAESD, the tiny autoencoder, as a plain ``nn.Module``.

Layers are numbered as in the published weights (github.com/madebyollin/taesd, MIT), so that they load unchanged.
TAESD uses images in 0..1 and latents in model space.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vae_lab.autoencoders.layers import Conv2d


class Block(nn.Module):
    """Three convolutions and a shortcut. [B,in,H,W] -> [B,out,H,W]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            Conv2d(inputs, outputs, 3, padding=1),
            nn.ReLU(),
            Conv2d(outputs, outputs, 3, padding=1),
            nn.ReLU(),
            Conv2d(outputs, outputs, 3, padding=1),
        )
        self.skip = Conv2d(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x) + self.skip(x))


class Clamp(nn.Module):
    """Softly limit latents to about -3..3."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


def _conv(inputs: int, outputs: int, **kwargs: int | bool) -> Conv2d:
    return Conv2d(inputs, outputs, 3, padding=1, **kwargs)  # type: ignore[arg-type]


def build_encoder(latent_channels: int, width: int = 64) -> nn.Sequential:
    """Image [B,3,H,W] in 0..1 -> latent [B,C,H/8,W/8] in model space."""
    layers: list[nn.Module] = [_conv(3, width), Block(width, width)]
    for _ in range(3):
        layers += [_conv(width, width, stride=2, bias=False), *(Block(width, width) for _ in range(3))]
    return nn.Sequential(*layers, _conv(width, latent_channels))


def build_decoder(latent_channels: int, width: int = 64) -> nn.Sequential:
    """Latent [B,C,h,w] in model space -> image [B,3,8h,8w], about 0..1, not clamped."""
    layers: list[nn.Module] = [Clamp(), _conv(latent_channels, width), nn.ReLU()]
    for _ in range(3):
        layers += [Block(width, width) for _ in range(3)]
        layers += [nn.Upsample(scale_factor=2), _conv(width, width, bias=False)]
    return nn.Sequential(*layers, Block(width, width), _conv(width, 3))


class Taesd(nn.Module):
    """Encoder, decoder or both: the published files contain one half each."""

    def __init__(self, latent_channels: int, *, encoder: bool, decoder: bool, width: int = 64) -> None:
        super().__init__()
        self.latent_channels = latent_channels
        self.taesd_encoder = build_encoder(latent_channels, width) if encoder else None
        self.taesd_decoder = build_decoder(latent_channels, width) if decoder else None
