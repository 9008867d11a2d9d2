"""AutoencoderKL: the VAE of Stable Diffusion 1, 2, XL, 3 and of Flux."""

from __future__ import annotations

import re

from torch import Tensor, nn

from vae_lab.autoencoders.base import Architecture, Shapes, check_shapes
from vae_lab.autoencoders.kl.module import GROUPS, AutoencoderKL, KLConfig, empty_module
from vae_lab.errors import BadShape, MissingKeys

__all__ = ["AutoencoderKL", "KLArchitecture", "KLConfig", "config_from_shapes"]

_MOST_LEVELS = 8  # 256 pixels per latent pixel; every published VAE has 4 levels
_BLOCK = re.compile(r"^encoder\.down\.(\d+)\.block\.(\d+)\.conv1\.weight$")
_ATTENTION = re.compile(r"^(?:encoder\.down|decoder\.up)\.(\d+)\.attn\.")


class KLArchitecture(Architecture):
    """Pictures -1..1 and unscaled latents inside; the family's scaling is applied outside."""

    name = "AutoencoderKL"
    scales_latents = True

    def detects(self, shapes: Shapes) -> bool:
        return "decoder.conv_in.weight" in shapes or "encoder.conv_in.weight" in shapes

    def build(self, shapes: Shapes, path: str) -> nn.Module:
        module = empty_module(config_from_shapes(shapes, path))
        check_shapes(module, shapes, path)
        return module

    def latent_channels(self, shapes: Shapes) -> int:
        return _conv_inputs(shapes, "post_quant_conv" if "post_quant_conv.weight" in shapes else "decoder.conv_in")

    def downscale(self, module: nn.Module) -> int:
        assert isinstance(module, AutoencoderKL)
        return module.config.downscale

    def encode(self, module: nn.Module, images: Tensor) -> Tensor:
        assert isinstance(module, AutoencoderKL)
        return module.encode(images * 2.0 - 1.0)

    def decode(self, module: nn.Module, latents: Tensor) -> Tensor:
        assert isinstance(module, AutoencoderKL)
        return (module.decode(latents) + 1.0) / 2.0


def config_from_shapes(shapes: Shapes, path: str = "") -> KLConfig:
    """Read the configuration off canonical names and shapes alone.

    Raises:
        MissingKeys: a tensor that defines the configuration is not there.
        BadShape: the shapes define no possible AutoencoderKL.
    """
    for needed in ("encoder.conv_in.weight", "decoder.conv_in.weight", "decoder.conv_out.weight"):
        if needed not in shapes:
            raise MissingKeys(path, f"the VAE is incomplete: {needed} is missing")
        if len(shapes[needed]) != 4:
            raise BadShape(path, f"{needed} has shape {list(shapes[needed])}, not that of a 2-D convolution")
    blocks: dict[int, int] = {}
    channels: dict[int, int] = {}
    for name, shape in shapes.items():
        if match := _BLOCK.match(name):
            level = int(match[1])
            blocks[level] = blocks.get(level, 0) + 1
            channels[level] = shape[0]
    levels = len(channels)
    if not 0 < levels <= _MOST_LEVELS or sorted(channels) != list(range(levels)):
        raise MissingKeys(path, f"the VAE is incomplete: encoder levels found are {sorted(channels)}")
    if len(set(blocks.values())) != 1:
        raise MissingKeys(path, f"the VAE is incomplete: its levels have {list(blocks.values())} residual blocks")
    widths = tuple(channels[i] for i in range(levels))
    if any(width <= 0 or width % GROUPS for width in widths):
        raise BadShape(path, f"channel counts {list(widths)} are not multiples of {GROUPS}, as its group norm needs")
    quant_conv = "quant_conv.weight" in shapes or "post_quant_conv.weight" in shapes
    z_channels = _conv_inputs(shapes, "decoder.conv_in")
    return KLConfig(
        channels=widths,
        blocks=blocks[0],
        latent_channels=_conv_inputs(shapes, "post_quant_conv") if "post_quant_conv.weight" in shapes else z_channels,
        z_channels=z_channels,
        image_channels=shapes["decoder.conv_out.weight"][0],
        attention=frozenset(int(match[1]) for match in map(_ATTENTION.match, shapes) if match),
        mid_attention=any(".mid.attn_1." in name for name in shapes),
        quant_conv=quant_conv,
    )


def _conv_inputs(shapes: Shapes, layer: str) -> int:
    return shapes[f"{layer}.weight"][1]
