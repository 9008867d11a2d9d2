"""Sample VAEs widened to Stable Diffusion's architecture: Forge only loads these, and random weights show nothing.

Each channel becomes several equal ones. Group norms see the same numbers, only more often; what reads a channel reads
the mean of its copies; and blocks that the small VAEs lack add nothing. So the images are those of the small VAE.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vae_lab.autoencoders.kl import AutoencoderKL, KLConfig

__all__ = ["widened"]


@torch.no_grad()
def widened(small: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A sample VAE's weights -> those of SD 1.5's architecture, fp16."""
    with torch.device("meta"):
        wide = AutoencoderKL(KLConfig()).state_dict()
    return {name: _made(name, tuple(like.shape), small).half().contiguous() for name, like in wide.items()}


def _made(name: str, shape: tuple[int, ...], small: Mapping[str, Tensor]) -> Tensor:
    module, _, part = name.rpartition(".")
    if name in small:
        value = small[name].float()
    elif module.endswith("nin_shortcut"):  # between levels that are of one width in the small VAE
        block = module.removesuffix("nin_shortcut")
        own = small[f"{block}conv2.weight"].shape[0]
        value = torch.zeros(own) if part == "bias" else torch.eye(own)[:, :, None, None]
    else:  # a block of which the small VAE has none: its last convolution is zero
        return torch.ones(shape) if ".norm" in module and part == "weight" else torch.zeros(shape)
    value = _repeated(value, 0, shape[0])
    if len(shape) > 1:
        times = shape[1] // value.shape[1]
        value = _repeated(value, 1, shape[1]) / times
        if module.endswith("attn_1.q"):  # attention divides by the root of the width
            value = value * times**-0.5
    elif module.endswith("attn_1.q"):
        value = value * (shape[0] // small[name].shape[0]) ** -0.5
    return value


def _repeated(value: Tensor, dim: int, size: int) -> Tensor:
    times, rest = divmod(size, value.shape[dim])
    assert rest == 0
    return value.repeat_interleave(times, dim)
