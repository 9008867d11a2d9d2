"""AutoencoderKL, the VAE of Stable Diffusion 1, 2, XL, 3 and Flux."""

from __future__ import annotations

import re
from functools import lru_cache

from torch import Tensor, nn

from vae_lab.autoencoders.base import Architecture, Shapes, check_shapes, conv_channels, shapes_of
from vae_lab.autoencoders.kl.module import NORM_NUM_GROUPS, AutoencoderKL, KLConfig, empty_module
from vae_lab.autoencoders.kl.strips import bytes_to_decode, bytes_to_encode, decode_in_strips
from vae_lab.errors import BadShape, MissingKeys, NotAnAutoencoder

__all__ = ["AutoencoderKL", "KLArchitecture", "KLConfig", "config_from_shapes"]

_MAX_LEVELS = 8  # 256 pixels per latent pixel; every published VAE has 4 levels
_MAX_BLOCKS = 32  # per level; every published VAE has 1 to 3
_ENCODER_BLOCK = re.compile(r"^encoder\.down\.(\d+)\.block\.(\d+)\.conv1\.weight$")
_DECODER_BLOCK = re.compile(r"^decoder\.up\.(\d+)\.block\.(\d+)\.conv1\.weight$")
_ATTENTION = re.compile(r"^(?:encoder\.down|decoder\.up)\.(\d+)\.attn\.")


class KLArchitecture(Architecture):
    """Its module uses images in -1..1 and unscaled latents; the caller applies the family's scaling."""

    name = "AutoencoderKL"
    scales_latents = True

    def detects(self, shapes: Shapes) -> bool:
        return "decoder.conv_in.weight" in shapes or "encoder.conv_in.weight" in shapes

    def build(self, shapes: Shapes, path: str) -> nn.Module:
        self.check(shapes, path)
        return empty_module(config_from_shapes(shapes, path))

    def check(self, shapes: Shapes, path: str) -> None:
        check_shapes(_expected_shapes(config_from_shapes(shapes, path)), shapes, path)

    def latent_channels(self, shapes: Shapes) -> int:
        return config_from_shapes(shapes).latent_channels

    def image_channels(self, module: nn.Module) -> int:
        assert isinstance(module, AutoencoderKL)
        return module.config.image_channels

    def downscale(self, module: nn.Module) -> int:
        assert isinstance(module, AutoencoderKL)
        return module.config.downscale

    def encode(self, module: nn.Module, images: Tensor) -> Tensor:
        assert isinstance(module, AutoencoderKL)
        return module.encode(images * 2.0 - 1.0)

    def decode_in_strips(self, module: nn.Module, latents: Tensor) -> Tensor:
        assert isinstance(module, AutoencoderKL)
        return (decode_in_strips(module, latents).float() + 1.0) / 2.0

    def bytes_to_decode(self, module: nn.Module, latents: Tensor) -> int:
        assert isinstance(module, AutoencoderKL)
        return bytes_to_decode(module, latents) if module.decoder is not None else 0

    def bytes_to_encode(self, module: nn.Module, images: Tensor) -> int:
        assert isinstance(module, AutoencoderKL)
        return bytes_to_encode(module, images) if module.encoder is not None else 0

    def decode(self, module: nn.Module, latents: Tensor) -> Tensor:
        assert isinstance(module, AutoencoderKL)
        # Full precision from here on, as in hosts.
        return (module.decode(latents).float() + 1.0) / 2.0


@lru_cache(maxsize=8)
def _expected_shapes(config: KLConfig) -> Shapes:
    """Cached, because most files have one of a few configurations."""
    return shapes_of(empty_module(config))


def config_from_shapes(shapes: Shapes, path: str = "") -> KLConfig:
    """Derive the configuration from canonical names and shapes.

    Raises:
        MissingKeys: a tensor that defines the configuration is missing.
        BadShape, NotAnAutoencoder: the shapes are not those of an AutoencoderKL.
    """
    # A half is there if anything of it is: a few missing tensors make a VAE incomplete, not half of one.
    encoder = any(name.startswith(("encoder.", "quant_conv.")) for name in shapes)
    decoder = any(name.startswith(("decoder.", "post_quant_conv.")) for name in shapes)
    image_channels, z_channels = _ends(shapes, path, encoder, decoder)
    latent_channels = z_channels
    if "post_quant_conv.weight" in shapes:
        _, latent_channels = conv_channels(shapes, "post_quant_conv", path)
    elif "quant_conv.weight" in shapes:
        latent_channels = conv_channels(shapes, "quant_conv", path)[0] // 2
    widths, blocks = _levels(shapes, path, "encoder" if encoder else "decoder")
    return KLConfig(
        block_out_channels=widths,
        layers_per_block=blocks,
        latent_channels=latent_channels,
        z_channels=z_channels,
        image_channels=image_channels,
        attention=frozenset(int(match[1]) for match in map(_ATTENTION.match, shapes) if match),
        mid_block_add_attention=any(".mid.attn_1." in name for name in shapes),
        use_quant_conv="quant_conv.weight" in shapes or "post_quant_conv.weight" in shapes,
        encoder=encoder,
        decoder=decoder,
    )


def _ends(shapes: Shapes, path: str, encoder: bool, decoder: bool) -> tuple[int, int]:
    """Channels of an image, and between the quant convs and the halves."""
    if encoder:
        conv_channels(shapes, "encoder.conv_in", path)
    if encoder and not decoder:
        doubled, _ = conv_channels(shapes, "encoder.conv_out", path)
        return conv_channels(shapes, "encoder.conv_in", path)[1], doubled // 2
    _, z_channels = conv_channels(shapes, "decoder.conv_in", path)
    return conv_channels(shapes, "decoder.conv_out", path)[0], z_channels


def _levels(shapes: Shapes, path: str, half: str) -> tuple[tuple[int, ...], int]:
    """Channels of each level, and the number of residual blocks per level of the encoder; read from ``half``."""
    pattern = _ENCODER_BLOCK if half == "encoder" else _DECODER_BLOCK
    blocks: dict[int, int] = {}
    channels: dict[int, int] = {}
    for name in shapes:
        if match := pattern.match(name):
            level = int(match[1])
            blocks[level] = blocks.get(level, 0) + 1
            channels[level], _ = conv_channels(shapes, name.removesuffix(".weight"), path)
    levels = len(channels)
    if not 0 < levels <= _MAX_LEVELS or sorted(channels) != list(range(levels)):
        raise MissingKeys(path, f"the VAE is incomplete: it only has the {half} levels {sorted(channels)}")
    if len(set(blocks.values())) != 1:
        raise MissingKeys(path, f"the VAE is incomplete: its levels have {list(blocks.values())} residual blocks")
    if blocks[0] > _MAX_BLOCKS:
        raise NotAnAutoencoder(path, f"unknown VAE architecture: {blocks[0]} residual blocks per level")
    widths = tuple(channels[i] for i in range(levels))
    if any(width % NORM_NUM_GROUPS for width in widths):
        raise BadShape(path, f"channel counts {list(widths)} are not multiples of {NORM_NUM_GROUPS} (group norm)")
    # The decoder has one block more per level.
    return widths, blocks[0] if half == "encoder" else blocks[0] - 1
