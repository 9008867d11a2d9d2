"""TAESD and its relatives: tiny autoencoders that imitate a family's VAE."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vae_lab.autoencoders.base import Architecture, Shapes, check_shapes
from vae_lab.autoencoders.taesd.module import Taesd
from vae_lab.errors import FamilyMismatch, UnknownChoice

__all__ = ["TaesdArchitecture"]


class TaesdArchitecture(Architecture):
    """Pictures 0..1, latents in model space already: the family's scaling does not apply."""

    name = "TAESD"
    scales_latents = False

    def detects(self, shapes: Shapes) -> bool:
        return "taesd_decoder.1.weight" in shapes or "taesd_encoder.0.weight" in shapes

    def build(self, shapes: Shapes, path: str) -> nn.Module:
        with torch.device("meta"):
            module = Taesd(
                self.latent_channels(shapes),
                encoder="taesd_encoder.0.weight" in shapes,
                decoder="taesd_decoder.1.weight" in shapes,
                width=_width(shapes),
            )
        check_shapes(module, shapes, path)
        return module

    def latent_channels(self, shapes: Shapes) -> int:
        if "taesd_decoder.1.weight" in shapes:
            return shapes["taesd_decoder.1.weight"][1]
        return shapes[f"taesd_encoder.{_last_encoder_layer(shapes)}.weight"][0]

    def downscale(self, module: nn.Module) -> int:
        return 8

    def encode(self, module: nn.Module, images: Tensor) -> Tensor:
        assert isinstance(module, Taesd)
        if module.taesd_encoder is None:
            raise UnknownChoice("this TAESD file holds the decoder alone; the encoder is a file of its own")
        return module.taesd_encoder(images)

    def decode(self, module: nn.Module, latents: Tensor) -> Tensor:
        assert isinstance(module, Taesd)
        if module.taesd_decoder is None:
            raise UnknownChoice("this TAESD file holds the encoder alone; the decoder is a file of its own")
        return module.taesd_decoder(latents)


def _width(shapes: Shapes) -> int:
    first = shapes.get("taesd_decoder.1.weight") or shapes["taesd_encoder.0.weight"]
    return first[0]


def _last_encoder_layer(shapes: Mapping[str, tuple[int, ...]]) -> int:
    return max(int(name.split(".")[1]) for name in shapes if name.startswith("taesd_encoder."))
