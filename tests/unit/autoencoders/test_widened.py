"""A large autoencoder that tools/widen.py makes of a small one computes the same."""

from __future__ import annotations

import torch

from tests.unit.makers import kl_module
from tools.widen import widened
from vae_lab.autoencoders.kl.module import KLConfig


def test_it_computes_the_same() -> None:
    small = kl_module(KLConfig(block_out_channels=(32, 32, 64), layers_per_block=1))
    large = widened(small, KLConfig(block_out_channels=(64, 128, 256), layers_per_block=2), seed=1)
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        latents = small.encode(image)
        torch.testing.assert_close(large.encode(image), latents, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(large.decode(latents), small.decode(latents), atol=1e-3, rtol=1e-3)
    copies = large.decoder.mid.block_1.conv1.weight.flatten(1).unique(dim=0)
    assert len(copies) > 64, "copies of a channel differ"
