"""TAESD: tiny autoencoders distilled from a family's VAE."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vae_lab.autoencoders.base import Architecture, Shapes, check_shapes, conv_channels, shapes_of
from vae_lab.autoencoders.taesd.module import Taesd
from vae_lab.errors import UnknownChoice

__all__ = ["TaesdArchitecture"]


class TaesdArchitecture(Architecture):
    """Its module uses images in 0..1 and latents in model space, so the family's scaling does not apply."""

    name = "TAESD"
    scales_latents = False

    def detects(self, shapes: Shapes) -> bool:
        return "taesd_decoder.1.weight" in shapes or "taesd_encoder.0.weight" in shapes

    def build(self, shapes: Shapes, path: str) -> nn.Module:
        encoder, decoder = "taesd_encoder.0.weight" in shapes, "taesd_decoder.1.weight" in shapes
        width, _ = conv_channels(shapes, "taesd_decoder.1" if decoder else "taesd_encoder.0", path)
        latent_channels = _latent_channels(shapes, path)
        with torch.device("meta"):
            module = Taesd(latent_channels, encoder=encoder, decoder=decoder, width=width)
        check_shapes(shapes_of(module), shapes, path)
        return module

    def latent_channels(self, shapes: Shapes) -> int:
        return _latent_channels(shapes)

    def image_channels(self, module: nn.Module) -> int:
        assert isinstance(module, Taesd)
        return 3

    def downscale(self, module: nn.Module) -> int:  # noqa: ARG002
        return 8

    def encode(self, module: nn.Module, images: Tensor) -> Tensor:
        assert isinstance(module, Taesd)
        if module.taesd_encoder is None:
            raise UnknownChoice("this TAESD file contains only the decoder; the encoder is a separate file")
        return module.taesd_encoder(images)

    def decode(self, module: nn.Module, latents: Tensor) -> Tensor:
        assert isinstance(module, Taesd)
        if module.taesd_decoder is None:
            raise UnknownChoice("this TAESD file contains only the encoder; the decoder is a separate file")
        return module.taesd_decoder(latents)


def _latent_channels(shapes: Shapes, path: str = "") -> int:
    if "taesd_decoder.1.weight" in shapes:
        return conv_channels(shapes, "taesd_decoder.1", path)[1]
    last = max(int(name.split(".")[1]) for name in shapes if name.startswith("taesd_encoder."))
    return conv_channels(shapes, f"taesd_encoder.{last}", path)[0]
