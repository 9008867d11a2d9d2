"""Names and shapes of Stable Diffusion 1.5, so that a file of its true make-up can be written without its weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from vae_lab.autoencoders.kl import AutoencoderKL, KLConfig

Shapes = dict[str, tuple[int, ...]]

_CONTEXT = 768
_TIME = 1280


def checkpoint_shapes() -> Shapes:
    """All tensors of a checkpoint that hold weights, with their prefixes; 1.07 thousand million numbers."""
    with torch.device("meta"):
        vae = AutoencoderKL(KLConfig()).state_dict()
    return {
        **{f"model.diffusion_model.{name}": shape for name, shape in _unet()},
        **{f"first_stage_model.{name}": tuple(tensor.shape) for name, tensor in vae.items()},
        **{f"cond_stage_model.transformer.text_model.{name}": shape for name, shape in _text()},
    }


def write_checkpoint(path: Path, *, text: bool = True) -> int:
    """Write a .safetensors checkpoint in fp16 of random numbers, 2.1 GB; returns the bytes of its VAE.

    Args:
        path: the new file.
        text: whether the text encoder is in it; a WebUI that is offline may have made up one of its own.
    """
    header: dict[str, object] = {}
    position = in_vae = 0
    for name, shape in sorted(checkpoint_shapes().items()):
        if not text and name.startswith("cond_stage_model."):
            continue
        size = 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [position, position + size]}
        position += size
        in_vae += size if name.startswith("first_stage_model.") else 0
    raw = json.dumps(header).encode()
    generator = torch.Generator().manual_seed(0)
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        block = (torch.randn(8_000_000, generator=generator) * 0.02).half().numpy().tobytes()
        for start in range(0, position, len(block)):
            file.write(block[: position - start])
    return in_vae


def write_vae(path: Path, seed: int = 0) -> None:
    """Write a VAE in fp16, with random weights that keep activations in range."""
    torch.manual_seed(seed)
    state = AutoencoderKL(KLConfig()).state_dict()
    save_file({name: value.half().contiguous() for name, value in state.items()}, path)


def _linear(name: str, wide: int, deep: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (wide, deep)
    yield f"{name}.bias", (wide,)


def _norm(name: str, wide: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (wide,)
    yield f"{name}.bias", (wide,)


def _conv(name: str, wide: int, deep: int, size: int = 3) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (wide, deep, size, size)
    yield f"{name}.bias", (wide,)


def _res(name: str, deep: int, wide: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _norm(f"{name}.in_layers.0", deep)
    yield from _conv(f"{name}.in_layers.2", wide, deep)
    yield from _linear(f"{name}.emb_layers.1", wide, _TIME)
    yield from _norm(f"{name}.out_layers.0", wide)
    yield from _conv(f"{name}.out_layers.3", wide, wide)
    if deep != wide:
        yield from _conv(f"{name}.skip_connection", wide, deep, 1)


def _attention(name: str, wide: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _norm(f"{name}.norm", wide)
    yield from _conv(f"{name}.proj_in", wide, wide, 1)
    block = f"{name}.transformer_blocks.0"
    for attention, context in (("attn1", wide), ("attn2", _CONTEXT)):
        yield f"{block}.{attention}.to_q.weight", (wide, wide)
        yield f"{block}.{attention}.to_k.weight", (wide, context)
        yield f"{block}.{attention}.to_v.weight", (wide, context)
        yield from _linear(f"{block}.{attention}.to_out.0", wide, wide)
    yield from _linear(f"{block}.ff.net.0.proj", 8 * wide, wide)
    yield from _linear(f"{block}.ff.net.2", wide, 4 * wide)
    for norm in ("norm1", "norm2", "norm3"):
        yield from _norm(f"{block}.{norm}", wide)
    yield from _conv(f"{name}.proj_out", wide, wide, 1)


def _unet() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _linear("time_embed.0", _TIME, 320)
    yield from _linear("time_embed.2", _TIME, _TIME)
    yield from _conv("input_blocks.0.0", 320, 4)
    deep, kept, block = 320, [320], 1
    for level, wide in enumerate((320, 640, 1280, 1280)):
        for _ in range(2):
            yield from _res(f"input_blocks.{block}.0", deep, wide)
            if level < 3:
                yield from _attention(f"input_blocks.{block}.1", wide)
            deep, block = wide, block + 1
            kept.append(deep)
        if level < 3:
            yield from _conv(f"input_blocks.{block}.0.op", deep, deep)
            block += 1
            kept.append(deep)
    yield from _res("middle_block.0", deep, deep)
    yield from _attention("middle_block.1", deep)
    yield from _res("middle_block.2", deep, deep)
    block = 0
    for level, wide in reversed(list(enumerate((320, 640, 1280, 1280)))):
        for i in range(3):
            yield from _res(f"output_blocks.{block}.0", deep + kept.pop(), wide)
            if level < 3:
                yield from _attention(f"output_blocks.{block}.1", wide)
            if level and i == 2:
                yield from _conv(f"output_blocks.{block}.{2 if level < 3 else 1}.conv", wide, wide)
            deep, block = wide, block + 1
    yield from _norm("out.0", 320)
    yield from _conv("out.2", 4, 320)


def _text() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "embeddings.token_embedding.weight", (49408, _CONTEXT)
    yield "embeddings.position_embedding.weight", (77, _CONTEXT)
    for layer in range(12):
        name = f"encoder.layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _linear(f"{name}.self_attn.{part}", _CONTEXT, _CONTEXT)
        yield from _linear(f"{name}.mlp.fc1", 4 * _CONTEXT, _CONTEXT)
        yield from _linear(f"{name}.mlp.fc2", _CONTEXT, 4 * _CONTEXT)
        yield from _norm(f"{name}.layer_norm1", _CONTEXT)
        yield from _norm(f"{name}.layer_norm2", _CONTEXT)
    yield from _norm("final_layer_norm", _CONTEXT)
